"""Hours and chip-hours of a plan on TPUs or GPUs: steps and forward passes (experiment/plan/cost.py) at compiled speed.

A training step is costed with the typical number of packed rows of its batches, or at their typical padded length.
Forward passes are costed by their tokens, at the average length of their rows. Mesh, dtype and the other defaults are
those that a run on the slice decides (experiment/plan/defaults.py). Reading, tokenizing, compiling, writing and the
scoring on the host are not included.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from xlmr_flax.config import Config, OptimizerSpec, Recipe
from xlmr_flax.data.batches import eval_batch_size, padded_length, row_lengths
from xlmr_flax.data.masking import Masking
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.eval.retrieval import retrieval_layer
from xlmr_flax.experiment.plan.cost import Estimator, Work, evaluation_count, forward_flops, layer_weights
from xlmr_flax.experiment.plan.defaults import Defaults, decide, remedy, with_dtype
from xlmr_flax.experiment.plan.load import Load
from xlmr_flax.experiment.plan.load_estimates import loads_of
from xlmr_flax.experiment.plan.reads import dev_reads
from xlmr_flax.experiment.plan.runs import Run, evaluation_languages, make_plan, resolve
from xlmr_flax.experiment.setting import make_model
from xlmr_flax.experiment.training import head_of
from xlmr_flax.kinds import HeadSpec, head_spec, kind_of
from xlmr_flax.models.model import Model
from xlmr_flax.models.source import open_source
from xlmr_flax.parallel.machine import GPU, TPU, Machine
from xlmr_flax.parallel.mesh import rows_mesh
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import Task
from xlmr_flax.tools.estimate import EstimateError
from xlmr_flax.tools.estimate.chips import Topology
from xlmr_flax.tools.estimate.programs import EMBED, EVALUATE, TRAIN, Compiled, Program, compile_program, mesh_on
from xlmr_flax.tools.estimate.word_rows import WordRows

INTERMEDIATE, TARGET, EVALUATION = 'intermediate', 'target', 'evaluation'


@dataclass(frozen=True)
class Part:
    """A part of a run's work that one program does.

    phase, what: the row of the table. program: with rows=0, as rows depend on the mesh. steps: of training. tokens: of
    forward passes, with padding. load: of training, with `run_steps`, the steps of its whole run.
    """

    phase: str
    what: str
    run: str
    program: Program
    steps: float = 0.0
    tokens: float = 0.0
    load: Load | None = None
    run_steps: int = 0


@dataclass(frozen=True)
class Row:
    """A row of the table. seconds: all collectives overlap; slowest: none does; NaN if a program cannot run."""

    phase: str
    what: str
    runs: int
    steps: float
    seconds: float
    slowest: float


@dataclass(frozen=True)
class PlanEstimate:
    """The estimate of a plan on one slice.

    programs: the compiled programs, with the seconds that the plan spends in each. refused: messages of the programs
    that cannot run on the slice. defaults: what was decided for it. remarks: on trainings with mostly padding.
    runs: seconds of each run by its name, no collective overlapping.
    """

    topology: Topology
    rows: tuple[Row, ...]
    programs: tuple[tuple[Compiled, float], ...]
    refused: tuple[str, ...]
    defaults: Defaults
    remarks: tuple[str, ...] = ()
    runs: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def total(self, phase: str = '') -> Row:
        """The sum over the rows of a phase, or over all rows."""
        rows = [row for row in self.rows if phase in ('', row.phase)]
        runs, steps = sum(row.runs for row in rows), sum(row.steps for row in rows)
        seconds, slowest = sum(row.seconds for row in rows), sum(row.slowest for row in rows)
        return Row(phase or 'total', '', runs, steps, seconds, slowest)


class PlanWork(Estimator):
    """The work of all runs of a plan, as `parts`.

    active_rows: number of rows of the word embeddings that training keeps (those that its data use), 0 = as estimated
    from the first rows of each dataset (word_rows.py); with a language-modelling task, or an optimizer without a closed
    form for the other rows, all are kept. Raises the errors of the runs themselves.
    """

    def __init__(self, config: Config, active_rows: int = 0):
        config = with_dtype(config, Machine(TPU, '', 1))  # the dtype is that of accelerators, whatever this machine has
        source = open_source(config.encoder.source, seed=config.seeds[0])
        self.model, self.active_rows = make_model(config, source), active_rows
        tokenizer = Tokenizer(source.tokenizer, source.config.vocab_size)
        super().__init__(resolve(make_plan(config), source), self.model.config, tokenizer)
        self._word_rows = WordRows(self)
        self.loads = {run.name: tuple(loads_of(self, run)) for run in self.plan}
        self.parts = tuple(part for run in self.plan for part in self._parts(run))

    def defaults(self, machine: Machine) -> Defaults:
        """What a run of this plan decides on a machine."""
        return decide(self.config, self.shape, machine, lambda: [load for run in self.loads.values() for load in run])

    def _parts(self, run: Run) -> Iterable[Part]:
        if run.arm is not None and run.recipe is not None:
            yield from self._training_parts(run, run.recipe)
        if run.target:
            work = sum((self.evaluation(run, code) for code in evaluation_languages(self.config, run.target)), Work())
            length = run.recipe.max_length if run.recipe else self.config.evaluation.max_length
            head = head_of(run)[1] if run.recipe else HeadSpec('')
            length = min(length, self.shape.max_length)
            yield self._passes(EVALUATION, run.target, run, get_task(run.target), head, work, length)

    def _training_parts(self, run: Run, recipe: Recipe) -> Iterable[Part]:
        phase, what = self._place(run)
        loads, steps = self.loads[run.name], self.training(run).steps
        model = self._trained_model(run, any(load.whole_table for load in loads))
        heads = {dataset.name: head_spec(dataset.task) for dataset in run.datasets}
        for load in loads:
            masked = kind_of(heads[load.dataset]).pretraining
            predicted = Masking.of(self.tokenizer).most(load.length) if masked else 0
            program = Program(
                TRAIN,
                model,
                heads[load.dataset],
                0,
                load.length,
                load.parts,
                load.group,
                predicted,
                _decisive(recipe.optimizer),
                slots=load.slots,
            )
            yield Part(phase, what, run.name, program, steps=load.steps, load=load, run_steps=steps)
        evaluations = evaluation_count(recipe, steps)
        yield from self._dev_parts(run, evaluations)

    def _dev_parts(self, run: Run, evaluations: int) -> Iterable[Part]:
        taken = (read for read in dev_reads(run.datasets) if not read.split.task.is_text and read.is_taken())
        for read in {read.split: read for read in reversed([*taken])}.values():
            task, work = read.split.task, self._pass(self.sizes(read), read.max_length).times(evaluations)
            yield self._passes(*self._place(run), run, task, head_spec(task), work, read.max_length)

    def _place(self, run: Run) -> tuple[str, str]:
        """(phase, what): the table's row of a training run."""
        return (TARGET, run.target) if run.target else (INTERMEDIATE, f'{run.warms} warm-up' if run.warms else run.task)

    def _trained_model(self, run: Run, whole_table: bool) -> Model:
        shape = self.model.config
        rows = shape.vocab_size if whole_table else min(self.active_rows or self._word_rows(run), shape.vocab_size)
        return dataclasses.replace(self.model, config=dataclasses.replace(shape, vocab_size=rows))

    def _passes(self, phase: str, what: str, run: Run, task: Task, head: HeadSpec, work: Work, longest: int) -> Part:
        length = padded_length(min(math.ceil(mean_length(self.shape, work)), longest), row_lengths(longest))
        if task.embeds:
            evaluation = self.config.evaluation
            layer = retrieval_layer(self.shape, evaluation.layer_of(task.name), evaluation.pooling)
            program = Program(EMBED, self.model, head, 0, length, layer=layer, pooling=evaluation.pooling)
        else:
            program = Program(EVALUATE, self.model, head, 0, length)
        return Part(phase, what, run.name, program, tokens=work.tokens)


def mean_length(shape: EncoderConfig, work: Work) -> float:
    """Row length (tokens) at which forward passes over `work.tokens` tokens take `work.flops` operations."""
    if not work.tokens:
        return 1.0
    per_token = forward_flops(shape, 1.0, 1.0) - 2 * layer_weights(shape)
    return max(1.0, (work.flops / work.tokens - 2 * layer_weights(shape)) / per_token)


def _decisive(spec: OptimizerSpec) -> OptimizerSpec:
    """The fields of an optimizer that change the program's structure; its other numbers are constants there."""
    return OptimizerSpec(
        name=spec.name, clip_norm=min(spec.clip_norm, 1.0), clip_per=spec.clip_per, schedule=spec.schedule
    )


def machine_on(topology: Topology) -> Machine:
    """The chips of a slice, or the GPUs, as defaults see them."""
    return Machine(GPU if topology.chip.is_gpu else TPU, topology.chip.kinds[0], topology.chips)


def concrete(work: PlanWork, defaults: Defaults) -> list[tuple[Part, float]]:
    """Sets rows, micro-batches and unrolled layers of each part as a run on these devices does; returns (part, how
    often its program runs).

    All heads of a kind get the outputs of the widest one, so that they share a program; outputs cost next to nothing.
    """
    widest: dict[str, int] = {}
    for part in work.parts:
        head = part.program.head
        widest[head.kind] = max(widest.get(head.kind, 1), head.outputs)
    runs = {run.name: run for run in work.plan}
    result = []
    for part in work.parts:
        program = part.program
        program = dataclasses.replace(program, head=HeadSpec(program.head.kind, widest[program.head.kind]))
        times = part.steps
        if part.load is not None:
            recipe = runs[part.run].recipe
            assert recipe is not None
            parts = defaults.parts(work.shape, recipe, work.loads[part.run])
            rows = dataclasses.replace(part.load, parts=parts).rows(defaults.shards)
            model = dataclasses.replace(program.model, unroll=defaults.unroll_of(part.run_steps))
            program = dataclasses.replace(program, rows=rows, accumulation=parts, model=model)
        else:
            shards = defaults.machine.devices if defaults.rows_only else defaults.shards
            rows = eval_batch_size(program.length, defaults.tokens, shards)
            program = dataclasses.replace(program, rows=rows)
            times = part.tokens / program.tokens
        result.append((dataclasses.replace(part, program=program), times))
    return result


def estimate_plan(
    work: PlanWork,
    topology: Topology,
    say: Callable[[str], None],
    keep: Callable[[Compiled], None] = lambda compiled: None,
) -> PlanEstimate:
    """Compiles the programs of a plan for a slice and adds up their times.

    say: called with the name of the program that is being compiled. keep: called with each compiled program. Raises
    MeshError if the config's mesh does not fit the slice.
    """
    defaults = work.defaults(machine_on(topology))
    mesh, parts = mesh_on(topology, defaults.mesh), concrete(work, defaults)
    scored = rows_mesh(mesh) if defaults.rows_only else mesh
    programs = list(dict.fromkeys(part.program for part, _ in parts))
    found: dict[Program, Compiled] = {}
    refused: list[str] = []
    for number, program in enumerate(programs, 1):
        say(f'{topology.name}: {number} of {len(programs)}: {program.name}')
        try:
            found[program] = compile_program(program, topology, mesh if program.does == TRAIN else scored)
        except EstimateError as e:
            refused.append(str(e))
            continue
        keep(found[program])
        if found[program].error:
            refused.append(f'{program.name}: {found[program].error}')
    spent = dict.fromkeys(found, 0.0)
    for part, times in parts:
        if part.program in found:
            spent[part.program] += times * found[part.program].seconds
    remarks = (remedy(load, defaults) for loads in work.loads.values() for load in loads)
    return PlanEstimate(
        topology,
        tuple(_rows(parts, found)),
        tuple((found[program], s) for program, s in spent.items()),
        tuple(refused),
        defaults,
        tuple(dict.fromkeys(text for text in remarks if text)),
        _run_seconds(parts, found),
    )


def _run_seconds(parts: Sequence[tuple[Part, float]], found: Mapping[Program, Compiled]) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for part, times in parts:
        compiled = found.get(part.program)
        seconds[part.run] = seconds.get(part.run, 0.0) + times * (compiled.slowest if compiled else math.nan)
    return seconds


def _rows(parts: Sequence[tuple[Part, float]], found: Mapping[Program, Compiled]) -> list[Row]:
    order = [INTERMEDIATE, TARGET, EVALUATION]
    sums: dict[tuple[str, str], Row] = {}
    runs: dict[tuple[str, str], set[str]] = {}
    for part, times in parts:
        key, compiled = (part.phase, part.what), found.get(part.program)
        old = sums.get(key, Row(*key, 0, 0.0, 0.0, 0.0))
        runs.setdefault(key, set()).add(part.run)
        seconds, slowest = (compiled.seconds, compiled.slowest) if compiled else (math.nan, math.nan)
        sums[key] = Row(
            *key, len(runs[key]), old.steps + part.steps, old.seconds + times * seconds, old.slowest + times * slowest
        )
    return sorted(sums.values(), key=lambda row: order.index(row.phase))
