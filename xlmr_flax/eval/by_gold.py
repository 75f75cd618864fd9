"""Retrieval whose gold pairs are named by id: mining (BUCC) and ranking (LAReQA, Mewsli-X)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from jax.sharding import Mesh

from xlmr_flax.data.sources import DataError, available, read_gold, read_pairs
from xlmr_flax.eval import files
from xlmr_flax.eval.metrics.retrieval import map_at_k, pair_f1
from xlmr_flax.eval.mining import Candidates, best_threshold, neighbours, ratio_candidates
from xlmr_flax.parallel.distributed import on_leader
from xlmr_flax.tasks.base import SentenceExample, Task

RANKED = 20


class Embed(Protocol):
    """Sentences -> float32 [n, D] of any length, an array or a memory map; `file`: where many may be kept (.npy)."""

    def __call__(self, sentences: Sequence[SentenceExample], file: Path | None = None, /) -> np.ndarray: ...


def _candidates(
    task: Task, language: str, split: str, data_root: str, embed: Embed, mesh: Mesh | None
) -> tuple[Candidates, list, list]:
    first, second = read_pairs(task, language, split, data_root)
    x, y = (embed(side, Path(f'{split}-{name}.npy')) for side, name in ((first, 'first'), (second, 'second')))
    return ratio_candidates(*neighbours(x, y, cosine=True, mesh=mesh)), first, second


def _named(found: Candidates, first: list[SentenceExample], second: list[SentenceExample]) -> list[tuple[str, str]]:
    return [(first[i].id, second[j].id) for i, j in zip(found.x, found.y, strict=True)]


def mine(
    task: Task, language: str, split: str, data_root: str, embed: Embed, path: Path, mesh: Mesh | None = None
) -> tuple[dict[str, float], int]:
    """Mines one language's pairs and writes them; (metrics, number of gold pairs).

    The threshold is the best one on the dev gold pairs, for dev itself and for every other split (XTREME). embed is
    given a file for each side; whether the vectors lie there or in memory, only blocks of them are read. mesh: shares
    the search. Raises DataError where another split is asked for without dev.
    """
    if split != 'dev' and not available(task, language, 'dev', data_root):
        raise DataError(
            f'task {task.name!r} in {language!r}: the threshold is chosen on dev, and its files are missing'
        )
    found, first, second = _candidates(task, language, split, data_root, embed, mesh)
    pairs = _named(found, first, second)
    tuned, tuned_pairs = found, pairs
    if split != 'dev':
        tuned, *sides = _candidates(task, language, 'dev', data_root, embed, mesh)
        tuned_pairs = _named(tuned, *sides)
    gold = read_gold(task, language, split, data_root)

    def scores() -> dict[str, float]:
        threshold, _ = best_threshold(tuned_pairs, tuned.score.tolist(), read_gold(task, language, 'dev', data_root))
        files.write_pairs(path, [pair for pair, score in zip(pairs, found.score, strict=True) if score >= threshold])
        return pair_f1(gold, files.read_pairs(path))

    return on_leader('scores', scores), len(gold)


def rank(
    task: Task, language: str, split: str, data_root: str, embed: Embed, path: Path, mesh: Mesh | None = None
) -> tuple[dict[str, float], int]:
    """Ranks the pool for every query by cosine and writes the best 20 ids of each; (metrics, number of queries)."""
    queries, pool = read_pairs(task, language, split, data_root)
    x, y = embed(queries, Path(f'{split}-queries.npy')), embed(pool, Path(f'{split}-pool.npy'))
    nearest, _ = neighbours(x, y, RANKED, cosine=True, mesh=mesh)
    ranked = {
        query.id: [pool[i].id for i in row if i >= 0] for query, row in zip(queries, nearest.indices, strict=True)
    }
    gold: dict[str, list[str]] = {}
    for query, right in read_gold(task, language, split, data_root):
        gold.setdefault(query, []).append(right)
    asked = {query.id: gold[query.id] for query in queries}

    def scores() -> dict[str, float]:
        files.write_answers(path, ranked)
        return map_at_k(asked, files.read_rankings(path))

    return on_leader('scores', scores), len(queries)
