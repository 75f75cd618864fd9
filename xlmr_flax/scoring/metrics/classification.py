"""Classification metrics: accuracy, the F1 of the positive class (QQP) and means of the F1 of classes, in percent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xlmr_flax.scoring.metrics.sums import total


def matches(gold: Sequence[object], predicted: Sequence[object]) -> np.ndarray:
    """Accuracy by item: 1 where the prediction is the gold label, else 0; float64 [n]. Raises ValueError if the lengths
    differ."""
    if len(gold) != len(predicted):
        raise ValueError(f'{len(predicted)} predictions for {len(gold)} gold labels')
    return np.asarray([p == g for p, g in zip(predicted, gold, strict=True)], float)


def accuracy(gold: Sequence[object], predicted: Sequence[object]) -> dict[str, float]:
    """Computes {'accuracy'}, as XTREME's evaluate.py. Raises ValueError if the lengths differ or there are no
    labels."""
    if not gold:
        raise ValueError('nothing to score: no gold labels')
    return {'accuracy': float(matches(gold, predicted).sum()) / len(gold) * 100}


def binary_f1(gold: Sequence[str], predicted: Sequence[str], positive: str = '1') -> dict[str, float]:
    """Computes {'accuracy', 'f1', 'precision', 'recall'}; the last three are those of the class `positive`, as in
    GLUE's QQP score, and 0 if undefined."""
    scores = accuracy(gold, predicted)
    hits = sum(p == g == positive for p, g in zip(predicted, gold, strict=True))
    return scores | precision_recall_f1(hits, list(predicted).count(positive), list(gold).count(positive))


def class_f1(gold: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    """Computes {'accuracy', 'macro_f1', 'weighted_f1'}: means of the F1 of each class that is in the gold labels or the
    predictions, unweighted (NusaX) and weighted by the number of gold labels (MasakhaNEWS), as scikit-learn's f1_score
    with average='macro' and 'weighted'."""
    scores = accuracy(gold, predicted)
    by_class = {}
    for label in dict.fromkeys([*gold, *predicted]):  # in an order that no hash decides: the digits of sums need it
        hits = sum(p == g == label for p, g in zip(predicted, gold, strict=True))
        by_class[label] = precision_recall_f1(hits, list(predicted).count(label), list(gold).count(label))['f1']
    weighted = total(by_class[label] for label in gold) / len(gold)
    return scores | {'macro_f1': total(by_class.values()) / len(by_class), 'weighted_f1': weighted}


def precision_recall_f1(correct: int, predicted: int, gold: int) -> dict[str, float]:
    """Computes {'f1', 'precision', 'recall'} in percent from counts; each is 0 if its denominator is 0."""
    precision = correct / predicted if predicted else 0.0
    recall = correct / gold if gold else 0.0
    f1 = 2 * precision * recall / (precision + recall) if correct else 0.0
    return {'f1': f1 * 100, 'precision': precision * 100, 'recall': recall * 100}
