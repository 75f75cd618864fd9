"""Multi-process commands: the flags and the context for commands that one process per host executes together."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator

from absl import flags


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        'coordinator',
        '',
        'HOST:PORT of process 0, if several processes execute this command together; with --num_processes and '
        '--process_id. Detected under SLURM (srun) and on TPU slices; "none" = a single process.',
        flag_values=values,
    )
    flags.DEFINE_integer('num_processes', 0, 'With --coordinator: the number of processes.', flag_values=values)
    flags.DEFINE_integer(
        'process_id', -1, 'With --coordinator: the number of this process, from 0.', flag_values=values, lower_bound=-1
    )


@contextlib.contextmanager
def together(values: flags.FlagValues, command: str) -> Iterator[None]:
    """Context in which all processes of a job run a command and end together. An exception in one process also ends the
    others with its exit code. Enter it before any JAX computation. Raises DistributedError.

    command: its name, for messages.
    """
    from xlmr_flax.cli.main import KNOWN_ERRORS, restart_note
    from xlmr_flax.parallel import distributed
    from xlmr_flax.util.stopping import Stopped, renew

    distributed.start(values.coordinator, values.num_processes, values.process_id)
    renew()  # JAX may have replaced our signal handlers when it started
    try:
        yield
        distributed.barrier('end')
    except BaseException as error:
        if distributed.process_count() == 1:
            raise
        if isinstance(error, Stopped):
            code, text = error.code, f'{error}. {restart_note(command)}'
        elif isinstance(error, distributed.ProcessLost):
            code, text = distributed.LOST, f'error: {error}. {restart_note(command)}'
        elif isinstance(error, KNOWN_ERRORS):
            code, text = 1, f'error: {error}'
        else:
            code, text = 1, f'{type(error).__name__}: {error}'
            traceback.print_exception(error)
        print(text, file=sys.stderr)
        distributed.leave(code, text.removeprefix('error: '))
        raise  # not reached
