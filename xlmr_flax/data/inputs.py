"""Readers of a user's own input files for prediction: texts without labels, in simple formats.

The format follows from the file's ending, else from its first character. The formats for each kind of head (columns in
[] are optional; other columns are ignored):

  pair       .tsv .txt  text_a[TAB text_b] a line; or with a header line that names text_a [text_b] [id]
             .csv       with a header line that names text_a [text_b] [id]
             .jsonl     {"text_a": ..., ["text_b": ...,] ["id": ...]} a line
  choice     .jsonl     {"prompt": ..., "choices": [...], ["id": ...]} a line
  tag        .txt       a sentence a line, its words separated by white space
             .tsv .conll  a word a line, a blank line between sentences; a second column (the tag) is ignored
             .conllu    CoNLL-U, multi-word tokens as one word (as XTREME prepares the treebanks)
             .jsonl     {"words": [...], ["id": ...]} a line
  span       .jsonl     {"question": ..., "context": ..., ["id": ...]} a line
             .json      SQuAD's form: data > paragraphs > qas
  retrieval  .txt       a sentence a line (to be embedded)
             .jsonl     {"text": ..., ["id": ...]} a line

A .json file may also hold an array of such objects as in .jsonl.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from xlmr_flax.data.readers.tables import Problem, read_rows, read_text
from xlmr_flax.data.readers.text import DataError, is_json_object
from xlmr_flax.data.sources import BadRow, leave_out
from xlmr_flax.tasks.base import Example, RowError, Table, Task
from xlmr_flax.tasks.parsers import Row, text
from xlmr_flax.util import strict_json

JSON_ENDINGS = {'.jsonl': 'jsonl', '.json': 'json'}
# Names of columns in other people's files: a first line of nothing else is a header, not a row.
_HEADER = frozenset({
    'text_a', 'text_b', 'premise', 'hypothesis', 'sentence1', 'sentence2', 'sentence_a', 'sentence_b', 'question1',
    'question2', 'text1', 'text2', 'text', 'sentence', 'id', 'idx', 'index', 'label', 'gold_label',
})  # fmt: skip
_TEXT_ENDINGS = frozenset({'.tsv', '.txt', '.csv', '.jsonl', '.json', '.conll', '.conllu'})


@dataclass(frozen=True)
class InputForm:
    """The input formats of one kind of head.

    kind: its name. endings: file ending -> format (a key of data/readers/tables.READERS). columns: the required fields
    of a row. positional: optional fields that may follow in a table without a header line. parse: row -> example,
    raises RowError. squad: whether a JSON object with 'data' is read as SQuAD's form.
    """

    kind: str
    endings: Mapping[str, str]
    columns: tuple[str, ...]
    parse: Callable[[Row], Example]
    positional: tuple[str, ...] = ()
    squad: bool = False


@dataclass(frozen=True)
class Input:
    """Examples read from a user's file.

    task: a task of the head's kind, for `encode`. examples: in file order, with the file's ids ('' = none).
    rows: the row number of each example, counted from 0 over all rows of the file, skipped rows included.
    """

    task: Task
    examples: list[Example]
    rows: list[int]


def read_input(
    path: Path, form: InputForm, limit: int | None = None, skip_bad_rows: list[BadRow] | None = None
) -> Input:
    """Reads a user's file for a head of one kind, at most `limit` examples.

    skip_bad_rows: a list to which rows that cannot be read are appended; None = the first such row raises an error.
    Raises DataError that names the file, the line and the column.
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


def input_table(path: Path, form: InputForm) -> Table:
    """Determines the format of a file by its ending or its first character. Raises DataError if neither is known."""
    content, known = read_text(path), form.endings
    name, start = known.get(path.suffix.lower()), content.lstrip()[:1]
    if name is None and start in ('[', '{'):
        name = 'json'
    if name is None and path.suffix.lower() not in _TEXT_ENDINGS:
        name = known.get('.txt')
    if name is None:
        raise DataError(
            f'{path}: for a head of kind {form.kind!r} a file ending in {" or ".join(known)} is expected, or one of '
            'JSON'
        )
    if name == 'json' and start == '{':
        name = _json_format(content, form)
    columns = form.columns
    if name == 'squad':
        return Table(path.name, name, ('id', *columns))
    if name in ('conll', 'conllu'):
        return Table(path.name, name, ())
    if name == 'tsv':
        line = content.split('\n', 1)[0].rstrip('\r')
        header = columns[0] in line.split('\t')
        if is_json_object(line):
            raise DataError(f'{path}, line 1: JSON lines; call the file .jsonl')
        if not header and _HEADER.issuperset(line.lower().split('\t')):
            raise DataError(f'{path}, line 1: a header line; its columns must be called {columns[0]}, text_b, id')
        return Table(path.name, name, columns, header=header, optional=() if header else form.positional)
    return Table(path.name, name, columns)


def _json_format(content: str, form: InputForm) -> str:
    """Determines the format of a JSON file that begins with an object: JSON lines, SQuAD's form or an object of
    rows."""
    try:
        first = strict_json.loads(content.split('\n', 1)[0], surrogates=True)
    except strict_json.JsonError:
        return 'squad' if form.squad else 'json'
    if 'data' in first and form.squad:
        return 'squad'
    return 'jsonl' if form.columns[0] in first else 'json'


def input_text(row: Row, column: str) -> str:
    """Reads a text field that must not be empty. Raises RowError."""
    value = text(row, column)
    if not value.strip():
        raise RowError(column, 'an empty text')
    return value
