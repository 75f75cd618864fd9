"""Token ids, templates and truncation against transformers' AutoTokenizer on an exported directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer as RawTokenizer

from xlmr_flax.data import world
from xlmr_flax.data.tokenize import Ragged, Tokenizer, TokenizerError, pair_rows, single_rows, truncate_pair
from xlmr_flax.encoders import family_of
from xlmr_flax.encoders.config import SIZES, EncoderConfig, ModelError
from xlmr_flax.models import embedded
from xlmr_flax.models.hf_tokenizer import save_tokenizer

ODD = [
    '', ' ', '  two  spaces ', 'tab\tand\nline', 'ﬁ ligature ½ Ⅳ', 'e\u0301 and é', '😀👩‍👩‍👧 emoji',
    'Paris ' * 150, 'a' * 300, '<s> </s> <mask>',
    '\u200bzero\u00a0width', 'ＦＵＬＬ　ｗｉｄｔｈ', '1234567890 3.14', 'don’t “quote”', 'ꙮ ᚠ',
]  # fmt: skip
SCRIPTS = [
    'Where is the station?', 'Где находится вокзал?', 'أين المحطة؟', '车站在哪里？', '駅はどこですか。',
    '역이 어디에 있습니까?', 'स्टेशन कहाँ है?', 'สถานีอยู่ที่ไหน',
    'Πού είναι ο σταθμός;', 'איפה התחנה?', 'நிலையம் எங்கே?', 'სად არის სადგური?',
]  # fmt: skip


class Case:
    def __init__(self, path: Path, config: EncoderConfig, out: Path):
        from transformers import AutoTokenizer

        out.mkdir()
        save_tokenizer(out, path, config)
        (out / 'config.json').write_text(json.dumps(family_of(config).write_config(config)))
        self.ours, self.theirs = Tokenizer(path, config.vocab_size), AutoTokenizer.from_pretrained(out)

    def reference(self, *texts: list[str], max_length: int) -> list[list[int]]:
        return self.theirs(*texts, truncation='longest_first', max_length=max_length)['input_ids']


@pytest.fixture(scope='module', params=['tiny', 'embedded'])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Case:
    pytest.importorskip('transformers', reason='ids are compared with transformers')
    out = tmp_path_factory.mktemp('tokenizer') / request.param
    if request.param == 'tiny':
        return Case(tiny_tokenizer, SIZES['tiny'], out)
    try:
        return Case(embedded.tokenizer_path(), embedded.load_config(), out)
    except ModelError as e:
        pytest.skip(str(e))


@pytest.fixture(scope='module')
def texts() -> list[str]:
    rows = [row for code in world.LANGUAGES for row in world.rows('nli', code, 'dev', 3)]
    return ODD + SCRIPTS + [row['premise'] for row in rows] + [row['hypothesis'] for row in rows]


def lists(rows: Ragged) -> list[list[int]]:
    return [rows[i].tolist() for i in range(len(rows))]


def test_special_ids_are_xlmrs(case: Case) -> None:
    assert (case.ours.bos, case.ours.pad, case.ours.eos) == (0, 1, 2)
    theirs = case.theirs
    assert (theirs.bos_token_id, theirs.pad_token_id, theirs.eos_token_id) == (0, 1, 2)


@pytest.mark.parametrize('max_length', [128, 9])
def test_single_texts(case: Case, texts: list[str], max_length: int) -> None:
    rows = single_rows(case.ours, texts, max_length)
    assert lists(rows) == case.reference(texts, max_length=max_length)
    assert rows.flat.dtype == np.int32
    assert rows.lengths.max() == max_length


@pytest.mark.parametrize('max_length', [128, 17, 12])
def test_pairs(case: Case, texts: list[str], max_length: int) -> None:
    """Both orders, so that either side is the longer one. The odd token of a budget may go to the other side than
    transformers', where both are cut and the first was the longer one (see truncate_pair)."""
    first, second = texts + texts[::-1], texts[::-1] + texts
    rows = pair_rows(case.ours, first, second, max_length)
    assert rows.lengths.max() == max_length
    reference = case.reference(first, second, max_length=max_length)
    a, b = case.ours.encode(first).lengths, case.ours.encode(second).lengths
    budget = max_length - 4
    other = (a > b) & (b > budget // 2) & (budget % 2 == 1)
    assert other.sum() < len(first) / 2
    for i, row in enumerate(lists(rows)):
        if not other[i]:
            assert row == reference[i], (first[i], second[i])


def words_of(text: str, tokenizer: Tokenizer) -> list[int]:
    """XLM-R's rule, by hand: white space parts the text, each word is encoded for itself."""
    return [int(i) for word in text.split() for i in tokenizer.encode([word])[0]]


@pytest.mark.parametrize(
    'text',
    [' ', 'a ', ' a', 'a  b', 'a b   ', '\n a\t\tb \n', 'a\u3000b\u3000', 'a\u00a0', 'a\x85b', 'a <mask> b', '<mask> '],
)
def test_blanks_part_words_and_are_no_pieces(case: Case, text: str) -> None:
    assert case.ours.encode([text])[0].tolist() == words_of(text, case.ours)
    assert case.theirs(text, add_special_tokens=False)['input_ids'] == words_of(text, case.ours)


def test_ids_and_offsets_of_ordinary_text_are_the_files_own(case: Case, texts: list[str]) -> None:
    plain = [text for text in texts if text and text == ' '.join(text.split()) and '<' not in text]
    assert len(plain) > 100
    raw = RawTokenizer.from_file(str(case.ours.path)).encode_batch(plain, add_special_tokens=False)
    assert list(case.ours.encode_with_offsets(plain)) == [(e.ids, e.offsets) for e in raw]
    assert lists(case.ours.encode(plain)) == [e.ids for e in raw]


def test_offsets_stay_inside_the_text(case: Case) -> None:
    text = '  a   b  '
    ((_, offsets),) = case.ours.encode_with_offsets([text])
    assert ''.join(text[start:end].strip() for start, end in dict.fromkeys(offsets)) == 'ab'
    assert all(0 <= start <= end <= len(text) - 2 for start, end in offsets)


def test_a_tokenizer_that_splits_otherwise_is_left_alone(tiny_tokenizer: Path, tmp_path: Path) -> None:
    raw = json.loads(tiny_tokenizer.read_text('utf-8'))
    raw['pre_tokenizer'] = {'type': 'Sequence', 'pretokenizers': [{'type': 'WhitespaceSplit'}, raw['pre_tokenizer']]}
    path = tmp_path / 'tokenizer.json'
    path.write_text(json.dumps(raw), 'utf-8')
    (tmp_path / 'out').mkdir()
    save_tokenizer(tmp_path / 'out', path, SIZES['tiny'])
    assert (tmp_path / 'out' / 'tokenizer.json').read_bytes() == path.read_bytes()
    assert lists(Tokenizer(path, 2048).encode(SCRIPTS)) == lists(Tokenizer(tiny_tokenizer, 2048).encode(SCRIPTS))


def test_many_texts_keep_their_order(case: Case, monkeypatch: pytest.MonkeyPatch, texts: list[str]) -> None:
    whole = lists(case.ours.encode(texts))
    monkeypatch.setattr('xlmr_flax.data.tokenize._CHUNK', 5)
    assert lists(case.ours.encode(texts)) == whole


def test_a_file_that_pads_and_truncates_of_its_own_accord_does_not_here(tiny_tokenizer: Path, tmp_path: Path) -> None:
    raw = json.loads(tiny_tokenizer.read_text('utf-8'))
    raw['truncation'] = {'direction': 'Right', 'max_length': 4, 'strategy': 'LongestFirst', 'stride': 0}
    raw['padding'] = {
        'strategy': {'Fixed': 99}, 'direction': 'Right', 'pad_to_multiple_of': None, 'pad_id': 1, 'pad_type_id': 0,
        'pad_token': '<pad>',
    }  # fmt: skip
    path = tmp_path / 'tokenizer.json'
    path.write_text(json.dumps(raw), 'utf-8')
    changed, plain = Tokenizer(path, 2048), Tokenizer(tiny_tokenizer, 2048)
    assert lists(changed.encode(SCRIPTS)) == lists(plain.encode(SCRIPTS))


@pytest.mark.parametrize(
    ('a', 'b', 'budget', 'want'),
    [
        (5, 5, 10, (5, 5)), (5, 5, 9, (4, 5)), (5, 5, 8, (4, 4)), (9, 2, 6, (4, 2)), (2, 9, 6, (2, 4)), (9, 0, 3, (3,
        0)), (9, 7, 9, (4, 5)), (7, 9, 9, (4, 5)),
    ],
)  # fmt: skip
def test_truncation_takes_from_the_longer_side_and_of_equals_from_the_first(
    a: int, b: int, budget: int, want: tuple[int, int]
) -> None:
    assert truncate_pair(a, b, budget) == want


def test_ragged_rows_come_back() -> None:
    rows = Ragged.from_rows([[1, 2, 3], [], [4]])
    assert lists(rows) == [[1, 2, 3], [], [4]]
    assert rows.lengths.tolist() == [3, 0, 1]
    assert len(Ragged.from_rows([])) == 0


@pytest.mark.parametrize(
    ('change', 'rows', 'said'),
    [
        ({}, 2047, 'ids up to 2047, but the word table has 2047 rows'),
        ({'added_tokens': 0}, 2048, "no token '<pad>' or '[PAD]'"),
        (None, 2048, 'not a readable tokenizer.json'),
    ],
)
def test_a_tokenizer_that_cannot_serve(
    change: dict[str, Any] | None, rows: int, said: str, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    path = tmp_path / 'tokenizer.json'
    text = tiny_tokenizer.read_text('utf-8')
    if change is None:
        text = text[:1000]
    elif change:
        text = text.replace('<pad>', '[EMPTY]')
    path.write_text(text, 'utf-8')
    with pytest.raises(TokenizerError) as caught:
        Tokenizer(path, rows)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_rows_longer_than_the_encoders_positions_are_refused(tiny_tokenizer: Path) -> None:
    tokenizer = Tokenizer(tiny_tokenizer, 2048)
    tokenizer.check_length(128, SIZES['tiny'].max_length)
    with pytest.raises(TokenizerError, match='max_length 129: the encoder has positions for 128 tokens'):
        tokenizer.check_length(129, SIZES['tiny'].max_length)
