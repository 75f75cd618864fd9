"""PAWS-X: is one sentence a paraphrase of the other; trained on English PAWS, scored in seven languages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xlmr_flax.tasks.base import PairExample, Table, Task
from xlmr_flax.tasks.labels import BINARY

LANGUAGES = ('de', 'en', 'es', 'fr', 'ja', 'ko', 'zh')


def parse(row: Mapping[str, Any], task: Task, language: str) -> PairExample:
    """A row of x-final/LANG/*.tsv. Sentences the translators left out ('NS' or empty) stay, as XTREME keeps them."""
    label = task.label_index(row['label'], 'label') if 'label' in row else None
    return PairExample(row['id'], row['sentence1'], row['sentence2'], label)


def _table(path: str, labelled: bool = True) -> tuple[Table, ...]:
    columns, label = ('id', 'sentence1', 'sentence2'), ('label',)
    if labelled:
        return (Table(path, 'tsv', columns + label),)
    return (Table(path, 'tsv', columns, optional=label),)


PAWSX = Task(
    name='pawsx',
    kind='pair',
    labels=BINARY,
    metrics=('accuracy',),
    languages=LANGUAGES,
    splits={
        'train': _table('xtreme/pawsx/x-final/en/train.tsv'),
        'dev': _table('xtreme/pawsx/x-final/{language}/dev_2k.tsv'),
        'test': _table('xtreme/pawsx/x-final/{language}/test_2k.tsv', labelled=False),
    },
    parse=parse,
    train_task='pawsx',
    licence='free for any purpose; acknowledge Google LLC as the source',
    source='https://github.com/google-research-datasets/paws/tree/master/pawsx',
    note='the English training set is read whatever the language',
    checked_on='real rows; stand-in rows for train (dev rows)',
)

TASKS = (PAWSX,)
