"""Collapsed trainings: those whose model gives nearly all dev rows the same class.

docs/logic_study.md states the rule; effects by language leave collapsed runs out (analysis/language_effects.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SHARE = 0.95  # of the dev rows
FEWEST_ROWS = 20  # a smaller dev set is not tested: few rows have one class by chance


def one_class(gold: Sequence[str], predicted: Sequence[str]) -> str:
    """Describes the collapse of predictions, as 'neutral in 98 of 100 rows'; '' = none.

    They are collapsed if at least SHARE of them are one class, and less than SHARE of the gold labels are one class.
    The class of a tagged sentence is its distinct tags (kinds/tag.py), so that a tagger collapses if it gives the words
    of nearly all sentences the same tag, or the same few.
    """
    [(label, count)] = Counter(predicted).most_common(1)
    most = Counter(gold).most_common(1)[0][1]
    if count < SHARE * len(predicted) or most >= SHARE * len(gold):
        return ''
    return f'{label} in {count} of {len(predicted)} rows'


def describe(outcomes: Mapping[str, str]) -> str | None:
    """Joins the outcomes of `one_class` by dev set: 'mnli dev: neutral in 98 of 100 rows; ...'.

    '' if any of them is not collapsed: what a mixture learned from one task shows that its encoder is intact. None if
    there is no outcome.
    """
    if not outcomes:
        return None
    return '; '.join(f'{name} dev: {text}' for name, text in outcomes.items()) if all(outcomes.values()) else ''


def over_phases(phases: Iterable[Mapping[str, Any] | None]) -> str | None:
    """Joins the field 'collapsed' of the trainings that led to a model; None if no training was tested."""
    tested = [phase['collapsed'] for phase in phases if phase and phase.get('collapsed') is not None]
    return '; '.join(dict.fromkeys(filter(None, tested))) if tested else None
