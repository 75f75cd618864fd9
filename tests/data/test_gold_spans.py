"""What a perfect model would score on the QA files: the gold span of every question goes through windows and decoding.

docs/gold_spans.md holds the counts; XLMR_DATA_ROOT=... python tests/data/test_gold_spans.py > docs/gold_spans.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from xlmr_flax.data.readers.paths import resolve_data_root
from xlmr_flax.data.sources import read_split
from xlmr_flax.data.spans import SpanRows, answer_tokens, span_rows
from xlmr_flax.data.split import Split
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.encoders.config import ModelError
from xlmr_flax.models.embedded import tokenizer_path
from xlmr_flax.scoring.metrics import qa
from xlmr_flax.scoring.reference_spans import decode_reference
from xlmr_flax.scoring.spans import MAX_ANSWER, decode
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import SpanExample

DOCS = Path(__file__).parents[2] / 'docs' / 'gold_spans.md'
TASKS = ('xquad', 'mlqa', 'tydiqa')
MAX_LENGTH, VOCABULARY = 384, 250_037
# White space and the zero-width space, which some answers of MLQA end with: no token holds them at an answer's end.
NO_TOKEN = ' \t\n\u00a0\u200b'

HEAD = f"""# Gold spans

What a model without any mistake would get. For every answerable question of the files here, logits point at the tokens
of its first answer, and the windows (max_length {MAX_LENGTH}, stride 128, XLM-R's tokenizer) are decoded as in an
evaluation. Made by `python tests/data/test_gold_spans.py > docs/gold_spans.md`; a test holds this file against what it
measures.

* **at boundaries**: both ends of the answer are ends of tokens, white space and zero-width spaces aside. All of these
  that are not long decode to the gold text.
* **inside a token**: the answer begins or ends within a token. The smallest span of tokens around it is decoded, which
  contains the gold text and a bit more.
* **long**: answers of more than {MAX_ANSWER} tokens, which the reference's limit does not let a model give.
* **gold text**: the share of all questions that decode to exactly the gold text. **EM**, **F1**: the official metrics
  of the same answers. They count any of a question's gold answers and forgive case, punctuation and, in some languages,
  articles; what is missing to 100 is out of reach for a model that does exactly what it is trained to do.
* **reference EM**, **reference F1**: the same spans of tokens, decoded as by the scripts of XTREME, jiant and xTune
  (`evaluation.qa_decoding='reference'`): white-space words, out of which the answer is cut where it can be aligned with
  them. **not realigned EM**: the same without the alignment, as jiant has it in Chinese, xTune in Chinese and Korean.

These scripts lose most where a word is more than the answer: no spaces (Chinese), endings and clitics that the gold
answer leaves out (Korean, Russian, Finnish), quotation marks and brackets. Scores that are to stand beside published
ones need the reference's decoding; the presets have it.
"""
COLUMNS = (
    'task', 'language', 'split', 'questions', 'at boundaries', 'inside a token', 'long', 'gold text', 'EM', 'F1',
    'reference EM', 'reference F1', 'not realigned EM',
)  # fmt: skip


@dataclass(frozen=True)
class Rates:
    """Counts of one file. (em, f1): of offsets; reference: of the reference's decoding; unaligned: of that without
    realignment. wrong: ids of questions that break what is promised of them.
    """

    task: str
    language: str
    split: str
    questions: int
    at_boundaries: int
    inside: int
    long: int
    exact: int
    em: float
    f1: float
    reference: tuple[float, float]
    unaligned: tuple[float, float]
    wrong: tuple[str, ...]

    def cells(self) -> list[str]:
        counts = (self.questions, self.at_boundaries, self.inside, self.long)
        shares = (100 * self.exact / self.questions, self.em, self.f1, *self.reference, self.unaligned[0])
        return [f'`{self.task}`', self.language, self.split, *map(str, counts), *(f'{share:.2f}' for share in shares)]


def gold_logits(rows: SpanRows) -> list[np.ndarray]:
    """Logits that point at each window's gold span, stronger than at BOS; windows without it point at BOS."""
    out = []
    for i, length in enumerate(rows.tokens.lengths):
        logits = np.zeros((length, 2), np.float32)
        strength = 10.0 if rows.start[i] else 1.0
        logits[rows.start[i], 0] = logits[rows.end[i], 1] = strength
        out.append(logits)
    return out


def measure(tokenizer: Tokenizer, name: str, language: str, split: str, root: Path) -> Rates:
    """Decodes the gold spans of one file."""
    task = get_task(name)
    examples = [e for e in read_split(task, language, split, root) if isinstance(e, SpanExample) and e.answers]
    rows = span_rows(tokenizer, examples, MAX_LENGTH)
    answers = [answer.text for answer in decode(rows, gold_logits(rows), examples)]
    at_boundaries, inside, long, exact = 0, 0, 0, 0
    wrong = []
    for example, offsets, said in zip(examples, rows.offsets, answers, strict=True):
        text, start = example.answers[0]
        bare = text.strip(NO_TOKEN)
        begin = start + text.index(bare)
        end = begin + len(bare)
        exact += said == bare
        tokens = answer_tokens(offsets, begin, end)
        if tokens is None:
            wrong.append(example.id)
        elif tokens[1] - tokens[0] >= MAX_ANSWER:
            long += 1
        elif (offsets[tokens[0], 0], offsets[tokens[1], 1]) == (begin, end):
            at_boundaries += 1
            wrong += [example.id] if said != bare else []
        else:
            inside += 1
            around = example.context[offsets[tokens[0], 0] : offsets[tokens[1], 1]]
            wrong += [example.id] if said != around or bare not in said else []
    gold = {e.id: [text for text, _ in e.answers] for e in examples}

    def scores(said: list[str]) -> tuple[float, float]:
        given = dict(zip(gold, said, strict=True))
        found = qa.mlqa(gold, given, language) if task.scorer == 'mlqa' else qa.squad_v1(gold, given)
        return found['exact_match'], found['f1']

    counts = (len(examples), at_boundaries, inside, long, exact)
    reference, unaligned = (
        scores([a.text for a in decode_reference(rows, gold_logits(rows), examples, tokenizer.pieces, realign)])
        for realign in (True, False)
    )
    return Rates(name, language, split, *counts, *scores(answers), reference, unaligned, tuple(wrong))


def rates(root: Path) -> Iterator[Rates]:
    """Every file of the three tasks, in the tasks' order of languages."""
    tokenizer = Tokenizer(tokenizer_path(), VOCABULARY)
    for name in TASKS:
        task = get_task(name)
        for language in task.languages + task.more_languages:
            for split in task.splits:
                if Split(task, language, split, root).is_there():
                    yield measure(tokenizer, name, language, split, root)


def markdown(found: list[Rates]) -> str:
    """The whole of docs/gold_spans.md."""
    dashes = ['---'] * 3 + ['---:'] * (len(COLUMNS) - 3)
    lines = [f'| {" | ".join(row)} |' for row in (COLUMNS, dashes, *(r.cells() for r in found))]
    return '\n'.join([HEAD, *means(found), '', *lines]) + '\n'


def means(found: list[Rates]) -> list[str]:
    """A line for each task: EM over the languages of the split that is scored."""
    lines = []
    for name in TASKS:
        scored = [r for r in found if r.task == name and r.split == ('dev' if name == 'mlqa' else 'test')]
        ours, theirs = fmean(r.em for r in scored), fmean(r.reference[0] for r in scored)
        split = f'{scored[0].split}, {len(scored)} languages'
        lines.append(f'* `{name}` ({split}): mean EM {ours:.2f} by offsets, {theirs:.2f} by the reference')
    return lines


@pytest.fixture(scope='module')
def tokenizer() -> Tokenizer:
    try:
        return Tokenizer(tokenizer_path(), VOCABULARY)
    except ModelError as error:
        pytest.skip(str(error))


@pytest.fixture(scope='module')
def measured(data_root: Path, tokenizer: Tokenizer) -> list[Rates]:
    return list(rates(data_root))


@pytest.mark.parametrize(
    ('task', 'language', 'split'), [('xquad', 'de', 'test'), ('tydiqa', 'fi', 'test'), ('mlqa', 'zh', 'dev')]
)
def test_a_row_of_the_committed_table(
    task: str, language: str, split: str, tokenizer: Tokenizer, data_root: Path
) -> None:
    found = measure(tokenizer, task, language, split, data_root)
    assert found.wrong == ()
    assert found.at_boundaries == found.exact
    assert f'| {" | ".join(found.cells())} |' in DOCS.read_text(encoding='utf-8').splitlines()


@pytest.mark.slow
def test_gold_spans_decode_to_the_gold_text(measured: list[Rates]) -> None:
    assert {r.task for r in measured} == set(TASKS)
    assert [(r.task, r.language, r.split, r.wrong) for r in measured if r.wrong] == []
    for r in measured:
        where = (r.task, r.language, r.split)
        assert r.at_boundaries + r.inside + r.long == r.questions, where
        assert r.at_boundaries == r.exact, where


@pytest.mark.slow
def test_the_committed_table_is_what_is_measured(measured: list[Rates]) -> None:
    assert DOCS.read_text(encoding='utf-8') == markdown(measured)


if __name__ == '__main__':
    sys.stdout.reconfigure(encoding='utf-8')  # type: ignore[union-attr]
    sys.stdout.write(markdown(list(rates(resolve_data_root(None)))))
