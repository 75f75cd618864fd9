"""Windows, offsets and decoding: the gold span decodes to the gold text, whatever the window."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from xlmr_flax.data.sources import read_split
from xlmr_flax.data.spans import SpanRows, answer_tokens, span_rows, stride_of, trimmed_offsets, windows
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.scoring.spans import MAX_ANSWER, decode, max_context
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import SpanExample


@pytest.fixture(scope='module')
def tokenizer(tiny_tokenizer: Path) -> Tokenizer:
    return Tokenizer(tiny_tokenizer, 2048)


def _examples(language: str, n: int = 40) -> list[SpanExample]:
    return [e for e in read_split(get_task('world_spans'), language, 'test')[:n] if isinstance(e, SpanExample)]


def _gold_logits(rows: SpanRows) -> list[np.ndarray]:
    """Logits that point at each window's gold span, stronger than at BOS; windows without it point at BOS."""
    out = []
    for i in range(len(rows.tokens)):
        logits = np.zeros((len(rows.tokens[i]), 2), np.float32)
        strength = 10.0 if rows.start[i] else 1.0
        logits[rows.start[i], 0] = logits[rows.end[i], 1] = strength
        out.append(logits)
    return out


@pytest.mark.parametrize('language', ['en', 'zh', 'th', 'ar', 'hi'])
@pytest.mark.parametrize('max_length', [64, 384])
def test_gold_span_decodes_to_gold_text(tokenizer: Tokenizer, language: str, max_length: int) -> None:
    examples = _examples(language)
    rows = span_rows(tokenizer, examples, max_length, stride=16)
    for answer, example in zip(decode(rows, _gold_logits(rows), examples), examples, strict=True):
        text, start = example.answers[0]
        offsets = rows.offsets[examples.index(example)]
        inside = (offsets[:, 0] == start).any() and (offsets[:, 1] == start + len(text)).any()
        assert answer.text == text if inside else text in answer.text


def test_every_window_has_the_question_and_its_part_of_the_context(tokenizer: Tokenizer) -> None:
    examples = _examples('en')
    rows = span_rows(tokenizer, examples, 64, stride=16)
    assert rows.tokens.lengths.max() <= 64
    for i in range(len(rows.tokens)):
        example = examples[int(rows.example[i])]
        question = tokenizer.encode([example.question])[0]
        context = tokenizer.encode([example.context])[0]
        row, first, count, begin = rows.tokens[i], int(rows.first[i]), int(rows.count[i]), int(rows.begin[i])
        np.testing.assert_array_equal(row[:first], [0, *question, 2, 2])
        np.testing.assert_array_equal(row[first : first + count], context[begin : begin + count])
        assert row[-1] == 2


def test_a_context_with_several_questions_is_tokenized_once(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are those of the questions one by one."""
    asked: list[str] = []
    encode = tokenizer.encode_with_offsets
    monkeypatch.setattr(tokenizer, 'encode_with_offsets', lambda texts: (asked.extend(texts), encode(texts))[1])
    first, other = _examples('en', 2)[0], _examples('de', 1)[0]
    examples = [dataclasses.replace(first, id=str(i), question=f'Who {i}?') for i in range(3)]
    examples.insert(1, other)
    together = span_rows(tokenizer, examples, 48)
    assert asked == [first.context, other.context]
    for number, example in enumerate(examples):
        alone, rows = span_rows(tokenizer, [example], 48), np.flatnonzero(together.example == number)
        assert [together.tokens[row].tolist() for row in rows] == [
            row.tolist() for row in map(alone.tokens.__getitem__, range(len(alone.tokens)))
        ]
        for name in ('start', 'end', 'first', 'count', 'begin'):
            assert getattr(together, name)[rows].tolist() == getattr(alone, name).tolist()
        assert together.offsets[number].tolist() == alone.offsets[0].tolist()


def test_windows_cover_everything_and_overlap() -> None:
    assert windows(10, 20) == [(0, 10)]
    assert windows(20, 20) == [(0, 20)]
    assert windows(21, 20, 8) == [(0, 20), (8, 13)]
    assert windows(50, 20, 8) == [(0, 20), (8, 20), (16, 20), (24, 20), (32, 18)]
    assert windows(50, 4, 8) == [(4 * i, 4) for i in range(12)] + [(48, 2)]  # never a gap


def test_windows_of_long_rows_overlap_by_the_same_share() -> None:
    assert [stride_of(n) for n in (64, 384, 512, 1024, 8192)] == [128, 128, 128, 256, 2048]
    assert len(windows(20_000, 8100, stride_of(8192))) == 7


def test_a_long_question_leaves_room_for_the_context(tokenizer: Tokenizer) -> None:
    example = SpanExample('q', 'where is the garden ' * 30, 'Maria is in the garden.', (('in the garden', 9),))
    rows = span_rows(tokenizer, [example], 32)
    assert rows.tokens.lengths.max() <= 32
    assert rows.first[0] == 14 + 3 and (rows.count > 0).all()
    long = span_rows(tokenizer, [example], 384)
    assert long.first[0] == 64 + 3  # the reference's limit
    with pytest.raises(ValueError, match='hold no context'):
        windows(10, 0)


def test_offsets_lose_white_space_and_spans_cover() -> None:
    text = ' ab  cd'
    offsets = trimmed_offsets(text, [(0, 3), (3, 4), (4, 7)])
    assert offsets.tolist() == [[1, 3], [4, 4], [5, 7]]
    assert answer_tokens(offsets, 1, 3) == (0, 0)
    assert answer_tokens(offsets, 2, 6) == (0, 2)
    assert answer_tokens(offsets, 3, 5) is None


def _one_window(tokens: int) -> tuple[SpanRows, SpanExample]:
    text = ' '.join(f'w{i}' for i in range(tokens))
    ends = np.cumsum([len(f'w{i}') + 1 for i in range(tokens)]) - 1
    offsets = np.stack([np.r_[0, ends[:-1] + 1], ends], 1).astype(np.int32)
    one = np.asarray([0], np.int32)
    from xlmr_flax.data.tokenize import Ragged

    rows = SpanRows(Ragged.from_rows([list(range(tokens + 4))]), one, one, one, one + 3, one + tokens, one, (offsets,))
    return rows, SpanExample('q', 'q', text, ())


def test_decoding_rules() -> None:
    rows, example = _one_window(40)
    logits = np.zeros((44, 2), np.float32)
    logits[3 + 5, 0], logits[3 + 2, 1] = 9, 9  # the end before the start: not allowed together
    logits[3 + 6, 1] = 3
    answer = decode(rows, [logits], [example])[0]
    assert answer.text == 'w5 w6' and answer.score == 12
    logits[3 + 5 + MAX_ANSWER, 1] = 8  # one token too long
    assert decode(rows, [logits], [example])[0].text == 'w5 w6'
    logits[3 + 4 + MAX_ANSWER, 1] = 7  # exactly 30 tokens
    assert decode(rows, [logits], [example])[0].text.split() == [f'w{i}' for i in range(5, 35)]
    logits[0] = 20  # BOS is the null answer, never text
    answer = decode(rows, [logits], [example])[0]
    assert answer.null == 40 and answer.text.startswith('w5')


def test_max_context_prefers_the_window_with_more_around_a_token() -> None:
    rows, _ = _one_window(4)
    two = SpanRows(
        rows.tokens, np.zeros(2, np.int32), *(np.zeros(2, np.int32) for _ in range(3)),
        count=np.asarray([10, 10], np.int32), begin=np.asarray([0, 5], np.int32), offsets=rows.offsets,
    )  # fmt: skip
    first, second = max_context(two, [0, 1])
    # tokens 5..9 are in both: token 7 has 2 on its right in the first and 2 on its left in the second (a tie: the
    # first)
    assert first.tolist() == [True] * 8 + [False] * 2
    assert second.tolist() == [False] * 3 + [True] * 7


@pytest.mark.parametrize(
    ('text', 'offsets', 'texts'),
    [
        ('cafe\u0301 x', [(0, 4), (5, 7)], ['cafe\u0301', 'x']),  # an accent that a tokenizer composes away
        ('क\u093fताब', [(0, 1), (2, 5)], ['क\u093f', 'ताब']),  # a vowel sign (Mc)
        ('क\u093f', [(0, 1), (1, 2)], ['क\u093f', 'क\u093f']),  # the sign a token of its own
        ('☂\ufe0f!', [(0, 1), (2, 3)], ['☂\ufe0f', '!']),  # a variation selector
        ('\u0d28\u0d4d\u200d \u0d35', [(0, 2), (3, 5)], ['\u0d28\u0d4d\u200d', '\u0d35']),
        ('a \u200db', [(0, 1), (2, 4)], ['a', '\u200db']),
        ('👩\u200d💻!', [(0, 1), (2, 3), (3, 4)], ['👩\u200d💻', '👩\u200d💻', '!']),
        ('ab c', [(0, 1), (1, 4)], ['a', 'b c']),
        ('é', [(0, 1)], ['é']),
    ],
)
def test_a_span_holds_whole_characters(text: str, offsets: list[tuple[int, int]], texts: list[str]) -> None:
    assert [text[start:end] for start, end in trimmed_offsets(text, offsets)] == texts
