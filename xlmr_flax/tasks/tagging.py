"""Tagging: XTREME's part-of-speech and entity tasks, and two African benchmarks as their transfer targets."""

from __future__ import annotations

import dataclasses

from xlmr_flax.tasks import parsers
from xlmr_flax.tasks.base import Table, TagExample, Task
from xlmr_flax.tasks.labels import IOB2, IOB2_DATE, UPOS
from xlmr_flax.tasks.languages import get_language
from xlmr_flax.tasks.parsers import Row

METRICS = ('f1', 'precision', 'recall')

# Languages as XTREME's evaluate.py lists them.
UDPOS_LANGUAGES = (
    'af', 'ar', 'bg', 'de', 'el', 'en', 'es', 'et', 'eu', 'fa', 'fi', 'fr', 'he', 'hi', 'hu', 'id', 'it', 'ja', 'kk',
    'ko', 'mr', 'nl', 'pt', 'ru', 'ta', 'te', 'th', 'tl', 'tr', 'ur', 'vi', 'yo', 'zh',
)  # fmt: skip
PANX_LANGUAGES = (
    'ar', 'he', 'vi', 'id', 'jv', 'ms', 'tl', 'eu', 'ml', 'ta', 'te', 'af', 'nl', 'en', 'de', 'el', 'bn', 'hi', 'mr',
    'ur', 'fa', 'fr', 'it', 'pt', 'es', 'bg', 'ru', 'ja', 'ka', 'ko', 'th', 'sw', 'yo', 'my', 'zh', 'kk', 'tr', 'et',
    'fi', 'hu',
)  # fmt: skip

# Languages of which Universal Dependencies 2.5 and Universal NER have no such split.
UDPOS_UNPUBLISHED = {'train': ('th', 'tl', 'yo'), 'dev': ('kk', 'th', 'tl', 'yo')}
UNER_UNPUBLISHED = {'train': ('ceb', 'tl', 'de', 'ru'), 'dev': ('ceb', 'tl', 'de', 'ru')}

# The language folders of the two Masakhane datasets.
MASAKHAPOS_FOLDERS = (
    'bam', 'bbj', 'ewe', 'fon', 'hau', 'ibo', 'kin', 'lug', 'luo', 'mos', 'nya', 'pcm', 'sna', 'swa', 'tsn', 'twi',
    'wol', 'xho', 'yor', 'zul',
)  # fmt: skip
MASAKHANER_FOLDERS = ('amh', *MASAKHAPOS_FOLDERS)


def parse_without_date(row: Row, task: Task, language: str) -> TagExample:
    """Parses a sentence of MasakhaNER with the tags of DATE entities replaced by O."""
    if 'tags' in row:
        row = {**row, 'tags': ['O' if tag in ('B-DATE', 'I-DATE') else tag for tag in row['tags']]}
    return parsers.tags(row, task, language)


def _conll(path: str) -> Table:
    return Table(path, 'conll', ())


def _udpos(split: str) -> tuple[Table, ...]:
    two_columns = (
        _conll(f'xtreme/udpos/{split}-{{language}}.tsv'),
        _conll(f'xtreme/udpos_tsv/{split}-{{language}}.tsv'),
    )
    path = f'xtreme/udpos/UD_*/{{language}}_*-ud-{split}.conllu'
    return (Table(path, 'conllu', (), alternatives=two_columns),)


UDPOS = Task(
    name='udpos',
    kind='tag',
    labels=UPOS,
    metrics=METRICS,
    languages=UDPOS_LANGUAGES,
    more_languages=('lt', 'pl', 'uk', 'wo', 'ro'),
    unpublished=UDPOS_UNPUBLISHED,
    open_languages=True,
    splits={split: _udpos(split) for split in ('train', 'dev', 'test')},
    parse=parsers.tags,
    train_task='udpos',
    licence='by treebank: from CC BY-SA 4.0 to CC BY-NC-SA 3.0 (NC for some); each has its LICENSE.txt',
    source='https://universaldependencies.org',
    note='all treebanks of a language one after the other, multi-word tokens as one word, as XTREME prepares them; or '
    "XTREME's two-column files; any further language may be asked for by its UD code",
)

PANX = Task(
    name='panx',
    kind='tag',
    labels=IOB2,
    metrics=METRICS,
    languages=PANX_LANGUAGES,
    more_languages=('qu', 'pl', 'uk', 'az', 'lt', 'pa', 'gu', 'ro'),
    splits={split: (_conll(f'xtreme/panx/{split}-{{language}}.tsv'),) for split in ('train', 'dev', 'test')},
    parse=parsers.tags,
    train_task='panx',
    licence='Apache-2.0 (the splits); text from Wikipedia, CC BY-SA 3.0',
    source='https://github.com/afshinrahimi/mmner',
    note="WikiANN in Rahimi et al.'s splits; XTREME's public test files have no tags: score on dev there",
)


def _masakhane(kind: str) -> dict[str, tuple[Table, ...]]:
    return {split: (_conll(f'low_resource/{kind}/{{language}}/{split}.txt'),) for split in ('train', 'dev', 'test')}


def _codes(folders: tuple[str, ...]) -> dict[str, str]:
    return {get_language(folder).code: folder for folder in folders}


MASAKHANER = Task(
    name='masakhaner2',
    kind='tag',
    labels=IOB2_DATE,
    metrics=METRICS,
    languages=tuple(_codes(MASAKHANER_FOLDERS)),
    local_codes=_codes(MASAKHANER_FOLDERS),
    splits=_masakhane('masakhaner2'),
    parse=parsers.tags,
    train_task='panx',
    licence='CC BY-NC 4.0',
    source='https://github.com/masakhane-io/masakhane-ner',
    note='DATE entities count, which a model trained on PAN-X has never seen and cannot find: its recall is bounded; '
    'masakhaner2_nodate scores without them, so say which one a number is; Amharic is from MasakhaNER 1.0',
    checked_on='real rows; none for train',
)

MASAKHANER_NODATE = dataclasses.replace(
    MASAKHANER,
    name='masakhaner2_nodate',
    labels=IOB2,
    parse=parse_without_date,
    note='MasakhaNER 2.0 with its DATE entities read as O, so that PAN-X has every label; not comparable with numbers '
    'that count DATE',
)


def parse_uner(row: Row, task: Task, language: str) -> TagExample:
    """Parses a sentence of Universal NER. Other entities (OTH) and NorNE's derived words, which have '-' as their tag,
    are no entities, as in the scores of its authors."""
    if 'tags' in row:
        row = {**row, 'tags': ['O' if tag in ('B-OTH', 'I-OTH', '-') else tag for tag in row['tags']]}
    return parsers.tags(row, task, language)


UNER = Task(
    name='uner',
    kind='tag',
    labels=IOB2,
    metrics=METRICS,
    languages=('ceb', 'da', 'en', 'hr', 'nn', 'qaf', 'sk', 'sr', 'tl'),
    more_languages=('de', 'nb', 'pt', 'ru', 'sv', 'zh'),
    unpublished=UNER_UNPUBLISHED,
    local_codes={'nn': 'nno', 'nb': 'nob'},
    splits={
        split: (Table(f'low_resource/uner/UNER_*/{{language}}_*-ud-{split}.iob2', 'iob2', ()),)
        for split in ('train', 'dev', 'test')
    },
    parse=parse_uner,
    train_task='panx',
    licence='CC BY-SA 4.0; UNER_Tagalog-Ugnayan CC BY-NC-SA 4.0',
    source='https://github.com/UniversalNER',
    note='all treebanks of a language one after the other; trained on PAN-X, which has the same tags; other entities '
    '(OTH) do not count',
)

MASAKHAPOS = Task(
    name='masakhapos',
    kind='tag',
    labels=UPOS,
    metrics=METRICS,
    languages=tuple(_codes(MASAKHAPOS_FOLDERS)),
    local_codes=_codes(MASAKHAPOS_FOLDERS),
    splits=_masakhane('masakhapos'),
    parse=parsers.tags,
    train_task='udpos',
    licence='CC BY-NC 4.0',
    source='https://github.com/masakhane-io/masakhane-pos',
    checked_on='real rows; none for train',
)

TASKS = (UDPOS, PANX, MASAKHANER, MASAKHANER_NODATE, UNER, MASAKHAPOS)
