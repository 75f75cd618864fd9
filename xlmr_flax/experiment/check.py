"""What data is there: every split in every language that is asked for, read row by row.

wants = wanted(['xnli', 'mnli'], root)
states = [check(want, root) for want in wants]
overlaps = find_overlaps(states, root)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from xlmr_flax.data import tfds
from xlmr_flax.data.guards import Report, check_overlap
from xlmr_flax.data.readers_paths import codes_present, find_files
from xlmr_flax.data.sources import (
    BadRow,
    DataError,
    available,
    needs_data_root,
    read_gold,
    read_pairs,
    read_split,
    split_files,
    stand_in,
    with_labels,
)
from xlmr_flax.download.facts import official_rows
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import Example, Table, Task, has_label

MISSING, BROKEN, BAD, READABLE = 'missing', 'unreadable', 'bad rows', 'readable'
WHOLE, PART, STAND_IN = 'whole', 'part', 'stand-in'


@dataclass(frozen=True)
class Want:
    """One split in one language. required: False for what may be missing: languages beyond the
    benchmark's, training sets that are not English, translated splits that --splits does not name."""

    task: str
    split: str
    language: str
    required: bool = True


@dataclass(frozen=True)
class State:
    """What was found of a Want.

    state: MISSING, BROKEN (a file cannot be read as a whole: `error`), BAD (some rows cannot: `bad`) or READABLE (every
    row there is). rows: examples that were read; of retrieval those that ask. official: (rows that were counted, rows
    of the official files), of retrieval with gold by id gold pairs; None where the official number is not known.
    source: 'files', 'TFDS glue/mnli', 'embedded', '' = nothing.
    labelled: whether any row has a label; without, predictions can be written and not scored.
    missing: the files that are not there, where they are looked for. stand_in: what the rows stand in for.
    """

    want: Want
    state: str
    rows: int = 0
    source: str = ''
    missing: tuple[Path, ...] = ()
    bad: tuple[BadRow, ...] = ()
    error: str = ''
    stand_in: str = ''
    labelled: bool = True
    official: tuple[int, int] | None = None

    @property
    def wholeness(self) -> str:
        """'whole' or 'part' against the official number of rows, 'stand-in', or '' where nothing is known."""
        if self.stand_in or self.official is None or self.state not in (READABLE, BAD):
            return STAND_IN if self.stand_in else ''
        return WHOLE if self.official[0] == self.official[1] else PART

    def is_fine(self, skip_bad_rows: bool = False) -> bool:
        """Whether a run can read it, or need not."""
        if self.state == MISSING:
            return not self.want.required
        return self.state == READABLE or (skip_bad_rows and self.state == BAD)


def wanted(tasks: Iterable[str], root: Path, splits: Sequence[str] = (), languages: Sequence[str] = ()) -> list[Want]:
    """Every split of every task in every language, or in those of `splits` and `languages` that a task has.

    Languages beyond the benchmark's are asked for where they are there, or by name. Raises TaskError for names that no
    asked task has.
    """
    found, unused = [], {*splits, *languages}
    for name in tasks:
        task = get_task(name)
        for split in [each for each in task.splits if not splits or each in splits]:
            for language in languages or _languages(task, split, root):
                if languages and not _has(task, split, language):
                    continue
                unused -= {split, language}
                found.append(Want(name, split, language, _required(task, split, language, splits, languages)))
    for name in unused:  # says what there is instead
        for task in map(get_task, tasks):
            task.sources(name) if name in splits else task.local_code(name, *splits[:1])
    return found


def check(want: Want, root: Path) -> State:
    """Reads every row of a split. Nothing that is wrong with the data is raised."""
    task = get_task(want.task)
    if missing := missing_files(task, want.split, want.language, root):
        told = '; '.join(text for text in missing.values() if 'no such file' not in text)
        return State(want, MISSING, missing=tuple(missing), error=told)
    source, bad = _source(task, want, root), []
    try:
        task = with_labels(task, root)
        note = stand_in(task, want.language, want.split, root)
        examples = _examples(task, want, root, bad)
        rows, labelled = len(examples), not examples or any(map(has_label, examples))
        pairs = len(read_gold(task, want.language, want.split, root)) if want.split in task.gold else 0
    except DataError as error:
        return State(want, BROKEN, source=source, bad=tuple(bad), error=str(error))
    state, official = BAD if bad else READABLE, _official(task, want, root, rows + len(bad), pairs)
    return State(want, state, rows, source, (), tuple(bad), stand_in=note, labelled=labelled, official=official)


def _official(task: Task, want: Want, root: Path, rows: int, pairs: int) -> tuple[int, int] | None:
    """(rows that were counted, rows of the official files); the table knows either rows or gold pairs of a file."""
    known = official_rows()
    asks = next((table.path for table in task.sources(want.split) if isinstance(table, Table)), '')
    if want.split in task.gold and task.gold[want.split].path != asks:  # LAReQA's questions hold the gold
        gold = find_files(task, task.gold[want.split], want.language, root)[0].table.path
        if number := known.get(gold.replace('{language}', task.local_code(want.language))):
            return pairs, number
    sources = task.sources(want.split)[: 1 if task.embeds else None]
    total = 0
    for table in sources:
        if not isinstance(table, Table):
            return None
        code, found = task.local_code(want.language), find_files(task, table, want.language, root)[0].table
        if found.format == tfds.FORMAT or any(
            path.replace('{language}', code) not in known for path in _read_paths(found)
        ):
            return None
        total += sum(known[path.replace('{language}', code)] for path in _read_paths(found))
    return (rows, total) if total else None


def _read_paths(table: Table) -> tuple[str, ...]:
    return (table.path, *table.also)


def missing_files(task: Task, split: str, language: str, root: Path) -> dict[Path, str]:
    """The files of a split that are not there, where they are looked for first -> what is said about it."""
    found: dict[Path, str] = {}
    tables = [source for source in task.sources(split) if isinstance(source, Table)]
    for table in [*tables, *([task.gold[split]] if split in task.gold else [])]:
        for each in task.languages if table.every_language else (language,):
            try:
                find_files(task, table, each, root)
            except DataError as error:
                paths = [table.path, *filter(None, [table.label_file])]
                places = [root / path.replace('{language}', task.local_code(each)) for path in paths]
                found |= {place: str(error) for place in places if not place.is_file()}
    return found


def find_overlaps(
    states: Sequence[State], root: Path, trained: Sequence[str] = ()
) -> list[tuple[str, str, str, Report]]:
    """(training task, target, split, report) of every target that was read whose training texts are there too.

    A target is held against the tasks that train it, and against `trained` (the intermediate tasks that are asked for);
    all its languages at once. Test and dev splits count.
    """
    found = []
    training: dict[str, list[Example]] = {}
    targets: dict[tuple[str, str], list[State]] = {}
    for state in states:
        if state.want.split not in ('train', 'translate_train') and state.state in (READABLE, BAD):
            targets.setdefault((state.want.task, state.want.split), []).append(state)
    for (name, split), those in targets.items():
        target = get_task(name)
        for trainer in dict.fromkeys(filter(None, [target.train_task, target.warmup_task, *trained])):
            if trainer not in training:
                training[trainer] = _training_examples(trainer, root)
            if training[trainer]:
                tested = (each for state in those for each in _examples(target, state.want, root, []))
                if report := check_overlap(training[trainer], tested):
                    found.append((trainer, name, split, report))
    return found


def _training_examples(name: str, root: Path) -> list[Example]:
    task = get_task(name)
    if task.embeds or not available(task, 'en', 'train', root) or not needs_data_root(task, 'train'):
        return []
    try:
        return read_split(task, 'en', 'train', root, skip_bad_rows=[])
    except DataError:
        return []


def _examples(task: Task, want: Want, root: Path, bad: list[BadRow]) -> Sequence[Example]:
    if not task.embeds:
        return read_split(task, want.language, want.split, root, skip_bad_rows=bad)
    asks, searched = read_pairs(task, want.language, want.split, root, skip_bad_rows=bad)
    return asks or searched


def _source(task: Task, want: Want, root: Path) -> str:
    if not needs_data_root(task, want.split):
        return 'embedded'
    folders = [path for path in split_files(task, want.language, want.split, root) if path.is_dir()]
    if not folders:
        return 'files'
    names = [source.path for source in task.sources(want.split) if isinstance(source, Table)]
    code = task.local_code(want.language)
    return 'TFDS ' + ', '.join(dict.fromkeys(tfds.described(name.replace('{language}', code)) for name in names))


def _languages(task: Task, split: str, root: Path) -> list[str]:
    """Those of the benchmark, then others that are there. One file of training data serves all of them."""
    tables = [source for source in task.sources(split) if isinstance(source, Table)]
    if split in task.translated:
        return list(task.translated[split])
    if split == 'train' and 'en' in task.languages and not any('{language}' in table.path for table in tables):
        return ['en']
    more = [code for code in task.more_languages if available(task, code, split, root)]
    if task.open_languages:
        known = {task.local_code(code) for code in (*task.languages, *task.more_languages)}
        codes = [set(codes_present(root, table.path)) for table in tables if '{language}' in table.path]
        others = sorted(set.intersection(*codes) - known) if codes else []
        more += [code for code in others if available(task, code, split, root)]
    return [*task.languages, *more]


def _required(task: Task, split: str, language: str, splits: Sequence[str], languages: Sequence[str]) -> bool:
    """Zero-shot transfer is trained in English; another language's training set is for comparisons. `splits` and
    `languages` are those that were named: of MNLI in German there can be nothing but a translation."""
    if split in task.translated:
        return split in splits or (bool(languages) and not _own(task, language))
    if languages:
        return True
    if split == 'train' and not task.is_text:
        return language == 'en'
    return language in task.languages


def _has(task: Task, split: str, language: str) -> bool:
    if split in task.translated:
        return language in task.translated[split]
    return _own(task, language)


def _own(task: Task, language: str) -> bool:
    return language in task.languages or language in task.more_languages or task.open_languages
