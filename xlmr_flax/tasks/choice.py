"""Multiple choice: HellaSwag, Cosmos QA, CommonsenseQA, Social IQa and COPA for training, XCOPA as the target.

Each (prompt, choice) pair is encoded separately. Prompts and choices are those of jiant (jiant/tasks/lib/), except for
COPA's and XCOPA's question, which is worded as in XTREME (third_party/run_xcopa.py).
"""

from __future__ import annotations

from typing import Any

from xlmr_flax.tasks import parsers
from xlmr_flax.tasks.base import ChoiceExample, RowError, Table, Task, text_of
from xlmr_flax.tasks.labels import choices
from xlmr_flax.tasks.parsers import Row, id_of
from xlmr_flax.util.errors import closest, quote

XCOPA_LANGUAGES = ('et', 'ht', 'id', 'it', 'qu', 'sw', 'ta', 'th', 'tr', 'vi', 'zh')
# XCOPA has no Google translation from Quechua.
XCOPA_GMT_LANGUAGES = tuple(language for language in XCOPA_LANGUAGES if language != 'qu')
LETTERS = {letter: number for number, letter in enumerate('ABCDE')}
SIQA_LABELS = {'1': 0, '2': 1, '3': 2, 'A': 0, 'B': 1, 'C': 2}
COPA_QUESTIONS = ('cause', 'effect')


def parse_hellaswag(row: Row, task: Task, language: str) -> ChoiceExample:
    """Parses HellaSwag: the prompt is ctx_a; a choice is ctx_b and the ending (jiant: tasks/lib/hellaswag.py)."""
    endings, start = row['endings'], text_of(row, 'ctx_b')
    if not isinstance(endings, list) or not all(isinstance(ending, str) for ending in endings):
        raise RowError('endings', f'a list of strings is expected, not {endings!r}')
    texts = tuple(f'{start} {ending}' for ending in endings)
    return parsers.choice_example(task, '', text_of(row, 'ctx_a'), texts, row.get('label'), 'label')


def parse_commonsenseqa(row: Row, task: Task, language: str) -> ChoiceExample:
    """Parses CommonsenseQA: the prompt is question.stem; the choices are in the order of their letters (jiant:
    tasks/lib/commonsenseqa.py)."""
    question = row['question']
    try:
        named = [(option['label'], text_of(option, 'text')) for option in question['choices']]
        texts = dict(named)
        prompt = text_of(question, 'stem')
        ordered = tuple(texts[letter] for letter in LETTERS)
    except (KeyError, TypeError) as error:
        raise RowError('question', f'a stem and choices A to E are expected ({error!r})') from None
    if len(named) != len(LETTERS):  # each letter is there, so one is there twice, or there is a sixth choice
        raise RowError(
            'question', f'a choice for each letter A to E is expected, not {quote([name for name, _ in named])}'
        )
    return parsers.choice_example(task, id_of(row, 'id'), prompt, ordered, row.get('answerKey'), 'answerKey', LETTERS)


def parse_siqa(row: Row, task: Task, language: str) -> ChoiceExample:
    """Parses Social IQa: the prompt is the context and the question; the label is that of the labels file (1-3) or
    version 1.4's `correct` (A-C)."""
    column = 'label' if 'label' in row else 'correct'
    texts = tuple(text_of(row, f'answer{letter}') for letter in 'ABC')
    prompt = parsers.text(row, ('context', 'question'))
    return parsers.choice_example(task, '', prompt, texts, row.get(column), column, SIQA_LABELS)


def parse_copa(row: Row, task: Task, language: str) -> ChoiceExample:
    """Parses COPA and XCOPA: the prompt is the premise and 'What was the cause?' or 'What was the effect?', in English
    for all languages."""
    asked = text_of(row, 'question')
    if asked not in COPA_QUESTIONS:
        raise RowError('question', f'unknown question {asked!r}{closest(asked, COPA_QUESTIONS)}')
    prompt = f'{text_of(row, "premise")} What was the {asked}?'
    texts = (text_of(row, 'choice1'), text_of(row, 'choice2'))
    return parsers.choice_example(task, '', prompt, texts, row.get('label'), 'label')


def _task(name: str, count: int, splits: dict[str, tuple[Table, ...]], parse: parsers.Parse, **more: Any) -> Task:
    settings: dict[str, Any] = {'languages': ('en',), 'train_task': name} | more
    return Task(
        name=name, kind='choice', labels=choices(count), metrics=('accuracy',), splits=splits, parse=parse, **settings
    )


def _jsonl(path: str, *columns: str, **more: Any) -> tuple[Table, ...]:
    return (Table(path, 'jsonl', columns, **more),)


_HELLASWAG = ('ctx_a', 'ctx_b', 'endings')
_COPA = ('premise', 'choice1', 'choice2', 'question')
_COSMOS = ('id', 'context', 'question', 'answer0', 'answer1', 'answer2', 'answer3')

HELLASWAG = _task(
    'hellaswag',
    4,
    {
        'train': _jsonl('intermediate/hellaswag/hellaswag_train.jsonl', *_HELLASWAG, 'label'),
        'dev': _jsonl('intermediate/hellaswag/hellaswag_val.jsonl', *_HELLASWAG, 'label'),
        'test': _jsonl('intermediate/hellaswag/hellaswag_test.jsonl', *_HELLASWAG, optional=('label',)),
    },
    parse_hellaswag,
    licence='MIT',
    source='https://github.com/rowanz/hellaswag',
    checked_on='real rows; stand-in rows for train (dev rows)',
)

COSMOSQA = _task(
    'cosmosqa',
    4,
    {
        'train': (Table('intermediate/cosmosqa/train.csv', 'csv', (*_COSMOS, 'label')),),
        'dev': (Table('intermediate/cosmosqa/valid.csv', 'csv', (*_COSMOS, 'label')),),
        'test': (
            Table(
                'intermediate/cosmosqa/test.csv',
                'csv',
                _COSMOS,
                optional=('label',),
                alternatives=(Table('intermediate/cosmosqa/test.jsonl', 'jsonl', _COSMOS),),
            ),
        ),
    },
    parsers.choice(('context', 'question'), _COSMOS[3:], ident='id'),
    licence='CC BY 4.0',
    source='https://github.com/wilburOne/cosmosqa',
    checked_on='real rows; stand-in rows for train (dev rows)',
)

COMMONSENSEQA = _task(
    'commonsenseqa',
    5,
    {
        'train': _jsonl('intermediate/commonsenseqa/train_rand_split.jsonl', 'id', 'question', 'answerKey'),
        'dev': _jsonl('intermediate/commonsenseqa/dev_rand_split.jsonl', 'id', 'question', 'answerKey'),
        'test': _jsonl('intermediate/commonsenseqa/test_rand_split_no_answers.jsonl', 'id', 'question'),
    },
    parse_commonsenseqa,
    licence='MIT',
    source='https://www.tau-nlp.sites.tau.ac.il/commonsenseqa',
    note='version 1.11, random split; the test file has no answers',
)


def _siqa(split: str, short: str) -> tuple[Table, ...]:
    folder, columns = 'intermediate/siqa', ('context', 'question', 'answerA', 'answerB', 'answerC')
    newer = Table(f'{folder}/socialIQa_v1.4_{short}.jsonl', 'jsonl', (*columns, 'correct'))
    labels = f'{folder}/{split}-labels.lst'
    return (Table(f'{folder}/{split}.jsonl', 'jsonl', columns, label_file=labels, alternatives=(newer,)),)


SIQA = _task(
    'siqa',
    3,
    {'train': _siqa('train', 'trn'), 'dev': _siqa('dev', 'dev')},
    parse_siqa,
    licence='not stated by its authors',
    source='https://allenai.org/data/socialiqa',
    checked_on='hand-made rows',
)

COPA = _task(
    'copa',
    2,
    {
        'train': _jsonl('xtremer/copa/train.en.jsonl', *_COPA, 'label'),
        'dev': _jsonl('xtremer/copa/val.en.jsonl', *_COPA, 'label'),
        # SuperGLUE publishes no test labels; if the column exists, it contains placeholders.
        'test': _jsonl('xtremer/copa/test.en.jsonl', *_COPA, hidden=('label',)),
    },
    parse_copa,
    licence='BSD 2-Clause',
    source='https://people.ict.usc.edu/~gordon/copa.html',
    warmup_task='siqa',
    note="SuperGLUE's files; its test labels are not public and are not read; the same items as XCOPA: train on the "
    'train file only when scoring XCOPA',
)


def _xcopa(name: str, folder: str, languages: tuple[str, ...], note: str, **translated: str) -> Task:
    """An XCOPA task. translated: split -> folder of the files in English."""

    def file(folder: str, split: str) -> tuple[Table, ...]:
        path = f'xtremer/xcopa/{folder}/{{language}}/{split}.{{language}}.jsonl'
        return _jsonl(path, *_COPA, optional=('label',)) if split == 'test' else _jsonl(path, *_COPA, 'label')

    return _task(
        name,
        2,
        {
            'dev': file(folder, 'val'),
            'test': file(folder, 'test'),
            **{split: file(other, 'test') for split, other in translated.items()},
        },
        parse_copa,
        translated=dict.fromkeys(translated, XCOPA_GMT_LANGUAGES),
        languages=languages,
        train_task='copa',
        warmup_task='siqa',
        licence='CC BY 4.0',
        source='https://github.com/cambridgeltl/xcopa',
        note=note,
    )


XCOPA = _xcopa(
    'xcopa',
    'data',
    XCOPA_LANGUAGES,
    'trained on Social IQa, then on COPA, with one head (XTREME: scripts/train_xcopa.sh); translate_test has the rows '
    'of xcopa_gmt',
    translate_test='data-gmt',
)
XCOPA_GMT = _xcopa(
    'xcopa_gmt',
    'data-gmt',
    XCOPA_GMT_LANGUAGES,
    'translate-test: XCOPA machine-translated into English, by the language it was translated from; no Quechua',
)

TASKS = (HELLASWAG, COSMOSQA, COMMONSENSEQA, SIQA, COPA, XCOPA, XCOPA_GMT)
