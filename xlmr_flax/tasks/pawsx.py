"""PAWS-X: paraphrase identification, trained on English PAWS and scored in seven languages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xlmr_flax.tasks.base import PairExample, Table, Task
from xlmr_flax.tasks.labels import BINARY

LANGUAGES = ('de', 'en', 'es', 'fr', 'ja', 'ko', 'zh')
NOT_ENGLISH = tuple(code for code in LANGUAGES if code != 'en')
XTREME = 'translated/xtreme_translations/PAWSX'
# The first columns of XTREME's translations are the original sentences (TFDS: xtreme_pawsx;
# github.com/google-research/xtreme, issue 37).
COLUMNS = ('original1', 'original2', 'sentence1', 'sentence2')


def parse(row: Mapping[str, Any], task: Task, language: str) -> PairExample:
    """Parses a row of x-final/LANG/*.tsv, or of XTREME's translations, which have no id. Sentences that were not
    translated ('NS' or empty) are kept, as in XTREME."""
    label = task.label_index(row['label'], 'label') if 'label' in row else None
    return PairExample(row.get('id', ''), row['sentence1'], row['sentence2'], label)


def _table(path: str, labelled: bool = True) -> tuple[Table, ...]:
    columns, label = ('id', 'sentence1', 'sentence2'), ('label',)
    if labelled:
        return (Table(path, 'tsv', columns + label),)
    return (Table(path, 'tsv', columns, optional=label),)


TRANSLATE_TRAIN = Table(
    'xtreme/pawsx/x-final/{language}/translated_train.tsv',
    'tsv',
    ('id', 'sentence1', 'sentence2', 'label'),
    alternatives=(
        Table(f'{XTREME}/translate-train/en-{{language}}-translated.tsv', 'tsv', (*COLUMNS, 'label'), header=False),
    ),
)
TRANSLATE_TEST = Table(
    f'{XTREME}/translate-test/test-{{language}}-en-translated.tsv',
    'tsv',
    COLUMNS,
    header=False,
    optional=('label',),
)

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
        'translate_train': (TRANSLATE_TRAIN,),
        'translate_test': (TRANSLATE_TEST,),
    },
    translated={'translate_train': NOT_ENGLISH, 'translate_test': NOT_ENGLISH},
    parse=parse,
    train_task='pawsx',
    licence='free for any purpose; acknowledge Google LLC as the source',
    source='https://github.com/google-research-datasets/paws/tree/master/pawsx',
    note='train is the English training set whatever the language; translated training files have a few rows without '
    'a label 0 or 1, which are bad rows (skip_bad_rows leaves them out, as TFDS does)',
    checked_on='real rows; stand-in rows for train (dev rows)',
)

TASKS = (PAWSX,)
