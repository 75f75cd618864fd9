"""Converts plain mappings to `Config` with type checks, and back; computes digests of both."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xlmr_flax.config.checks import check
from xlmr_flax.config.spec import Config, ConfigError, Recipe
from xlmr_flax.util.errors import closest
from xlmr_flax.util.secrets import has_secret, hide


def to_dict(value: Any) -> Any:
    """Converts a dataclass to nested plain dicts, tuples and scalars, which JSON can hold."""
    if dataclasses.is_dataclass(value):
        return {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {k: to_dict(v) for k, v in value.items()}
    return value


def defaults() -> dict[str, Any]:
    """Returns the default `Config` as nested dicts; a config file starts from it."""
    return to_dict(Config())


def parse(raw: Mapping[str, Any]) -> Config:
    """Parses a nested mapping. Raises ConfigError, which names the field and, for an unknown key, the closest one.

    An entry of `recipes` changes `recipe`: a field that the entry leaves out has the value of `recipe`.
    """
    raw = dict(raw)
    config = _build(Config, {k: v for k, v in raw.items() if k != 'recipes'}, '', None)
    overrides = raw.get('recipes', {})
    if not isinstance(overrides, Mapping):
        raise ConfigError(f'recipes: expected a mapping of task names to recipes, got {overrides!r}')
    recipes = {name: _build(Recipe, value, f'recipes.{name}', config.recipe) for name, value in overrides.items()}
    config = dataclasses.replace(config, recipes=recipes)
    check(config)
    return config


def parse_saved(raw: Mapping[str, Any]) -> Config:
    """Parses a config that was saved in a workdir. Also reads those of earlier versions, which had
    `encoder.remat` as a bool and `encoder.kept`."""
    encoder = raw.get('encoder')
    if isinstance(encoder, Mapping) and isinstance(encoder.get('remat'), bool):
        names = {'all': 'none', 'products': 'dots', 'layers': 'full'}
        remat = 'full' if encoder['remat'] else names.get(str(encoder.get('kept')), 'auto')
        raw = {**raw, 'encoder': {k: v for k, v in encoder.items() if k != 'kept'} | {'remat': remat}}
    return parse(raw)


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Context that adds the file of a saved config to a ConfigError."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f'{path}: {error}') from None


# Fields that were added after runs had been made, with the value that those runs had.
_ADDED = {'layer_decay': 1.0}


def digest(value: Any) -> str:
    """Returns the first 12 hex digits of the sha256 of a value's canonical JSON.

    A field of `_ADDED` with that value is left out, so that the runs of earlier versions keep their ids.
    """
    return hashlib.sha256(json.dumps(_as_before(to_dict(value)), sort_keys=True).encode()).hexdigest()[:12]


def _as_before(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _as_before(v) for k, v in value.items() if k not in _ADDED or v != _ADDED[k]}
    return [_as_before(v) for v in value] if isinstance(value, (list, tuple)) else value


def _check_renamed(where: str, value: Any) -> None:
    """Raises ConfigError for a key or value of an earlier version; the message names the new one."""
    if where == 'encoder.kept':
        raise ConfigError(f"{where} is now encoder.remat ('all': 'none', 'products': 'dots', 'layers': 'full')")
    if where == 'encoder.remat' and isinstance(value, bool):
        new = 'full' if value else 'auto'
        raise ConfigError(f'{where} is now one of auto, none, dots, full; {value} means {new!r}')


def _build(cls: type, raw: Any, path: str, base: Any) -> Any:
    if not isinstance(raw, Mapping):
        raise ConfigError(f'{path or "config"}: expected a mapping, got {raw!r}')
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    values: dict[str, Any] = {}
    for key, value in raw.items():
        where = f'{path}.{key}' if path else str(key)
        _check_renamed(where, value)
        if key not in hints:
            raise ConfigError(f'unknown config key {where!r}{closest(str(key), names)}')
        current = getattr(base, key) if base is not None else None
        values[key] = _convert(hints[key], value, where, current)
    return dataclasses.replace(base, **values) if base is not None else cls(**values)


def _convert(kind: Any, value: Any, path: str, base: Any) -> Any:
    if dataclasses.is_dataclass(kind):
        return _build(typing.cast(type, kind), value, path, base)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, (tuple, list)):
            raise ConfigError(f'{path}: expected a tuple of {args[0].__name__}, got {value!r}')
        return tuple(_convert(args[0], v, f'{path}[{i}]', None) for i, v in enumerate(value))
    if origin is not None and not isinstance(origin, types.UnionType) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f'{path}: expected a mapping, got {value!r}')
        return {str(k): _convert(args[1], v, f'{path}.{k}', None) for k, v in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f'{path}: expected {kind.__name__}, got {value!r} ({type(value).__name__})')
    if isinstance(value, str) and has_secret(value):
        raise ConfigError(
            f'{path}: {hide(value)!r} holds an access token or a password, and configs are kept in workdirs '
            'and reports; give it by the environment (HF_TOKEN, or what the store of the address reads)'
        )
    return value
