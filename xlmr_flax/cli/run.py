"""usage: xlmr-flax run --config=FILE --workdir=DIR [--data_root=DIR] [--config.KEY=VALUE ...]

Trains and evaluates the runs of the config's plan that DIR does not have yet, then writes DIR/results.jsonl,
DIR/metrics.jsonl, DIR/predictions/ and DIR/report/index.html. The same command started again finishes what is missing
and repeats nothing. A config file may take an argument: --config=FILE:ARGUMENT. --config.KEY=VALUE overrides one field.

Several processes, on one machine or on several that all see DIR, can share a plan: the same command with --shard=1/4 to
--shard=4/4. Each process claims a run before it starts it, helps the others when its own part is done, and ends when
the plan is finished. --devices_a_run=1 starts such processes on one host, one for each chip or GPU; with --shard they
divide that part of the plan. A plan of many small runs finishes sooner this way than with all devices on each run
(xlmr-flax estimate --one_run_a_chip compares).
Several hosts can compute each run together on one mesh: the same command on each, with --coordinator=HOST:PORT (of the
first) --num_processes=N --process_id=0 to N-1. Under srun and on TPU slices these flags are not needed. All hosts must
see DIR; the first one writes.
--profile traces a few training steps for xprof and TensorBoard: DIR/profile/RUN.
DIR may be an address on an object store, gs://BUCKET/PATH (extra gcs), for a single process. It works in a local copy,
which is uploaded every half minute and at the end.
A run that fails is reported and recorded in DIR/failed/; the others continue, and the exit code is 1.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from xlmr_flax.cli import processes
from xlmr_flax.cli.device_processes import AUTO, FLAG, devices_per_process, host_devices, run_processes
from xlmr_flax.config.flag import config_arguments, define_config_flag, define_data_root, load_config
from xlmr_flax.util.secrets import command_line

if TYPE_CHECKING:
    from xlmr_flax.config import Config


def define_flags(values: flags.FlagValues) -> None:
    processes.define_flags(values)
    define_config_flag(values)
    define_data_root(values)
    flags.DEFINE_string('workdir', None, 'Folder that holds everything the run writes.', flag_values=values)
    flags.DEFINE_bool(
        'dry_run', False, 'Print the plan with its estimated cost; write and train nothing.', flag_values=values
    )
    flags.DEFINE_string('shard', '', 'NUMBER/COUNT, from 1: one of several processes of a plan.', flag_values=values)
    flags.DEFINE_float(
        'claim_timeout',
        900.0,
        'Seconds without a heartbeat after which the run of a process on another machine is taken over. A process of '
        'this machine that has ended is noticed at once.',
        flag_values=values,
    )
    _define_profile(values)
    flags.DEFINE_integer(
        FLAG,
        0,
        'Devices per process: with 1, this command starts one process for each device of the host, and they share the '
        'plan. 0 = one process with all devices; -1 = one device each if the plan has at least two runs per device.',
        flag_values=values,
        lower_bound=AUTO,
    )
    flags.DEFINE_bool('retry_failed', False, 'Repeat the runs that failed in an earlier start.', flag_values=values)


def _define_profile(values: flags.FlagValues) -> None:
    """--profile, with or without a value."""
    flags.DEFINE(
        flags.ArgumentParser[str](),
        'profile',
        '',
        'Trace training steps 10 to 14 of the first training (fewer where it is short) with jax.profiler; '
        '--profile=FIRST:STOP: steps FIRST to STOP - 1, counted from the start of the training. The trace is '
        'written to WORKDIR/profile/RUN, in the layout of xprof and TensorBoard.',
        flag_values=values,
        boolean=True,
    )


def run(values: flags.FlagValues) -> int:
    from xlmr_flax.cli.main import UsageError, versions

    if not values.workdir:
        raise UsageError('--workdir=DIR is missing')
    config = load_config(values)
    if values.devices_a_run and not values.dry_run and (code := _in_processes(values, config)) is not None:
        return code
    from xlmr_flax.analysis.study_report import write_run_report
    from xlmr_flax.experiment.runner import PlanFailed, Runner
    from xlmr_flax.experiment.workdir.object_store import opened
    from xlmr_flax.experiment.workdir.scheduling import Share, parse_shard
    from xlmr_flax.parallel.distributed import is_leader, on_leader, process_count
    from xlmr_flax.train.diagnostics.profile import Profiler, Window
    from xlmr_flax.util.console import say
    from xlmr_flax.util.stopping import check

    window = Window.parse(values.profile)
    command = command_line('xlmr-flax', sys.argv[1:])
    share = Share(*parse_shard(values.shard), values.claim_timeout, values.retry_failed)
    with (
        processes.together(values, 'run'),
        opened(values.workdir, shared=process_count() > 1 or share.count > 1, look_only=values.dry_run) as workdir,
    ):
        with refusals(config, workdir, values.dry_run):
            check()
            runner = Runner.open(config, workdir, command, share, look_only=values.dry_run)
            if values.dry_run:
                from xlmr_flax.experiment.dry_run import describe

                if is_leader():
                    print(describe(runner))
                return 0
        say(runner.setting.defaults.line())
        profiler = Profiler(window, runner.workdir.path / 'profile', say) if window else None
        if profiler:
            runner.setting = dataclasses.replace(runner.setting, profiler=profiler)
        failed: PlanFailed | None = None
        try:
            runner.run()
        except PlanFailed as e:
            failed = e

        def report() -> None:
            if runner.workdir.results_path.read_text(encoding='utf-8').strip():
                print(write_run_report(runner, versions()))
            elif not failed:
                print(f'no language has labels: nothing is scored; predictions: {runner.workdir.path / "predictions"}')

        check('stopped before the report; all results are saved')
        on_leader('report', report)
        if profiler and not profiler.taken:
            say('profile: nothing was traced, as no training in this process reached these steps')
    if failed and is_leader():
        print(*(f'failed: {line}' for line in failed.failures), f'error: {failed}', sep='\n', file=sys.stderr)
    return int(failed is not None)


def _in_processes(values: flags.FlagValues, config: Config) -> int | None:
    """Runs the plan in one process for each device; returns their exit code, None if this process is to run it."""
    from xlmr_flax.cli.main import UsageError
    from xlmr_flax.experiment.plan.runs import make_plan
    from xlmr_flax.experiment.workdir.scheduling import parse_shard
    from xlmr_flax.util.console import say

    if values.num_processes or '://' in values.workdir:
        if values.devices_a_run == AUTO:
            return None
        raise UsageError(f'--{FLAG}: not with --num_processes or a workdir on an object store')
    number, shards = parse_shard(values.shard)
    platform, devices = host_devices()
    try:
        # Assumes that every shard has as many devices as this host: -1 counts the runs of one shard.
        each = devices_per_process(values.devices_a_run, len(make_plan(config)) // shards, platform, devices)
    except ValueError as e:
        raise UsageError(f'--{FLAG}: {e}') from None
    if not each:
        return None
    say(f'{devices // each} processes with {each} of {devices} devices each share the plan')
    return run_processes(sys.argv[1:], platform, devices, each, (number, shards))


@contextlib.contextmanager
def refusals(config: Config, workdir: Path, dry_run: bool) -> Iterator[None]:
    """A context for the checks before training. If data or weights are missing, raises an error of the same type that
    also names the command which lists everything missing. Removes folders that this call created and left empty.
    """
    from xlmr_flax.data.readers.paths import MissingFile
    from xlmr_flax.data.readers.text import DataError
    from xlmr_flax.encoders.config import ModelError
    from xlmr_flax.models.hf import MissingWeights
    from xlmr_flax.util.stopping import Stopped

    new = [folder for folder in (workdir, *workdir.parents) if not folder.exists()]
    try:
        yield
    except BaseException as e:
        for folder in new:
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()
        if isinstance(e, Stopped):
            raise Stopped('stopped before the first run began') from None
        if isinstance(e, MissingFile):
            raise DataError(with_command(e)) from None
        if not isinstance(e, ModelError):
            raise
        size = next((size for size in ('tiny', 'small', 'base', 'large') if size in config.encoder.source.lower()), '')
        plan = ''
        if dry_run and isinstance(e, MissingWeights):
            plan = f'; for the plan alone: --config.encoder.source=random:{size or "SIZE (tiny, small, base, large)"}'
        raise ModelError(f'{e}{plan}{_missing_data(config)}') from None


def with_command(error: Exception) -> str:
    """A message about a missing file, with the commands that list and fetch all that the config of this command line
    lacks."""
    arguments = config_arguments(sys.argv)
    check, fetch = (shlex.join(['xlmr-flax', *words, *arguments]) for words in (('prepare', '--check'), ('download',)))
    return f'{error} (everything that is missing: {check}; to fetch it: {fetch})'


def _missing_data(config: Config) -> str:
    """'; and ...' where the data of a config are not there either."""
    from xlmr_flax.config import ConfigError
    from xlmr_flax.data.readers.paths import MissingFile
    from xlmr_flax.data.readers.text import DataError
    from xlmr_flax.experiment.data_check.tokenise import encoded_reads
    from xlmr_flax.tasks.base import TaskError

    try:
        for read in encoded_reads(config):
            read.split.files()
    except MissingFile as e:
        return f'; and {with_command(e)}'
    except (DataError, TaskError, ConfigError) as e:
        return f'; and {e}'
    return ''
