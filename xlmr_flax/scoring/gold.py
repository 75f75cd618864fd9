"""Where `score` takes gold labels from: a folder of gold files in XTREME's layout, or the files of a data root."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from xlmr_flax.data.readers.paths import MissingFile, resolve_data_root
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.sources import are_labelled
from xlmr_flax.data.split import Split
from xlmr_flax.scoring.benchmarks import Part
from xlmr_flax.scoring.one_file import Gold, read_gold_file
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import Task, has_label

SPLIT = 'test'  # every benchmark is scored on it


class GoldSource(Protocol):
    """Gives the gold labels of a benchmark's tasks. what: what a task needs in it, for messages."""

    what: str

    def __str__(self) -> str:
        """The folder, for messages."""
        ...

    def has(self, task: str, part: Part) -> bool:
        """Whether there is something of a task, so that all of its languages are expected."""
        ...

    def lacks(self, task: str, part: Part, language: str) -> str:
        """Says which file of a language is missing; '' if none is. Raises DataError for a file of another suffix."""
        ...

    def name(self, task: str, part: Part, language: str) -> str:
        """`Gold.name` of a language."""
        ...

    def read(self, task: str, part: Part, language: str) -> Gold:
        """Reads the gold labels of a language. Raises DataError for a file that is missing or cannot be read."""
        ...


@dataclass(frozen=True)
class GoldFolder:
    """A folder of gold files ROOT/TASK/test-LANG.EXT. Raises DataError if there is no such folder."""

    root: Path
    what = 'folder of labels'

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            raise DataError(f'{self.root}: no such folder of labels')

    def __str__(self) -> str:
        return str(self.root)

    def has(self, task: str, part: Part) -> bool:
        return (self.root / task).is_dir()

    def lacks(self, task: str, part: Part, language: str) -> str:
        return missing_file(file_of(self.root, task, part, language), task, language)

    def name(self, task: str, part: Part, language: str) -> str:
        return str(file_of(self.root, task, part, language))

    def read(self, task: str, part: Part, language: str) -> Gold:
        return read_gold_file(get_task(task), part.form, file_of(self.root, task, part, language))


@dataclass(frozen=True)
class GoldOfDataRoot:
    """The test splits of a data root, read as `run` reads them. Raises DataError if there is no such folder."""

    root: Path
    what = 'test file in the data root'

    def __post_init__(self) -> None:
        resolve_data_root(self.root)

    def __str__(self) -> str:
        return str(self.root)

    def has(self, task: str, part: Part) -> bool:
        return any(self._split(task, language).is_there() for language in part.languages)

    def lacks(self, task: str, part: Part, language: str) -> str:
        try:
            self._split(task, language).found()
        except MissingFile as error:
            return str(error)
        return ''

    def name(self, task: str, part: Part, language: str) -> str:
        return f'{self._split(task, language)} of {self.root}'

    def read(self, task: str, part: Part, language: str) -> Gold:
        split = self._split(task, language)
        return Gold(self.name(task, part, language), gold_values(split, part.form), split.stand_in())

    def _split(self, task: str, language: str) -> Split:
        return Split(get_task(task), language, SPLIT, self.root)


def gold_values(split: Split, form: str) -> Any:
    """Reads the gold labels of a split as `Gold.values`, in the order of its prediction file; None if it has none.

    form: `Part.form`. Raises DataError for a file that is missing, a row that cannot be read, and if only some rows
    have labels.
    """
    task = split.task
    if not task.embeds:
        examples = split.read()
        labelled = are_labelled(task, split.language, split.name, split.root, examples)
        return _of_examples(task, form, examples) if labelled else None
    if split.name not in task.gold:
        queries = split.read_pairs()[0]
        return task.query_order([query.text for query in queries]) if all(map(has_label, queries)) else None
    pairs = split.read_gold()
    if form == 'pairs':
        return pairs
    right: dict[str, list[str]] = {}
    for query, item in pairs:
        right.setdefault(query, []).append(item)
    return right


def _of_examples(task: Task, form: str, examples: Sequence[Any]) -> Any:
    if form in ('squad', 'mlqa'):
        return {example.id: [text for text, _ in example.answers] for example in examples}
    if form == 'tags':
        return [[task.labels[tag] for tag in example.tags] for example in examples]
    labels = [example.label for example in examples]
    return labels if form == 'choices' else [task.labels[label] for label in labels]


def file_of(root: Path, task: str, part: Part, language: str) -> Path:
    """The path of a prediction or gold file: ROOT/TASK/test-LANG.EXT."""
    return root / task / f'{SPLIT}-{language}.{part.suffix}'


def missing_file(path: Path, task: str, language: str) -> str:
    """Says that a prediction or gold file is missing; '' if it is there. Raises DataError if its folder has it with
    another suffix."""
    if path.is_file():
        return ''
    for other in sorted(path.parent.glob(f'{path.stem}.*')):
        if other.stem == path.stem and other.is_file():
            raise DataError(f'{other}: the format of this task is {path.suffix}: {path.name} is expected')
    return f'{path}: no such file, needed for {task!r} in {language!r}'
