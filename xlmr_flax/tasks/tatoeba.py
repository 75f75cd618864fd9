"""Tatoeba: find the translation of each sentence among all sentences of the other language (LASER's v1 test set).

Nothing is trained. Line i of both files is a pair; the English sentence asks and the foreign side is the pool
(XTREME: third_party/evaluate_retrieval.py). A prediction file has the English sentences sorted, as XTREME's
preprocessing sorts them (utils_preprocess.py: tatoeba_preprocess). The folder which that preprocessing writes
(tatoeba/af-en.en, af-en.af) is read where LASER's is not there: its English lines are sorted already, so that it does
not say which lines are a pair, and its predictions are written but not scored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xlmr_flax.tasks.base import SentenceExample, Table, Task
from xlmr_flax.tasks.languages import tatoeba_code

# The 36 languages of XTREME's evaluate.py.
XTREME_LANGUAGES = (
    'af', 'ar', 'bg', 'bn', 'de', 'el', 'es', 'et', 'eu', 'fa', 'fi', 'fr', 'he', 'hi', 'hu', 'id', 'it', 'ja',
    'jv', 'ka', 'kk', 'ko', 'ml', 'mr', 'nl', 'pt', 'ru', 'sw', 'ta', 'te', 'th', 'tl', 'tr', 'ur', 'vi', 'zh',
)  # fmt: skip

# XTREME-R adds these (XTREME: evaluate.py).
XTREME_R_ADDED = ('az', 'lt', 'pl', 'uk', 'ro')


def parse(row: Mapping[str, Any], task: Task, language: str) -> SentenceExample:
    """One line, one sentence."""
    return SentenceExample('', row['text'], paired='english_lines' not in row)


def _side(suffix: str, xtreme_suffix: str) -> Table:
    path = f'xtreme/tatoeba/{{benchmark_language}}-en.{xtreme_suffix}'
    xtreme = Table(path, 'lines', ('text',), header=False, constants={'english_lines': 'sorted'})
    path = f'xtreme/tatoeba/v1/tatoeba.{{language}}-eng.{suffix}'
    return Table(path, 'lines', ('text',), header=False, alternatives=(xtreme,))


TATOEBA = Task(
    name='tatoeba',
    kind='retrieval',
    labels=(),
    metrics=('accuracy',),
    languages=XTREME_LANGUAGES,
    more_languages=XTREME_R_ADDED,
    splits={'test': (_side('eng', 'en'), _side('{language}', '{benchmark_language}'))},
    parse=parse,
    licence='CC BY 2.0 FR',
    source='https://github.com/facebookresearch/LASER/tree/main/data/tatoeba/v1',
    local_codes={code: tatoeba_code(code) for code in (*XTREME_LANGUAGES, *XTREME_R_ADDED)},
    open_languages=True,
    sorted_queries=True,
    note='any language of the folder can be asked for by its code there',
)

TASKS = (TATOEBA,)
