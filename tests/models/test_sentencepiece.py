"""Directories with sentencepiece.bpe.model alone, against SentencePiece and transformers; files that are refused."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import jax
import pytest
from sentencepiece_files import DEBERTA, OWN, PIECES, field, model_file

from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.encoders.config import SIZES, ModelError
from xlmr_flax.models import hf, sentencepiece
from xlmr_flax.models.model import Model
from xlmr_flax.models.source import open_source

TEXTS = [
    'the station', 'The station is near the river.', '  two   blanks  ', '', ' ', 'tab\tand\nline\n',
    'Ｆｕｌｌ　ｗｉｄｔｈ ½ ﬁ',
    'e\u0301 and é', 'unknown ქართული 한국어', 'a\u00a0b', 'riverriver station', '12 345', 'find', '😀 house',
]  # fmt: skip


@pytest.fixture
def directory(tmp_path: Path, tiny_tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model directory without tokenizer.json."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    out = tmp_path / 'm'
    hf.save(out, SIZES['tiny'], jax.device_get(Model(SIZES['tiny']).init(jax.random.key(0), {})), tiny_tokenizer)
    for name in ('tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json'):
        (out / name).unlink()
    return out


def opened(directory: Path) -> Tokenizer:
    source = open_source(f'hf:{directory}')
    return Tokenizer(source.tokenizer, source.config.vocab_size)


def test_ids_are_xlmrs(directory: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in directory.iterdir())
    (directory / 'sentencepiece.bpe.model').write_bytes(model_file([*OWN, *PIECES]))
    tokenizer = opened(directory)
    assert (tokenizer.bos, tokenizer.pad, tokenizer.eos, tokenizer.unk, tokenizer.mask) == (0, 1, 2, 3, 10)
    assert (tokenizer.size, tokenizer.special_ids) == (11, (0, 1, 2, 3, 10))
    texts = [' the  station ', 'the', 'station', 'the <x> <mask> s', 'q']
    assert [row.tolist() for row in (tokenizer.encode([t])[0] for t in texts)] == [
        [4, 5, 6], [4], [5, 6], [4, 9, 10, 5, 7], [5, 3]
    ]  # fmt: skip
    assert sorted(path.name for path in directory.iterdir()) == sorted([*before, 'sentencepiece.bpe.model'])
    (kept,) = (tmp_path / 'cache').rglob('*.json')
    stamp = kept.stat().st_mtime_ns
    assert opened(directory).path == kept
    assert kept.stat().st_mtime_ns == stamp, 'made once'
    (directory / 'sentencepiece.bpe.model').write_bytes(model_file([*OWN, *PIECES[::-1]]))
    assert opened(directory).path != kept


def test_a_tokenizer_json_comes_first(directory: Path, tiny_tokenizer: Path) -> None:
    (directory / 'sentencepiece.bpe.model').write_bytes(b'no model')
    (directory / 'tokenizer.json').write_bytes(tiny_tokenizer.read_bytes())
    assert open_source(f'hf:{directory}').tokenizer == directory / 'tokenizer.json'


def test_neither_file(directory: Path) -> None:
    with pytest.raises(ModelError) as refused:
        open_source(f'hf:{directory}')
    assert all(name in str(refused.value) for name in (str(directory), 'tokenizer.json', 'sentencepiece.bpe.model'))


E2 = {'content': '[E2]', 'lstrip': True}
ADDED = {'id': 11, 'content': '[E1]', 'special': True, 'normalized': False}


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('added_tokens.json', {'<mask>': 10, '[E2]': 12, '[E1]': 11}),
        ('tokenizer_config.json', {'added_tokens_decoder': {'12': {'content': '[E2]'}, '11': ADDED}}),
        ('tokenizer_config.json', {'added_tokens_decoder': {'0': {'content': '<s>'}, '11': ADDED, '12': E2}}),
    ],
)  # fmt: skip
def test_added_tokens_have_their_ids(directory: Path, name: str, content: Any) -> None:
    (directory / 'sentencepiece.bpe.model').write_bytes(model_file([*OWN, *PIECES]))
    (directory / name).write_text(json.dumps(content), 'utf-8')
    tokenizer = opened(directory)
    assert tokenizer.size == 13
    assert tokenizer.encode(['the [E2] s [E1]'])[0].tolist() == [4, 12, 5, 7, 11]


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('added_tokens.json', {'[E1]': 14}),
        ('added_tokens.json', {'[E1]': 'x'}),
        ('added_tokens.json', {'[E1]': None}),
        ('added_tokens.json', [1]),
        ('tokenizer_config.json', {'added_tokens_decoder': {'x': ADDED}}),
        ('tokenizer_config.json', {'added_tokens_decoder': {'11': {}}}),
        ('tokenizer_config.json', {'added_tokens_decoder': [ADDED]}),
        ('tokenizer_config.json', {'added_tokens_decoder': {'11': 'E'}}),
    ],
    ids=str,
)
def test_added_tokens_that_cannot_be_placed(directory: Path, name: str, content: Any) -> None:
    (directory / 'sentencepiece.bpe.model').write_bytes(model_file([*OWN, *PIECES]))
    (directory / name).write_text(json.dumps(content), 'utf-8')
    with pytest.raises(ModelError, match=str(directory)):
        open_source(f'hf:{directory}')


WHOLE = model_file([*OWN, *PIECES])


@pytest.mark.parametrize(
    'data',
    [
        b'', b'\n', WHOLE[:100], WHOLE[:-3], b'version https://git-lfs.github.com/spec/v1\n', b'\xff' * 40,
        field(1, 5) + WHOLE, field(1, field(2, 0.5)), field(1, field(1, b'\xff')), field(2, 3) + WHOLE,
        model_file([*OWN, *PIECES], kind=2), model_file(PIECES), model_file(OWN[::-1] + PIECES),
        model_file([*OWN, *PIECES, ('<0x41>', 0.0, 6)]), WHOLE + field(3, field(2, b'\0\0\0\1')),
        WHOLE + field(3, field(2, bytes(4))), WHOLE + field(3, field(2, b'\1\0\0\0')),
    ],
)  # fmt: skip
def test_files_that_are_refused(directory: Path, tmp_path: Path, data: bytes) -> None:
    path = directory / 'sentencepiece.bpe.model'
    path.write_bytes(data)
    with pytest.raises(ModelError, match=str(path)):
        open_source(f'hf:{directory}')
    assert not list((tmp_path / 'cache').rglob('*.json'))


def test_a_cache_that_cannot_be_written(directory: Path, tmp_path: Path) -> None:
    (directory / 'sentencepiece.bpe.model').write_bytes(WHOLE)
    (tmp_path / 'cache').write_text('a file')
    with pytest.raises(ModelError, match='XDG_CACHE_HOME'):
        open_source(f'hf:{directory}')


@pytest.fixture(scope='module')
def trained() -> tuple[bytes, Any]:
    """(file, processor) of a small unigram model that SentencePiece has trained, normalized as XLM-R's."""
    spm = pytest.importorskip('sentencepiece', reason='ids are compared with SentencePiece')
    text = 'the station is near river where do we find bread and water tomorrow morning people house 12 345'
    chosen, out = random.Random(0), io.BytesIO()
    lines = (' '.join(chosen.choices(text.split(), k=6)) for _ in range(400))
    spm.SentencePieceTrainer.train(
        sentence_iterator=lines, model_writer=out, vocab_size=60, model_type='unigram', minloglevel=2,
        normalization_rule_name='nmt_nfkc', hard_vocab_limit=False, user_defined_symbols=['<x>'],
    )  # fmt: skip
    return out.getvalue(), spm.SentencePieceProcessor(model_proto=out.getvalue())


@pytest.mark.filterwarnings('ignore:builtin type .* has no __module__ attribute:DeprecationWarning')
def test_ids_are_sentencepieces_one_further(directory: Path, trained: tuple[bytes, Any]) -> None:
    """An XLM-R id (fairseq's) is SentencePiece's id + 1, and <unk> is 3."""
    data, processor = trained
    (directory / 'sentencepiece.bpe.model').write_bytes(data)
    tokenizer = opened(directory)
    assert tokenizer.size == processor.get_piece_size() + 2
    ids = [[i + 1 if i else tokenizer.unk for i in processor.encode(text)] for text in TEXTS]
    assert [row.tolist() for row in (tokenizer.encode([t])[0] for t in TEXTS)] == ids
    assert any(3 in row for row in ids)


@pytest.mark.filterwarnings('ignore:builtin type .* has no __module__ attribute:DeprecationWarning')
def test_ids_are_transformers(directory: Path, trained: tuple[bytes, Any]) -> None:
    transformers = pytest.importorskip('transformers', reason='ids are compared with transformers')
    (directory / 'sentencepiece.bpe.model').write_bytes(trained[0])
    theirs = transformers.XLMRobertaTokenizer.from_pretrained(str(directory))
    made = open_source(f'hf:{directory}').tokenizer
    ours = sentencepiece.Tokenizer.from_file(str(made))
    for text in TEXTS:
        assert ours.encode(text).ids == theirs(text)['input_ids'], text
        assert ours.encode(text, 'the station').ids == theirs(text, 'the station')['input_ids'], text
        assert ours.decode(ours.encode(text).ids) == theirs.decode(theirs(text)['input_ids'], skip_special_tokens=True)


def test_debertas_ids_are_the_files(directory: Path) -> None:
    """As in mDeBERTa's directories: spm.model, and added_tokens.json with the mask after the pieces."""
    (directory / 'spm.model').write_bytes(model_file([*DEBERTA, *PIECES]))
    (directory / 'added_tokens.json').write_text('{"[MASK]": 10}', 'utf-8')
    tokenizer = opened(directory)
    assert (tokenizer.pad, tokenizer.bos, tokenizer.eos, tokenizer.unk, tokenizer.mask) == (0, 1, 2, 3, 10)
    assert (tokenizer.size, tokenizer.middle) == (11, (2,))
    assert tokenizer.encode([' the  station [MASK]'])[0].tolist() == [4, 5, 6, 10]
    made = sentencepiece.Tokenizer.from_file(str(tokenizer.path)).encode('the', 's')
    assert (made.ids, made.type_ids) == ([1, 4, 2, 5, 7, 2], [0, 0, 0, 1, 1, 1])


@pytest.mark.filterwarnings('ignore:builtin type .* has no __module__ attribute:DeprecationWarning')
def test_debertas_ids_are_sentencepieces(directory: Path) -> None:
    """With byte fallback, as mDeBERTa's model has it: bytes of unknown characters."""
    spm = pytest.importorskip('sentencepiece', reason='ids are compared with SentencePiece')
    chosen, out = random.Random(0), io.BytesIO()
    text = 'the station is near river where do we find bread and water tomorrow morning people house 12 345'
    spm.SentencePieceTrainer.train(
        sentence_iterator=(' '.join(chosen.choices(text.split(), k=6)) for _ in range(400)), model_writer=out,
        vocab_size=320, model_type='unigram', minloglevel=2, normalization_rule_name='nmt_nfkc',
        hard_vocab_limit=False, byte_fallback=True, pad_id=0, bos_id=1, eos_id=2, unk_id=3, pad_piece='[PAD]',
        bos_piece='[CLS]', eos_piece='[SEP]', unk_piece='[UNK]',
    )  # fmt: skip
    processor = spm.SentencePieceProcessor(model_proto=out.getvalue())
    (directory / 'spm.model').write_bytes(out.getvalue())
    tokenizer = opened(directory)
    assert (tokenizer.size, tokenizer.mask) == (processor.get_piece_size() + 1, processor.get_piece_size())
    for text in TEXTS:
        found = tokenizer.encode([text])[0].tolist()
        assert found == processor.encode(text) and tokenizer.unk not in found


@pytest.mark.parametrize('pieces', [PIECES, [*OWN, *PIECES]])
def test_an_spm_model_of_another_kind_is_refused(directory: Path, pieces: list[tuple[str, float, int]]) -> None:
    (directory / 'spm.model').write_bytes(model_file(pieces))
    with pytest.raises(ModelError, match=rf"{directory / 'spm.model'}: .*DeBERTa's"):
        open_source(f'hf:{directory}')
