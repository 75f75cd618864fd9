"""Hours and chip-hours of a plan on TPUs or GPUs: steps and forward passes (experiment/plan/cost.py) at compiled speed.

A training step is costed at the average padded length of its batches, rounded up to a length that is compiled. Forward
passes are costed by their tokens, at the average length of their rows. Reading, tokenizing, compiling, writing and the
scoring on the host are not included.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from jax.sharding import Mesh

from xlmr_flax.config import Arm, Config, OptimizerSpec, Recipe
from xlmr_flax.data.batches import eval_batch_size, padded_length, pass_tokens, row_lengths
from xlmr_flax.data.masking import Masking
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.eval.retrieval import retrieval_layer
from xlmr_flax.experiment.context import make_model
from xlmr_flax.experiment.plan.arms import member_sizes, mixture_of
from xlmr_flax.experiment.plan.cost import Estimator, Work, forward_flops, layer_weights
from xlmr_flax.experiment.plan.reads import dev_reads
from xlmr_flax.experiment.plan.runs import Run, evaluation_languages, make_plan, resolve
from xlmr_flax.experiment.training import head_of
from xlmr_flax.kinds import HeadSpec, head_spec
from xlmr_flax.models.model import Model
from xlmr_flax.models.source import open_source
from xlmr_flax.parallel.mesh import batch_devices
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import Task
from xlmr_flax.tools.estimate import EstimateError
from xlmr_flax.tools.estimate.chips import Topology
from xlmr_flax.tools.estimate.programs import EMBED, EVALUATE, TRAIN, Compiled, Program, compile_program, mesh_on
from xlmr_flax.train.phase import total_steps

INTERMEDIATE, TARGET, EVALUATION = 'intermediate', 'target', 'evaluation'


@dataclass(frozen=True)
class Part:
    """A part of a run's work that one program does.

    phase, what: the row of the table. program: with rows=0 for forward passes, whose rows depend on the mesh. steps: of
    training. tokens: of forward passes, with padding.
    """

    phase: str
    what: str
    run: str
    program: Program
    steps: float = 0.0
    tokens: float = 0.0


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
    that cannot run on the slice.
    """

    topology: Topology
    rows: tuple[Row, ...]
    programs: tuple[tuple[Compiled, float], ...]
    refused: tuple[str, ...]

    def total(self, phase: str = '') -> Row:
        """The sum over the rows of a phase, or over all rows."""
        rows = [row for row in self.rows if phase in ('', row.phase)]
        runs, steps = sum(row.runs for row in rows), sum(row.steps for row in rows)
        seconds, slowest = sum(row.seconds for row in rows), sum(row.slowest for row in rows)
        return Row(phase or 'total', '', runs, steps, seconds, slowest)


class PlanWork(Estimator):
    """The work of all runs of a plan, as `parts`.

    active_rows: number of rows of the word embeddings that training keeps (those that its data use), 0 = all, an upper
    bound; with a language-modelling task all rows are kept. Raises the errors of the runs themselves.
    """

    def __init__(self, config: Config, active_rows: int = 0):
        source = open_source(config.encoder.source, seed=config.seeds[0])
        self.model, self.active_rows = make_model(config, source), active_rows
        tokenizer = Tokenizer(source.tokenizer, source.config.vocab_size)
        super().__init__(resolve(make_plan(config), source), self.model.config, tokenizer)
        self.parts = tuple(part for run in self.plan for part in self._parts(run))

    def _parts(self, run: Run) -> Iterable[Part]:
        if run.arm is not None and run.recipe is not None:
            yield from self._training_parts(run, run.arm, run.recipe)
        if run.target:
            work = sum((self.evaluation(run, code) for code in evaluation_languages(self.config, run.target)), Work())
            length = run.recipe.max_length if run.recipe else self.config.evaluation.max_length
            head = head_of(run)[1] if run.recipe else HeadSpec('')
            length = min(length, self.shape.max_length)
            yield self._passes(EVALUATION, run.target, run, get_task(run.target), head, work, length)

    def _training_parts(self, run: Run, arm: Arm, recipe: Recipe) -> Iterable[Part]:
        datasets, rows = run.datasets, self.training_rows(run)
        sizes = [
            max(1, round(each.units * dataset.spec.fraction)) for dataset, each in zip(datasets, rows, strict=True)
        ]
        steps = total_steps(recipe, *(capped for _, capped in member_sizes(arm, datasets, sizes).values()))
        micro = recipe.accumulation if arm.mix == 'micro_batch' else 1
        counts = mixture_of(arm, datasets, sizes, run.seed, run.where).counts(steps * micro)
        phase, what = self._place(run)
        model = self._trained_model(any(dataset.task.is_text for dataset in datasets))
        for dataset, each, draws in zip(datasets, rows, counts, strict=True):
            # The length of padded batches, with one example in each row: an upper bound if the recipe packs them.
            padded = dataclasses.replace(recipe, packing=False)
            one = self._batches(dataset, each, padded, recipe.batch_size)
            longest = min(math.ceil(one.tokens / (recipe.batch_size * each.group)), dataset.max_length)
            length = padded_length(longest, dataset.lengths)
            predicted = Masking.of(self.tokenizer).most(length) if dataset.task.is_text else 0
            program = Program(
                TRAIN,
                model,
                head_spec(dataset.task),
                recipe.batch_size,
                length,
                recipe.accumulation,
                each.group,
                predicted,
                _decisive(recipe.optimizer),
            )
            if draws:
                yield Part(phase, what, run.name, program, steps=float(draws) / micro)
        evaluations = (steps - 1) // recipe.eval_every + 1 if recipe.eval_every else 1
        yield from self._dev_parts(run, evaluations)

    def _dev_parts(self, run: Run, evaluations: int) -> Iterable[Part]:
        taken = (read for read in dev_reads(run.datasets) if not read.split.task.is_text and read.is_taken())
        for read in {read.split: read for read in reversed([*taken])}.values():
            task, work = read.split.task, self._pass(self.rows(read), read.max_length).times(evaluations)
            yield self._passes(*self._place(run), run, task, head_spec(task), work, read.max_length)

    def _place(self, run: Run) -> tuple[str, str]:
        """(phase, what): the table's row of a training run."""
        return (TARGET, run.target) if run.target else (INTERMEDIATE, f'{run.warms} warm-up' if run.warms else run.task)

    def _trained_model(self, whole_table: bool) -> Model:
        shape = self.model.config
        rows = shape.vocab_size if whole_table else min(self.active_rows or shape.vocab_size, shape.vocab_size)
        return dataclasses.replace(self.model, config=dataclasses.replace(shape, vocab_size=rows))

    def _passes(self, phase: str, what: str, run: Run, task: Task, head: HeadSpec, work: Work, longest: int) -> Part:
        length = padded_length(min(math.ceil(mean_length(self.shape, work)), longest), row_lengths(longest))
        if task.embeds:
            evaluation = self.config.evaluation
            layer = retrieval_layer(self.shape, evaluation.layer_of(task.name))
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
    return OptimizerSpec(clip_norm=min(spec.clip_norm, 1.0), clip_per=spec.clip_per, schedule=spec.schedule)


def concrete(parts: Sequence[Part], mesh: Mesh, batch_tokens: int) -> list[tuple[Part, float]]:
    """Sets the rows of each part for this mesh; returns (part, how often its program runs).

    All heads of a kind get the outputs of the widest one, so that they share a program; outputs cost next to nothing.
    """
    widest: dict[str, int] = {}
    for part in parts:
        head = part.program.head
        widest[head.kind] = max(widest.get(head.kind, 1), head.outputs)
    result = []
    for part in parts:
        program = part.program
        program = dataclasses.replace(program, head=HeadSpec(program.head.kind, widest[program.head.kind]))
        times = part.steps
        if program.does != TRAIN:
            rows = eval_batch_size(program.length, batch_tokens, batch_devices(mesh))
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
    mesh = mesh_on(topology, work.config.mesh)
    platform = 'gpu' if topology.chip.is_gpu else 'tpu'
    parts = concrete(work.parts, mesh, pass_tokens(work.config.evaluation.batch_tokens, platform))
    programs = list(dict.fromkeys(part.program for part, _ in parts))
    found: dict[Program, Compiled] = {}
    refused: list[str] = []
    for number, program in enumerate(programs, 1):
        say(f'{topology.name}: {number} of {len(programs)}: {program.name}')
        try:
            found[program] = compile_program(program, topology, mesh)
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
    return PlanEstimate(
        topology, tuple(_rows(parts, found)), tuple((found[program], s) for program, s in spent.items()), tuple(refused)
    )


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
