"""The registry of task kinds, and functions that look up the kind of a task or a head and call it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from xlmr_flax.data.cache import Entry, lookup
from xlmr_flax.data.encode import Encoded
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.kinds.base import HeadSpec, Kind, Scores
from xlmr_flax.kinds.choice import Choice
from xlmr_flax.kinds.gold import GoldSet, NoExampleScores, Sums
from xlmr_flax.kinds.mlm import Mlm
from xlmr_flax.kinds.pair import Pair
from xlmr_flax.kinds.retrieval import Retrieval
from xlmr_flax.kinds.span import Span
from xlmr_flax.kinds.tag import Tag
from xlmr_flax.tasks.base import Example, Task, TaskError, has_label
from xlmr_flax.util.errors import closest

KINDS: dict[str, Kind] = {kind.name: kind for kind in (Pair(), Choice(), Span(), Tag(), Retrieval(), Mlm())}


class HasKind(Protocol):
    """Anything with a kind: a task or a head."""

    @property
    def kind(self) -> str: ...


def kind_of(what: HasKind) -> Kind:
    """Returns the kind of a task or a head. Raises TaskError, which suggests the closest known name."""
    kind = KINDS.get(what.kind)
    if kind is None:
        raise TaskError(f'kind {what.kind!r} is not one of {", ".join(KINDS)}{closest(what.kind, KINDS)}')
    return kind


def head_spec(task: Task) -> HeadSpec:
    """Returns the HeadSpec of the head that a task needs."""
    return HeadSpec(task.kind, len(task.labels) if kind_of(task).classes else 1)


def prediction_path(root: Path | str, task: Task, language: str, split: str = 'test') -> Path:
    """Returns the path of a prediction file: ROOT/TASK/SPLIT-LANG with the suffix of the task's kind."""
    return Path(root) / task.prediction_folder / f'{split}-{language}.{kind_of(task).suffix}'


def score_files(task: Task, language: str, path: Path | str, examples: Sequence[Example], split: str = '') -> Scores:
    """Scores a prediction file on disk: {metric: percent}, with at least `task.metrics`.

    examples: in the order in which they were predicted. split: for a translated split, it decides the language of the
    answers. Returns {} if no example has a label (a benchmark's public test file). Raises DataError for a file that
    does not fit the examples, and if only some examples have labels.
    """
    path = Path(path)
    if examples and not any(map(has_label, examples)):
        return {}
    with _naming(path):
        return kind_of(task).score(task, task.answer_language(language, split), path, examples)


def read_gold_set(
    task: Task, language: str, split: str, data_root: str, limit: int, skip_bad_rows: bool = False
) -> GoldSet:
    """Reads the gold labels of the first `limit` rows (0 = all) of a split.

    skip_bad_rows: leave out rows that cannot be read, as prediction did. Raises DataError and TaskError.
    """
    return kind_of(task).gold(task, language, split, data_root, limit, skip_bad_rows)


def example_sums(gold: GoldSet, path: Path, metric: str) -> Sums:
    """Scores a prediction file by example: (numerator, denominator), float64 [n] each, in the gold examples' order.

    The metric is the ratio of their sums. Raises DataError for a file that does not fit, and NoExampleScores for a
    metric that is not such a ratio.
    """
    with _naming(path):
        return kind_of(gold.task).example_sums(gold, path, metric)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turns the ValueError of a metric (lengths that differ, nothing to score) into a DataError that names the file."""
    try:
        yield
    except (DataError, NoExampleScores):
        raise
    except ValueError as error:
        raise DataError(f'{path}: {error}') from None


def encode(task: Task, examples: Sequence[Example], tokenizer: Tokenizer, max_length: int) -> Encoded:
    """Encodes the examples of a task as tokens and targets. Raises TaskError if there are none."""
    if not examples:
        raise TaskError(f'task {task.name!r}: no examples')
    return kind_of(task).encode(task, examples, tokenizer, max_length)


def encode_cached(task: Task, examples: Sequence[Example], tokenizer: Tokenizer, max_length: int) -> Encoded:
    """`encode` with the token cache: reads the entry for these examples, tokenizer and length, or creates it."""
    return cache_entry(task, examples, tokenizer, max_length).data


def cache_entry(task: Task, examples: Sequence[Example], tokenizer: Tokenizer, max_length: int) -> Entry:
    """The token cache entry of `encode_cached`, which also says whether it was in the cache. Raises TaskError."""
    if not examples:
        raise TaskError(f'task {task.name!r}: no examples')
    return lookup(task, examples, tokenizer, max_length, kind_of(task).encode)
