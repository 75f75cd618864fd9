"""Tasks of the embedded world: small synthetic datasets in several languages that need no files and no licence.

They have the same kinds, splits and prediction files as the benchmark's tasks, for tests, quickstarts and smoke runs.
Their scores do not measure the quality of a model. data/world generates the rows. Row i has the same meaning in every
language, so the translated splits need no machine translation: a translated training set is the training set of that
language, and a translated test set is the English test set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from xlmr_flax.tasks.base import (
    ChoiceExample,
    Embedded,
    Example,
    PairExample,
    RowError,
    SentenceExample,
    SpanExample,
    TagExample,
    Task,
)
from xlmr_flax.tasks.labels import BINARY, IOB2, NLI, UPOS

# Equal to data.world.LANGUAGES. tasks/ may not import data/, so tests/tasks/test_world.py compares the two.
LANGUAGES = (
    'ar', 'bg', 'de', 'el', 'en', 'es', 'fr', 'hi', 'ht', 'id', 'ru', 'sw', 'th', 'tr', 'vi', 'zh',
)  # fmt: skip
ROWS = {'train': 3000, 'dev': 300, 'test': 200}
NOT_ENGLISH = tuple(code for code in LANGUAGES if code != 'en')
CHOICES = ('0', '1', '2', '3')


def parse_nli(row: Mapping[str, Any], task: Task, language: str) -> PairExample:
    """Parses {id, premise, hypothesis, label}."""
    return PairExample(row['id'], row['premise'], row['hypothesis'], task.label_index(row['label'], 'label'))


def parse_pairs(row: Mapping[str, Any], task: Task, language: str) -> PairExample:
    """Parses {id, sentence1, sentence2, label}."""
    return PairExample(row['id'], row['sentence1'], row['sentence2'], task.label_index(row['label'], 'label'))


def parse_spans(row: Mapping[str, Any], task: Task, language: str) -> SpanExample:
    """Parses {id, question, context, answers: [{text, answer_start}]}; a row without answers is unanswerable."""
    answers = tuple((answer['text'], answer['answer_start']) for answer in row['answers'])
    for text, start in answers:
        if row['context'][start : start + len(text)] != text:
            raise RowError('answers', f'{text!r} does not stand at character {start} of the context')
    return SpanExample(row['id'], row['question'], row['context'], answers, is_impossible=not answers)


def parse_choices(row: Mapping[str, Any], task: Task, language: str) -> ChoiceExample:
    """Parses {id, prompt, choices, label}."""
    choices, label = tuple(row['choices']), row['label']
    if not 0 <= label < len(choices):
        raise RowError('label', f'{label} is not the index of one of {len(choices)} choices')
    return ChoiceExample(row['id'], row['prompt'], choices, label)


def parse_tags(row: Mapping[str, Any], task: Task, language: str) -> TagExample:
    """Parses {id, words, tags}."""
    words, tags = tuple(row['words']), row['tags']
    if len(words) != len(tags):
        raise RowError('tags', f'{len(tags)} tags for {len(words)} words')
    return TagExample(row['id'], words, tuple(task.label_index(tag, 'tags') for tag in tags))


def parse_sentence(row: Mapping[str, Any], task: Task, language: str) -> SentenceExample:
    """Parses {id, sentence}."""
    return SentenceExample(row['id'], row['sentence'])


def _task(
    name: str,
    kind: str,
    labels: tuple[str, ...],
    metrics: tuple[str, ...],
    parse: Callable[[Mapping[str, Any], Task, str], Example | None],
) -> Task:
    return Task(
        name=f'world_{name}',
        kind=kind,
        labels=labels,
        metrics=metrics,
        languages=LANGUAGES,
        splits={
            **{split: (Embedded(name, rows),) for split, rows in ROWS.items()},
            'translate_train': (Embedded(name, ROWS['train'], split='train'),),
            'translate_test': (Embedded(name, ROWS['test'], language='en', split='test'),),
        },
        translated={'translate_train': NOT_ENGLISH, 'translate_test': NOT_ENGLISH},
        parse=parse,
        train_task=f'world_{name}',
        licence='Apache-2.0, as this package',
        source='made by xlmr_flax.data.world',
        note='synthetic',
        checked_on='embedded world',
    )


TAGGING = ('f1', 'precision', 'recall')

RETRIEVAL = Task(
    name='world_retrieval',
    kind='retrieval',
    labels=(),
    metrics=('accuracy',),
    languages=NOT_ENGLISH,
    splits={
        split: (Embedded('retrieval', ROWS[split], language='en'), Embedded('retrieval', ROWS[split]))
        for split in ('dev', 'test')
    },
    parse=parse_sentence,
    licence='Apache-2.0, as this package',
    source='made by xlmr_flax.data.world',
    note='synthetic',
    checked_on='embedded world',
)

TASKS = (
    _task('nli', 'pair', NLI, ('accuracy',), parse_nli),
    _task('pairs', 'pair', BINARY, ('accuracy',), parse_pairs),
    _task('spans', 'span', (), ('f1', 'exact_match'), parse_spans),
    _task('choices', 'choice', CHOICES, ('accuracy',), parse_choices),
    _task('pos', 'tag', UPOS, TAGGING, parse_tags),
    _task('ner', 'tag', IOB2, TAGGING, parse_tags),
    RETRIEVAL,
)
