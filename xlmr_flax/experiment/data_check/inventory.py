"""Checks which data exists: reads every requested split and language row by row.

states = [check(split, required) for split, required in wanted(['xnli', 'mnli'], root).items()]
overlaps = find_overlaps(states)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from xlmr_flax.data.readers import tfds
from xlmr_flax.data.readers.paths import MissingFile, codes_present, find_files
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.sources import BadRow
from xlmr_flax.data.split import Split
from xlmr_flax.download.facts import official_rows
from xlmr_flax.experiment.data_check.overlap import Report, check_overlap
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import Example, Table, Task, TaskError, has_label

MISSING, BROKEN, BAD, READABLE = 'missing', 'unreadable', 'bad rows', 'readable'
WHOLE, PART, STAND_IN = 'whole', 'part', 'stand-in'


@dataclass(frozen=True)
class State:
    """The result of checking a split. required: False if the split may be missing, as for languages beyond the
    benchmark's, training sets that are not English, and translated splits that --splits does not name.

    state: MISSING, BROKEN (a whole file cannot be read, see `error`), BAD (some rows cannot be read, see `bad`) or
    READABLE (all rows can). rows: number of examples read; for retrieval, the query side. official: (counted rows, rows
    of the official files), or gold pairs for retrieval with gold by id; None if the official number is unknown.
    source: 'files', 'TFDS glue/mnli', 'embedded', '' = nothing.
    labelled: whether any row has a label; otherwise predictions can be written but not scored.
    missing: paths where missing files are expected. stand_in: a note on the data that replaces the original, '' = none.
    """

    split: Split
    state: str
    required: bool = True
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
        """'whole' or 'part', compared with the official number of rows; 'stand-in'; or '' if that is unknown."""
        if self.stand_in or self.official is None or self.state not in (READABLE, BAD):
            return STAND_IN if self.stand_in else ''
        return WHOLE if self.official[0] == self.official[1] else PART

    def is_fine(self, skip_bad_rows: bool = False) -> bool:
        """Returns whether a run can read the split or does not need it.

        skip_bad_rows: the run leaves bad rows out, which it never does for retrieval (`Read.examples`).
        """
        if self.state == MISSING:
            return not self.required
        return self.state == READABLE or (skip_bad_rows and self.state == BAD and not self.split.task.embeds)


def wanted(
    tasks: Iterable[str], root: str | Path, splits: Sequence[str] = (), languages: Sequence[str] = ()
) -> dict[Split, bool]:
    """Lists the splits to check: {split: whether it is required}, for every task, split and language.

    `splits` and `languages` restrict the list to these names, as far as a task has them. Languages beyond the
    benchmark's are included if their files exist or if they are named. Raises TaskError for a name that none of the
    tasks has.
    """
    required_by_split, unused = {}, {*splits, *languages}
    for name in tasks:
        task = get_task(name)
        for split in [each for each in task.splits if not splits or each in splits]:
            for language in languages or _languages(task, split, root):
                if languages and not _has(task, split, language):
                    continue
                unused -= {split, language}
                required = _required(task, split, language, splits, languages)
                required_by_split[Split(task, language, split, root)] = required
    for name in unused:  # these raise TaskError, which lists the known names
        for task in map(get_task, tasks):
            task.sources(name) if name in splits else task.local_code(name, *splits[:1])
    return required_by_split


def check(split: Split, required: bool = True) -> State:
    """Reads every row of a split and returns its state. Faults in the data are reported in it and never raised."""
    if missing := missing_files(split):
        errors = '; '.join(text for text in missing.values() if 'no such file' not in text)
        return State(split, MISSING, required, missing=tuple(missing), error=errors)
    source, bad = _source(split), []
    try:
        note = split.stand_in()
        examples = _examples(split, bad)
        rows, labelled = len(examples), not examples or any(map(has_label, examples))
        pairs = _gold_pairs(split, is_whole=not bad) if split.name in split.task.gold else 0
    except DataError as error:
        return State(split, BROKEN, required, source=source, bad=tuple(bad), error=str(error))
    state = State(split, BAD if bad else READABLE, required, rows, source, bad=tuple(bad), stand_in=note)
    return replace(state, labelled=labelled, official=_official(split, rows + len(bad), pairs))


def _official(split: Split, rows: int, pairs: int) -> tuple[int, int] | None:
    """Returns (counted rows, rows of the official files), or both as gold pairs if the table lists those for a file."""
    known, task, root = official_rows(), split.task, split.folder()
    code = task.local_code(split.language)
    asks = next((table.path for table in task.sources(split.name) if isinstance(table, Table)), '')
    if split.name in task.gold and task.gold[split.name].path != asks:  # in LAReQA, the question file holds the gold
        gold = find_files(task, task.gold[split.name], split.language, root)[0].table.path
        if number := known.get(gold.replace('{language}', code)):
            return pairs, number
    total = 0
    for table in task.sources(split.name)[: 1 if task.embeds else None]:
        if not isinstance(table, Table):
            return None
        actual = find_files(task, table, split.language, root)[0].table
        paths = [path.replace('{language}', code) for path in (actual.path, *actual.also)]
        if actual.format == tfds.FORMAT or any(path not in known for path in paths):
            return None
        total += sum(known[path] for path in paths)
    return (rows, total) if total else None


def missing_files(split: Split) -> dict[Path, str]:
    """Returns the missing files of a split: {the path where each is expected: its error message}."""
    missing: dict[Path, str] = {}
    task, root = split.task, split.folder()
    for table in split.tables():
        for each in task.languages if table.every_language else (split.language,):
            try:
                find_files(task, table, each, root)
            except DataError as error:
                paths = [table.path, *table.also, *filter(None, [table.label_file])]
                places = [root / path.replace('{language}', task.local_code(each)) for path in paths]
                lacking = error.lacking if isinstance(error, MissingFile) and error.lacking else places
                missing |= {place: str(error) for place in lacking if not place.is_file()}
    return missing


def find_overlaps(states: Sequence[State], trained: Sequence[str] = ()) -> list[tuple[str, str, str, Report]]:
    """Compares targets with training data; returns (training task, target, split, report) for each pair that overlaps.

    Each test or dev split, with all its languages, is compared with the tasks that train its target and with `trained`
    (the requested intermediate tasks), if their training files exist.
    """
    overlapping = []
    training: dict[str, list[Example]] = {}
    targets: dict[tuple[str, str], list[Split]] = {}
    for state in states:
        if state.split.name not in ('train', 'translate_train') and state.state in (READABLE, BAD):
            targets.setdefault((state.split.task.name, state.split.name), []).append(state.split)
    for (name, split), those in targets.items():
        target = those[0].task
        for trainer in dict.fromkeys(filter(None, [target.train_task, target.warmup_task, *trained])):
            if trainer not in training:
                training[trainer] = _training_examples(trainer, those[0].root)
            if training[trainer]:
                tested = (example for each in those for example in _examples(each, []))
                if report := check_overlap(training[trainer], tested):
                    overlapping.append((trainer, name, split, report))
    return overlapping


def _gold_pairs(split: Split, is_whole: bool) -> int:
    """Returns the number of gold pairs. is_whole: all rows of both sides could be read; then the ids of a mining task's
    pairs must be in them."""
    sides = None
    if split.task.mines and is_whole:
        first, second = split.read_pairs()
        sides = ({row.id for row in first}, {row.id for row in second})
    return len(split.read_gold(sides))


def _training_examples(task: str, root: str | Path) -> list[Example]:
    """The English training rows that are compared; none if they cannot be read or the task has none (MasakhaNER)."""
    split = Split(get_task(task), 'en', 'train', root)
    if split.task.embeds or not _has(split.task, 'train', 'en'):
        return []
    try:
        return split.read(bad_rows=[]) if split.is_there() and split.reads_files else []
    except (DataError, TaskError):
        return []


def _examples(split: Split, bad: list[BadRow]) -> Sequence[Example]:
    if not split.task.embeds:
        return split.read(bad_rows=bad)
    asks, searched = split.read_pairs(bad_rows=bad)
    return asks or searched


def _source(split: Split) -> str:
    if not split.reads_files:
        return 'embedded'
    if not any(path.is_dir() for path in split.files()):
        return 'files'
    code, tables = split.task.local_code(split.language), split.task.sources(split.name)
    names = [table.path.replace('{language}', code) for table in tables if isinstance(table, Table)]
    return 'TFDS ' + ', '.join(dict.fromkeys(map(tfds.described, names)))


def _languages(task: Task, split: str, root: str | Path) -> list[str]:
    """Returns the benchmark's languages, then others whose files exist; ['en'] for a train split with one file."""
    tables = [source for source in task.sources(split) if isinstance(source, Table)]
    if split in task.translated:
        return list(task.translated[split])
    if split == 'train' and 'en' in task.languages and not any('{language}' in table.path for table in tables):
        return ['en']
    own = task.split_languages(split)
    others = [code for code in (*task.languages, *task.more_languages) if code not in own]
    more = [code for code in others if Split(task, code, split, root).is_there()]
    if task.open_languages:
        known = {task.local_code(code) for code in (*task.languages, *task.more_languages)}
        codes = [set(codes_present(Path(root), table.path)) for table in tables if '{language}' in table.path]
        further = sorted(set.intersection(*codes) - known) if codes else []
        more += [code for code in further if Split(task, code, split, root).is_there()]
    return [*own, *more]


def _required(task: Task, split: str, language: str, splits: Sequence[str], languages: Sequence[str]) -> bool:
    """Returns whether a split must exist. `splits` and `languages` are those that the user named.

    Zero-shot transfer trains in English, so training sets in other languages are optional. A translated split is
    required if it is named, or if it is all that a named language can have (MNLI in German). A split that a dataset
    does not have in a language is required only if both are named.
    """
    if split in task.translated:
        return split in splits or (bool(languages) and not _own(task, language))
    if languages:
        return split in splits or language not in task.unpublished.get(split, ())
    if split == 'train' and not task.is_text:
        return language == 'en'
    return language in task.split_languages(split)


def _has(task: Task, split: str, language: str) -> bool:
    if split in task.translated:
        return language in task.translated[split]
    return _own(task, language)


def _own(task: Task, language: str) -> bool:
    return language in task.languages or language in task.more_languages or task.open_languages
