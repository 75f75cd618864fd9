"""Command-line flags for configs: --config=FILE, --config.KEY=VALUE, --help_config and --data_root."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import runpy
import traceback
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from xlmr_flax.config.parsing import parse
from xlmr_flax.config.spec import Config, ConfigError
from xlmr_flax.util.files import absolute

CONFIGS = 'configs'  # the folder whose files an error message suggests if the named file does not exist
_NAMED = 12  # the most files of a folder that a message lists


def define_config_flag(values: flags.FlagValues, text: str = 'Config file: a Python file with get_config().') -> None:
    """Defines --config=FILE, --config.KEY=VALUE and --help_config; `check_arguments` and `load_config` read them."""
    # Unknown keys are allowed here: `parse` rejects them, and it knows keys that the file lacks (recipes.TASK.steps).
    config_flags.DEFINE_config_file(
        'config',
        None,
        text,
        flag_values=values,
        lock_config=False,
        accept_new_attributes=True,
    )
    flags.DEFINE_bool(
        'help_config', False, 'Print every field of a config with its type, default and meaning.', flag_values=values
    )


def define_data_root(values: flags.FlagValues) -> None:
    """Defines --data_root; `load_config` writes it into the config."""
    flags.DEFINE_string(
        'data_root', '', "Root of the data files; default: the config's, else XLMR_DATA_ROOT.", flag_values=values
    )


def check_arguments(arguments: Sequence[str]) -> None:
    """Runs the config file and checks the overrides of a command line. Raises ConfigError with one line.

    This runs before ml_collections parses the flags, because ml_collections reports an error in the file with a whole
    traceback, or only when the config is used.
    """
    for name in config_names(arguments):
        config = _run_file(name)
        for argument in arguments:
            if argument.lstrip('-').startswith('config.'):
                _check_override(config, argument.lstrip('-').split('=')[0].split('.')[1:])


def config_names(arguments: Sequence[str]) -> list[str]:
    """Returns the values of --config on a command line."""
    return [value for name, value in _given(arguments) if name == '--config']


def config_arguments(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments of a command line that define its config and data root, to pass on to another command."""
    return [
        f'{name}={value}'
        for name, value in _given(arguments)
        if name in ('--config', '--data_root') or name.startswith('--config.')
    ]


def data_root_argument(arguments: Sequence[str]) -> str:
    """Returns the data root that a command line gives: --data_root, else --config.data_root; '' = none."""
    given = dict(_given(arguments))  # the last one counts
    return given.get('--data_root') or given.get('--config.data_root', '')


def _given(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the (--name, value) pairs of a command line, from --name=value and --name value (also with one -)."""
    pairs = []
    for word, after in itertools.zip_longest(arguments, arguments[1:], fillvalue=''):
        name, equals, value = word.partition('=')
        if word.startswith('-') and (equals or after):
            pairs.append((f'--{name.lstrip("-")}', value if equals else after))
    return pairs


def _run_file(name: str) -> Mapping[str, Any] | ConfigDict:
    """Runs get_config() of FILE or FILE:ARGUMENT and returns its result. Raises ConfigError."""
    path, _, argument = name.partition(':')
    if not Path(path).is_file():
        raise ConfigError(f'--config={path}: {"a folder" if Path(path).is_dir() else "no such file"}{_files(path)}')
    try:
        get_config = runpy.run_path(path).get('get_config')
        config = get_config(*([argument] if ':' in name else [])) if get_config else None
    except ConfigError:
        raise
    except SyntaxError as e:
        raise ConfigError(f'--config={name}: {e.filename}, line {e.lineno}: {e.msg}') from None
    except Exception as e:
        lines = [f.lineno for f in traceback.extract_tb(e.__traceback__) if f.filename == path]
        where = f'{path}, line {lines[-1]}' if lines else path
        raise ConfigError(f'--config={name}: {where}: {type(e).__name__}: {e}') from None
    if not isinstance(config, (ConfigDict, Mapping)):
        raise ConfigError(f'--config={name}: {path} has no function get_config() that returns a ConfigDict')
    return config


def _files(path: str) -> str:
    """Returns ' (did you mean X?); FOLDER has ...' for a missing file: config files of its folder, closest first."""
    wanted = Path(path)
    folders = [wanted if wanted.is_dir() else wanted.parent, Path(CONFIGS)]
    folder = next((f for f in folders if any(f.glob('*.py'))), None)
    if folder is None:
        return ''
    names = sorted(p.name for p in folder.glob('*.py') if not p.name.startswith('_'))
    names.sort(key=lambda name: -difflib.SequenceMatcher(None, wanted.stem, Path(name).stem).ratio())
    near = difflib.get_close_matches(wanted.stem, [Path(name).stem for name in names], n=1)
    guess = f' (did you mean {folder / near[0]}.py?)' if near else ''
    more = ', ...' if len(names) > _NAMED else ''
    return f'{guess}; {folder} has {", ".join(names[:_NAMED])}{more}'


def _check_override(config: Mapping[str, Any] | ConfigDict, path: Sequence[str]) -> None:
    """Checks that an override names a field, in mappings that the config has. Raises ConfigError."""
    node: Any = config
    kind: Any = Config
    for i, key in enumerate(path):
        above, here = '.'.join(path[:i]), '.'.join(path[: i + 1])
        if dataclasses.is_dataclass(kind):
            fields = typing.get_type_hints(kind)
            if key not in fields:
                raise ConfigError(f'unknown config key {here!r} ({_guess(path[: i + 1], list(fields))})')
            kind = fields[key]
        elif issubclass(typing.get_origin(kind) or kind, Mapping):
            kind = typing.get_args(kind)[1]
        else:
            raise ConfigError(f'unknown config key {".".join(path)!r}: {above} is {node!r}')
        if i + 1 < len(path) and key not in node:
            whole = f'--config.{above}="{{\'{key}\': ...}}"' if above else f'--config.{key}="{{...}}"'
            raise ConfigError(f'{here!r} is not in the config; a new entry must be given completely: {whole}')
        node = node.get(key)


def _guess(path: Sequence[str], names: Sequence[str]) -> str:
    """Suggests a known key for an unknown one: a field of that name elsewhere, else the closest name."""
    *above, key = path
    places: dict[str, list[str]] = {}
    for place in _places(Config):
        if above[:1] == ['recipes'] and place.startswith('recipe.'):
            place = '.'.join([*above[:2], place.removeprefix('recipe.')])
        places.setdefault(place.rpartition('.')[2], []).append(place)
    near = difflib.get_close_matches(key, [*names, *places], n=1)
    if key in places:
        matches = places[key]
    else:
        matches = near if not near or near[0] in names else places[near[0]]
    return f'did you mean {" or ".join(map(repr, matches))}?' if matches else f'known: {", ".join(names)}'


def _places(kind: type, path: str = '') -> Iterator[str]:
    """Yields the dotted names of all fields of a dataclass and of its nested dataclasses, as overrides name them."""
    for name, value in typing.get_type_hints(kind).items():
        yield path + name
        if dataclasses.is_dataclass(value):
            yield from _places(typing.cast(type, value), f'{path}{name}.')


def _keys(node: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yields every key of nested mappings as a path (a tuple of keys)."""
    for key, value in node.items():
        yield (str(key),)
        if isinstance(value, Mapping):
            yield from ((str(key), *path) for path in _keys(value))


def load_config(values: flags.FlagValues) -> Config:
    """Parses the config of --config with its overrides and --data_root. Raises ConfigError."""
    if values.config is None:
        raise ConfigError('--config=FILE is missing')
    raw = values.config.to_dict() if isinstance(values.config, ConfigDict) else values.config
    try:
        config = parse(raw)
    except ConfigError:
        for path in _keys(raw):  # for an unknown key, raise an error that suggests a name from the whole tree
            _check_override(raw, path)
        raise
    data_root = values.data_root if 'data_root' in values else ''
    return dataclasses.replace(config, data_root=absolute(data_root or config.data_root))
