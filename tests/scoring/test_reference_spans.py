"""Answers as XTREME's scripts decode them: words, the search in them, and which span of scores is taken."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlmr_flax.config import Evaluation
from xlmr_flax.data.encode import Encoded
from xlmr_flax.data.sources import read_split
from xlmr_flax.data.spans import SpanRows, span_rows
from xlmr_flax.data.tokenize import Ragged, Tokenizer
from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.eval.zero_shot import Evaluator
from xlmr_flax.kinds import kind_of
from xlmr_flax.models.model import Model
from xlmr_flax.parallel.mesh import make_mesh
from xlmr_flax.scoring import files
from xlmr_flax.scoring.reference_spans import basic_tokens, decode_reference, realigned
from xlmr_flax.scoring.spans import decode
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import SpanExample


@pytest.mark.parametrize(
    ('text', 'want'),
    [
        ("Steve Smith's", ['Steve', 'Smith', "'", 's']),
        ('$5,000', ['$', '5', ',', '000']),
        ('a\u00a0b\u202fc\td', ['a', 'b', 'c', 'd']),
        ('zero\u200bwidth\ufffd', ['zerowidth']),  # U+200B is a format character (Cf)
        ('1944年夏', ['1944', '年', '夏']),
        ('東京タワー', ['東', '京', 'タワー']),
        ('Été', ['Été']),  # neither lower case nor without accents
        ('«так»', ['«', 'так', '»']),
        ('', []),
    ],
)
def test_basic_tokens(text: str, want: list[str]) -> None:
    assert basic_tokens(text) == want


@pytest.mark.parametrize(
    ('said', 'words', 'want'),
    [
        ('Steve Smith', "Steve Smith's", 'Steve Smith'),
        ('1944', '1944.', '1944'),
        ('(1944)', '(1944)', '(1944)'),  # parted as '( 1944 )', in which it is not found
        ('1944', '(1944)', '1944'),
        ('$5,000', '$5,000', '$5,000'),
        ('5', '$5,000', '5'),
        ('1944年', '在1944年夏', '在1944年夏'),  # '1944 年' is what it would have to be
        ('年', '在1944年夏', '年'),
        ('abc', 'xyz', 'xyz'),
        ('ab', 'a\u200bb', 'a\u200bb'),  # found, but the characters do not align
        ('ab', 'abab.', 'ab'),
        ('', 'word', 'word'),
        ('½', '1/2', '1/2'),
    ],
)
def test_realigned(said: str, words: str, want: str) -> None:
    assert realigned(said, words) == want


def test_realigned_takes_the_first_of_several() -> None:
    assert realigned('ab', '(ab) ab') == 'ab'
    assert realigned('b', 'ab b') == 'b'


# Contexts of hand-made pieces: token number -> piece, and its characters in the context.
PIECES = ('<s>', '▁who', '</s>', '</s>', '▁Steve', '▁Smith', "'", 's', '▁(', '1944', ')', '▁', '<unk>', '</s>')
CONTEXT = "Steve\u202fSmith's  (1944) ☃."
OFFSETS = [(0, 5), (6, 11), (11, 12), (12, 13), (15, 16), (16, 20), (20, 21), (22, 22), (22, 24)]
FIRST, COUNT = 4, len(OFFSETS)


@pytest.fixture(scope='module')
def rows() -> SpanRows:
    tokens = Ragged.from_rows([list(range(len(PIECES)))])
    none, first, count = (np.asarray([value], np.int32) for value in (0, FIRST, COUNT))
    return SpanRows(tokens, none, none, none, first, count, none, (np.asarray(OFFSETS, np.int32),))


EXAMPLE = SpanExample('q', 'who?', CONTEXT, ())


def pieces(ids: Sequence[int]) -> list[str]:
    return [PIECES[i] for i in ids]


def scores(*pairs: tuple[int, int, float]) -> np.ndarray:
    """float32 [tokens, 2]: of each pair, (start, end, score) in tokens of the context."""
    logits = np.full((len(PIECES), 2), -5.0, np.float32)
    for start, end, score in pairs:
        logits[FIRST + start, 0] = logits[FIRST + end, 1] = score
    return logits


@pytest.mark.parametrize(
    ('start', 'end', 'want', 'unaligned', 'offsets'),
    [
        (0, 1, 'Steve Smith', 'Steve Smith', 'Steve\u202fSmith'),
        (1, 3, "Smith's", "Smith's", "Smith's"),
        (0, 3, "Steve Smith's", "Steve Smith's", "Steve\u202fSmith's"),
        (5, 5, '1944', '1944', '1944'),
        (4, 5, '(1944)', '(1944', '(1944'),
        (3, 5, 's', 's (1944', 's  (1944'),
        (8, 8, '☃.', '<unk>', '☃.'),
        (7, 8, '☃.', '<unk>', '☃.'),
    ],
)
def test_words_stand_for_tokens(rows: SpanRows, start: int, end: int, want: str, unaligned: str, offsets: str) -> None:
    logits = [scores((start, end, 3.0))]
    if (start, end) == (3, 5):  # "' s ( 1944 )" holds no "s (1944": the answer is the words as a whole
        want = "Smith's (1944)"
    [answer] = decode_reference(rows, logits, [EXAMPLE], pieces)
    assert (answer.text, answer.score, answer.null) == (want, 6.0, -10.0)
    assert decode_reference(rows, logits, [EXAMPLE], pieces, realign=False)[0].text == unaligned
    assert decode(rows, logits, [EXAMPLE])[0].text == offsets


def test_the_best_starts_are_those_of_the_whole_row(tiny_tokenizer: Path) -> None:
    """Where twenty tokens of the question score higher, no start of the context is among the twenty best."""
    tokenizer = Tokenizer(tiny_tokenizer, 2048)
    example = SpanExample('q', ' '.join(f'q{i}' for i in range(30)), ' '.join(f'w{i}' for i in range(40)), ())
    rows = span_rows(tokenizer, [example], 384)
    first = int(rows.first[0])
    assert first > 22
    logits = np.zeros((len(rows.tokens[0]), 2), np.float32)
    logits[first : first + 2] = 4.0
    [answer] = decode_reference(rows, [logits], [example], tokenizer.pieces)
    assert answer.text == 'w0' and answer.score == 8.0
    logits[1:21] = 5.0
    [answer] = decode_reference(rows, [logits], [example], tokenizer.pieces)
    assert (answer.text, answer.score) == ('empty', 0.0), "the scripts' answer where nothing is allowed"
    assert decode(rows, [logits], [example])[0].score == 8.0


def test_in_a_script_with_spaces_both_decode_the_gold_answers_alike(tiny_tokenizer: Path) -> None:
    tokenizer = Tokenizer(tiny_tokenizer, 2048)
    examples = [e for e in read_split(get_task('world_spans'), 'en', 'test')[:40] if isinstance(e, SpanExample)]
    rows = span_rows(tokenizer, examples, 64, stride=16)
    logits = [np.zeros((n, 2), np.float32) for n in rows.tokens.lengths]
    for i, row in enumerate(logits):
        row[rows.start[i], 0] = row[rows.end[i], 1] = 10.0 if rows.start[i] else 1.0
    ours, theirs = decode(rows, logits, examples), decode_reference(rows, logits, examples, tokenizer.pieces)
    assert [(a.score, a.null) for a in ours] == [(a.score, a.null) for a in theirs]
    same = sum(a.text == b.text for a, b in zip(ours, theirs, strict=True))
    assert same >= 0.9 * len(examples)


@pytest.mark.parametrize(
    ('settings', 'language', 'want'),
    [
        ({}, 'en', '(1944'),
        ({'qa_decoding': 'reference'}, 'zh', '(1944)'),
        ({'qa_decoding': 'reference', 'qa_unaligned': ('zh',)}, 'en', '(1944)'),
        ({'qa_decoding': 'reference', 'qa_unaligned': ('zh',)}, 'zh', '(1944'),
    ],
)
def test_the_evaluation_says_how(
    settings: dict[str, Any], language: str, want: str, rows: SpanRows, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    class Pieces(Tokenizer):
        def pieces(self, ids: Sequence[int]) -> list[str]:
            return pieces(ids)

    model = Model(EncoderConfig(vocab_size=2048, hidden_size=16, num_layers=1, num_heads=2, ffn_size=16), 'hf')
    tokenizer = Pieces(tiny_tokenizer, 2048)
    evaluator = Evaluator(model, {}, tokenizer, make_mesh(), Evaluation(**settings), '', 64)
    data = Encoded('span', rows.tokens, np.zeros(0, np.int32), ('q',), spans=rows)
    path = tmp_path / 'said.json'
    task, decoder = get_task('xquad'), evaluator.decoder(language)
    kind_of(task).write_outputs(task, path, [EXAMPLE], data, [scores((4, 5, 3.0))], (), decoder)
    assert files.read_answers(path) == {'q': want}
