"""Raw text for masked language modelling, one text a line (jiant: tasks/lib/mlm_simple.py)."""

from __future__ import annotations

from typing import Any

from xlmr_flax.tasks.base import RowError, SentenceExample, Table, Task
from xlmr_flax.tasks.languages import all_languages, get_language
from xlmr_flax.tasks.parsers import Row

# Languages whose text of the Universal Declaration is read by default; others may be asked for by their file names.
UDHR_LANGUAGES = (
    'af', 'am', 'ar', 'ast', 'ay', 'az', 'bg', 'bm', 'bn', 'br', 'bs', 'ca', 'ceb', 'cs', 'cy', 'da', 'de', 'ee', 'el',
    'en', 'eo', 'es', 'et', 'eu', 'fa', 'fi', 'fo', 'fon', 'fr', 'fy', 'ga', 'gd', 'gl', 'gn', 'gu', 'ha', 'he', 'hi',
    'hr', 'hsb', 'ht', 'hu', 'hy', 'ia', 'id', 'ig', 'is', 'it', 'ja', 'jv', 'ka', 'kk', 'km', 'ko', 'la', 'lg', 'lt',
    'lv', 'mk', 'ml', 'mn', 'mos', 'mr', 'my', 'nb', 'nl', 'nn', 'ny', 'pa', 'pcm', 'pl', 'pt', 'qu', 'ro', 'ru', 'rw',
    'shp', 'sk', 'sl', 'sn', 'sq', 'sr', 'sv', 'sw', 'ta', 'th', 'tk', 'tl', 'tn', 'tr', 'tt', 'ug', 'uk', 'ur', 'uz',
    'vi', 'war', 'wo', 'xh', 'yi', 'yo', 'zh', 'zu',
)  # fmt: skip

# The declaration's files use ISO 639-3 codes of individual languages.
UDHR_CODES = {
    'ar': 'arb', 'ay': 'ayr', 'az': 'azj', 'fa': 'pes', 'fy': 'fri', 'gn': 'gug', 'mn': 'khk', 'qu': 'quy', 'sq': 'als',
    'sw': 'swh', 'uz': 'uzn', 'yi': 'ydd', 'zh': 'cmn',
}  # fmt: skip


def parse(row: Row, task: Task, language: str) -> SentenceExample | None:
    """Parses a line of text; blank lines are dropped. Raises RowError for a null byte."""
    value = row['text']
    if '\x00' in value:
        raise RowError('text', 'a null byte: no text')
    return SentenceExample('', value.strip()) if value.strip() else None


def _task(name: str, path: str, **more: Any) -> Task:
    other = Table(path.replace('{language}', '{language}_*'), 'lines', ('text',))
    return Task(
        name=name,
        kind='mlm',
        labels=(),
        metrics=('perplexity',),
        splits={'train': (Table(path, 'lines', ('text',), alternatives=(other,)),)},
        parse=parse,
        train_task=name,
        open_languages=True,
        **more,
    )


TASKS = (
    _task(
        'udhr',
        'raw_text/udhr/{language}.txt',
        languages=UDHR_LANGUAGES,
        local_codes={code: UDHR_CODES.get(code, get_language(code).iso639_3) for code in UDHR_LANGUAGES},
        licence='public domain',
        source='https://www.unicode.org/udhr/',
        note='the Universal Declaration of Human Rights, some 10 KB a language: for trying out, not for training; any '
        'further text may be asked for by its file name',
    ),
    _task(
        'mlm_text',
        'raw_text/mlm/{language}.txt',
        languages=tuple(all_languages()),
        licence='that of the text you put there',
        source='your own files',
        note='one text a line, one file a language',
        checked_on='hand-made rows (`udhr` has real ones in this layout)',
    ),
)
