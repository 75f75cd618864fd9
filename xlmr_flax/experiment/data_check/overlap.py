"""Detects leakage: test examples that also occur in the training data.

Examples are compared by their text, since one source is distributed in files of many names.

    report = check_overlap(train_examples, test_examples)
    if report: print(report)

Before the comparison, texts are normalised (Unicode NFKC), lower-cased, and each run of white space becomes one space.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from xlmr_flax.data.split import Split
from xlmr_flax.tasks.base import (
    ChoiceExample,
    Example,
    PairExample,
    SentenceExample,
    SpanExample,
    Table,
    TagExample,
    Task,
)

# Kinds of overlap: a whole example, a pair in reverse order (the same example for a paraphrase task, but not for
# inference), a paragraph, and a question with the same id (a translation of the same question).
KINDS = ('example', 'reversed pair', 'paragraph', 'question id')
_SHOWN = 3
# Shorter ids are running numbers, which are equal by chance.
_ID_LENGTH = 8
_NON_COMMERCIAL = re.compile(r'\bNC\b')


@dataclass(frozen=True, slots=True)
class Overlap:
    """The overlap of one kind between the tested and the training examples.

    shared: number of the `total` different tested items that are in the training data. pairs: up to three
    (training id, test id).
    """

    kind: str
    shared: int
    total: int
    pairs: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        plural = self.kind + ('s' if self.total != 1 else '')
        ids = ', '.join(f'{trained} = {tested}' for trained, tested in self.pairs)
        return f'in the training data: {self.shared} of {self.total} tested {plural} ({ids})'


@dataclass(frozen=True, slots=True)
class Report:
    """All overlaps of a comparison; without overlaps it is empty and false."""

    overlaps: tuple[Overlap, ...]

    def __bool__(self) -> bool:
        return bool(self.overlaps)

    def __str__(self) -> str:
        return '; '.join(map(str, self.overlaps)) or 'no overlap'


def check_overlap(train_examples: Iterable[Example], test_examples: Iterable[Example]) -> Report:
    """Reports which tested examples are in the training examples. The kinds of the two tasks may differ (SQuAD and
    LAReQA)."""
    trained: dict[tuple[str, bytes], str] = {}
    for example in train_examples:
        for key in _keys(example):
            trained.setdefault(key, example.id)
    tested: dict[tuple[str, bytes], str] = {}
    for example in test_examples:
        for key in _keys(example, tested=True):
            tested.setdefault(key, example.id)
    overlaps = []
    for kind in KINDS:
        all_keys = [key for key in tested if key[0] == kind]
        shared = [key for key in all_keys if key in trained]
        if shared:
            pairs = tuple((trained[key], tested[key]) for key in shared[:_SHOWN])
            overlaps.append(Overlap(kind, len(shared), len(all_keys), pairs))
    return Report(tuple(overlaps))


def known_warnings(task: Task, data_root: str | Path | None = None) -> list[str]:
    """Returns warnings about a task's data: stand-ins, licences that forbid commercial use, and notes.

    Without a data root, the stand-ins are those that its tables declare; with it, those that are under the data root.
    """
    warnings = []
    if _NON_COMMERCIAL.search(task.licence):
        warnings.append(f'{task.name}: its licence does not allow commercial use ({task.licence})')
    if data_root is None:
        warnings += [f'{task.name}: where the dataset is not there, a stand-in: {note}' for note in _declared(task)]
    else:
        notes = {split: _stand_in(task, split, data_root) for split in task.splits}
        warnings += [f'{task.name}, {split}: a stand-in: {note}' for split, note in notes.items() if note]
    if task.note:
        warnings.append(f'{task.name}: {task.note}')
    return warnings


def _stand_in(task: Task, split: str, data_root: str | Path) -> str:
    there = (Split(task, code, split, data_root) for code in task.split_languages(split))
    notes = [each.stand_in() for each in there if each.is_there()]
    return '; '.join(dict.fromkeys(filter(None, notes)))


def _declared(task: Task) -> list[str]:
    tables = [source for sources in task.splits.values() for source in sources if isinstance(source, Table)]
    notes = [other.stand_in for table in tables for other in table.alternatives if other.stand_in]
    return list(dict.fromkeys(notes))


def _keys(example: Example, tested: bool = False) -> Iterator[tuple[str, bytes]]:
    if isinstance(example, PairExample):
        first, second = _plain(example.text_a), _plain(example.text_b or '')
        yield _key('example', first, second)
        if first != second:
            yield _key('reversed pair', *((second, first) if tested else (first, second)))
    elif isinstance(example, ChoiceExample):
        yield _key('example', _plain(example.prompt), *map(_plain, example.choices))
    elif isinstance(example, SpanExample):
        yield _key('example', _plain(example.question), _plain(example.context))
        yield _key('paragraph', _plain(example.context))
        if len(example.id) >= _ID_LENGTH:
            # In XQuAD-R (SentenceExample, below) the id ends in a language suffix, which is removed there.
            yield _key('question id', example.id)
    elif isinstance(example, TagExample):
        yield _key('example', *map(_plain, example.words))
    elif isinstance(example, SentenceExample):
        yield _key('example', _plain(example.text))
        if example.context:
            yield _key('paragraph', _plain(example.context))
        if len(example.id) >= _ID_LENGTH:
            yield _key('question id', re.sub(r'_[a-z]{2,3}$', '', example.id))


def _plain(text: str) -> str:
    return ' '.join(unicodedata.normalize('NFKC', text).lower().split())


def _key(kind: str, *parts: str) -> tuple[str, bytes]:
    return kind, hashlib.blake2b('\x1f'.join(parts).encode('utf-8', 'surrogatepass'), digest_size=12).digest()
