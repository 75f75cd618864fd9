"""Natural language inference: MNLI, SNLI, ANLI for training, XNLI as the target.

Every task has the head order contradiction, entailment, neutral (jiant: tasks/lib/{mnli,snli,anli,xnli}.py), so that
one head can serve a mixture of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xlmr_flax.tasks.base import PairExample, RowError, Table, Task, closest, text_of
from xlmr_flax.tasks.labels import NLI

ANLI_LABELS = {'c': 'contradiction', 'e': 'entailment', 'n': 'neutral'}
ANLI_ROUNDS = ('R1', 'R2', 'R3')
XNLI_LANGUAGES = ('ar', 'bg', 'de', 'el', 'en', 'es', 'fr', 'hi', 'ru', 'sw', 'th', 'tr', 'ur', 'vi', 'zh')


def parse_glue(row: Mapping[str, Any], task: Task, language: str) -> PairExample:
    """A row of GLUE's MNLI, columns by header name."""
    return PairExample('', row['sentence1'], row['sentence2'], task.label_index(row['gold_label'], 'gold_label'))


def parse_snli(row: Mapping[str, Any], task: Task, language: str) -> PairExample | None:
    """A row of snli_1.0_*.txt; '-' (the annotators did not agree) drops it."""
    if row['gold_label'] == '-':
        return None
    return parse_glue(row, task, language)


def parse_anli(row: Mapping[str, Any], task: Task, language: str) -> PairExample:
    """A row of ANLI; the premise is `context` (jiant: tasks/lib/anli.py)."""
    label = text_of(row, 'label')
    if label not in ANLI_LABELS:
        raise RowError('label', f'unknown label {label!r}{closest(label, ANLI_LABELS)}')
    uid, premise, hypothesis = (text_of(row, column) for column in ('uid', 'context', 'hypothesis'))
    return PairExample(uid, premise, hypothesis, task.label_index(ANLI_LABELS[label], 'label'))


def parse_xnli(row: Mapping[str, Any], task: Task, language: str) -> PairExample:
    """A row of XTREME's headless XNLI file; its public test files have no label."""
    label = task.label_index(row['label'], 'label') if 'label' in row else None
    return PairExample('', row['sentence1'], row['sentence2'], label)


def _anli_splits(rounds: tuple[str, ...]) -> dict[str, tuple[Table, ...]]:
    columns = ('uid', 'context', 'hypothesis', 'label')
    return {
        split: tuple(Table(f'intermediate/anli/anli_v1.0/{name}/{split}.jsonl', 'jsonl', columns) for name in rounds)
        for split in ('train', 'dev', 'test')
    }


def _anli(name: str, rounds: tuple[str, ...]) -> Task:
    return Task(
        name=name,
        kind='pair',
        labels=NLI,
        metrics=('accuracy',),
        languages=('en',),
        splits=_anli_splits(rounds),
        parse=parse_anli,
        train_task=name,
        licence='CC BY-NC 4.0',
        source='https://github.com/facebookresearch/anli',
        note=f'rounds {", ".join(rounds)}, one after the other',
        checked_on='real rows; stand-in rows for train (dev rows)',
    )


def _glue(path: str) -> tuple[Table, ...]:
    return (Table(path, 'tsv', ('sentence1', 'sentence2', 'gold_label')),)


def _xnli(split: str) -> tuple[Table, ...]:
    path = f'xtreme/xnli/{split}-{{language}}.tsv'
    return (Table(path, 'tsv', ('sentence1', 'sentence2'), header=False, optional=('label',)),)


MNLI = Task(
    name='mnli',
    kind='pair',
    labels=NLI,
    metrics=('accuracy',),
    languages=('en',),
    splits={
        'train': _glue('intermediate/mnli/train.tsv'),
        'dev': _glue('intermediate/mnli/dev_matched.tsv'),
        'dev_mismatched': _glue('intermediate/mnli/dev_mismatched.tsv'),
    },
    parse=parse_glue,
    train_task='mnli',
    licence='OANC licence, CC BY 3.0, CC BY-SA 3.0 or public domain, by genre',
    source='https://cims.nyu.edu/~sbowman/multinli/',
    note="GLUE's files; dev is the matched one",
)

SNLI = Task(
    name='snli',
    kind='pair',
    labels=NLI,
    metrics=('accuracy',),
    languages=('en',),
    splits={split: _glue(f'intermediate/snli/snli_1.0_{split}.txt') for split in ('train', 'dev', 'test')},
    parse=parse_snli,
    train_task='snli',
    licence='CC BY-SA 4.0',
    source='https://nlp.stanford.edu/projects/snli/',
    note="rows without a gold label ('-') are dropped",
)

XNLI = Task(
    name='xnli',
    kind='pair',
    labels=NLI,
    metrics=('accuracy',),
    languages=XNLI_LANGUAGES,
    splits={'dev': _xnli('dev'), 'test': _xnli('test')},
    parse=parse_xnli,
    train_task='mnli',
    licence='CC BY-NC 4.0',
    source='https://github.com/facebookresearch/XNLI',
    note="XTREME's form: no header; sentence1, sentence2, label",
)

TASKS = (
    MNLI,
    SNLI,
    _anli('anli', ANLI_ROUNDS),
    *(_anli(f'anli_{name.lower()}', (name,)) for name in ANLI_ROUNDS),
    XNLI,
)
