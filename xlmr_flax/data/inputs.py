"""Rows that a user brings for the head of a model: texts without labels, in formats that are quickly written.

What a file holds is told by its ending, else by its first character. By the kind of the head (columns in [] may be
missing; further ones are not read):

  pair       .tsv .txt  text_a[TAB text_b] a line; or with a header line that names text_a [text_b] [id]
             .csv       with a header line that names text_a [text_b] [id]
             .jsonl     {"text_a": ..., ["text_b": ...,] ["id": ...]} a line
  choice     .jsonl     {"prompt": ..., "choices": [...], ["id": ...]} a line
  tag        .txt       a sentence a line, its words parted by white space
             .tsv .conll  a word a line, a blank line between sentences; a second column, its tag, is not read
             .conllu    CoNLL-U, multi-word tokens as one word (the treebanks' preparation in XTREME)
             .jsonl     {"words": [...], ["id": ...]} a line
  span       .jsonl     {"question": ..., "context": ..., ["id": ...]} a line
             .json      SQuAD's form: data > paragraphs > qas
  retrieval  .txt       a sentence a line (to be embedded)
             .jsonl     {"text": ..., ["id": ...]} a line

A .json file may also hold an array of the objects of .jsonl.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from xlmr_flax.data.readers.tables import DataError, Problem, read_rows, read_text
from xlmr_flax.data.sources import BadRow, leave_out
from xlmr_flax.tasks.base import Example, RowError, Table, Task
from xlmr_flax.tasks.parsers import Row, text
from xlmr_flax.util import strict_json

JSON_ENDINGS = {'.jsonl': 'jsonl', '.json': 'json'}
_TEXT_ENDINGS = frozenset({'.tsv', '.txt', '.csv', '.jsonl', '.json', '.conll', '.conllu'})


@dataclass(frozen=True)
class InputForm:
    """How rows of a user's file are read for one kind of head. kind: its name. endings: file ending -> format
    (data/tables.READERS). columns: the fields that a row must have; positional: those that may follow in a table
    without a header line. parse: row -> example, raises RowError. squad: an object with 'data' is in SQuAD's form."""

    kind: str
    endings: Mapping[str, str]
    columns: tuple[str, ...]
    parse: Callable[[Row], Example]
    positional: tuple[str, ...] = ()
    squad: bool = False


@dataclass(frozen=True)
class Input:
    """What was read. task: stands for the head in `encode`. examples: in file order, with the file's ids ('' = none).
    rows: the number of each one's row, from 0 over all rows of the file, those left out included.
    """

    task: Task
    examples: list[Example]
    rows: list[int]


def read_input(
    path: Path, form: InputForm, limit: int | None = None, skip_bad_rows: list[BadRow] | None = None
) -> Input:
    """The rows of a user's file for a head of one kind, at most `limit` of them.

    skip_bad_rows: a list to which rows that cannot be read are appended, instead of raising for the first of them.
    Raises DataError naming the file, the line and the column.
    """
    if not path.is_file():
        raise DataError(f'{path}: no such file')
    table, examples, rows = input_table(path, form), [], []
    for number, (line, row) in enumerate(read_rows(path, table)):
        if limit is not None and len(examples) >= limit:
            break
        if isinstance(row, Problem):
            leave_out(skip_bad_rows, BadRow(str(path), line, row.reason))
            continue
        try:
            examples.append(form.parse(row))
            rows.append(number)
        except RowError as error:
            leave_out(skip_bad_rows, BadRow(str(path), error.line or line, str(error)))
    if not examples:
        raise DataError(f'{path}: none of its rows can be read')
    return Input(Task('input', form.kind, (), (), (), {}, lambda row, task, language: form.parse(row)), examples, rows)


def input_table(path: Path, wanted: InputForm) -> Table:
    """How a file is read, by its ending or its first character. Raises DataError where neither says it."""
    content, known = read_text(path), wanted.endings
    form, start = known.get(path.suffix.lower()), content.lstrip()[:1]
    if form is None and start in ('[', '{'):
        form = 'json'
    if form is None and path.suffix.lower() not in _TEXT_ENDINGS:
        form = known.get('.txt')
    if form is None:
        raise DataError(
            f'{path}: for a head of kind {wanted.kind!r} a file ending in {" or ".join(known)} is expected, or one of '
            'JSON'
        )
    if form == 'json' and start == '{':
        form = _of_object(content, wanted)
    columns = wanted.columns
    if form == 'squad':
        return Table(path.name, form, ('id', *columns))
    if form in ('conll', 'conllu'):
        return Table(path.name, form, ())
    if form == 'tsv':
        header = columns[0] in content.split('\n', 1)[0].rstrip('\r').split('\t')
        return Table(path.name, form, columns, header=header, optional=() if header else wanted.positional)
    return Table(path.name, form, columns)


def _of_object(content: str, wanted: InputForm) -> str:
    """The format of a JSON file that begins with an object: JSON lines, SQuAD's form, or one object of rows."""
    try:
        first = strict_json.loads(content.split('\n', 1)[0], surrogates=True)
    except strict_json.JsonError:
        return 'squad' if wanted.squad else 'json'
    if 'data' in first and wanted.squad:
        return 'squad'
    return 'jsonl' if wanted.columns[0] in first else 'json'


def input_text(row: Row, column: str) -> str:
    """A text that is not empty. Raises RowError."""
    found = text(row, column)
    if not found.strip():
        raise RowError(column, 'an empty text')
    return found
