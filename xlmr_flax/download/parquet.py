"""Converts the parquet files of datasets on the Hugging Face hub to the files that tasks read.

The hub's copies have class numbers and columns of their own: names and orders are those of nyu-mll/glue,
stanfordnlp/snli, facebook/xnli and tau/commonsense_qa. pyarrow reads them (extra `hub`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

from xlmr_flax.download.archive import Budget

Row = dict[str, Any]
_NLI = {0: 'entailment', 1: 'neutral', 2: 'contradiction', -1: '-'}
_ROWS = 4096  # rows that are in memory at the same time
_SPLIT = re.compile('[\t\r\n]+')


def nli(stream: IO[bytes], targets: list[str], budget: Budget) -> Iterator[tuple[str, Iterable[bytes]]]:
    """MNLI and SNLI: premise, hypothesis and label become sentence1, sentence2 and gold_label; '-' = no gold label."""

    def line(row: Row) -> str:
        return _joined(row['premise'], row['hypothesis'], _NLI[row['label']])

    header = 'sentence1\tsentence2\tgold_label'
    yield targets[0], _table(stream, header, ('premise', 'hypothesis', 'label'), line, budget)


def qqp(stream: IO[bytes], targets: list[str], budget: Budget) -> Iterator[tuple[str, Iterable[bytes]]]:
    """QQP: idx becomes id. The test questions have no labels (-1 on the hub) and no such column."""
    hidden = targets[0].endswith('test.tsv')

    def line(row: Row) -> str:
        label = () if hidden else (str(int(row['label'])),)
        return _joined(str(row['idx']), row['question1'], row['question2'], *label)

    header = 'id\tquestion1\tquestion2' + ('' if hidden else '\tis_duplicate')
    yield targets[0], _table(stream, header, ('idx', 'question1', 'question2', 'label'), line, budget)


def xnli(stream: IO[bytes], targets: list[str], budget: Budget) -> Iterator[tuple[str, Iterable[bytes]]]:
    """XNLI with all languages in a row: one file for each language, without a header, as XTREME's."""
    columns = ('premise', 'hypothesis', 'label')
    for target in targets:
        language = re.split(r'[-.]', target)[-2]

        def line(row: Row, language: str = language) -> str:
            texts = row['hypothesis']
            hypotheses = dict(zip(texts['language'], texts['translation'], strict=True))
            return _joined(dict(row['premise'])[language], hypotheses[language], _NLI[row['label']])

        stream.seek(0)
        yield target, _table(stream, '', columns, line, budget)


def commonsenseqa(stream: IO[bytes], targets: list[str], budget: Budget) -> Iterator[tuple[str, Iterable[bytes]]]:
    """CommonsenseQA: the published JSON lines, with the choices as a list. The test questions have no answerKey."""

    def line(row: Row) -> str:
        texts, labels = row['choices']['text'], row['choices']['label']
        choices = [{'label': label, 'text': text} for label, text in zip(labels, texts, strict=True)]
        asked = {'question_concept': row['question_concept'], 'choices': choices, 'stem': row['question']}
        answer = {'answerKey': row['answerKey']} if row['answerKey'] else {}
        return json.dumps({**answer, 'id': row['id'], 'question': asked}, ensure_ascii=False)

    columns = ('id', 'question', 'question_concept', 'choices', 'answerKey')
    yield targets[0], _table(stream, '', columns, line, budget)


def _table(
    stream: IO[bytes], header: str, columns: Iterable[str], line: Callable[[Row], str], budget: Budget
) -> Iterator[bytes]:
    """Yields a header ('' = none) and a line for each row, as UTF-8. Raises LookupError for a missing column and a
    ValueError for a damaged file."""
    from pyarrow.parquet import ParquetFile

    if header:
        yield f'{header}\n'.encode()
    for batch in ParquetFile(stream).iter_batches(_ROWS, columns=list(columns)):
        text = ''.join(f'{line(row)}\n' for row in batch.to_pylist()).encode()
        budget.take(len(text))
        yield text


def _joined(*cells: str) -> str:
    """Joins cells with tabs; tabs and line ends within a text become a space."""
    return '\t'.join(_SPLIT.sub(' ', cell) for cell in cells)
