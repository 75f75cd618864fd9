"""usage: xlmr-flax run --config=FILE --workdir=DIR [--config.KEY=VALUE ...]

Trains and evaluates what the config's plan asks for and DIR lacks, then writes DIR/results.jsonl, DIR/metrics.jsonl,
DIR/predictions/ and DIR/report/index.html. Started again, it finishes what is missing and repeats nothing.
A config file may take an argument: --config=FILE:ARGUMENT. --config.KEY=VALUE overrides one field.

Several processes, on one machine or on many that see DIR, share a plan: the same command with --shard=1/4 to
--shard=4/4. Each claims a run before it does it, helps the others when its own part is done, and ends when the plan is.
Several hosts do one run together on one mesh: the same command on each, with --coordinator=HOST:PORT (of the first)
--num_processes=N --process_id=0 to N-1; under srun and on TPU slices without these flags. All see one DIR; the first
writes.
--profile traces a few training steps for xprof and TensorBoard: DIR/profile/RUN.
DIR may be an address on an object store, gs://BUCKET/PATH (extra gcs), for a process that is alone: the work is done in
a copy on this machine, which is uploaded every half minute and at the end.
A run that fails is reported and recorded in DIR/failed/; the others go on, and the exit code is 1.
"""

from __future__ import annotations

import dataclasses
import itertools
import runpy
import shlex
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from xlmr_flax.cli import processes


def define_config_flag(values: flags.FlagValues) -> None:
    """--config=FILE with --config.KEY=VALUE, for `check_arguments` and `load_config`."""
    # Unknown keys are let in here: `parse` refuses them, and knows more names than the file has (recipes.TASK.steps).
    config_flags.DEFINE_config_file(
        'config',
        None,
        'Config file: a Python file with get_config().',
        flag_values=values,
        lock_config=False,
        accept_new_attributes=True,
    )


def define_flags(values: flags.FlagValues) -> None:
    processes.define_flags(values)
    define_config_flag(values)
    flags.DEFINE_string('workdir', None, 'Folder that holds everything the run writes.', flag_values=values)
    flags.DEFINE_bool(
        'dry_run', False, 'Print the plan with its estimated cost; write and train nothing.', flag_values=values
    )
    flags.DEFINE_string('shard', '', 'NUMBER/COUNT, from 1: one of several processes of a plan.', flag_values=values)
    flags.DEFINE_float(
        'claim_timeout',
        900.0,
        'Seconds without a sign of life after which the run of a process elsewhere is taken over. A process of this '
        'machine that has ended is noticed at once.',
        flag_values=values,
    )
    _define_profile(values)
    flags.DEFINE_bool('retry_failed', False, 'Try the runs again that failed in an earlier start.', flag_values=values)


def _define_profile(values: flags.FlagValues) -> None:
    """--profile, with or without a value."""
    flags.DEFINE(
        flags.ArgumentParser[str](),
        'profile',
        '',
        'Trace training steps 10 to 14 of the first training (fewer where it is short) with jax.profiler; '
        '--profile=FIRST:STOP: steps FIRST to STOP - 1, counted from 0 where the training begins. The trace lies in '
        'WORKDIR/profile/RUN, in the layout that xprof and TensorBoard open.',
        flag_values=values,
        boolean=True,
    )


def check_arguments(arguments: Sequence[str]) -> None:
    """Runs the config file once by itself, so that what is wrong with it can be said in one line: behind the flag,
    ml_collections gives whole tracebacks or waits until the config is used. Raises ConfigError."""
    from xlmr_flax.config import ConfigError

    joined = [a.split('=', 1)[1] for a in arguments if a.startswith(('--config=', '-config='))]
    apart = [b for a, b in itertools.pairwise(arguments) if a in ('--config', '-config')]
    for name in joined + apart:
        path, _, argument = name.partition(':')
        if not Path(path).is_file():
            raise ConfigError(f'--config={name}: {path} is no file')
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
        for argument in arguments:
            if argument.lstrip('-').startswith('config.'):
                _check_parents(config, argument.lstrip('-').split('=')[0].split('.')[1:])


def _check_parents(config: Mapping[str, Any] | ConfigDict, path: Sequence[str]) -> None:
    """An override's key must lie in mappings that the config has. Raises ConfigError."""
    from xlmr_flax.config import ConfigError
    from xlmr_flax.tasks.base import closest

    node: Any = config
    for i, key in enumerate(path[:-1]):
        if key not in node:
            hint = f'; a new entry is given whole: --config.{".".join(path[:i])}="{{\'{key}\': ...}}"' if i else ''
            raise ConfigError(f'unknown config key {".".join(path[: i + 1])!r}{closest(key, node)}{hint}')
        node = node[key]
        if not isinstance(node, (ConfigDict, Mapping)):
            raise ConfigError(f'unknown config key {".".join(path)!r}: {".".join(path[: i + 1])} is {node!r}')


def load_config(values: flags.FlagValues) -> Any:
    """The parsed config of --config with its overrides. Raises UsageError, ConfigError."""
    from xlmr_flax.cli.main import UsageError
    from xlmr_flax.config import parse

    if values.config is None:
        raise UsageError('--config=FILE is missing')
    raw = values.config
    return parse(raw.to_dict() if isinstance(raw, ConfigDict) else raw)


def run(values: flags.FlagValues) -> int:
    from xlmr_flax.cli.main import UsageError, versions

    if not values.workdir:
        raise UsageError('--workdir=DIR is missing')
    config = load_config(values)
    from xlmr_flax.experiment.mirror import opened
    from xlmr_flax.experiment.reporting import write_run_report
    from xlmr_flax.experiment.runner import PlanFailed, Runner
    from xlmr_flax.experiment.sharing import Share, parse_shard
    from xlmr_flax.parallel.distributed import count, is_leader, on_leader
    from xlmr_flax.report.progress import say
    from xlmr_flax.train.profile import Profiler, Window

    window = Window.parse(values.profile)
    command = f'xlmr-flax {shlex.join(sys.argv[1:])}'
    share = Share(*parse_shard(values.shard), values.claim_timeout, values.retry_failed)
    with (
        processes.together(values),
        opened(values.workdir, shared=count() > 1 or share.count > 1, look_only=values.dry_run) as workdir,
    ):
        runner = Runner(config, workdir, command, share, look_only=values.dry_run)
        if values.dry_run:
            from xlmr_flax.experiment.dry_run import describe

            if is_leader():
                print(describe(runner))
            return 0
        profiler = Profiler(window, runner.workdir.path / 'profile', say) if window else None
        if profiler:
            runner.setting = dataclasses.replace(runner.setting, profiler=profiler)
        failed: PlanFailed | None = None
        try:
            runner.run()
        except PlanFailed as e:
            failed = e

        def report() -> None:
            if runner.workdir.results_path.read_text(encoding='utf-8').strip() or not failed:
                print(write_run_report(runner, versions()))

        on_leader('report', report)
        if profiler and not profiler.taken:
            say('profile: nothing was traced, as no training of this start had so many steps')
    if failed and is_leader():
        print(*(f'failed: {line}' for line in failed.failures), f'error: {failed}', sep='\n', file=sys.stderr)
    return int(failed is not None)
