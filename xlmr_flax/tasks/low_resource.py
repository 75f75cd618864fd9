"""Natural language inference in languages that XNLI lacks: translations of XNLI's rows; all are trained on MNLI."""

from __future__ import annotations

import dataclasses
from typing import Any

from xlmr_flax.tasks import parsers
from xlmr_flax.tasks.base import Table, Task
from xlmr_flax.tasks.labels import NLI
from xlmr_flax.tasks.nli import XNLI

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


def parse_xnli_plus(row: parsers.Row, task: Task, language: str) -> Any:
    """Parses a row of any of the four benchmarks; the columns determine which one it is."""
    if 'gold_label' in row:
        return KORNLI.parse(row, task, language)
    if 'premise' in row:
        return AMERICASNLI.parse(row, task, language)
    return (MYXNLI if f'sentence1_{language}' in row else XNLI).parse(row, task, language)


def _any_of(split: str) -> tuple[Table, ...]:
    """The table of a split: reads the files of the first benchmark that has a file for the language."""
    (first, *others) = (
        source
        for task in (XNLI, AMERICASNLI, MYXNLI, KORNLI)
        for source in task.splits[split]
        if isinstance(source, Table)
    )
    # The file names of myXNLI and KorNLI have a fixed language: replace it by the requested one.
    others = [
        dataclasses.replace(table, path=table.path.replace('/my.', '/{language}.').replace('.ko.', '.{language}.'))
        for table in others
    ]
    return (dataclasses.replace(first, alternatives=tuple(others)),)


XNLI_PLUS = _task(
    'xnli_plus',
    {split: _any_of(split) for split in ('dev', 'test')},
    parse_xnli_plus,
    languages=(*XNLI.languages, *AMERICASNLI_LANGUAGES, 'my', 'ko'),
    local_codes=AMERICASNLI.local_codes,
    licence='CC BY-NC 4.0 (XNLI, myXNLI); CC BY-SA 4.0 (AmericasNLI, KorNLI)',
    source='https://github.com/facebookresearch/XNLI',
    note='XNLI and its translations (AmericasNLI, myXNLI, KorNLI) as one target of 27 languages, fine-tuned once; the '
    'rows and the scores of a language are those of its benchmark',
)

TASKS = (AMERICASNLI, MYXNLI, KORNLI, XNLI_PLUS)
