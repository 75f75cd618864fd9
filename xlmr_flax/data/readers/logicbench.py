"""Reader of LogicBench: one JSON object a file, with contexts that have several questions each."""

from __future__ import annotations

import re
from pathlib import Path

from xlmr_flax.data.readers.text import DataError, Problem, Row, Rows, read_text
from xlmr_flax.tasks.base import Table
from xlmr_flax.util import strict_json

_QUESTION = re.compile(r'"question"\s*:')


def read_logicbench(path: Path, table: Table) -> Rows:
    """Yields a row for each question: type (the logic), axiom (the rule), context, question, answer.

    The training files name their list data_samples, the evaluation files samples. The line of a row is that of its
    question. Raises DataError for a file that is not such an object.
    """
    content = read_text(path)
    try:
        whole = strict_json.loads(content, surrogates=True)
    except strict_json.JsonError as error:
        raise DataError(f'{path}, line {error.line}: {error.described()}') from None
    samples = whole.get('samples', whole.get('data_samples')) if isinstance(whole, dict) else None
    if not isinstance(samples, list):
        raise DataError(f'{path}: an object with a list "samples" or "data_samples" is expected')
    lines = [content.count('\n', 0, match.start()) + 1 for match in _QUESTION.finditer(content)]
    number = 0
    for sample in samples:
        questions = sample.get('qa_pairs') if isinstance(sample, dict) else None
        for question in questions if isinstance(questions, list) else [None]:
            line = lines[number] if number < len(lines) else 1
            number += question is not None
            yield line, _row(whole, sample, question)


def _row(whole: Row, sample: Row, question: object) -> Row | Problem:
    if not isinstance(question, dict) or not {'question', 'answer'} <= question.keys() or 'context' not in sample:
        return Problem('a context with qa_pairs of a question and an answer is expected')
    return {
        'type': whole.get('type'),
        'axiom': whole.get('axiom'),
        'context': sample['context'],
        'question': question['question'],
        'answer': question['answer'],
    }
