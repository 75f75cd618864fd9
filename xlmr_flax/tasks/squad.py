"""Extractive question answering: SQuAD v1.1 and v2.0 for training; XQuAD, MLQA and TyDiQA-GoldP as targets.

All files are in SQuAD's JSON form. Answers are checked against the context: the text must occur at its answer_start.
Texts that differ from the context only in white space (three alternative answers of the official SQuAD v1.1 dev file)
are replaced by the context's spelling; the scorers remove such differences on both sides.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from xlmr_flax.tasks.base import RowError, SpanExample, Table, Task, text_of
from xlmr_flax.tasks.parsers import Row, id_of

XQUAD_LANGUAGES = ('en', 'es', 'de', 'el', 'ru', 'tr', 'ar', 'vi', 'th', 'zh', 'hi')
MLQA_LANGUAGES = ('en', 'es', 'de', 'ar', 'hi', 'vi', 'zh')
TYDIQA_LANGUAGES = ('en', 'ar', 'bn', 'fi', 'id', 'ko', 'ru', 'sw', 'te')
COLUMNS = ('id', 'question', 'context')
METRICS = ('f1', 'exact_match')
XTREME = 'translated/xtreme_translations'
SQUAD_HOME = 'https://rajpurkar.github.io/SQuAD-explorer/'


# The placeholder for each answer in a test file without public answers (XTREME: scripts/download_data.sh).
PLACEHOLDER = {'answer_start': 0, 'text': ''}
EVERY_ANSWER = 'every_answer'


def parse(row: Row, task: Task, language: str) -> SpanExample | None:
    """Parses a question in SQuAD's form. A v2 file marks unanswerable questions; in other files, a question without
    answers has no gold answer.

    XTREME's public test files have PLACEHOLDER in place of the answer; it is not an answer.
    A table with a constant column `translated` has machine-translated rows: they are parsed by `parse_translated_test`
    if the column is 'test' or 'every_answer', else by `parse_translated`.
    """
    if 'translated' in row:
        scored = row['translated'] in ('test', EVERY_ANSWER)
        return (parse_translated_test if scored else parse_translated)(row, task, language)
    context = text_of(row, 'context')
    answers = tuple(answer_in(context, answer) for answer in _answers(row) if answer != PLACEHOLDER)
    impossible = row.get('is_impossible', False)
    if not isinstance(impossible, bool):
        raise RowError('is_impossible', f'true or false is expected, not {impossible!r}')
    if impossible and answers:
        raise RowError('answers', 'an unanswerable question with answers')
    return SpanExample(id_of(row, 'id'), text_of(row, 'question'), context, answers, impossible)


def parse_translated(row: Row, task: Task, language: str) -> SpanExample | None:
    """Parses a machine-translated question for training. Answers that do not occur at their answer_start were lost in
    translation and are dropped; a question without any other answer is dropped too."""
    context, answers = text_of(row, 'context'), []
    for answer in _answers(row):
        try:
            answers.append(answer_in(context, answer))
        except RowError:
            continue
    if not answers:
        return None
    return SpanExample(id_of(row, 'id'), text_of(row, 'question'), context, tuple(answers))


def parse_translated_test(row: Row, task: Task, language: str) -> SpanExample:
    """Parses a question of a machine-translated test set. No question is dropped, because that would change the test
    set. An answer that does not occur at its answer_start gets the context's end as its start, so that only its text
    counts. Empty answers are dropped, unless the column `translated` is 'every_answer': then they count, as in SQuAD
    v1.1's script."""
    context, answers = text_of(row, 'context'), []
    for answer in _answers(row):
        text = answer.get('text') if isinstance(answer, dict) else None
        if not isinstance(text, str):
            raise RowError('answers', f'an object with text and answer_start is expected, not {answer!r}')
        try:
            answers.append(answer_in(context, answer))
        except RowError:
            answers += [(text, len(context))] if text.strip() or row['translated'] == EVERY_ANSWER else []
    return SpanExample(id_of(row, 'id'), text_of(row, 'question'), context, tuple(answers))


def answer_in(context: str, answer: Any) -> tuple[str, int]:
    """(text, start) of an answer {text, answer_start}. Raises RowError if the text does not occur at that position."""
    if not isinstance(answer, dict):
        raise RowError('answers', f'an object with text and answer_start is expected, not {answer!r}')
    text, start = answer.get('text'), answer.get('answer_start')
    if not isinstance(text, str) or type(start) is not int:
        raise RowError('answers', f'a text and a number are expected, not {text!r} and {start!r}')
    if not text.strip():
        raise RowError('answers', f'an empty answer at character {start}')
    if not 0 <= start < len(context):
        raise RowError('answers', f'answer_start {start} is outside the context ({len(context)} characters)')
    if context.startswith(text, start):
        return text, start
    spelled = re.compile(r'\s+'.join(map(re.escape, text.split()))).match(context, start)
    if spelled is None:
        raise RowError(
            'answers', f'{text!r} does not stand at character {start}: {context[start : start + len(text)]!r}'
        )
    return spelled.group(), start


def _answers(row: Row) -> list[Any]:
    answers = row['answers']
    if not isinstance(answers, list):
        raise RowError('answers', f'a list is expected, not {answers!r}')
    return answers


def _task(
    name: str,
    languages: tuple[str, ...],
    splits: dict[str, tuple[Table, ...]],
    train_task: str,
    licence: str,
    source: str,
    parse: Callable[[Row, Task, str], SpanExample | None] = parse,
    **more: Any,
) -> Task:
    return Task(
        name=name, kind='span', labels=(), metrics=METRICS, languages=languages, splits=splits, parse=parse,
        train_task=train_task, licence=licence, source=source, **more,
    )  # fmt: skip


def _file(path: str, ids: bool = True) -> tuple[Table, ...]:
    return (Table(path, 'squad', COLUMNS, ids=ids),)


def _translated(part: str, *paths: str, ids: bool = True) -> tuple[Table, ...]:
    """A table that reads the first of several machine-translated files that exists. part: 'train', 'dev', 'test' or
    'every_answer' (see `parse`)."""
    first, *others = (Table(path, 'squad', COLUMNS, ids=ids, constants={'translated': part}) for path in paths)
    return (dataclasses.replace(first, alternatives=tuple(others)),)


def _no_english(languages: tuple[str, ...], *more: str) -> tuple[str, ...]:
    return (*(code for code in languages if code != 'en'), *more)


SQUAD_V1 = _task(
    'squad_v1',
    ('en',),
    {
        **{split: _file(f'intermediate/squad_v1.1/{split}-v1.1.json') for split in ('train', 'dev')},
        # File names: the first are XTREME's (as in TFDS' xquad), the second MLQA's own, the third SQuAD-it's.
        'translate_train': _translated(
            'train',
            f'{XTREME}/SQuAD/translate-train/squad.translate.train.en-{{language}}.json',
            'translated/mlqa-translate-train/{language}_squad-translate-train-train-v1.1.json',
            'translated/squad_{language}/SQuAD_{language}-train.json',
        ),
        'translate_dev': _translated(
            'dev',
            f'{XTREME}/SQuAD/translate-dev/squad.translate.dev.en-{{language}}.json',
            'translated/mlqa-translate-train/{language}_squad-translate-train-dev-v1.1.json',
            'translated/squad_{language}/SQuAD_{language}-test.json',
        ),
    },
    'squad_v1',
    'CC BY-SA 4.0',
    SQUAD_HOME,
    translated={split: _no_english(XQUAD_LANGUAGES, 'it') for split in ('translate_train', 'translate_dev')},
    note='XQuAD, XQuAD-R and SQuAD-it are made from its dev file: never train on that one, in any language; of '
    'translated rows, answers that are not at their place in the context are left out',
)

SQUAD_V2 = _task(
    'squad_v2',
    ('en',),
    {split: _file(f'intermediate/squad_v2.0/{split}-v2.0.json') for split in ('train', 'dev')},
    'squad_v2',
    'CC BY-SA 4.0',
    SQUAD_HOME,
    scorer='squad_v2',
    note='its dev file shares articles with SQuAD v1.1 dev and so with XQuAD: never train on it',
    checked_on='real rows; stand-in rows for train (dev articles)',
)

XQUAD = _task(
    'xquad',
    XQUAD_LANGUAGES,
    {
        'test': _file('xtreme/xquad/xquad.{language}.json'),
        'translate_test': _translated(
            'test', f'{XTREME}/XQuAD/translate-test/xquad.translate.test.{{language}}-en.json'
        ),
    },
    'squad_v1',
    'CC BY-SA 4.0',
    'https://github.com/google-deepmind/xquad',
    more_languages=('ro',),
    translated={'translate_test': _no_english(XQUAD_LANGUAGES)},
    note='paragraphs of the SQuAD v1.1 dev set and their translations; has no other split than the one that is '
    "scored; Romanian is XTREME-R's",
)

MLQA = _task(
    'mlqa',
    MLQA_LANGUAGES,
    {
        **{
            split: _file(f'xtreme/mlqa/MLQA_V1/{split}/{split}-context-{{language}}-question-{{language}}.json')
            for split in ('dev', 'test')
        },
        'translate_test': _translated('test', f'{XTREME}/MLQA/translate-test/mlqa.translate.test.{{language}}-en.json'),
    },
    'squad_v1',
    'CC BY-SA 3.0',
    'https://github.com/facebookresearch/MLQA',
    scorer='mlqa',
    translated={'translate_test': _no_english(MLQA_LANGUAGES)},
    note="XTREME's public test files have no answers: score on dev or on the original test files; of its translated "
    'test files, German was missing in 2023 (github.com/google-research/xtreme, issue 98)',
)

# G-XLT: language 'en-de' is an English context with a German question, in the order of the file names.
PAIRS = tuple(
    f'{context}-{question}' for context in MLQA_LANGUAGES for question in MLQA_LANGUAGES if context != question
)
MLQA_CROSS = _task(
    'mlqa_cross',
    PAIRS,
    {split: _file(f'xtreme/mlqa/MLQA_V1/{split}/{split}-context-{{language}}.json') for split in ('dev', 'test')},
    'squad_v1',
    'CC BY-SA 3.0',
    'https://github.com/facebookresearch/MLQA',
    scorer='mlqa',
    local_codes={pair: pair.replace('-', '-question-') for pair in PAIRS},
    note="questions in another language than their context: 'en-de' is an English context and a German question",
)

TYDIQA = _task(
    'tydiqa',
    TYDIQA_LANGUAGES,
    {
        # The ids of the training files are not unique.
        'train': _file('xtreme/tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.{language}.train.json', ids=False),
        'test': _file('xtreme/tydiqa/tydiqa-goldp-v1.1-dev/tydiqa.goldp.{language}.dev.json'),
        # File names as in TFDS' tydi_qa; for the test set as X-Mixup (Yang et al. 2022) reads it.
        'translate_train': _translated(
            'train', f'{XTREME}/TyDiQA-GoldP/translate-train/tydiqa.translate.train.en-{{language}}.json', ids=False
        ),
        'translate_test': _translated(
            'test', f'{XTREME}/TyDiQA-GoldP/translate-test/tydiqa.translate.test.{{language}}-en.json'
        ),
    },
    'tydiqa',
    'Apache-2.0; text from Wikipedia, CC BY-SA 3.0',
    'https://github.com/google-research-datasets/tydiqa',
    translated={split: _no_english(TYDIQA_LANGUAGES) for split in ('translate_train', 'translate_test')},
    note='trained on its English part; the public dev file is what is scored (XTREME has no other), so that there is '
    'no split to select a checkpoint on',
)

SQUAD_IT = _task(
    'squad_it',
    ('it',),
    {
        'train': _translated('train', 'translated/squad_it/SQuAD_it-train.json'),
        'test': _translated(EVERY_ANSWER, 'translated/squad_it/SQuAD_it-test.json'),
    },
    'squad_v1',
    'CC BY-SA 4.0',
    'https://github.com/crux82/squad-it',
    note='SQuAD v1.1 machine-translated into Italian, for translate-train; test is its dev set: do not train on it '
    'when scoring XQuAD; answers that are not at their place in the context are left out of training, and count as '
    "gold in the test set, as in SQuAD v1.1's script",
    checked_on='real rows; none for train',
)

TASKS = (SQUAD_V1, SQUAD_V2, XQUAD, MLQA, MLQA_CROSS, TYDIQA, SQUAD_IT)
