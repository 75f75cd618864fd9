"""Natural language inference: MNLI, SNLI and ANLI for training, XNLI as the target.

All tasks have the label order contradiction, entailment, neutral (jiant: tasks/lib/{mnli,snli,anli,xnli}.py), so that a
mixture of them can share one head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xlmr_flax.tasks.base import PairExample, RowError, Table, Task, text_of
from xlmr_flax.tasks.labels import NLI
from xlmr_flax.util.errors import closest

ANLI_LABELS = {'c': 'contradiction', 'e': 'entailment', 'n': 'neutral'}
ANLI_ROUNDS = ('R1', 'R2', 'R3')
XTREME = 'translated/xtreme_translations/XNLI'
XNLI_LANGUAGES = ('ar', 'bg', 'de', 'el', 'en', 'es', 'fr', 'hi', 'ru', 'sw', 'th', 'tr', 'ur', 'vi', 'zh')


def parse_glue(row: Mapping[str, Any], task: Task, language: str) -> PairExample:
    """Parses a row of GLUE's MNLI; the columns are those of the header."""
    return PairExample('', row['sentence1'], row['sentence2'], task.label_index(row['gold_label'], 'gold_label'))


def parse_mnli(row: Mapping[str, Any], task: Task, language: str) -> PairExample:
    """Parses a row of GLUE's MNLI or of a translation (columns: XNLI-MT premise, hypo; XTREME sentence1, sentence2)."""
    if 'gold_label' in row:
        return parse_glue(row, task, language)
    first, second = ('premise', 'hypo') if 'hypo' in row else ('sentence1', 'sentence2')
    return PairExample('', row[first], row[second], _label(row, task))


def _label(row: Mapping[str, Any], task: Task) -> int:
    """The label index. Machine-translated files have 'contradictory' (XTREME: utils_preprocess.py, xnli_preprocess)."""
    label = 'contradiction' if row['label'] == 'contradictory' else row['label']
    return task.label_index(label, 'label')


def parse_snli(row: Mapping[str, Any], task: Task, language: str) -> PairExample | None:
    """Parses a row of snli_1.0_*.txt. Rows with the label '-' (the annotators did not agree) are dropped."""
    if row['gold_label'] == '-':
        return None
    return parse_glue(row, task, language)


def parse_anli(row: Mapping[str, Any], task: Task, language: str) -> PairExample:
    """Parses a row of ANLI; the premise is `context` (jiant: tasks/lib/anli.py)."""
    label = text_of(row, 'label')
    if label not in ANLI_LABELS:
        raise RowError('label', f'unknown label {label!r}{closest(label, ANLI_LABELS)}')
    uid, premise, hypothesis = (text_of(row, column) for column in ('uid', 'context', 'hypothesis'))
    return PairExample(uid, premise, hypothesis, task.label_index(ANLI_LABELS[label], 'label'))


def parse_xnli(row: Mapping[str, Any], task: Task, language: str) -> PairExample:
    """Parses a row of XTREME's XNLI file, which has no header, or of its translation. Its public test files have no
    label."""
    label = _label(row, task) if 'label' in row else None
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


def _glue(path: str, **more: Any) -> tuple[Table, ...]:
    return (Table(path, 'tsv', ('sentence1', 'sentence2', 'gold_label'), **more),)


def _xnli(split: str) -> tuple[Table, ...]:
    path = f'xtreme/xnli/{split}-{{language}}.tsv'
    return (Table(path, 'tsv', ('sentence1', 'sentence2'), header=False, optional=('label',)),)


# XTREME's translations have the original sentences in the first columns (github.com/google-research/xtreme, issue 37;
# the columns are those of TFDS' xtreme_xnli and, for the test set, of TensorFlow's model garden:
# nlp/data/classifier_data_lib.py).
TRANSLATIONS = (
    Table(
        'translated/XNLI-MT-1.0/multinli/multinli.train.{language}.tsv',
        'tsv',
        ('premise', 'hypo', 'label'),
        alternatives=(
            Table(
                f'{XTREME}/translate-train/en-{{language}}-translated.tsv',
                'tsv',
                ('original1', 'original2', 'sentence1', 'sentence2', 'label'),
                header=False,
            ),
            Table('low_resource/kornli/multinli.train.{language}.tsv', 'tsv', ('sentence1', 'sentence2', 'gold_label')),
        ),
    ),
)
NOT_ENGLISH = tuple(code for code in XNLI_LANGUAGES if code != 'en')

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
        'translate_train': TRANSLATIONS,
    },
    translated={'translate_train': (*NOT_ENGLISH, 'ko')},
    parse=parse_mnli,
    train_task='mnli',
    licence='OANC licence, CC BY 3.0, CC BY-SA 3.0 or public domain, by genre',
    source='https://cims.nyu.edu/~sbowman/multinli/',
    note="GLUE's files; dev is the matched one; its translations are the XNLI authors' (XNLI-MT-1.0), XTREME's or, in "
    "Korean, KorNLI's",
)

SNLI = Task(
    name='snli',
    kind='pair',
    labels=NLI,
    metrics=('accuracy',),
    languages=('en',),
    splits={
        **{
            split: _glue(f'intermediate/snli/snli_1.0_{split}.txt', short_rows=True)
            for split in ('train', 'dev', 'test')
        },
        'translate_train': _glue('low_resource/kornli/snli_1.0_train.{language}.tsv'),
    },
    translated={'translate_train': ('ko',)},
    parse=parse_snli,
    train_task='snli',
    licence='CC BY-SA 4.0',
    source='https://nlp.stanford.edu/projects/snli/',
    note="rows without a gold label ('-') are dropped; translated into Korean by KorNLI",
)

XNLI = Task(
    name='xnli',
    kind='pair',
    labels=NLI,
    metrics=('accuracy',),
    languages=XNLI_LANGUAGES,
    splits={
        'dev': _xnli('dev'),
        'test': _xnli('test'),
        'translate_test': (
            Table(
                f'{XTREME}/translate-test/test-{{language}}-en-translated.tsv',
                'tsv',
                ('original1', 'original2', 'sentence1', 'sentence2'),
                header=False,
                optional=('label',),
            ),
        ),
    },
    translated={'translate_test': NOT_ENGLISH},
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
