"""Types of a benchmark subject: implementations, the subject's module, and errors."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from xlmr_flax.tools.bench import SUBJECTS
from xlmr_flax.util.errors import UserError

Options = Mapping[str, Any]  # JSON values
# Does the work once and returns the arrays that `check` compares. It may have an attribute `facts`, JSON numbers about
# the last call: units (of work done), compiled (number of programs; if not 0 the call is repeated), device_memory (peak
# bytes), flops.
Run = Callable[[], Mapping[str, np.ndarray]]
MODULES = {'eval': 'evaluation'}  # subject -> module, where the names differ


class BenchError(UserError, ValueError):
    """The benchmark cannot run, or the implementations do not compute the same result."""


def never_refuses(options: Options) -> str:
    """Default of `Implementation.refuses`: the implementation always takes part."""
    del options
    return ''


@dataclass(frozen=True)
class Implementation:
    """One implementation.

    prepare: (options, folder of the inputs) -> Run; it is not timed. needs: a package; the implementation is left out
    without it. refuses: options -> the reason why the implementation is left out, '' = it takes part.
    """

    prepare: Callable[[Options, Path], Run]
    needs: str = ''
    refuses: Callable[[Options], str] = never_refuses


class Subject(Protocol):
    """Interface of a subject's module; the package's docstring describes it."""

    IMPLEMENTATIONS: Mapping[str, Implementation]
    UNIT: str

    def environment(self, options: Options) -> Mapping[str, str]: ...
    def inputs(self, options: Options, folder: Path) -> None: ...
    def check(self, options: Options, folder: Path, outcomes: Mapping[str, Mapping[str, np.ndarray]]) -> str: ...
    def title(self, options: Options) -> str: ...


def load_subject(name: str) -> Subject:
    """Imports the module of a subject. Raises BenchError for a name that SUBJECTS does not have."""
    if name not in SUBJECTS:
        raise BenchError(f'no bench subject {name!r}; there are: {", ".join(SUBJECTS)}')
    return cast(Subject, importlib.import_module(f'xlmr_flax.tools.bench.{MODULES.get(name, name)}'))
