"""Parsers for rows of common forms, so that a dataset of a known form needs no parser of its own.

A text is one column or several columns joined by a blank; a column may contain a string or a list of strings.
`{language}` in the name of a column is the language of the row (myXNLI has two languages in one file).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from xlmr_flax.tasks.base import ChoiceExample, Example, PairExample, RowError, TagExample, Task
from xlmr_flax.util.errors import closest

Row = Mapping[str, Any]
Parse = Callable[[Row, Task, str], Example | None]
Columns = str | tuple[str, ...]


def pair(
    first: Columns,
    second: Columns,
    label: str = 'label',
    names: Mapping[str, str] | None = None,
    ident: str = '',
    drop: tuple[str, ...] = (),
) -> Parse:
    """Makes a parser for rows of two texts with a class.

    names: label in the file -> label of the task (default: the same). drop: labels whose rows are dropped. A row
    without the label column has no label.
    """

    def parse(row: Row, task: Task, language: str) -> PairExample | None:
        value = row.get(label)
        if value in drop:
            return None
        index = None if value is None else task.label_index(_named(value, label, names), label)
        return PairExample(id_of(row, ident), text(row, first, language), text(row, second, language), index)

    return parse


def choice(
    prompt: Columns, choices: Columns, label: str = 'label', names: Mapping[str, int] | None = None, ident: str = ''
) -> Parse:
    """Makes a parser for rows of a prompt with choices. choices: one column with the list of choices, or a tuple of
    columns with one choice each.

    names: label in the file -> index of the choice (default: the label is the index from 0). A row without the label
    column, or with null or an empty string in it, has no label.
    """

    def parse(row: Row, task: Task, language: str) -> ChoiceExample:
        if isinstance(choices, str):
            values = row[choices]
            if not isinstance(values, list):
                raise RowError(choices, f'a list is expected, not {values!r}')
            texts = tuple(_string(value, choices) for value in values)
        else:
            texts = tuple(text(row, column, language) for column in choices)
        return choice_example(task, id_of(row, ident), text(row, prompt, language), texts, row.get(label), label, names)

    return parse


def choice_example(
    task: Task,
    ident: str,
    prompt: str,
    choices: tuple[str, ...],
    label: Any,
    column: str,
    names: Mapping[str, int] | None = None,
) -> ChoiceExample:
    """Builds a ChoiceExample from a raw label. Raises RowError for an invalid label or number of choices."""
    if len(choices) != len(task.labels):
        raise RowError(column, f'{len(choices)} choices, expected {len(task.labels)}')
    return ChoiceExample(ident, prompt, choices, _choice_index(label, column, len(choices), names))


def tags(row: Row, task: Task, language: str) -> TagExample:
    """Parses a sentence {words, tags?, lines?} of a tagging file. An error for an unknown tag names the tag's line."""
    words = tuple(row['words'])
    if 'tags' not in row:
        return TagExample('', words, None)
    lines = row.get('lines') or [None] * len(words)
    return TagExample(
        '', words, tuple(task.label_index(tag, 'tags', line) for tag, line in zip(row['tags'], lines, strict=True))
    )


def text(row: Row, columns: Columns, language: str = '') -> str:
    """The text of one or several columns. Raises RowError for a missing column or a value that is not a string."""
    names = (columns,) if isinstance(columns, str) else columns
    parts: list[str] = []
    for name in names:
        name = name.replace('{language}', language)
        if name not in row:
            raise RowError(name, f'no such column{closest(name, [key for key in row if not key.startswith("#")])}')
        value = row[name]
        parts += [_string(part, name) for part in value] if isinstance(value, list) else [_string(value, name)]
    return parts[0] if len(parts) == 1 else ' '.join(part.strip() for part in parts if part.strip())


def id_of(row: Row, column: str) -> str:
    """The id of a row as a string; '' if `column` is '' or the row does not have it. Raises RowError."""
    if not column or column not in row:
        return ''
    value = row[column]
    if isinstance(value, bool) or not isinstance(value, str | int) or value == '':
        raise RowError(column, f'an id is expected, not {value!r}')
    return str(value)


def _string(value: Any, column: str) -> str:
    if not isinstance(value, str):
        raise RowError(column, f'a string is expected, not {value!r}')
    return value


def _named(value: Any, column: str, names: Mapping[str, str] | None) -> str:
    value = _string(value, column)
    if names is None:
        return value
    if value not in names:
        raise RowError(column, f'unknown label {value!r}{closest(value, names)}')
    return names[value]


def _choice_index(value: Any, column: str, count: int, names: Mapping[str, int] | None) -> int | None:
    if value is None or value == '':
        return None
    if names is not None:
        if str(value) not in names:
            raise RowError(column, f'unknown label {value!r}{closest(str(value), names)}')
        return names[str(value)]
    number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < count:
        raise RowError(column, f'{value!r} is not the index of one of {count} choices')
    return number
