"""Evaluates retrieval tasks with gold pairs by id: bitext mining (BUCC) and ranking (LAReQA, Mewsli-X)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Protocol

import numpy as np
from jax.sharding import Mesh

from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.sources import read_gold, read_pairs
from xlmr_flax.data.split import Split
from xlmr_flax.eval.mining import best_threshold, neighbours, ratio_candidates
from xlmr_flax.parallel.distributed import on_leader
from xlmr_flax.scoring import files
from xlmr_flax.scoring.metrics.retrieval import map_at_k, pair_f1
from xlmr_flax.tasks.base import SentenceExample, Task

RANKED = 20


class Embed(Protocol):
    """Embeds sentences; returns float32 [n, D] of any norm, as an array or a memory map. file: the .npy file for the
    vectors if they are too large for memory."""

    def __call__(self, sentences: Sequence[SentenceExample], file: Path | None = None, /) -> np.ndarray: ...


@dataclass(frozen=True)
class MinedSide:
    """One side of a bitext for mining. ids: for each sentence, the ids of the rows that it represents."""

    sentences: list[SentenceExample]
    ids: list[tuple[str, ...]]

    @classmethod
    def of(cls, rows: Sequence[SentenceExample], repeated: str) -> MinedSide:
        """Groups the rows of a side by text. repeated: config.Evaluation.repeated_sentences. Texts that differ only in
        leading or trailing white space are equal."""
        if repeated == 'kept':
            return cls(list(rows), [(row.id,) for row in rows])
        by_text: dict[str, list[SentenceExample]] = {}
        for row in rows:
            by_text.setdefault(row.text.strip(), []).append(row)
        ids = [tuple(row.id for row in group) for group in by_text.values()]
        if repeated == 'dropped':  # they stay in the search, as neighbours of other sentences, but give no pairs
            ids = [each if len(each) == 1 else () for each in ids]
        return cls([group[0] for group in by_text.values()], ids)


def _candidates(
    task: Task, language: str, split: str, data_root: str, embed: Embed, mesh: Mesh | None, repeated: str
) -> tuple[list[tuple[str, str]], list[float], list[tuple[str, str]]]:
    """The candidate pairs of ids, their scores, highest first, and the gold pairs, whose ids are checked."""
    sides = read_pairs(task, language, split, data_root)
    foreign, english = ({row.id for row in side} for side in sides)
    gold = read_gold(task, language, split, data_root, (foreign, english))
    first, second = (MinedSide.of(rows, repeated) for rows in sides)
    x, y = (embed(s.sentences, Path(f'{split}-{name}.npy')) for s, name in ((first, 'first'), (second, 'second')))
    candidates = ratio_candidates(*neighbours(x, y, cosine=True, mesh=mesh))
    pairs, scores = [], []
    for i, j, score in zip(candidates.x, candidates.y, candidates.score.tolist(), strict=True):
        named = list(product(first.ids[i], second.ids[j]))
        pairs += named
        scores += [score] * len(named)
    return pairs, scores, gold


def mine(
    task: Task,
    language: str,
    split: str,
    data_root: str,
    embed: Embed,
    path: Path,
    mesh: Mesh | None = None,
    repeated: str = 'kept',
) -> tuple[dict[str, float], int]:
    """Mines the pairs of one language, writes them to `path` and returns (metrics, number of gold pairs).

    The threshold is the best one on the dev gold pairs, both for dev and for every other split (as in XTREME). `embed`
    gets a file for each side; the vectors are read block by block, from the file or from memory. mesh: the devices that
    share the search. repeated: config.Evaluation.repeated_sentences. Raises DataError for another split than dev if the
    dev files are missing, and for a gold pair with an id that is not in its side.
    """
    if split != 'dev' and not Split(task, language, 'dev', data_root).is_there():
        raise DataError(
            f'task {task.name!r} in {language!r}: the threshold is chosen on dev, and its files are missing'
        )
    candidates = _candidates(task, language, split, data_root, embed, mesh, repeated)
    tuned = candidates if split == 'dev' else _candidates(task, language, 'dev', data_root, embed, mesh, repeated)
    pairs, ratios, gold = candidates

    def scores() -> dict[str, float]:
        threshold, _ = best_threshold(*tuned)
        files.write_pairs(path, [pair for pair, score in zip(pairs, ratios, strict=True) if score >= threshold])
        return pair_f1(gold, files.read_pairs(path))

    return on_leader('scores', scores), len(gold)


def rank(
    task: Task,
    language: str,
    split: str,
    data_root: str,
    embed: Embed,
    path: Path,
    mesh: Mesh | None = None,
    embed_pool: Embed | None = None,
) -> tuple[dict[str, float], int]:
    """Ranks the pool for every query by cosine similarity, writes the best 20 ids of each query to `path` and returns
    (metrics, number of queries). embed_pool: embeds the pool, None = `embed`. Raises DataError for a query without a
    gold pair, before anything is embedded."""
    queries, pool = read_pairs(task, language, split, data_root)
    gold: dict[str, list[str]] = {}
    for query, right in read_gold(task, language, split, data_root):
        gold.setdefault(query, []).append(right)
    if without := [query.id for query in queries if query.id not in gold]:
        raise DataError(
            f'{task.name} {split} {language}: query {without[0]!r} has no gold pair ({len(without)} have none)'
        )
    x, y = embed(queries, Path(f'{split}-queries.npy')), (embed_pool or embed)(pool, Path(f'{split}-pool.npy'))
    nearest, _ = neighbours(x, y, RANKED, cosine=True, mesh=mesh)
    ranked = {
        query.id: [pool[i].id for i in row if i >= 0] for query, row in zip(queries, nearest.indices, strict=True)
    }
    asked = {query.id: gold[query.id] for query in queries}

    def scores() -> dict[str, float]:
        files.write_answers(path, ranked)
        return map_at_k(asked, files.read_rankings(path))

    return on_leader('scores', scores), len(queries)
