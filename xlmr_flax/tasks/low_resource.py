"""Inference in languages that XNLI lacks; all are translations of XNLI's rows and are trained on MNLI."""

from __future__ import annotations

from typing import Any

from xlmr_flax.tasks import parsers
from xlmr_flax.tasks.base import Table, Task
from xlmr_flax.tasks.labels import NLI

AMERICASNLI_LANGUAGES = ('ay', 'bzd', 'cni', 'gn', 'hch', 'nah', 'oto', 'qu', 'shp', 'tar')


def _task(name: str, splits: dict[str, tuple[Table, ...]], parse: parsers.Parse, **more: Any) -> Task:
    return Task(
        name=name, kind='pair', labels=NLI, metrics=('accuracy',), splits=splits, parse=parse, train_task='mnli', **more
    )


def _tsv(path: str, *columns: str) -> tuple[Table, ...]:
    return (Table(path, 'tsv', columns),)


AMERICASNLI = _task(
    'americasnli',
    {
        split: _tsv(f'low_resource/americasnli/{split}/{{language}}.tsv', 'id', 'premise', 'hypothesis', 'label')
        for split in ('dev', 'test')
    },
    parsers.pair('premise', 'hypothesis', ident='id'),
    languages=AMERICASNLI_LANGUAGES,
    local_codes={'ay': 'aym', 'qu': 'quy'},
    licence='CC BY-SA 4.0',
    source='https://github.com/abteen/americasnli',
)

MYXNLI = _task(
    'myxnli',
    {
        split: _tsv(f'low_resource/myxnli/my.genre.{split}.tsv', 'label', 'sentence1_my', 'sentence2_my')
        for split in ('dev', 'test')
    },
    parsers.pair('sentence1_{language}', 'sentence2_{language}'),
    languages=('my', 'en'),
    licence='CC BY-NC 4.0',
    source='https://github.com/akhtet/myXNLI',
    note='the files hold the English original too, which may be asked for as en',
)

KORNLI = _task(
    'kornli',
    {
        split: _tsv(f'low_resource/kornli/xnli.{split}.ko.tsv', 'sentence1', 'sentence2', 'gold_label')
        for split in ('dev', 'test')
    },
    parsers.pair('sentence1', 'sentence2', label='gold_label'),
    languages=('ko',),
    licence='CC BY-SA 4.0; the rows are translations of XNLI, CC BY-NC 4.0',
    source='https://github.com/kakaobrain/KorNLUDatasets',
    note='Korean is not a low-resource language; it is one that XNLI lacks',
)

TASKS = (AMERICASNLI, MYXNLI, KORNLI)
