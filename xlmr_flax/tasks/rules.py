"""Reasoning by rules: ProofWriter, CLUTRR and LogicBench, three generated datasets with real training rows."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Any

from xlmr_flax.tasks import parsers
from xlmr_flax.tasks.base import PairExample, RowError, Table, Task, text_of
from xlmr_flax.tasks.labels import NLI
from xlmr_flax.tasks.parsers import Row, id_of

ANSWERS = {'A': 'entailment', 'B': 'contradiction', 'C': 'neutral'}
MALE = (
    'brother', 'father', 'father-in-law', 'grandfather', 'grandson', 'nephew', 'son', 'son-in-law', 'uncle',
)  # fmt: skip
FEMALE = (
    'aunt', 'daughter', 'daughter-in-law', 'granddaughter', 'grandmother', 'mother', 'mother-in-law', 'niece', 'sister',
)  # fmt: skip
RELATIONS = tuple(sorted(MALE + FEMALE))

_ASKED = 'Based on the above information, is the following statement true, false, or unknown? '
_QUERY = re.compile(r"\('(\w+)', '(\w+)'\)")


def parse_proofwriter(row: Row, task: Task, language: str) -> PairExample:
    """Parses a statement on rules and facts: true is entailment, false contradiction, unknown neutral."""
    question, answer = text_of(row, 'question'), text_of(row, 'answer')
    if not question.startswith(_ASKED):
        raise RowError('question', f'it does not begin with {_ASKED!r}')
    if answer not in ANSWERS:
        raise RowError('answer', f'A, B or C is expected, not {answer!r}')
    label = task.label_index(ANSWERS[answer], 'answer')
    return PairExample(id_of(row, 'id'), text_of(row, 'context'), question.removeprefix(_ASKED), label)


def parse_clutrr(row: Row, task: Task, language: str) -> PairExample:
    """Parses a story and a pair of persons: what is the second one to the first one?"""
    first, second, relation = _persons(row)
    return PairExample(
        id_of(row, 'id'), row['story'], f'[{second}] is what to [{first}]?', task.label_index(relation, 'target')
    )


def parse_clutrr_nli(row: Row, task: Task, language: str) -> PairExample:
    """Parses a story and a statement on two persons, which is true for every other id and otherwise names another
    relation of the same gender, chosen by the id. A person has one relation to another here, so that it contradicts."""
    first, second, relation = _persons(row)
    ident = id_of(row, 'id')
    chosen, said, label = zlib.crc32(ident.encode()), relation, 'entailment'
    if chosen % 2:
        others = [other for other in (MALE if relation in MALE else FEMALE) if other != relation]
        said, label = others[chosen // 2 % len(others)], 'contradiction'
    return PairExample(
        ident, row['story'], f'[{second}] is the {said} of [{first}].', task.label_index(label, 'target')
    )


def _persons(row: Row) -> tuple[str, str, str]:
    match, relation = _QUERY.fullmatch(row['query']), row['target']
    if match is None:
        raise RowError('query', f'a pair of names is expected, not {row["query"]!r}')
    if relation not in RELATIONS:
        raise RowError('target', f'unknown relation {relation!r}')
    return match[1], match[2], relation


def _task(
    name: str, labels: tuple[str, ...], splits: Mapping[str, tuple[Table, ...]], parse: parsers.Parse, **more: Any
) -> Task:
    return Task(
        name=name,
        kind='pair',
        labels=labels,
        metrics=('accuracy',),
        languages=('en',),
        splits=splits,
        parse=parse,
        train_task=name,
        **more,
    )


def _clutrr(name: str) -> tuple[Table, ...]:
    return (Table(f'logic/clutrr/data_089907f8/{name}.csv', 'csv', ('id', 'story', 'query', 'target')),)


def _logicbench(folder: str, without: str = '') -> tuple[Table, ...]:
    path = 'logic/logicbench/{}/*/*/data_instances.json'
    left_out = {path.format(without): 'context'} if without else {}
    return (Table(path.format(folder), 'logicbench', ('context', 'question'), without=left_out),)


_CLUTRR_SPLITS = {'train': _clutrr('1.2,1.3_train'), 'test': _clutrr('1.[0-9]*_test')}
_CLUTRR: dict[str, Any] = {'licence': 'CC BY-NC 4.0', 'source': 'https://github.com/facebookresearch/clutrr'}

TASKS = (
    _task(
        'proofwriter',
        NLI,
        {
            split: (Table(f'logic/proofwriter/{split}.json', 'json', ('id', 'context', 'question', 'answer')),)
            for split in ('train', 'dev', 'test')
        },
        parse_proofwriter,
        licence='CC BY 4.0',
        source='https://github.com/teacherpeterpan/Logic-LLM',
        note="a balanced sample of ProofWriter's open-world rows of depth 5, as Logic-LM has it; true is entailment, "
        'false contradiction, unknown neutral; the whole set (https://allenai.org/data/proofwriter) has another form. '
        "The word 'not' tells false statements from true ones in 94 to 98 % of the rows that are one or the other",
    ),
    _task(
        'clutrr',
        RELATIONS,
        _CLUTRR_SPLITS,
        parse_clutrr,
        note='systematic generalization (data_089907f8): trained on chains of two and three relations, scored on those '
        'of two to ten',
        **_CLUTRR,
    ),
    _task(
        'clutrr_nli',
        NLI,
        _CLUTRR_SPLITS,
        parse_clutrr_nli,
        note='the rows of clutrr as inference, half of them with a wrong relation of the same gender; no neutral rows',
        **_CLUTRR,
    ),
    _task(
        'logicbench',
        ('no', 'yes'),
        {
            'train': _logicbench('LogicBench(Aug)', 'LogicBench(Eval)/BQA'),
            'test': _logicbench('LogicBench(Eval)/BQA'),
        },
        parsers.pair('context', 'question', label='answer'),
        licence='MIT',
        source='https://github.com/Mihir3009/LogicBench',
        note='yes/no questions on one rule of inference each; 70 % of the training answers are no; '
        'training rows whose context is in the evaluation files are left out',
    ),
)
