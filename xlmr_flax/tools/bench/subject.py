"""What a subject of the bench is made of."""

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
# Does the work once; its outcome is what `check` compares. It may have an attribute `facts`, JSON numbers about the
# call behind it: units (of work done), compiled (programs: the call is made again), device_memory (peak bytes), flops.
Run = Callable[[], Mapping[str, np.ndarray]]
MODULES = {'eval': 'evaluation'}  # a subject's module, where it is not called as the subject


class BenchError(UserError, ValueError):
    """A bench that cannot be run, or contestants that do not compute the same."""


def takes_part(options: Options) -> str:
    """Of a contestant that always does."""
    del options
    return ''


@dataclass(frozen=True)
class Contestant:
    """One implementation. prepare: (options, folder of the inputs) -> Run; not timed. needs: the package without which
    it is left out. refuses: options -> why it is left out, '' = it takes part.
    """

    prepare: Callable[[Options, Path], Run]
    needs: str = ''
    refuses: Callable[[Options], str] = takes_part


class Subject(Protocol):
    """The module of a subject; see the package's docstring."""

    CONTESTANTS: Mapping[str, Contestant]
    UNIT: str

    def environment(self, options: Options) -> Mapping[str, str]: ...
    def inputs(self, options: Options, folder: Path) -> None: ...
    def check(self, options: Options, folder: Path, outcomes: Mapping[str, Mapping[str, np.ndarray]]) -> str: ...
    def title(self, options: Options) -> str: ...


def load_subject(name: str) -> Subject:
    """The module of a subject named in SUBJECTS."""
    if name not in SUBJECTS:
        raise BenchError(f'no bench subject {name!r}; there are: {", ".join(SUBJECTS)}')
    return cast(Subject, importlib.import_module(f'xlmr_flax.tools.bench.{MODULES.get(name, name)}'))
