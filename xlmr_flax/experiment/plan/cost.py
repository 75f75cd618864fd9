"""Estimates the cost of a plan: FLOPs from its sizes, and time from a measured speed.

For a token in a row of T tokens, the forward pass of XLM-R takes 2 N + 4 L D T floating-point operations. L is the
number of layers, D the width, and N = L (4 D² + 2 D F) the number of weights in the matrix products of the layers
(embeddings are look-ups without products). The second term is attention: the scores and the weighted sum of the values.
The backward pass takes twice as many, so that training takes 6 N + 12 L D T per token. Sources: Kaplan et al. 2020
(Scaling laws for neural language models, section 2.1), and Chowdhery et al. 2022 (PaLM, appendix B) for the attention
of an encoder, which sees the whole row. Rematerialisation of whole layers (`remat=full`) adds one forward pass. Other
families have other numbers (`layer_weights` and `attention_flops` of encoders/family.py). A masked-LM head multiplies
its predicted tokens with the word embedding table.
Other heads, the optimizer and compilation are not counted. Padding counts as tokens, since it is computed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xlmr_flax.config import Arm, Recipe, digest, to_dict
from xlmr_flax.data.batches import padded_length, row_lengths
from xlmr_flax.data.cache import INDEX, cache_dir
from xlmr_flax.data.masking import Masking
from xlmr_flax.data.packing import Packing, pack_set
from xlmr_flax.data.readers.paths import find_files
from xlmr_flax.data.readers.tables import read_rows
from xlmr_flax.data.split import Split
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.encoders import family_of
from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.experiment.plan.arms import Dataset, mixture_of, phase_steps
from xlmr_flax.experiment.plan.draws import Draws, expected_draws
from xlmr_flax.experiment.plan.fields import phase_field
from xlmr_flax.experiment.plan.reads import TRAIN, Read, dev_reads, test_reads, training_reads
from xlmr_flax.experiment.plan.runs import Plan, Run, scored_length
from xlmr_flax.kinds import encode
from xlmr_flax.tasks.base import Embedded, Task
from xlmr_flax.util import strict_json

CACHED, SAMPLED, BOUND = 'token cache', 'first rows', 'max_length'
_SAMPLE = 64  # rows that are encoded to estimate their lengths
_LARGE = 20_000  # rows; a larger retrieval task is not sampled, since its sides can only be read completely
_BATCHES = 64  # batches that are drawn to estimate their padding
_PACKED = 1024  # rows that are packed to estimate the efficiency of packing
EFFICIENCY = 0.4  # speed of training as a share of the speed of matrix products; PaLM reports 46 % (table 3)


@dataclass(frozen=True)
class Work:
    """An amount of computation. tokens: padding included. flops: floating-point operations. basis: the sources of the
    row lengths (CACHED, SAMPLED, BOUND)."""

    tokens: float = 0.0
    flops: float = 0.0
    basis: frozenset[str] = frozenset()

    def __add__(self, other: Work) -> Work:
        return Work(self.tokens + other.tokens, self.flops + other.flops, self.basis | other.basis)

    def times(self, factor: float) -> Work:
        return Work(self.tokens * factor, self.flops * factor, self.basis)


@dataclass(frozen=True)
class TrainingCost:
    """The estimated training of a run. steps: optimizer steps. work: all training steps. dev: the evaluations on dev
    rows. draws: one per dataset. programs: number of training programs that may be compiled, head kinds x row lengths;
    one is compiled when a batch first needs it. Packed rows have a few more shapes.
    """

    steps: int
    work: Work
    dev: Work
    draws: tuple[Draws, ...] = ()
    programs: int = 0


@dataclass(frozen=True)
class SplitSizes:
    """Sizes of a split. examples: number of examples. units: number of units that training draws (`Encoded.__len__`).
    group: encoded rows per unit. lengths: int [n], the tokens of a sample of rows; empty if unknown. basis: where the
    lengths come from (CACHED, SAMPLED, BOUND)."""

    examples: int
    units: int
    lengths: np.ndarray
    group: int
    basis: str


def layer_weights(shape: EncoderConfig) -> int:
    """Returns N, the number of weights in the matrix products of the layers."""
    return family_of(shape).layer_weights(shape)


def forward_flops(shape: EncoderConfig, tokens: float, length: float) -> float:
    """Returns the FLOPs of one forward pass over `tokens` tokens in rows of `length` tokens."""
    return tokens * (2 * layer_weights(shape) + family_of(shape).attention_flops(shape, length))


def evaluation_count(recipe: Recipe, steps: int) -> int:
    """Returns how often a training is evaluated on its dev rows: every `eval_every` steps, and at the end."""
    return (steps - 1) // recipe.eval_every + 1 if recipe.eval_every else 1


def count_rows(split: Split) -> int:
    """Counts the rows in the files of a split (both sides of a retrieval task) without parsing them. Raises
    DataError."""
    total = 0
    for source in split.task.sources(split.name):
        if isinstance(source, Embedded):
            total += source.rows
        else:
            for file in find_files(split.task, source, split.language, split.folder()):
                total += sum(1 for _ in read_rows(file.path, file.table, file.label_path))
    return total


def _cached_entries(root: Path | None) -> Mapping[str, list[tuple[Path, dict[str, Any]]]]:
    """Returns the entries of the token cache: {task: [(folder, index)]}."""
    entries: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for path in sorted(root.glob(f'*/{INDEX}')) if root else ():
        try:
            index = strict_json.read_object(path)
        except (OSError, strict_json.JsonError):  # damaged, or being written or deleted by another process
            continue
        numbers = [index.get(name) for name in ('max_length', 'examples', 'group')]
        if isinstance(index.get('task'), str) and all(isinstance(number, int) and number > 0 for number in numbers):
            entries.setdefault(index['task'], []).append((path.parent, index))
    return entries


def _cached_lengths(entry: Path) -> np.ndarray | None:
    """Returns the number of tokens of each row of a token cache entry; None if the entry is damaged."""
    try:
        lengths = np.diff(np.load(entry / 'offsets.npy', mmap_mode='r', allow_pickle=False))
    except (OSError, ValueError, EOFError):
        return None
    return lengths if lengths.ndim == 1 and lengths.dtype == np.int64 and lengths.size else None


class Estimator:
    """Estimates the work of the runs of a resolved plan. Results are cached and shared by seeds and arms."""

    def __init__(self, plan: Plan, shape: EncoderConfig, tokenizer: Tokenizer):
        self.config, self.plan, self.shape, self.tokenizer = plan.config, plan, shape, tokenizer
        self._sizes: dict[tuple[Split, int, int], SplitSizes] = {}
        self._counts: dict[Split, int] = {}
        self._trainings: dict[str, TrainingCost] = {}
        self._evaluations: dict[tuple[object, ...], Work] = {}
        self._entries: Mapping[str, list[tuple[Path, dict[str, Any]]]] | None = None

    def count(self, split: Split) -> int:
        """Returns the cached result of `count_rows`."""
        if split not in self._counts:
            self._counts[split] = count_rows(split)
        return self._counts[split]

    def sizes(self, read: Read, max_length: int = 0) -> SplitSizes:
        """Returns the sizes of a read (both sides of a retrieval task). max_length: 0 = that of the read."""
        task, max_length = read.split.task, max_length or read.max_length
        key = (read.split, read.limit, max_length)
        if key not in self._sizes:
            sides = 2 if task.embeds else 1
            n = self.count(read.split)
            n = min(n, read.limit * sides) if read.limit else n
            cached = self._from_cache(task, n // sides, sides, max_length)
            self._sizes[key] = cached or self._sampled(read.split, n, max_length)
        return self._sizes[key]

    def _from_cache(self, task: Task, n: int, sides: int, max_length: int) -> SplitSizes | None:
        """Estimates sizes from cache entries of this task and length, in any language, with about `n` examples (a task
        may drop some); None if there are none."""
        if self._entries is None:
            self._entries = _cached_entries(cache_dir())
        matches = [
            (lengths, index)
            for path, index in self._entries.get(task.name, [])
            if index['max_length'] == max_length and 0.9 * n <= index['examples'] <= n
            if (lengths := _cached_lengths(path)) is not None
        ][:16]
        if not matches:
            return None
        group = matches[0][1]['group']
        units = round(float(np.mean([len(lengths) for lengths, _ in matches])) / group)
        examples = round(float(np.mean([index['examples'] for _, index in matches])))
        return SplitSizes(examples * sides, units * sides, np.concatenate([x for x, _ in matches]), group, CACHED)

    def _sampled(self, split: Split, n: int, max_length: int) -> SplitSizes:
        nothing = np.zeros(0, np.int64)
        if split.task.embeds:
            if n > _LARGE:
                return SplitSizes(n, n, nothing, 1, BOUND)
            examples = [e for side in split.read_pairs(_SAMPLE) for e in side[:_SAMPLE]]
        else:
            examples = split.read(_SAMPLE, [])
        if not examples:
            return SplitSizes(n, n, nothing, 1, BOUND)
        data = encode(split.task, examples, self.tokenizer, max_length)
        return SplitSizes(n, round(n * len(data) / len(examples)), data.tokens.lengths, data.group, SAMPLED)

    def training(self, run: Run) -> TrainingCost:
        """Estimates the training of a run. Raises DataError and ConfigError."""
        if run.arm is None or run.recipe is None:
            return TrainingCost(0, Work(), Work())
        key = digest([to_dict(run.arm), to_dict(run.recipe)])
        if key not in self._trainings:
            self._trainings[key] = self._training(run, run.arm, run.recipe)
        return self._trainings[key]

    def _training(self, run: Run, arm: Arm, recipe: Recipe) -> TrainingCost:
        datasets, parts = run.datasets, recipe.accumulation if arm.mix == 'micro_batch' else 1
        rows, steps, drawn = self.draws(run, arm, recipe)
        work = Work()
        for each, part in zip(rows, drawn, strict=True):
            work += self._batches(part.dataset, each, recipe, recipe.batch_size // parts).times(float(part.draws))
        evaluations = evaluation_count(recipe, steps)
        kinds = {(dataset.task.kind, length) for dataset in datasets for length in dataset.lengths}
        dev = self._dev(datasets).times(evaluations)
        return TrainingCost(steps, work, dev, tuple(drawn), len(kinds))

    def draws(self, run: Run, arm: Arm, recipe: Recipe) -> tuple[list[SplitSizes], int, list[Draws]]:
        """Returns (sizes of each dataset of a run, its optimizer steps, the draws from each dataset). arm, recipe: the
        run's, which has a training."""
        datasets, rows = run.datasets, self.training_sizes(run)
        sizes = [max(1, round(each.units * data.spec.fraction)) for data, each in zip(datasets, rows, strict=True)]
        steps = phase_steps(arm, recipe, datasets, sizes)
        where = phase_field(self.config, run.intermediate, run.target or run.warms)
        mixture = mixture_of(arm, datasets, sizes, run.seed, where, steps, recipe.accumulation)
        return rows, steps, expected_draws(arm, recipe, datasets, sizes, mixture, steps)

    def training_sizes(self, run: Run) -> list[SplitSizes]:
        """Returns the sizes of each dataset of a run, before `fraction` is applied."""
        return [self.sizes(read) for read in training_reads(run) if read.purpose == TRAIN]

    def _batches(self, dataset: Dataset, rows: SplitSizes, recipe: Recipe, size: int) -> Work:
        """Estimates the forward and backward pass of an average batch of a dataset, padded or packed."""
        length, lengths = dataset.max_length, dataset.lengths
        padded, batch_rows = float(length), float(size)
        if len(rows.lengths):
            known = np.minimum(rows.lengths, length)
            draws = np.random.default_rng(0).choice(known, (_BATCHES, size, rows.group))
            if recipe.packing:
                packing = Packing.of(known[:, None], lengths)
                batch_rows = float(np.mean([packing.layout(draw).rows for draw in draws]))
                padded = float(packing.length)
            else:
                padded = float(np.mean([padded_length(int(draw.max()), lengths) for draw in draws]))
        tokens = batch_rows * rows.group * padded
        encoder = self.config.encoder
        flops = (4 if encoder.remat == 'full' else 3) * forward_flops(self.shape, tokens, padded)
        if dataset.task.is_text:
            predicted = batch_rows * Masking.of(self.tokenizer).most(int(padded))
            flops += 3 * 2 * predicted * self.shape.hidden_size * (self.shape.hidden_size + self.shape.vocab_size)
        return Work(tokens, flops, frozenset({rows.basis}))

    def _dev(self, datasets: Iterable[Dataset]) -> Work:
        """Estimates one evaluation of the dev rows that select the checkpoint. Held-out text is not counted."""
        taken = (read for read in dev_reads(datasets) if not read.split.task.is_text and read.is_taken())
        return sum((self._pass(self.sizes(read), read.max_length) for read in taken), Work())

    def evaluation(self, run: Run, language: str) -> Work:
        """Estimates the evaluation of a run in one language. Raises DataError."""
        length = min(scored_length(self.config, run), self.shape.max_length)
        key = (run.target, language, length)
        if key not in self._evaluations:
            all_reads = test_reads(self.config, run, self.plan.splits[run.target])
            those = [read for read in all_reads if read.split.language == language]
            self._evaluations[key] = sum((self._pass(self.sizes(read, length), length) for read in those), Work())
        return self._evaluations[key]

    def _pass(self, rows: SplitSizes, max_length: int) -> Work:
        """Estimates one forward pass over every row, in batches of rows of similar length, or packed."""
        known = row_lengths(max_length)
        lengths = np.minimum(rows.lengths if len(rows.lengths) else np.asarray([max_length]), max_length)
        if self.config.evaluation.packing:
            lengths = np.resize(lengths, max(len(lengths), _PACKED))  # with few rows, the last packed row is too empty
            padded = np.asarray([row.length for row in pack_set(lengths, known)])
        else:
            padded = np.asarray(known)[np.searchsorted(known, lengths)]
        scale = rows.units * rows.group / len(lengths)
        flops = sum(forward_flops(self.shape, float(n), float(n)) for n in padded)
        return Work(float(padded.sum()) * scale, flops * scale, frozenset({rows.basis}))


@dataclass(frozen=True)
class Speed:
    """A speed. flops: FLOP/s on all devices together. basis: a text that says how it was measured."""

    flops: float
    basis: str


def reached_speed(records: Iterable[Mapping[str, Any]], examples: Callable[[str], float], devices: str) -> Speed | None:
    """Computes the speed of earlier trainings in a workdir from `examples_per_s` in its metrics: the median over runs.

    examples: run name -> FLOPs of a training example; 0 = not a run of this plan. The first record of a run is
    ignored, since it includes compilation. Returns None if there are no records.
    """
    by_run: dict[str, list[float]] = {}
    for record in records:
        if 'examples_per_s' in record:
            by_run.setdefault(record['run'], []).append(record['examples_per_s'])
    speeds = [float(np.median(v[1:] or v)) * examples(run) for run, v in by_run.items()]
    speeds = [speed for speed in speeds if speed > 0]
    if not speeds:
        return None
    runs = f'{len(speeds)} training{"s" if len(speeds) > 1 else ""}'
    return Speed(float(np.median(speeds)), f'as in {runs} of this workdir ({devices})')


def machine_speed(dtype: str, devices: Sequence[Any], seconds: float = 0.3, size: int = 1024) -> Speed:
    """Measures matrix products [size, size] on one device; returns EFFICIENCY times their speed on all devices."""
    a = jax.device_put(jnp.ones((size, size), dtype), devices[0])
    product = jax.jit(lambda x: x @ x / size)
    product(a).block_until_ready()  # compiles
    count, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds or count < 2:
        product(a).block_until_ready()
        count += 1
    flops = count * 2 * size**3 / spent
    many = f' on each of {len(devices)} devices' if len(devices) > 1 else ''
    basis = f'{EFFICIENCY:.0%} of what {dtype} matrix products reached here just now{many}'
    return Speed(EFFICIENCY * flops * len(devices), basis)
