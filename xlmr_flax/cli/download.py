"""usage: xlmr-flax download --tasks=xnli,panx [--languages=de,sw] [--splits=dev,test] --data_root=DATA
       xlmr-flax download --config=FILE --data_root=DATA
       xlmr-flax download ... --dry_run | --list_urls

Downloads the published files of tasks (--tasks=all: of every task) or of everything that a config reads. It verifies
their checksums, unpacks and converts them into the files that the tasks read, and compares the row counts with the
official numbers. A second call continues where the first one stopped. DATA/DOWNLOADS.tsv records each file with its
checksum and its URL.

--dry_run lists each published file with its size, its checksum and whether it exists, and the disk space. --list_urls
prints the URLs for wget or aria2 on another machine; --archives=DIR uses the files that they have fetched, by name and
checksum. --mirror=BASE (or XLMR_MIRROR) fetches BASE/HOST/PATH instead of https://HOST/PATH; BASE may be file:///DIR.
Some licences do not allow commercial use, are not stated, or have conditions. The command asks about them once per data
root; --accept_licence=qqp,reclor (or all) accepts them. DATA/LICENCES.tsv records the answers.
--source=hub fetches MNLI, QQP, SNLI, XNLI and CommonsenseQA from the Hugging Face hub (extra `hub`: pyarrow).
Existing files that no download has made are kept; --replace moves them aside (NAME.replaced).

Exit codes. 0: everything exists. 1: something failed. 3: a file is missing because you must get it manually, or because
its licence was not accepted.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from xlmr_flax.config.flag import define_config_flag, define_data_root, load_config

if TYPE_CHECKING:
    from xlmr_flax.data.split import Split
    from xlmr_flax.download.facts import Source
    from xlmr_flax.download.fetch import Transport
    from xlmr_flax.download.job import Outcome
    from xlmr_flax.download.plan import Plan

MISSING = 3


def define_flags(values: flags.FlagValues) -> None:
    define_config_flag(values)
    define_data_root(values)
    flags.DEFINE_list('tasks', [], "Task names; 'all' for every task.", flag_values=values)
    flags.DEFINE_list('splits', [], 'Only these splits; translated ones only when named.', flag_values=values)
    flags.DEFINE_list('languages', [], 'Only these languages; default: all of each task.', flag_values=values)
    flags.DEFINE_bool(
        'dry_run', False, 'List what is there and what would be fetched; fetch nothing.', flag_values=values
    )
    flags.DEFINE_bool('list_urls', False, 'Print the URLs of what would be fetched.', flag_values=values)
    flags.DEFINE_string('archives', '', 'Folder with published files that were fetched elsewhere.', flag_values=values)
    flags.DEFINE_string('mirror', '', 'Base URL of a mirror; default: XLMR_MIRROR.', flag_values=values)
    flags.DEFINE_enum(
        'source', '', ['', 'hub'], 'hub: from the Hugging Face hub, where it has a copy.', flag_values=values
    )
    flags.DEFINE_list('accept_licence', [], 'Datasets whose licence is accepted, or all.', flag_values=values)
    flags.DEFINE_list('accept_changed', [], 'Datasets whose files are accepted with any checksum.', flag_values=values)
    flags.DEFINE_bool(
        'replace', False, 'Rename files of unknown origin and fetch the published ones.', flag_values=values
    )
    flags.DEFINE_string('reclor_password', '', 'Password of the archive of ReClor.', flag_values=values)
    flags.DEFINE_float('timeout', 60.0, 'Seconds without data after which a request is repeated.', flag_values=values)
    flags.DEFINE_bool('count', True, 'Count the rows at the end.', flag_values=values)


def run(values: flags.FlagValues) -> int:
    from xlmr_flax.download.job import Job, check_room, fetch_all, locked
    from xlmr_flax.download.plan import make_plan
    from xlmr_flax.download.records import Records

    transport = _transport(values)
    root, splits = _asked(values)
    records = Records(root)
    from_hub = values.source == 'hub'
    plan = make_plan(splits, root, records, values.replace, hub=from_hub)
    if values.list_urls:
        print('\n'.join(source.urls[0] for source in plan.to_fetch()))
        for line in _by_hand(plan, root):
            print(line, file=sys.stderr)
        return 0
    print(_listing(plan, root, each_file=values.dry_run))
    if values.dry_run:
        return MISSING if plan.manual or plan.unknown else 0
    with locked(root) if plan.to_fetch() else contextlib.nullcontext():  # a whole data root may be read-only
        declined = _ask_licences(plan, root, values.accept_licence)
        open_sources = [source for source in plan.to_fetch() if source.group not in declined]
        check_room(open_sources, root)
        job = Job(root, records, transport, values.replace, values.reclor_password)
        plan = fetch_all(
            lambda failed: make_plan(splits, root, records, values.replace, failed, from_hub), job, declined
        )
    failed = _failures(job.outcome)
    lacking = bool(plan.manual or plan.unknown or declined)
    print(_outcome(job.outcome, declined, failed))
    if values.count:
        lacking = _count(splits) or lacking
    return 1 if failed else MISSING if lacking else 0


def _transport(values: flags.FlagValues) -> Transport:
    """Returns the settings of the transport. Raises UsageError."""
    from xlmr_flax.cli.main import UsageError
    from xlmr_flax.download.fetch import MIRROR_VARIABLE, Transport, mirror_fault

    mirror, archives = values.mirror or os.environ.get(MIRROR_VARIABLE, ''), Path(values.archives).expanduser()
    if fault := mirror_fault(mirror):
        raise UsageError(f'{"--mirror" if values.mirror else MIRROR_VARIABLE}={mirror}: {fault}')
    if not archives.is_dir():
        raise UsageError(f'--archives={values.archives}: no such folder')
    if not values.timeout > 0:
        raise UsageError(f'--timeout={values.timeout:g}: a number of seconds above 0 is expected')
    return Transport(mirror, archives if values.archives else None, tuple(values.accept_changed), values.timeout)


def _asked(values: flags.FlagValues) -> tuple[Path, list[Split]]:
    """Returns (data root, which need not exist yet; the requested splits). Raises UsageError."""
    from xlmr_flax.cli.main import UsageError
    from xlmr_flax.data.readers.paths import DATA_ROOT_VARIABLE, HOW_TO_SET, bucket_remedy
    from xlmr_flax.download.facts import groups
    from xlmr_flax.download.hub import can_convert
    from xlmr_flax.experiment.data_check.inventory import wanted
    from xlmr_flax.experiment.plan.reads import reads
    from xlmr_flax.experiment.plan.runs import make_plan
    from xlmr_flax.tasks import all_tasks
    from xlmr_flax.util.errors import closest

    for flag, names in (('accept_licence', {*groups(), 'all'}), ('accept_changed', groups())):
        if unknown := [name for name in values[flag].value or () if name not in names]:
            raise UsageError(f'--{flag}={unknown[0]}: no such dataset{closest(unknown[0], names)}')
    if values.source == 'hub' and not can_convert():
        raise UsageError("--source=hub needs pyarrow: pip install -e '.[hub]'")
    if (values.config is None) == (not values.tasks):
        raise UsageError('--tasks=a,b or --config=FILE: one of them')
    if values.config is not None and (values.splits or values.languages):
        raise UsageError('--splits and --languages do not go with --config, which says what is read')
    config = load_config(values) if values.config is not None else None
    given = (config.data_root if config else values.data_root) or os.environ.get(DATA_ROOT_VARIABLE, '')
    if not given:
        raise UsageError(f'no data root: {HOW_TO_SET}')
    if remedy := bucket_remedy(given):
        raise UsageError(f'--data_root={given}: {remedy}')
    root = Path(given).expanduser().absolute()
    if config:
        splits = dict.fromkeys(read.split for read in reads(make_plan(config)))
        return root, [split for split in splits if split.reads_files]
    names = [name for name in all_tasks() if not name.startswith('world_')] if values.tasks == ['all'] else values.tasks
    return root, [split for split, must in wanted(names, root, values.splits, values.languages).items() if must]


def _listing(plan: Plan, root: Path, each_file: bool) -> str:
    """Formats the needed datasets with licences (each_file: with their files), manual downloads and disk space."""
    import shutil

    from xlmr_flax.download.facts import groups
    from xlmr_flax.download.plan import ABSENT

    by_group: dict[str, list[Source]] = {}
    for source in plan.state:
        by_group.setdefault(source.group, []).append(source)
    lines = []
    for name, sources in by_group.items():
        left = [source for source in sources if plan.state[source] == ABSENT]
        group = groups()[name]
        lines.append(
            f'{name}: {len(sources) - len(left)} of {len(sources)} files are there, {_size(left)} to fetch. '
            f'Licence: {group.licence}' + (f' ({group.ask})' if group.ask else '')
        )
        if group.note and left:
            lines.append(f'  {group.note}')
        for source in sources if each_file else ():
            sum_of = (
                f'sha256 {source.sha256}' if source.sha256 else f'git {source.git_blob}' if source.sum else 'no sum'
            )
            lines.append(f'  {plan.state[source]}  {_size([source])}  {sum_of}  {source.urls[0]}')
    lines += _by_hand(plan, root)
    place = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    left = plan.to_fetch()
    room = f'disk needed: about {plan.disk() / 1e6:.1f} MB, free: {free / 1e6:.1f} MB'
    lines.append(f'to fetch: {len(left)} files, {_size(left)}; {room}')
    return '\n'.join(lines)


def _size(sources: Sequence[Source]) -> str:
    """Formats the total size of files: '12.3 MB', with the number of files of unknown size."""
    unknown = sum(source.size is None for source in sources)
    amount = f'{sum(source.size or 0 for source in sources) / 1e6:.1f} MB'
    if unknown == len(sources) and sources:
        return 'size unknown'
    return amount + (f' and {unknown} files of unknown size' if unknown else '')


def _by_hand(plan: Plan, root: Path) -> list[str]:
    from xlmr_flax.download.facts import groups

    lines = []
    for source, paths in plan.manual.items():
        group, shown = groups()[source.group], ', '.join(str(root / path) for path in paths[:3])
        more = f' and {len(paths) - 3} more' if len(paths) > 3 else ''
        lines.append(f'{source.group}: not fetched: {shown}{more}. Licence: {group.licence}. {group.note}'.rstrip())
        lines += [f'  {url}' for url in source.urls]
    if plan.unknown:
        lines.append(f'no published file is known for: {", ".join(plan.unknown)}')
    return lines


def _ask_licences(plan: Plan, root: Path, given: Sequence[str]) -> set[str]:
    """Asks the user about licences that are not accepted yet; returns the datasets whose licence is declined."""
    from xlmr_flax.download.facts import groups
    from xlmr_flax.download.records import accept, accepted

    names = dict.fromkeys(source.group for source in plan.to_fetch())
    asked = [groups()[name] for name in names if groups()[name].ask and name not in accepted(root)]
    accept(root, [group for group in asked if 'all' in given or group.name in given])
    open_groups = [group for group in asked if group.name not in accepted(root)]
    if open_groups and sys.stdin.isatty():
        print('These licences do not allow commercial use, are not stated, or have conditions:')
        print('\n'.join(f'  {group.name}: {group.licence} ({group.ask})' for group in open_groups))
        with contextlib.suppress(EOFError):  # no answer: not accepted
            if input('Accept them? [y/N] ').strip().lower() in ('y', 'yes'):
                accept(root, open_groups)
                return set()
    return {group.name for group in open_groups}


def _failures(outcome: Outcome) -> dict[Source, str]:
    """Returns the failed sources whose files no other source has provided: {source: reason}."""
    got = {target for source in outcome.done for target in source.targets}
    return {source: why for source, why in outcome.failed.items() if not got.issuperset(source.targets)}


def _outcome(outcome: Outcome, declined: Iterable[str], failed: dict[Source, str]) -> str:
    lines = [f'{len(outcome.done)} files fetched and unpacked']
    lines += [f'moved aside: {path}.replaced' for path in outcome.moved]
    if outcome.kept:
        lines.append(f'kept, with another content (--replace puts them aside): {", ".join(outcome.kept)}')
    if names := sorted(declined):
        lines.append(f'not fetched, as the licence was not accepted: --accept_licence={",".join(names)}')
    replaced = [why for source, why in outcome.failed.items() if source not in failed]
    lines += [f'fetched from another source instead: {why}' for why in replaced]
    lines += [f'failed: {why}' for why in failed.values()]
    return '\n'.join(lines)


def _count(splits: Iterable[Split]) -> bool:
    """Reads every row as prepare --check does and prints a summary; returns whether data is missing, unreadable or
    incomplete."""
    from xlmr_flax.cli.prepare import summary
    from xlmr_flax.experiment.data_check import inventory as check

    states = [check.check(split) for split in splits]
    print(f'\n{summary(states)}')
    return any(not state.is_fine(True) or state.wholeness == check.PART for state in states)
