"""Retrieval accuracy of every layer of an encoder, from one forward pass over each language.

English queries are searched in each language, and each language's sentences in English, as in eval/zero_shot.py. In
parallel sets, the sentences of each language are also searched in each other language.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.sources import read_pairs
from xlmr_flax.data.tokenize import Ragged
from xlmr_flax.eval.predict import embed_layers
from xlmr_flax.eval.retrieval import nearest, normalise
from xlmr_flax.eval.zero_shot import Evaluator, Progress, counter
from xlmr_flax.scoring.metrics.classification import accuracy
from xlmr_flax.tasks.base import Embedded, Task, TaskError, has_label

_SIMILARITIES = 1 << 24  # numbers of one block of similarities: 64 MiB


@dataclass(frozen=True)
class LanguageLayers:
    """One language. vectors: float32 [L + 1, n, D] of any norm. accuracy, to_english: percent for each hidden state, of
    English queries in the language and of its sentences in English."""

    vectors: np.ndarray
    accuracy: list[float]
    to_english: list[float]


@dataclass(frozen=True)
class LayerRetrieval:
    """Embeds the languages of a retrieval task with all layers of an evaluator's model."""

    evaluator: Evaluator
    task: Task
    split: str
    # Vectors of the last English side, by its tokens: parallel sets use it for every language.
    _english: dict[bytes, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_task(self.task, self.split)

    def language(self, language: str, progress: Progress | None = None) -> LanguageLayers:
        """Embeds one language, and its English side unless that of the language before was the same. progress: called
        with (sentences embedded, sentences to embed). Raises DataError, also for files that do not say which rows are
        translations."""
        evaluator, task = self.evaluator, self.task
        limit = evaluator.evaluation.max_examples or None
        sides = read_pairs(task, language, self.split, evaluator.data_root, limit)
        if not all(map(has_label, sides[0])):
            raise DataError(f'{task.name} {self.split} {language}: the files do not say which lines are translations')
        rows, foreign_rows = (evaluator.sentence_tokens(task, side) for side in sides)
        key = rows.flat.tobytes() + rows.offsets.tobytes()
        is_new = key not in self._english
        tick = counter(progress, len(foreign_rows) + is_new * len(rows))
        if is_new:
            self._english.clear()
            self._english[key] = self._vectors(rows, tick)
        english, foreign = self._english[key], self._vectors(foreign_rows, tick)
        both = list(zip(english, foreign, strict=True))
        return LanguageLayers(foreign, [_accuracy(e, f) for e, f in both], [_accuracy(f, e) for e, f in both])

    def _vectors(self, tokens: Ragged, tick: Callable[[int], None]) -> np.ndarray:
        evaluator = self.evaluator
        return embed_layers(evaluator.sentence_forward(), tokens, pooling=evaluator.evaluation.pooling, tick=tick)


def check_task(task: Task, split: str) -> None:
    """Raises TaskError for a task whose pairs are not the rows of its two sides."""
    task.sources(split)
    if not task.embeds or split in task.gold:
        why = 'has gold pairs by id' if task.embeds else f'is of kind {task.kind!r}'
        raise TaskError(
            f'task {task.name!r} {why}; retrieval by layer is measured on sets of translations in the same rows '
            '(tatoeba, sib200_retrieval, flores200, ntrex)'
        )


def is_parallel(task: Task, split: str) -> bool:
    """Whether all languages of a retrieval task have the same sentences: its English side is one for all of them."""
    source = task.sources(split)[0]
    return bool(source.language) if isinstance(source, Embedded) else '{language}' not in source.path


def _accuracy(queries: np.ndarray, pool: np.ndarray) -> float:
    return accuracy(range(len(queries)), nearest(queries, pool).tolist())['accuracy']


def pair_accuracies(
    read: Callable[[int], np.ndarray], count: int, rows: int, tick: Callable[[int], None]
) -> np.ndarray:
    """Accuracies in percent, float64 [count, count], of retrieval between all languages of a parallel set.

    Element [i, j]: queries of language i in the pool of language j; the diagonal is NaN. read: the vectors float32
    [rows, D] of a language. tick: called with the number of ordered pairs just done. Each block of similarities gives
    both directions.
    """
    most = max(1, min(count, int(_SIMILARITIES**0.5) // rows))
    wide = math.ceil(count / math.ceil(count / most))  # blocks of about one size: the last is filled up with zeros
    hits = np.zeros((count, count), np.int64)

    def block(start: int) -> jax.Array:
        vectors = [normalise(read(number)) for number in range(start, min(start + wide, count))]
        vectors += [np.zeros_like(vectors[0])] * (wide - len(vectors))  # one shape, so that it compiles once
        return jnp.asarray(np.stack(vectors))

    for first, second in _blocks(count, wide):
        queries = block(first)
        pool = queries if first == second else block(second)
        ours, theirs = slice(first, first + wide), slice(second, second + wide)
        there, back = (np.asarray(found) for found in _pair_hits(queries, pool))
        shape = hits[ours, theirs].shape
        hits[ours, theirs] = there[: shape[0], : shape[1]]
        hits[theirs, ours] = back[: shape[0], : shape[1]].T
        tick(shape[0] * (shape[0] - 1) if first == second else 2 * shape[0] * shape[1])
    result = hits / rows * 100
    np.fill_diagonal(result, np.nan)
    return result


def many_to_many(accuracies: np.ndarray) -> list[float]:
    """The mean of each language over all others and both directions, from `pair_accuracies`."""
    return (np.nanmean((accuracies + accuracies.T) / 2, axis=1)).tolist()


def _blocks(count: int, wide: int) -> Iterator[tuple[int, int]]:
    starts = range(0, count, wide)
    return ((first, second) for first in starts for second in starts if second >= first)


@jax.jit
def _pair_hits(queries: jax.Array, pool: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[P, n, D], [Q, n, D] -> int32 [P, Q] each: right neighbours of queries in the pool and of the pool in queries."""
    (a, n, d), b = queries.shape, len(pool)
    flat = (queries.reshape(a * n, d), pool.reshape(b * n, d))
    # As in eval/retrieval.py, an accelerator's default would round the vectors.
    similar = jnp.matmul(flat[0], flat[1].T, precision=jax.lax.Precision.HIGHEST).reshape(a, n, b, n)
    right = jnp.arange(n)
    there = (similar.argmax(3) == right[None, :, None]).sum(1)  # [P, n, Q] -> [P, Q]
    back = (similar.argmax(1) == right[None, None, :]).sum(2)  # [P, Q, n] -> [P, Q]
    return there, back
