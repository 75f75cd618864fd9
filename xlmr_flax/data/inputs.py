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

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from xlmr_flax.data.sources import BadRow, leave_out
from xlmr_flax.data.tables import DataError, Problem, read_rows, read_text
from xlmr_flax.tasks.base import (
    ChoiceExample,
    Example,
    PairExample,
    RowError,
    SentenceExample,
    SpanExample,
    Table,
    TagExample,
    Task,
)
from xlmr_flax.tasks.parsers import Row, id_of, text
from xlmr_flax.util import strict_json

_JSON = {'.jsonl': 'jsonl', '.json': 'json'}
# kind -> ending -> format (data/tables.READERS).
FORMATS: dict[str, dict[str, str]] = {
    'pair': {'.tsv': 'tsv', '.txt': 'tsv', '.csv': 'csv', **_JSON},
    'choice': _JSON,
    'tag': {'.txt': 'lines', '.tsv': 'conll', '.conll': 'conll', '.conllu': 'conllu', **_JSON},
    'span': _JSON,
    'retrieval': {'.txt': 'lines', **_JSON},
}
_COLUMNS = {
    'pair': ('text_a',),
    'choice': ('prompt', 'choices'),
    'tag': ('words',),
    'span': ('question', 'context'),
    'retrieval': ('text',),
}


@dataclass(frozen=True)
class Input:
    """What was read. task: stands for the head in `encode`. examples: in file order, with the file's ids ('' = none).
    rows: the number of each one's row, from 0 over all rows of the file, those left out included.
    """

    task: Task
    examples: list[Example]
    rows: list[int]


def read_input(path: Path, kind: str, limit: int | None = None, skip_bad_rows: list[BadRow] | None = None) -> Input:
    """The rows of a user's file for a head of that kind, at most `limit` of them.

    skip_bad_rows: a list to which rows that cannot be read are appended, instead of raising for the first of them.
    Raises DataError naming the file, the line and the column.
    """
    if not path.is_file():
        raise DataError(f'{path}: no such file')
    table, examples, rows = input_table(path, kind), [], []
    for number, (line, row) in enumerate(read_rows(path, table)):
        if limit is not None and len(examples) >= limit:
            break
        if isinstance(row, Problem):
            leave_out(skip_bad_rows, BadRow(str(path), line, row.reason))
            continue
        try:
            examples.append(_PARSERS[kind](row))
            rows.append(number)
        except RowError as error:
            leave_out(skip_bad_rows, BadRow(str(path), error.line or line, str(error)))
    if not examples:
        raise DataError(f'{path}: none of its rows can be read')
    return Input(Task('input', kind, (), (), (), {}, lambda row, task, language: _PARSERS[kind](row)), examples, rows)


def input_table(path: Path, kind: str) -> Table:
    """How a file is read, by its ending or its first character. Raises DataError where neither says it."""
    content, known = read_text(path), FORMATS[kind]
    form, start = known.get(path.suffix.lower()), content.lstrip()[:1]
    if form is None and start in ('[', '{'):
        form = 'json'
    if form is None and path.suffix.lower() not in {ending for endings in FORMATS.values() for ending in endings}:
        form = known.get('.txt')
    if form is None:
        raise DataError(
            f'{path}: for a head of kind {kind!r} a file ending in {" or ".join(known)} is expected, or one of JSON'
        )
    if form == 'json' and start == '{':
        form = _of_object(content, kind)
    columns = _COLUMNS[kind]
    if form == 'squad':
        return Table(path.name, form, ('id', *columns))
    if form in ('conll', 'conllu'):
        return Table(path.name, form, ())
    if form == 'tsv':
        header = columns[0] in content.split('\n', 1)[0].rstrip('\r').split('\t')
        return Table(path.name, form, columns, header=header, optional=() if header else ('text_b',))
    return Table(path.name, form, columns)


def _of_object(content: str, kind: str) -> str:
    """The format of a JSON file that begins with an object: JSON lines, SQuAD's form, or one object of rows."""
    try:
        first = strict_json.loads(content.split('\n', 1)[0], surrogates=True)
    except strict_json.JsonError:
        return 'squad' if kind == 'span' else 'json'
    if 'data' in first and kind == 'span':
        return 'squad'
    return 'jsonl' if _COLUMNS[kind][0] in first else 'json'


def _text(row: Row, column: str) -> str:
    found = text(row, column)
    if not found.strip():
        raise RowError(column, 'an empty text')
    return found


def _pair(row: Row) -> PairExample:
    second = None if row.get('text_b') is None else text(row, 'text_b')
    return PairExample(id_of(row, 'id'), _text(row, 'text_a'), second, None)


def _choice(row: Row) -> ChoiceExample:
    values = row['choices']
    if not isinstance(values, list) or len(values) < 2 or not all(isinstance(v, str) and v.strip() for v in values):
        raise RowError('choices', f'a list of at least two texts is expected, not {values!r}')
    return ChoiceExample(id_of(row, 'id'), _text(row, 'prompt'), tuple(values), None)


def _tag(row: Row) -> TagExample:
    words = row['words']
    if isinstance(words, str):
        words = words.split()
    if not isinstance(words, list) or not words or not all(isinstance(v, str) and v.strip() for v in words):
        raise RowError('words', f'one or more words are expected, not {row["words"]!r}')
    return TagExample(id_of(row, 'id'), tuple(words), None)


def _span(row: Row) -> SpanExample:
    return SpanExample(id_of(row, 'id'), _text(row, 'question'), _text(row, 'context'), ())


def _sentence(row: Row) -> SentenceExample:
    return SentenceExample(id_of(row, 'id'), _text(row, 'text'))


_PARSERS: dict[str, Callable[[Row], Example]] = {
    'pair': _pair,
    'choice': _choice,
    'tag': _tag,
    'span': _span,
    'retrieval': _sentence,
}
