"""QQP: detects duplicate questions on Quora; GLUE's files (jiant: tasks/lib/qqp.py)."""

from __future__ import annotations

from xlmr_flax.tasks import parsers
from xlmr_flax.tasks.base import Table, Task
from xlmr_flax.tasks.labels import BINARY

COLUMNS = ('question1', 'question2')
STAND_IN = 'PAWS-X pairs in the layout of QQP'


def _table(split: str) -> tuple[Table, ...]:
    columns, label = (*COLUMNS, 'is_duplicate'), ('is_duplicate',)
    other = Table(f'standins/QQP/{split}.tsv', 'tsv', columns, stand_in=STAND_IN)
    official = f'intermediate/qqp/{split}.tsv'
    if split == 'test':
        return (Table(official, 'tsv', COLUMNS, optional=label),)
    return (Table(official, 'tsv', columns, alternatives=(other,)),)


TASKS = (
    Task(
        name='qqp',
        kind='pair',
        labels=BINARY,
        metrics=('accuracy', 'f1'),
        languages=('en',),
        splits={split: _table(split) for split in ('train', 'dev', 'test')},
        parse=parsers.pair(*COLUMNS, label='is_duplicate'),
        train_task='qqp',
        scorer='f1',
        licence='Quora terms of service: no redistribution, NC',
        source='https://gluebenchmark.com/tasks',
        note='where QQP is not there, PAWS-X pairs in its layout are read and flagged as a stand-in: they test the '
        'loader and are no QQP; never combine them with PAWS-X as a target',
        checked_on='stand-in rows (PAWS-X pairs)',
    ),
)
