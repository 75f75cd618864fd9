"""What a task is: where its rows lie, how a row becomes an example, how it is scored.

Pure Python. A task module defines `TASKS = (Task(...), ...)`; the registry (`tasks/__init__.py`) collects every
module of this package, so that adding a task touches one file.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

KINDS = ('pair', 'choice', 'span', 'tag', 'retrieval')


class TaskError(ValueError):
    """A task, split or language that does not exist; the message names the closest known one."""


class RowError(ValueError):
    """A row that cannot be read. `column` names the field; readers add file and line."""

    def __init__(self, column: str, reason: str):
        super().__init__(f'column {column!r}: {reason}')
        self.column = column
        self.reason = reason


def closest(name: str, known: Iterable[str]) -> str:
    """' (did you mean X?)' for the closest of `known`, or their list when none is close."""
    known = sorted(known)
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if match:
        return f' (did you mean {match[0]!r}?)'
    return f' (known: {", ".join(known)})' if known else ''


def text_of(row: Mapping[str, Any], column: str) -> str:
    """A field that must be a string (JSON files may hold anything). Raises RowError."""
    value = row[column]
    if not isinstance(value, str):
        raise RowError(column, f'a string is expected, not {value!r}')
    return value


@dataclass(frozen=True, slots=True)
class PairExample:
    """One text or a pair of texts with a class (`label` indexes `Task.labels`; None where the file has none)."""

    id: str
    text_a: str
    text_b: str | None
    label: int | None


@dataclass(frozen=True, slots=True)
class ChoiceExample:
    """A prompt and its candidate continuations, each encoded as the pair (prompt, choice)."""

    id: str
    prompt: str
    choices: tuple[str, ...]
    label: int | None


@dataclass(frozen=True, slots=True)
class SpanExample:
    """A question on a context. `answers` holds (text, start character in context); empty = no answer or none given."""

    id: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...]
    is_impossible: bool = False


@dataclass(frozen=True, slots=True)
class TagExample:
    """Words with one tag each (`tags` indexes `Task.labels`; None where the file has none)."""

    id: str
    words: tuple[str, ...]
    tags: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class SentenceExample:
    """One sentence to embed. Row i of both sides of a retrieval task is a gold pair unless the task has a gold file."""

    id: str
    text: str


Example = PairExample | ChoiceExample | SpanExample | TagExample | SentenceExample


@dataclass(frozen=True)
class Table:
    """Rows of one local file per language.

    path: relative to the data root; `{language}` is replaced by the task's own code of the language.
    format: 'tsv' (no quoting, as xTune advises; protocol.md section 8), 'csv' (RFC 4180 quoting), 'jsonl', 'lines'.
    columns: the columns that must be there. With `header=False` they name the fields by position.
    optional: columns that may be missing from a whole file (the label of a public test file); without a header they
      follow `columns`. Rows of one file all have the same fields.
    """

    path: str
    format: str
    columns: tuple[str, ...]
    header: bool = True
    optional: tuple[str, ...] = ()


@dataclass(frozen=True)
class Embedded:
    """Rows of the embedded world (data/world): `task` is one of its tasks, `rows` how many are made a language.

    language: the one language that is always read ('' = the language asked for).
    """

    task: str
    rows: int
    language: str = ''


@dataclass(frozen=True)
class Task:
    """One dataset in one formulation.

    name: as in configs and result rows. kind: one of KINDS (fixes head, batch layout and prediction file).
    labels: class or tag names in head order (protocol.md section 1.2); empty for retrieval and spans.
    metrics: names in result rows, the first is the major one (selection, tables).
    languages: codes as the benchmark writes them in prediction file names ('de', 'zh').
    splits: split name -> the sources that are read one after the other. A split of English only tasks needs no
      `{language}`. Retrieval: exactly two sources, the English side and then the foreign one.
    parse: (row, task, language) -> Example; raises RowError. None drops the row (SNLI's '-').
      row maps column names to str (tsv, csv, lines) or to JSON values (jsonl, embedded); '#' is the row number from 0,
      counted over all sources of the split. An example without an id of its own gets '' and the reader names it.
    train_task: the task whose English train split fine-tunes this target (XNLI: 'mnli'); None = evaluation only.
    folder: its folder in XTREME's prediction layout ('' = the name).
    scorer: the official scorer where the kind alone does not fix it: 'f1' adds the positive class's F1 to accuracy
      (QQP); spans are scored as 'squad' unless this says 'mlqa' or 'squad_v2'.
    local_codes: benchmark code -> code in file names, where they differ (Tatoeba: 'de' -> 'deu').
    open_languages: further languages may be asked for by the code in the file names (Tatoeba: 'yid').
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    languages: tuple[str, ...]
    splits: Mapping[str, tuple[Table | Embedded, ...]]
    parse: Callable[[Mapping[str, Any], Task, str], Example | None]
    train_task: str | None = None
    folder: str = ''
    licence: str = ''
    source: str = ''
    local_codes: Mapping[str, str] = field(default_factory=dict)
    note: str = ''
    scorer: str = ''
    open_languages: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise TaskError(f'task {self.name!r}: kind {self.kind!r} is not one of {", ".join(KINDS)}')

    @property
    def prediction_folder(self) -> str:
        return self.folder or self.name

    def label_index(self, value: str, column: str) -> int:
        """Index of a label name. Raises RowError with the closest label."""
        try:
            return self.labels.index(value)
        except ValueError:
            raise RowError(column, f'unknown label {value!r}{closest(value, self.labels)}') from None

    def sources(self, split: str) -> tuple[Table | Embedded, ...]:
        """The sources of a split. Raises TaskError with the closest split."""
        if split not in self.splits:
            raise TaskError(f'task {self.name!r} has no split {split!r}{closest(split, self.splits)}')
        return self.splits[split]

    def local_code(self, language: str) -> str:
        """The code of a language in file names. Raises TaskError with the closest language the task has."""
        if language not in self.languages and not self.open_languages:
            raise TaskError(f'task {self.name!r} has no language {language!r}{closest(language, self.languages)}')
        return self.local_codes.get(language, language)
