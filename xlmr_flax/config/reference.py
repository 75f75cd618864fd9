"""Generates the config reference: every field of config/spec.py with its type, default and documentation."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import sys
import textwrap
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from xlmr_flax.config.spec import Config

NAME = 'NAME'  # placeholder for the key of a mapping


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of the configuration. path: its dotted name in overrides (`recipe.steps`). default: '' for a field that
    has fields of its own. doc: one line of Markdown."""

    path: str
    type: str
    default: str
    doc: str

    @property
    def section(self) -> str:
        """The path of the dataclass that the field belongs to; '' = Config."""
        return self.path.rpartition('.')[0]


def field_docs(cls: type) -> dict[str, str]:
    """Reads the documentation strings below the fields of a dataclass: {field: string in one line}.

    Fields without such a string are absent.
    """
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(node, ast.ClassDef)
    docs: dict[str, str] = {}
    for field, below in itertools.pairwise(node.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            docs[field.target.id] = ' '.join(ast.literal_eval(below.value).split())
    return docs


def fields(cls: type = Config, path: str = '', seen: frozenset[type] = frozenset()) -> Iterator[Field]:
    """Yields every field of a dataclass: first its own, then those of its nested dataclasses.

    A dataclass that occurs again is not repeated: `recipes` has the fields of `recipe`.
    """
    docs, hints, inner = field_docs(cls), typing.get_type_hints(cls), []
    for field in dataclasses.fields(cls):
        below, where = _dataclass_in(hints[field.name], f'{path}{field.name}')
        if below is not None:
            inner.append((below, where))
        is_group = dataclasses.is_dataclass(hints[field.name])
        yield Field(path + field.name, str(field.type), '' if is_group else _default(field), docs.get(field.name, ''))
    for below, where in inner:
        if below not in seen:
            seen |= {below}
            yield from fields(below, f'{where}.', seen)


def _dataclass_in(kind: Any, path: str) -> tuple[type | None, str]:
    """Returns (the dataclass of a field, or of the values of a mapping field; the path of its fields)."""
    if dataclasses.is_dataclass(kind):
        return typing.cast(type, kind), path
    if issubclass(typing.get_origin(kind) or object, Mapping) and dataclasses.is_dataclass(typing.get_args(kind)[1]):
        return typing.get_args(kind)[1], f'{path}.{NAME}'
    return None, path


def _default(field: dataclasses.Field[Any]) -> str:
    return repr(field.default if field.default is not dataclasses.MISSING else {})


def _sections() -> Iterator[tuple[str, type, list[Field]]]:
    """Yields (path, dataclass, its own fields) for every dataclass of the configuration."""
    classes: dict[str, type] = {'': Config}
    for section, group in itertools.groupby(fields(), key=lambda field: field.section):
        own = list(group)
        hints = typing.get_type_hints(classes[section])
        for field in own:
            below, where = _dataclass_in(hints[field.path.rpartition('.')[2]], field.path)
            if below is not None:
                classes[where] = below
        yield section, classes[section], own


def as_text() -> str:
    """Formats the reference for a terminal."""
    lines = [f'Fields of a config (--config.KEY=VALUE overrides one); {NAME} stands for any name.']
    for section, cls, own in _sections():
        lines += ['', f'{section or "config"}: {inspect.getdoc(cls)}'.replace('\n', ' '), '']
        for field in own:
            lines.append(f'  {field.path}: {field.type}' + (f' = {field.default}' if field.default else ''))
            lines += textwrap.wrap(field.doc, 110, initial_indent=' ' * 6, subsequent_indent=' ' * 6)
    return '\n'.join(lines)


def as_markdown() -> str:
    """Formats the reference as Markdown, the content of docs/config.md."""
    lines = [
        '# Config reference',
        '',
        'This page is generated from `xlmr_flax/config/spec.py`; `xlmr-flax run --help_config` prints the same. A',
        'config is a Python file whose `get_config()` returns these fields; `--config.KEY=VALUE` overrides one.',
        f'`{NAME}` stands for any name.',
    ]
    for section, cls, own in _sections():
        lines += ['', f'## `{section or "config"}`', '', *(inspect.getdoc(cls) or '').splitlines(), '']
        lines += ['| field | type | default | meaning |', '| --- | --- | --- | --- |']
        for field in own:
            cells = (f'`{field.path}`', f'`{field.type}`', f'`{field.default}`' if field.default else '', field.doc)
            lines.append(f'| {" | ".join(cell.replace("|", chr(92) + "|") for cell in cells)} |')
    return '\n'.join(lines) + '\n'


if __name__ == '__main__':
    sys.stdout.write(as_markdown())
