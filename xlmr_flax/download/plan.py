"""Plans a download: the published files that splits need, which of them exist, and the number of bytes to fetch."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from xlmr_flax.data.readers.paths import is_stand_in
from xlmr_flax.data.split import Split
from xlmr_flax.download.facts import FALLBACK, HUB, MANUAL, Source, pattern, sources
from xlmr_flax.download.records import WORK, Records, matches, size_of
from xlmr_flax.tasks.base import Table

# States of a published file in a data root. THERE: its targets exist and are recorded or have the known checksum.
# UNPROVEN: the targets exist without a record. ABSENT: targets are missing.
THERE, UNPROVEN, ABSENT = 'there', 'there, unproven', 'to fetch'
Alternatives = tuple[list[list[str]], list[list[str]]]  # of a table: those of the dataset, and those that stand in
_UNPACKED = 4  # approximate ratio of unpacked to compressed size of text


@dataclass
class Plan:
    """A download plan.

    state: the state of each published file that is needed. manual: published files that the user must download by hand
    -> the missing paths. unknown: paths that no published file of the table provides.
    """

    state: dict[Source, str] = field(default_factory=dict)
    manual: dict[Source, list[str]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def to_fetch(self) -> list[Source]:
        return [source for source, state in self.state.items() if state == ABSENT]

    def disk(self) -> int:
        """Approximate number of bytes for fetching and unpacking; files of unknown size count 0."""
        return sum(disk_of(source) for source in self.to_fetch())


def disk_of(source: Source) -> int:
    size = source.size or 0
    return size if source.conversion == 'copy' else size * (1 + _UNPACKED)


def paths_of(split: Split, stand_ins: bool = False) -> list[list[list[str]]]:
    """The paths of a split: for each table that it reads a list of alternatives, each a list of paths relative to the
    data root. stand_ins: the alternatives that stand in for the dataset instead of the others."""
    task, result = split.task, []
    for table in split.tables():
        for language in task.languages if table.every_language else (split.language,):
            code = task.local_code(language, '' if table.every_language else split.name)
            alternatives = [each for each in (table, *table.alternatives) if bool(each.stand_in) == stand_ins]
            result.append([[path.replace('{language}', code) for path in _names(each)] for each in alternatives])
    return result


def _names(table: Table) -> list[str]:
    return [table.path, *table.also, *filter(None, [table.label_file])]


def make_plan(
    splits: Iterable[Split],
    root: Path,
    records: Records,
    replace: bool = False,
    failed: Collection[Source] = (),
    hub: bool = False,
) -> Plan:
    """Makes the plan for some splits. replace: fetch published files again if the origin of existing files is unknown.
    failed: sources that must not be used; the next sources of the same data are used instead. hub: use the copies on
    the Hugging Face hub where the table has one. For files that cannot be fetched, published rows that stand in for
    them are."""
    plan = Plan()
    pairs = (pair for split in splits for pair in zip(paths_of(split), paths_of(split, stand_ins=True), strict=True))
    for alternatives, stand_ins in _unique(pairs):
        chosen = _choose(alternatives, root, failed, hub)
        if chosen is None:
            by_hand = _by_hand(alternatives)
            for source, path in by_hand:
                plan.manual.setdefault(source, []).append(path)
            if not by_hand:
                plan.unknown += [path for path in alternatives[0] if path not in plan.unknown]
            chosen = _choose(stand_ins, root, failed, hub) or []
        for source in chosen:
            if source not in plan.state:
                plan.state[source] = _state(source, root, records, replace)
    return plan


def _by_hand(alternatives: list[list[str]]) -> list[tuple[Source, str]]:
    """The manual sources of the first alternative that has any, with its paths; [] if none has."""
    known = ([(source, path) for path in paths for source in _candidates(path, manual=True)] for paths in alternatives)
    return next(filter(None, known), [])


def _unique(pairs: Iterable[Alternatives]) -> list[Alternatives]:
    return list({str(each): each for each in pairs}.values())


def _choose(alternatives: list[list[str]], root: Path, failed: Collection[Source], hub: bool) -> list[Source] | None:
    """Chooses the sources of the first alternative whose files exist, else of the first that can be fetched. None if
    none can be fetched; [] for existing files that are not in the table."""
    known = [_sources_of(paths, failed, hub) for paths in alternatives]
    for paths, chosen in zip(alternatives, known, strict=True):
        if all(_is_there(path, root) for path in paths):
            return chosen or []
    return next((chosen for chosen in known if chosen), None)


def _sources_of(paths: list[str], failed: Collection[Source], hub: bool) -> list[Source] | None:
    """A set of sources that together provide all these paths; None if there is none."""
    result: dict[Source, None] = {}
    for path in paths:
        ways: dict[tuple[str, str], list[Source]] = {}
        for source in _candidates(path):
            if source.use == HUB and not hub:
                continue
            ways.setdefault((source.group, source.use), []).append(source)
        open_ways = [way for way in ways.values() if not any(source in failed for source in way)]
        if not open_ways:
            return None
        result |= dict.fromkeys(min(open_ways, key=lambda way: (way[0].use != HUB, way[0].use == FALLBACK)))
    return list(result)


@cache
def _candidates(path: str, manual: bool = False) -> tuple[Source, ...]:
    """The sources that provide a path, or files that match it if it has wildcards."""
    exact, globs = _by_target()
    wild = any(c in path for c in '*?[')
    result = dict.fromkeys(exact.get(path, ()))
    if wild:
        matched = pattern(path).fullmatch
        result |= dict.fromkeys(source for target, those in exact.items() if matched(target) for source in those)
    result |= dict.fromkeys(
        source for target, those in globs.items() if pattern(target).fullmatch(path) for source in those
    )
    return tuple(source for source in result if (source.conversion == MANUAL) == manual)


@cache
def _by_target() -> tuple[dict[str, list[Source]], dict[str, list[Source]]]:
    """Indices of the sources: ({target: sources}, the same for targets with wildcards only, which are in both)."""
    exact: dict[str, list[Source]] = {}
    globs: dict[str, list[Source]] = {}
    for source in sources():
        for target in dict.fromkeys(source.targets):
            exact.setdefault(target, []).append(source)
            if '*' in target:
                globs.setdefault(target, []).append(source)
    return exact, globs


def _is_there(path: str, root: Path) -> bool:
    paths = root.glob(path) if any(c in path for c in '*?[') else [root / path]
    return any(each.is_file() and not is_stand_in(each, root) for each in paths)


def _state(source: Source, root: Path, records: Records, replace: bool) -> str:
    targets = source.targets
    if records.has(source):
        others = [target for target in targets if '*' not in target and not records.is_ours(target)]
        if not others or (not replace and all(_is_there(target, root) for target in others)):
            return THERE
    if not replace and all(_is_made(target, records) for target in targets):
        return THERE
    if source.conversion == 'copy':
        path = root / targets[0]
        if source.sum and path.is_file() and matches(source, path):
            return THERE
    whole = all(_is_there(target, root) for target in targets if '*' not in target)
    any_wild = any('*' in target for target in targets)
    some = any(_is_there(target, root) for target in targets) if any_wild else whole
    return UNPROVEN if whole and some and not replace else ABSENT


def _is_made(target: str, records: Records) -> bool:
    """Whether a download made this file from any of the table's sources, such as a mirror or the hub."""
    return records.is_ours(target) and any(records.by_path[target].url in each.urls for each in _candidates(target))


def part_size(source: Source, root: Path) -> int:
    """Number of bytes of a published file that an interrupted download has left; -1 if there is no file."""
    return max(size_of(root / WORK / name) for name in (source.key, f'{source.key}.part'))
