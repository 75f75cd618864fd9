"""What a subject of the bench is made of."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from xlmr_flax.bench import SUBJECTS

Options = Mapping[str, Any]  # JSON values
Run = Callable[[], Mapping[str, np.ndarray]]  # does the work once; its outcome is what `check` compares


class BenchError(ValueError):
    """A bench that cannot be run, or contestants that do not compute the same."""


@dataclass(frozen=True)
class Contestant:
    """One implementation. prepare: (options, folder of the inputs) -> Run; not timed. needs: the package without which
    it is left out.
    """

    prepare: Callable[[Options, Path], Run]
    needs: str = ''


class Subject(Protocol):
    """The module of a subject; see the package's docstring."""

    CONTESTANTS: Mapping[str, Contestant]
    ENVIRONMENT: Mapping[str, str]

    def inputs(self, options: Options, folder: Path) -> None: ...
    def check(self, options: Options, folder: Path, outcomes: Mapping[str, Mapping[str, np.ndarray]]) -> str: ...
    def title(self, options: Options) -> str: ...


def load_subject(name: str) -> Subject:
    """The module of a subject named in SUBJECTS."""
    if name not in SUBJECTS:
        raise BenchError(f'no bench subject {name!r}; there are: {", ".join(SUBJECTS)}')
    return cast(Subject, importlib.import_module(f'xlmr_flax.bench.{name}'))
