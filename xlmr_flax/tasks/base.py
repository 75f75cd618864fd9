"""Base classes of tasks: a Task defines its data files, the parser of its rows and its metrics.

Pure Python. A task module defines `TASKS = (Task(...), ...)`. The registry (`tasks/__init__.py`) collects every module
of this package, so that a new task needs a change in one file only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from xlmr_flax.tasks.languages import get_language
from xlmr_flax.util.errors import UserError, closest, shorten

# Splits of machine-translated rows: translated from English (train, dev) or into English (test).
TRANSLATED = ('translate_train', 'translate_dev', 'translate_test')


class TaskError(UserError, ValueError):
    """Raised for an unknown task, split or language; the message names the closest known one."""


class RowError(ValueError):
    """Raised for a row that cannot be read. `column` names the field; readers add the file and the line.

    line: the line of the error in the file, for rows that span several lines (a sentence of a tagging file).
    """

    def __init__(self, column: str, reason: str, line: int | None = None):
        self.column, self.reason = column, shorten(reason, 500)
        super().__init__(f'column {column!r}: {self.reason}')
        self.line = line


def text_of(row: Mapping[str, Any], column: str) -> str:
    """Reads a field that must be a string (JSON files may contain other types). Raises RowError."""
    value = row[column]
    if not isinstance(value, str):
        raise RowError(column, f'a string is expected, not {value!r}')
    return value


@dataclass(frozen=True, slots=True)
class PairExample:
    """One text or a pair of texts with a class. `label` is an index into `Task.labels`; None if the file has none."""

    id: str
    text_a: str
    text_b: str | None
    label: int | None


@dataclass(frozen=True, slots=True)
class ChoiceExample:
    """A multiple-choice example: a prompt and its choices. Each choice is encoded as the pair (prompt, choice)."""

    id: str
    prompt: str
    choices: tuple[str, ...]
    label: int | None


@dataclass(frozen=True, slots=True)
class SpanExample:
    """A question on a context. `answers`: (text, start character in the context); empty = unanswerable or not given.

    A start at the context's end marks a text that the context does not contain: an answer of a translated test set,
    which is used for scoring but has no position.
    """

    id: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...]
    is_impossible: bool = False


@dataclass(frozen=True, slots=True)
class TagExample:
    """A sentence with one tag per word. `tags` are indices into `Task.labels`; None if the file has none."""

    id: str
    words: tuple[str, ...]
    tags: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class SentenceExample:
    """One sentence to embed, or one text for masked language modelling.

    In a retrieval task, row i of both sides is a gold pair unless the task has gold pairs by id (`Task.gold`).
    context: the text around the sentence; if not empty, the pair (text, context) is embedded (LAReQA's candidates).
    paired: False if the files do not define which rows of the two sides are translations of each other.
    """

    id: str
    text: str
    context: str = ''
    paired: bool = True


Example = PairExample | ChoiceExample | SpanExample | TagExample | SentenceExample


def has_label(example: Example) -> bool:
    """Whether an example has a gold label, so that it can be used for training and scoring. A question needs an answer
    or the mark that it is unanswerable. A sentence of a retrieval task needs its translation in the same row of the
    other side. Raw text needs no label."""
    if isinstance(example, SpanExample):
        return bool(example.answers) or example.is_impossible
    if isinstance(example, TagExample):
        return example.tags is not None
    if isinstance(example, SentenceExample):
        return example.paired
    return example.label is not None


@dataclass(frozen=True)
class Table:
    """A source of rows in local files, one set of files per language.

    path: relative to the data root. `{language}` is replaced by the task's own code of the language and, in
      alternatives, `{benchmark_language}` by the benchmark's code. `*` and `[...]` match as in a shell; all matches are
      read in the order of their names. also: further paths, read after `path`. Each has to match a file.
    format: a key of data/readers/tables.READERS: 'tsv' (no quoting: xTune's advice for XTREME's files), 'csv'
      (RFC 4180), 'csv_tabs' (the same with tabs), 'jsonl', 'json' (an array or an object of objects), 'lines', 'squad',
      'squad_sentences', 'conll', 'conllu', 'iob2', 'stagged', 'ccgbank', 'logicbench'.
    columns: the required columns. With `header=False` they name the fields by position.
    optional: columns that may be missing from a whole file (the label of a public test file); without a header they
      follow `columns`. All rows of one file have the same fields.
    hidden: columns that are not read: placeholder labels of a public test file.
    alternatives: tables that are tried in this order if this table has no file.
    short_rows: with a header: rows may lack the last fields after those of `columns` (SNLI's annotators' labels).
    stand_in: a description of rows that only stand in for the dataset; it is written to result rows.
    ids: False if the file's own ids repeat; then row numbers are used.
    label_file: a separate file with one label a line, read into the column 'label' (Social IQa).
    explode: columns that contain lists of the same length; a row becomes one row per list item.
    constants: columns that are added to every row of this table.
    every_language: read the files of all languages of the task, whichever language is requested (LAReQA's pool).
    without: {path: column}: rows with a text in this column that is also in those files, test files, are left out.
    """

    path: str
    format: str
    columns: tuple[str, ...]
    header: bool = True
    optional: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    alternatives: tuple[Table, ...] = ()
    stand_in: str = ''
    ids: bool = True
    short_rows: bool = False
    label_file: str = ''
    explode: tuple[str, ...] = ()
    constants: Mapping[str, str] = field(default_factory=dict)
    every_language: bool = False
    without: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Embedded:
    """A source of rows in the embedded world (data/world): `task` is one of its tasks, `rows` the number per language.

    language, split: a fixed language or split ('' = the requested one).
    """

    task: str
    rows: int
    language: str = ''
    split: str = ''


@dataclass(frozen=True)
class Task:
    """One dataset in one task formulation.

    name: the name in configs and result rows. kind: name of a kind in kinds/ (determines head, batch layout and
      prediction file): 'pair', 'choice', 'span', 'tag', 'retrieval', or 'mlm' (raw text for masked language modelling).
    labels: class or tag names in head order; empty for retrieval, spans and text, and for `labels_from`.
    labels_from: splits whose files are read, in this order, to collect the tags by first appearance (CCG). `labels` is
      empty until data.sources.with_labels has filled it in; missing files are skipped.
    metrics: names in result rows; the first is the main metric (selection, tables).
    languages: codes as in the benchmark's prediction file names ('de', 'zh').
    more_languages: available languages that are not in the benchmark's mean (those that XTREME-R adds).
    unpublished: split -> languages in which the dataset has no such split (UD has no Thai but its test sentences).
    open_languages: any other language may be requested by its code in the file names (Tatoeba: 'yid').
    local_codes: benchmark code -> code in file names, if they differ (Tatoeba: 'de' -> 'deu').
    splits: split name -> its sources, read one after the other. A split of a task in English only needs no
      `{language}`. Retrieval: exactly two sources, first the queries (Tatoeba: English) and then the pool.
    translated: the splits of machine-translated rows (names of TRANSLATED) -> their languages, which need not be among
      `languages` (MNLI's training set is English; its translations are not). translate_train and translate_dev: the
      English rows in the requested language; never 'en', which is `train` or `dev`. translate_test: the test rows of
      the requested language in English. A data root is complete without these splits.
    parse: (row, task, language) -> Example; raises RowError. None drops the row (SNLI's '-').
      row maps column names to str (tsv, csv, lines) or to JSON values; '#' is the row number from 0, counted over all
      sources of the split. An example without an id has the id '', and the reader assigns one. language: that of the
      file, which differs from the requested language only in an `every_language` table.
    sorted_queries: retrieval: prediction files have the queries sorted by text (XTREME's Tatoeba; `query_order`).
    gold, parse_gold: retrieval by id: split -> the table of gold pairs, and (row, task, language) -> pairs (query id,
      id of a right item); `row['#language']` is the requested language.
    train_task: the task whose English train split fine-tunes this target (XNLI: 'mnli'); None = evaluation only.
      Retrieval targets name the task that a dual encoder may be trained on; zero-shot retrieval trains nothing.
    warmup_task: the task that is trained on its English train split before `train_task`; all weights and the head are
      carried over (XTREME: scripts/train_xcopa.sh trains XCOPA on Social IQa, then on COPA). Both are choice tasks: the
      head gives one score per (prompt, choice) pair, so it fits Social IQa's three choices and COPA's two. A task that
      is trained after another one for its own evaluation (COPA) also names it here.
    folder: its folder in XTREME's prediction layout ('' = the name).
    scorer: the official scorer if the kind alone does not determine it: 'f1' adds the positive class's F1 to accuracy
      (QQP), 'class_f1' two means of the classes' F1 (NusaX); 'token_accuracy' (CCG); spans: 'mlqa', 'squad_v2' or ''.
    licence: contains 'NC' if commercial use is not allowed. source: the dataset's home. note: remarks for the user.
    checked_on: the rows that the readers were tested on: 'real rows', 'stand-in rows', 'hand-made rows' or 'embedded
      world', then details; '; stand-in rows for SPLIT' and '; none for train' if that applies to a part.
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
    sorted_queries: bool = False
    more_languages: tuple[str, ...] = ()
    unpublished: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    labels_from: tuple[str, ...] = ()
    gold: Mapping[str, Table] = field(default_factory=dict)
    parse_gold: Callable[[Mapping[str, Any], Task, str], Sequence[tuple[str, str]]] | None = None
    warmup_task: str | None = None
    checked_on: str = 'real rows'
    translated: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if set(self.translated) != set(self.splits) & set(TRANSLATED):
            raise TaskError(
                f'task {self.name!r}: `translated` must name the languages of the splits {", ".join(TRANSLATED)} that '
                f'the task has, and of no other; it names {", ".join(self.translated) or "none"}'
            )

    def __hash__(self) -> int:  # the generated hash would fail: mappings are not hashable
        return hash(self.name)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {label: number for number, label in enumerate(self.labels)}

    @property
    def prediction_folder(self) -> str:
        return self.folder or self.name

    @property
    def embeds(self) -> bool:
        """Whether the task compares sentence embeddings, without a head and without training."""
        return self.kind == 'retrieval'

    @property
    def is_text(self) -> bool:
        """Whether the rows are raw text for masked language modelling."""
        return self.kind == 'mlm'

    @property
    def mines(self) -> bool:
        """Whether the task mines sentence pairs from both sides (BUCC); other retrieval tasks rank a pool."""
        return self.embeds and 'f1' in self.metrics

    def label_index(self, value: str, column: str, line: int | None = None) -> int:
        """The index of a label name. Raises RowError with the closest label."""
        number = self._numbers.get(value)
        if number is None:
            raise RowError(column, f'unknown label {value!r}{closest(value, self.labels)}', line)
        return number

    def sources(self, split: str) -> tuple[Table | Embedded, ...]:
        """The sources of a split. Raises TaskError with the closest split."""
        if split not in self.splits:
            raise TaskError(f'task {self.name!r} has no split {split!r}{closest(split, self.splits)}')
        return self.splits[split]

    def split_languages(self, split: str) -> tuple[str, ...]:
        """The languages of a split: those of a translated one, else the task's, without more and unpublished ones."""
        none = self.unpublished.get(split, ())
        return self.translated.get(split) or tuple(code for code in self.languages if code not in none)

    def local_code(self, language: str, split: str = '') -> str:
        """The code of a language in file names. Raises TaskError with the closest language that the task has in the
        split (without a split: in any split)."""
        if not re.fullmatch(r'[A-Za-z0-9_-]+', language):  # it becomes part of file names
            raise TaskError(f'{language!r} is no language code: letters, digits, - and _ are expected')
        known = self.translated.get(split) or self.languages + self.more_languages
        if not split:
            known = tuple(dict.fromkeys([*known, *(code for codes in self.translated.values() for code in codes)]))
        if language not in known and (split in self.translated or not self.open_languages):
            code = get_language(language).code
            hint = f' (did you mean {code!r}?)' if code in known else closest(language, known)
            where = f' in split {split!r}' if split in self.translated else ''
            raise TaskError(f'task {self.name!r} has no language {language!r}{where}{hint}')
        return self.local_codes.get(language, language)

    def query_order(self, texts: Sequence[str]) -> list[int]:
        """The row number of the query on each line of a retrieval prediction file. texts: queries in row order.

        XTREME sorts Tatoeba's stripped English lines by code point (equal lines stay in row order) and leaves the other
        side as it is, so the result is also the gold index of each line."""
        rows = range(len(texts))
        return sorted(rows, key=lambda i: texts[i].strip()) if self.sorted_queries else list(rows)

    def training_split(self, language: str) -> str:
        """The split with training rows in a language: `translate_train` if it has the language; else `train` for
        English and for tasks whose `train` has files in each language (UD-POS, raw text). Raises TaskError."""
        own = self.splits.get('train', ())
        if language in self.translated.get('translate_train', ()):
            return 'translate_train'
        by_language = ['{language}' in each.path if isinstance(each, Table) else not each.language for each in own]
        if not own:
            by_whom = f'; it is trained by {self.train_task!r}' if self.train_task else ''
            raise TaskError(f'task {self.name!r} has no training rows{by_whom}')
        if language == 'en' or any(by_language) or self.languages == (language,):
            self.local_code(language, 'train')
            return 'train'
        known = ('en', *self.translated.get('translate_train', ()))
        raise TaskError(f'task {self.name!r} has no training rows in {language!r}{closest(language, known)}')

    def answer_language(self, language: str, split: str = '') -> str:
        """The language of the answers: the context's language, which is the first of a cross-language pair ('en-de':
        'en'); English for a test set that was translated into English."""
        if split == 'translate_test':
            return 'en'
        return language.split('-')[0] if self.kind == 'span' else language
