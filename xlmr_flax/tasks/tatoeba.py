"""Tatoeba: retrieves the translation of each sentence from all sentences of the other language (LASER's v1 test set).

Nothing is trained. Line i of both files is a pair; the English sentences are the queries and the foreign sentences are
the pool (XTREME: third_party/evaluate_retrieval.py). In a prediction file the English sentences are sorted as in
XTREME's preprocessing (utils_preprocess.py: tatoeba_preprocess). If LASER's folder does not exist, the output of that
preprocessing is read (tatoeba/af-en.en, af-en.af). Its English lines are already sorted, so the gold pairs are unknown,
and predictions are written but not scored.
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
    """Parses a line, which is one sentence."""
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
