"""Logical reasoning tasks: multiple-choice reading comprehension and natural language inference.

To add a dataset of one of these forms, add an entry here. The prompt of a choice task is the text and the question, as
in jiant's Cosmos QA. Inference labels with other names are mapped to contradiction, entailment, neutral if they have
these three meanings, so that tasks can share a head.
"""

from __future__ import annotations

from typing import Any

from xlmr_flax.tasks import parsers
from xlmr_flax.tasks.base import PairExample, Table, Task
from xlmr_flax.tasks.labels import NLI, choices
from xlmr_flax.tasks.parsers import Row

LETTERS = {'c': 'contradiction', 'e': 'entailment', 'n': 'neutral'}
TRUTH = {'True': 'entailment', 'False': 'contradiction', 'Unknown': 'neutral', 'Uncertain': 'neutral'}
ANSWERS = {'yes': 'entailment', 'no': 'contradiction', 'unknown': 'neutral'}
SICK = {label.upper(): label for label in NLI}
QA2NLI = ('not entailed', 'entailed')
LOGICNLI = (*NLI, 'self_contradiction')
NEW_LOGIQA = ('not-entailment', 'entailment')
NEW_LOGIQA_STAND_IN = 'dev_new rows of LogiQA 2.0'

Splits = dict[str, tuple[Table, ...]]


def parse_fracas(row: Row, task: Task, language: str) -> PairExample | None:
    """Parses a FraCaS problem, whose premises are separated by ' || '. Problems with the answer 'undef' are dropped."""
    example = parsers.pair('premises', 'hypothesis', 'answer', ANSWERS, 'id', drop=('undef',))(row, task, language)
    if not isinstance(example, PairExample):
        return None
    return PairExample(example.id, example.text_a.replace(' || ', ' '), example.text_b, example.label)


def parse_logiqa(row: Row, task: Task, language: str) -> Any:
    """Parses LogiQA 2.0. The id column is `id` in the English files and `example_id` in the Chinese files."""
    ident = 'id' if 'id' in row else 'example_id'
    return parsers.choice(('text', 'question'), 'options', 'answer', ident=ident)(row, task, language)


def parse_qa2nli(row: Row, task: Task, language: str) -> Any:
    """Parses LogiQA 2.0's inference rows: a major premise (a string or a list of strings) and a minor premise, or one
    `premise`."""
    first = 'premise' if 'premise' in row else ('major_premise', 'minor_premise')
    return parsers.pair(first, 'conclusion')(row, task, language)


def _nli(name: str, splits: Splits, parse: parsers.Parse, labels: tuple[str, ...] = NLI, **more: Any) -> Task:
    return _task(name, 'pair', labels, splits, parse, **more)


def _mrc(name: str, splits: Splits, parse: parsers.Parse, **more: Any) -> Task:
    return _task(name, 'choice', choices(4), splits, parse, **more)


def _task(name: str, kind: str, labels: tuple[str, ...], splits: Splits, parse: parsers.Parse, **more: Any) -> Task:
    settings: dict[str, Any] = {'languages': ('en',), 'train_task': name if 'train' in splits else None} | more
    return Task(name=name, kind=kind, labels=labels, metrics=('accuracy',), splits=splits, parse=parse, **settings)


def _splits(form: str, columns: tuple[str, ...], files: dict[str, str], **more: Any) -> Splits:
    return {split: (Table(f'logic/{path}', form, columns, **more),) for split, path in files.items()}


_LOGIQA_FILES = {split: f'logiqa2/LOGIQA/{split}{{language}}.txt' for split in ('train', 'dev', 'test')}
_QA2NLI_FILES = {split: f'logiqa2/QA2NLI/{split}.txt' for split in ('train', 'dev', 'test')}
_LOGIQA_LICENCE, _LOGIQA_HOME = 'CC BY-NC-SA 4.0', 'https://github.com/csitfun/LogiQA2.0'
_CONTROL_COLUMNS = ('uid', 'premise', 'hypothesis', 'label')
_MNLI_COLUMNS = ('sentence1', 'sentence2', 'gold_label')


def _new_logiqa(name: str, **more: Any) -> Table:
    without = {} if name == 'test_new.txt' else {'logic/logiqa2_nli_new/test_new.txt': 'premise'}
    columns = ('premise', 'hypothesis', 'label')
    return Table(f'logic/logiqa2_nli_new/{name}', 'jsonl', columns, ids=False, without=without, **more)


MRC = (
    _mrc(
        'logiqa2',
        _splits(
            'jsonl', ('text', 'question', 'options', 'answer'), _LOGIQA_FILES, ids=False
        ),  # dev and test repeat some ids
        parse_logiqa,
        languages=('en', 'zh'),
        local_codes={'en': '', 'zh': '_zh'},
        licence=_LOGIQA_LICENCE,
        source=_LOGIQA_HOME,
        checked_on='real rows; none for train',
    ),
    _mrc(
        'reclor',
        _splits('json', ('context', 'question', 'answers'), {s: f'reclor/{s}.json' for s in ('train', 'test')})
        | _splits('json', ('context', 'question', 'answers', 'label'), {'dev': 'reclor/val.json'}),
        parsers.choice(('context', 'question'), 'answers', ident='id_string'),
        licence='NC: research use only, no redistribution',
        source='https://whyu.me/reclor/',
        checked_on='hand-made rows',
    ),
)

INFERENCE = (
    _nli(
        'logiqa2_nli',
        _splits('jsonl', ('conclusion', 'label'), _QA2NLI_FILES),
        parse_qa2nli,
        labels=QA2NLI,
        licence=_LOGIQA_LICENCE,
        source=_LOGIQA_HOME,
        note='two classes: entailed or not',
        checked_on='real rows; none for train',
    ),
    _nli(
        'control',
        _splits('jsonl', _CONTROL_COLUMNS, {split: f'control/{split}.jsonl' for split in ('train', 'dev')})
        | _splits('jsonl', _CONTROL_COLUMNS, {'test': 'control/test.jsonl'}, ids=False),  # it repeats one id
        parsers.pair('premise', 'hypothesis', names=LETTERS, ident='uid'),
        licence='CC BY-NC-SA 4.0',
        source='https://github.com/csitfun/ConTRoL-dataset',
        checked_on='real rows; none for train',
    ),
    _nli(
        'logiqa2_nli_new',
        {
            'train': (
                _new_logiqa('train.txt', alternatives=(_new_logiqa('dev_new.txt', stand_in=NEW_LOGIQA_STAND_IN),)),
            ),
            'test': (_new_logiqa('test_new.txt'),),
        },
        parsers.pair('premise', 'hypothesis'),
        labels=NEW_LOGIQA,
        licence=_LOGIQA_LICENCE,
        source=_LOGIQA_HOME,
        note='two classes; without train.txt it is trained on dev_new.txt, for which it has no dev split; rows whose '
        'premise is in test_new.txt are left out; its premises are the passages of logiqa2: do not score that after it',
        checked_on='real rows; stand-in rows for train (dev_new)',
    ),
    _nli(
        'control_whole',
        {
            'train': (
                Table(
                    'logic/control/train.jsonl',
                    'jsonl',
                    _CONTROL_COLUMNS,
                    alternatives=(
                        Table('logic/control_whole/train.jsonl', 'jsonl', _CONTROL_COLUMNS),
                        Table(
                            'logic/control_whole/dev.jsonl', 'jsonl', _CONTROL_COLUMNS, stand_in='dev rows of ConTRoL'
                        ),
                    ),
                ),
            ),
            'test': (Table('logic/control/test.jsonl', 'jsonl', _CONTROL_COLUMNS, ids=False),),
        },
        parsers.pair('premise', 'hypothesis', names=LETTERS, ident='uid'),
        licence='CC BY-NC-SA 4.0',
        source='https://github.com/csitfun/ConTRoL-dataset',
        note='control, trained on its whole dev rows where the training rows are not there; it has no dev split',
        checked_on='real rows; stand-in rows for train (dev rows)',
    ),
    _nli(
        'folio',
        _splits(
            'jsonl',
            ('premises', 'conclusion', 'label'),
            {'train': 'folio/folio-train.jsonl', 'dev': 'folio/folio-validation.jsonl'},
        ),
        parsers.pair('premises', 'conclusion', names=TRUTH, ident='example_id'),
        licence='CC BY-SA 4.0',
        source='https://github.com/Yale-LILY/FOLIO',
        note='True is entailment, False contradiction, Unknown and Uncertain neutral',
    ),
    _nli(
        'help',
        {
            'train': (
                Table(
                    'logic/help/pmb_train_v1.0.tsv',
                    'tsv',
                    ('ori_sentence', 'new_sentence', 'gold_label'),
                    alternatives=(
                        Table(
                            'logic/help/leskexppmb_and.tsv',
                            'tsv',
                            ('ori_sentence', 'new_sentence', 'gold_label'),
                            also=('logic/help/leskexppmb_or.tsv',),
                        ),
                    ),
                ),
            )
        },
        parsers.pair('ori_sentence', 'new_sentence', label='gold_label'),
        licence='CC BY-SA 4.0',
        source='https://github.com/verypluming/HELP',
        note='labels entailment and neutral alone; without the whole file, its parts on conjunction and disjunction',
    ),
    _nli(
        'med',
        _splits('tsv', _MNLI_COLUMNS, {'test': 'med/MED.tsv'}),
        parsers.pair('sentence1', 'sentence2', label='gold_label'),
        licence='CC BY-SA 4.0',
        source='https://github.com/verypluming/MED',
        train_task='mnli',
        note='labels entailment and neutral alone; no training set: scored after MNLI, as its authors do',
    ),
    _nli(
        'conjnli',
        _splits(
            'tsv',
            ('Premise', 'Hypothesis', 'Label'),
            {'train': 'conjnli/adversarial_train_15k.tsv', 'dev': 'conjnli/conj_dev.tsv'},
        ),
        parsers.pair('Premise', 'Hypothesis', label='Label'),
        licence='MIT',
        source='https://github.com/swarnaHub/ConjNLI',
    ),
    _nli(
        'sick',
        _splits(
            'tsv',
            ('pair_ID', 'sentence_A', 'sentence_B', 'entailment_judgment'),
            {'train': 'sick/SICK_train.txt', 'dev': 'sick/SICK_trial.txt', 'test': 'sick/SICK_test_annotated.txt'},
        ),
        parsers.pair('sentence_A', 'sentence_B', 'entailment_judgment', SICK, 'pair_ID'),
        licence='CC BY-NC-SA 3.0',
        source='https://alt.qcri.org/semeval2014/task1/',
        note='the SemEval 2014 release',
    ),
    _nli(
        'fracas',
        _splits('tsv', ('id', 'premises', 'hypothesis', 'answer'), {'test': 'fracas/fracas.tsv'}),
        parse_fracas,
        train_task='mnli',
        licence='free; the file that is read: Apache-2.0',
        source='https://github.com/mynlp/ccg2lambda',
        note="yes is entailment, no contradiction, unknown neutral; problems answered 'undef' are dropped",
    ),
    _nli(
        'logicnli',
        _splits(
            'json',
            ('facts', 'rules', 'statements', 'labels'),
            {split: f'logicnli/{split}_language.json' for split in ('train', 'dev', 'test')},
            explode=('statements', 'labels'),
        ),
        parsers.pair(('facts', 'rules'), 'statements', label='labels'),
        labels=LOGICNLI,
        licence='not stated by its authors',
        source='https://github.com/omnilabNLP/LogicNLI',
        note='not checked against the official files; a fourth class, self_contradiction',
        checked_on='hand-made rows',
    ),
)

TASKS = (*MRC, *INFERENCE)
