"""Natural language inference in languages that XNLI lacks: translations of XNLI's rows; all are trained on MNLI."""

from __future__ import annotations

import dataclasses
from typing import Any

from xlmr_flax.tasks import parsers
from xlmr_flax.tasks.base import Table, Task
from xlmr_flax.tasks.labels import NLI
from xlmr_flax.tasks.languages import get_language
from xlmr_flax.tasks.nli import XNLI

AMERICASNLI_LANGUAGES = ('ay', 'bzd', 'cni', 'gn', 'hch', 'nah', 'oto', 'qu', 'shp', 'tar')
AFRIXNLI_FOLDERS = (
    'amh', 'eng', 'ewe', 'fra', 'hau', 'ibo', 'kin', 'lin', 'lug', 'orm', 'sna', 'sot', 'swa', 'twi', 'wol', 'xho',
    'yor', 'zul',
)  # fmt: skip
INDICXNLI_FOLDERS = ('asm', 'ben', 'guj', 'hin', 'kan', 'mal', 'mar', 'ori', 'pan', 'tam', 'tel')
# One file of AfriXNLI has the names.
NUMBERS = {'0': 'entailment', '1': 'neutral', '2': 'contradiction', **{label: label for label in NLI}}


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


def _numbered(name: str, folders: tuple[str, ...], **more: Any) -> Task:
    """A translation of rows of XNLI's test set; labels are numbers."""
    codes = {get_language(folder).code: folder for folder in folders}
    return _task(
        name,
        {
            split: (Table(f'low_resource/{name}/{{language}}/{split}.csv', 'csv', ('premise', 'hypothesis', 'label')),)
            for split in ('dev', 'test')
        },
        parsers.pair('premise', 'hypothesis', names=NUMBERS),
        languages=tuple(codes),
        local_codes=codes,
        **more,
    )


_LINGALA = (
    'in the files that were read, the Lingala test sentences are in another order than their labels, so its score is '
    'meaningless'
)

AFRIXNLI = _numbered(
    'afrixnli',
    AFRIXNLI_FOLDERS,
    licence='Apache-2.0 by its authors; the rows are translations of XNLI, CC BY-NC 4.0',
    source='https://huggingface.co/datasets/masakhane/afrixnli',
    note='600 rows of the test set of XNLI, with the original in English and French: never train on that; ' + _LINGALA,
)

INDICXNLI = _numbered(
    'indicxnli',
    INDICXNLI_FOLDERS,
    licence='CC0; the rows are translations of XNLI, CC BY-NC 4.0',
    source='https://huggingface.co/datasets/Divyanshu/indicxnli',
    note='machine translations of the test set of XNLI: never train on that; the files that were read are the 600 rows '
    'that AfriXNLI has',
)


def parse_xnli_plus(row: parsers.Row, task: Task, language: str) -> Any:
    """Parses a row of any of the benchmarks; the columns determine which one it is."""
    if 'gold_label' in row:
        return KORNLI.parse(row, task, language)
    if 'premise' in row:
        return (AMERICASNLI if 'id' in row else AFRIXNLI).parse(row, task, language)
    return (MYXNLI if f'sentence1_{language}' in row else XNLI).parse(row, task, language)


def _any_of(split: str) -> tuple[Table, ...]:
    """The table of a split: reads the files of the first benchmark that has a file for the language."""
    (first, *others) = (
        source
        for task in (XNLI, AMERICASNLI, MYXNLI, KORNLI, AFRIXNLI, INDICXNLI)
        for source in task.splits[split]
        if isinstance(source, Table)
    )
    # The file names of myXNLI and KorNLI have a fixed language: replace it by the requested one.
    others = [
        dataclasses.replace(table, path=table.path.replace('/my.', '/{language}.').replace('.ko.', '.{language}.'))
        for table in others
    ]
    return (dataclasses.replace(first, alternatives=tuple(others)),)


# The languages that AfriXNLI and IndicXNLI add. XNLI itself has English, French, Swahili and Hindi.
_MORE = {
    code: folder
    for code, folder in {**AFRIXNLI.local_codes, **INDICXNLI.local_codes}.items()
    if code not in XNLI.languages
}

XNLI_PLUS = _task(
    'xnli_plus',
    {split: _any_of(split) for split in ('dev', 'test')},
    parse_xnli_plus,
    languages=(*XNLI.languages, *AMERICASNLI_LANGUAGES, 'my', 'ko', *_MORE),
    local_codes={**AMERICASNLI.local_codes, **_MORE},
    licence='CC BY-NC 4.0 (XNLI, myXNLI, AfriXNLI, IndicXNLI); CC BY-SA 4.0 (AmericasNLI, KorNLI)',
    source='https://github.com/facebookresearch/XNLI',
    note='XNLI and its translations (AmericasNLI, myXNLI, KorNLI, AfriXNLI, IndicXNLI) as one target of 52 languages, '
    'fine-tuned once; the rows and the scores of a language are those of its benchmark, for Swahili and Hindi XNLI; '
    + _LINGALA,
)

TASKS = (AMERICASNLI, MYXNLI, KORNLI, AFRIXNLI, INDICXNLI, XNLI_PLUS)
