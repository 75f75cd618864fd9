"""Retrieval metrics: F1 of mined pairs (BUCC), mAP@20 (Mewsli-X, LAReQA). That of Tatoeba is the accuracy of the index
of the nearest sentence (`classification.accuracy`)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from xlmr_flax.scoring.metrics.classification import precision_recall_f1
from xlmr_flax.scoring.metrics.sums import total


def pair_f1(gold: Iterable[tuple[str, str]], predicted: Iterable[tuple[str, str]]) -> dict[str, float]:
    """Computes {'f1', 'precision', 'recall'} in percent over sets of (source id, target id) (XTREME: evaluate.py,
    BUCC).
    """
    gold_set, said_set = set(gold), set(predicted)
    if not gold_set:
        raise ValueError('nothing to score: no gold pairs')
    return precision_recall_f1(len(gold_set & said_set), len(said_set), len(gold_set))


def average_precision(gold: Collection[str], ranking: Sequence[str], k: int = 20) -> float:
    """Average precision at k (0 to 1): the sum of the precisions at the ranks of the gold items, divided by min(number
    of gold items, k).

    If an item is ranked twice, only its first rank counts.
    """
    wanted = set(gold)
    hits, total = 0, 0.0
    for rank, item in enumerate(ranking[:k], 1):
        if item in wanted:
            wanted.discard(item)
            hits += 1
            total += hits / rank
    return total / min(len(set(gold)), k)


def map_at_k(
    gold: Mapping[str, Collection[str]], predicted: Mapping[str, Sequence[str]], k: int = 20
) -> dict[str, float]:
    """Computes {'map@K'} in percent over all queries; a query without a ranking counts 0. If every query has one gold
    item, this is MRR@K."""
    if not gold:
        raise ValueError('nothing to score: no queries')
    for id_, items in gold.items():
        if not items:
            raise ValueError(f'query {id_!r} has no gold item')
    found = total(average_precision(items, predicted.get(id_, ()), k) for id_, items in gold.items())
    return {f'map@{k}': found / len(gold) * 100}
