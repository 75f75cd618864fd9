"""Reads model.json, the description of a `ckpt:` directory: the encoder's shape, its heads and their class names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlmr_flax.config import HEAD_STYLES
from xlmr_flax.encoders import DEFAULT, family_named
from xlmr_flax.encoders.config import EncoderConfig, ModelError
from xlmr_flax.encoders.tensors import read_json
from xlmr_flax.kinds import KINDS, HeadSpec
from xlmr_flax.kinds.base import Kind, name_problem
from xlmr_flax.util.errors import quote

_MOST_OUTPUTS = 10_000_000


@dataclasses.dataclass(frozen=True)
class Description:
    """The contents of a model.json. The fields are those of `EncoderSource`."""

    config: EncoderConfig
    heads: Mapping[str, HeadSpec]
    labels: Mapping[str, tuple[str, ...]]
    style: str
    note: str
    max_length: int


def read_description(path: Path) -> Description:
    """Reads a model.json. Raises ModelError, which names the file and the field, for a missing or wrong one."""
    raw = read_json(path)
    try:
        heads = {name: _head(f'heads.{name}', spec) for name, spec in _field(raw, 'heads', dict).items()}
        labels = {name: _labels(name, names, heads) for name, names in _field(raw, 'labels', dict).items()}
        style, max_length = _field(raw, 'style', str), _field(raw, 'max_length', int)
        if style not in HEAD_STYLES:
            raise ModelError(f"field 'style' is {quote(style)}, which is not one of {', '.join(HEAD_STYLES)}")
        if max_length < 0:
            raise ModelError(f"field 'max_length' is {max_length}; a number of tokens is expected")
        return Description(_config(raw, path), heads, labels, style, _field(raw, 'note', str), max_length)
    except ModelError as e:
        message = str(e)
        raise ModelError(message if message.startswith(str(path)) else f'{path}: {message}') from None


def _field(raw: Mapping[str, Any], name: str, kind: type, within: str = '') -> Any:
    where = f'{within}.{name}' if within else name
    if name not in raw:
        raise ModelError(f'field {where!r} is missing')
    value = raw[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        expected = {dict: 'an object', str: 'a text', int: 'an integer', list: 'a list'}[kind]
        raise ModelError(f'field {where!r} is {quote(value)}; {expected} is expected')
    return value


def _config(raw: Mapping[str, Any], path: Path) -> EncoderConfig:
    family, fields = family_named(raw.get('family', DEFAULT), str(path)), _field(raw, 'encoder', dict)
    known = {field.name for field in dataclasses.fields(family.config_class)}
    if unknown := sorted(fields.keys() - known):
        raise ModelError(f'field {f"encoder.{unknown[0]}"!r} is unknown')
    return family.config_class(**fields)


def _head(where: str, spec: Any) -> HeadSpec:
    if not isinstance(spec, dict) or not spec.keys() <= {'kind', 'outputs'}:
        raise ModelError(f'field {where!r} is {quote(spec)}; an object of kind and outputs is expected')
    name, outputs = _field(spec, 'kind', str, where), _field({'outputs': 1} | spec, 'outputs', int, where)
    kind = KINDS.get(name)
    if kind is None or type(kind).make_head is Kind.make_head:
        usable = [known for known, each in KINDS.items() if type(each).make_head is not Kind.make_head]
        raise ModelError(f'field {f"{where}.kind"!r} is {quote(name)}, which is not one of {", ".join(usable)}')
    if not 1 <= outputs <= (_MOST_OUTPUTS if kind.classes else 1):
        expected = f'a number of classes up to {_MOST_OUTPUTS}' if kind.classes else f'a {name} head has 1'
        raise ModelError(f'field {f"{where}.outputs"!r} is {outputs}; {expected}')
    return HeadSpec(name, outputs)


def _labels(name: str, names: Any, heads: Mapping[str, HeadSpec]) -> tuple[str, ...]:
    where = f'labels.{name}'
    labels = _field({name: names}, name, list, 'labels')
    if problem := name_problem(labels):
        raise ModelError(f'field {where!r}: {problem}')
    spec = heads.get(name)
    if labels and spec and KINDS[spec.kind].classes and len(labels) != spec.outputs:
        raise ModelError(f'field {where!r} names {len(labels)} classes; the head has {spec.outputs}')
    return tuple(labels)
