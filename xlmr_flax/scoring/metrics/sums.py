"""Sums of scores with the same digits on every Python."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import add


def total(values: Iterable[float]) -> float:
    """Adds from left to right, as the official scorers did on the Pythons of their time. `sum` corrects rounding errors
    since Python 3.12, and ends in other digits."""
    return reduce(add, values, 0.0)
