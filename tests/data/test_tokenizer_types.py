"""WordPiece, byte-level BPE and Gemma's BPE: templates; every tag and every gold span decodes back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from xlmr_flax.data.masking import Masking
from xlmr_flax.data.spans import span_rows
from xlmr_flax.data.tagging import join_tags, tag_rows
from xlmr_flax.data.tokenize import Tokenizer, choice_rows, pair_rows, single_rows
from xlmr_flax.encoders.config import SIZES
from xlmr_flax.models.hf_tokenizer import save_tokenizer
from xlmr_flax.scoring.spans import MAX_ANSWER, decode
from xlmr_flax.tasks.base import SpanExample, TagExample
from xlmr_flax.util.tokenizer_file import read_special_tokens

TEXTS = [
    'Angela Merkel was born in Hamburg, in 1954; she (the chancellor) studied physics.',
    'Москва — столица России. В ней живут 13 миллионов человек.',
    '東京は日本の首都です。人口は約1400万人。',
    'العاصمة هي القاهرة منذ عام 969.',
    'दिल्ली भारत की राजधानी है।',
    "L'État, c'est moi: naïve café e\u0301tude 😀 end.",
]
WORDS = [
    *sorted({word for text in TEXTS for word in text.split()}),
    *('U.S.', "don't", '3,141.59', '\u200b', 'ꙮ', '👩\u200d👩\u200d👧'),
]
SPECIAL = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']


def wordpiece() -> tokenizers.Tokenizer:
    """As multilingual BERT's, cased: `##` pieces, pairs with token types."""
    made = tokenizers.Tokenizer(models.WordPiece(unk_token='[UNK]'))
    made.normalizer = normalizers.BertNormalizer(lowercase=False)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=220, special_tokens=SPECIAL, show_progress=False)
    made.train_from_iterator(TEXTS, trainer)
    made.post_processor = processors.TemplateProcessing(
        single='[CLS] $A [SEP]', pair='[CLS] $A [SEP] $B:1 [SEP]:1', special_tokens=[('[CLS]', 2), ('[SEP]', 3)]
    )
    made.decoder = decoders.WordPiece()
    return made


def byte_level() -> tokenizers.Tokenizer:
    """As ModernBERT's: byte-level BPE, in which the blank before a word is a part of it."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(TEXTS, trainer)
    made.post_processor = processors.TemplateProcessing(
        single='[CLS] $A [SEP]', pair='[CLS] $A [SEP] $B [SEP]', special_tokens=[('[CLS]', 2), ('[SEP]', 3)]
    )
    return made


def gemma() -> tokenizers.Tokenizer:
    """As Gemma 2's, which mmBERT has: BPE on text with `▁` for blanks, with bytes for unknown characters."""
    special = ['<pad>', '<eos>', '<bos>', '<unk>', '<mask>']
    made = tokenizers.Tokenizer(models.BPE(unk_token='<unk>', byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Replace(' ', '▁')
    made.pre_tokenizer = pre_tokenizers.Split(' ', 'merged_with_previous')
    made.add_special_tokens(special)
    letters = sorted({c for text in TEXTS[:4] for c in text.replace(' ', '▁')})  # Devanagari: bytes
    vocabulary = {token: i for i, token in enumerate([*special, *(f'<0x{i:02X}>' for i in range(256)), *letters, '▁s'])}
    raw = json.loads(made.to_str())
    raw['model'] |= {'vocab': vocabulary, 'merges': [['▁', 's']]}
    raw['added_tokens'] = [token | {'id': vocabulary[token['content']]} for token in raw['added_tokens']]
    made = tokenizers.Tokenizer.from_str(json.dumps(raw))
    made.post_processor = processors.TemplateProcessing(
        single='<bos> $A <eos>', pair='<bos> $A <eos> $B <eos>', special_tokens=[('<bos>', 2), ('<eos>', 1)]
    )
    return made


@pytest.fixture(scope='module', params=[wordpiece, byte_level, gemma], ids=lambda make: make.__name__)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    make: Callable[[], tokenizers.Tokenizer] = request.param
    out = tmp_path_factory.mktemp(make.__name__) / 'tokenizer.json'
    make().save(str(out))
    return out


@pytest.fixture(scope='module')
def tokenizer(path: Path) -> Tokenizer:
    return Tokenizer(path, 1000)


def test_rows_are_those_of_the_files_own_template(tokenizer: Tokenizer, path: Path) -> None:
    raw = tokenizers.Tokenizer.from_file(str(path))
    a, b = TEXTS[0], TEXTS[1]
    assert single_rows(tokenizer, [a], 10_000)[0].tolist() == raw.encode(a).ids
    assert pair_rows(tokenizer, [a], [b], 10_000)[0].tolist() == raw.encode(a, b).ids
    assert choice_rows(tokenizer, [a], [b], 10_000)[0].tolist() == raw.encode(a, b).ids
    cut = pair_rows(tokenizer, [a], [b], 16)[0]
    assert len(cut) == 16 and cut[0] == tokenizer.bos and cut[-1] == tokenizer.eos
    assert tokenizer.pair_specials == 3


def test_special_ids(tokenizer: Tokenizer, path: Path) -> None:
    raw = tokenizers.Tokenizer.from_file(str(path))
    names = ('<bos>', '<eos>', '<pad>', '<unk>', '<mask>') if raw.token_to_id('<bos>') else (
        '[CLS]', '[SEP]', '[PAD]', '[UNK]', '[MASK]'
    )  # fmt: skip
    found = (tokenizer.bos, tokenizer.eos, tokenizer.pad, tokenizer.unk, tokenizer.mask)
    assert found == tuple(map(raw.token_to_id, names))
    assert set(found) <= set(tokenizer.special_ids)
    tokens = read_special_tokens(path)
    assert (tokens.bos, tokens.eos, tokens.middle) == (tokenizer.bos, tokenizer.eos, (tokenizer.eos,))
    assert tokens.second_type == raw.encode('a', 'b').type_ids[-1]
    assert Masking.of(tokenizer).mask_id == tokenizer.mask


def test_autotokenizer_opens_what_is_exported(tokenizer: Tokenizer, path: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip('transformers')
    save_tokenizer(tmp_path, path, SIZES['tiny'])
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(TEXTS[0], TEXTS[1])['input_ids'] == pair_rows(tokenizer, [TEXTS[0]], [TEXTS[1]], 10_000)[0].tolist()
    assert (theirs.cls_token_id, theirs.sep_token_id) == (tokenizer.bos, tokenizer.eos)
    assert (theirs.pad_token_id, theirs.mask_token_id) == (tokenizer.pad, tokenizer.mask)


@pytest.mark.parametrize('max_length', [9, 40, 512])
def test_every_word_keeps_its_tag(tokenizer: Tokenizer, max_length: int) -> None:
    random = np.random.default_rng(0)
    examples = [
        TagExample(str(i), tuple(random.choice(WORDS, 30)), tuple(random.integers(0, 9, 30).tolist())) for i in range(6)
    ]
    rows = tag_rows(tokenizer, examples, max_length)
    assert rows.tokens.lengths.max() <= max_length
    joined = join_tags(rows, [rows.labels[i] for i in range(len(rows.tokens))], len(examples))
    assert joined == [list(example.tags or ()) for example in examples]


def test_a_tagged_sentence_has_the_pieces_of_its_text(tokenizer: Tokenizer) -> None:
    """Words one by one are the text of the words with single blanks, blanks as parts of words included."""
    for text in TEXTS:
        words = tuple(text.split())
        rows = tag_rows(tokenizer, [TagExample('', words, (0,) * len(words))], 512)
        assert rows.tokens[0].tolist() == single_rows(tokenizer, [' '.join(words)], 512)[0].tolist()


@pytest.mark.parametrize('max_length', [64, 384])
def test_every_gold_span_decodes_back(tokenizer: Tokenizer, max_length: int) -> None:
    """Spans from each word's start to each later word's end, with logits at the gold tokens, give the gold text."""
    examples = []
    for text in TEXTS:
        words = text.split()
        starts = [sum(len(word) + 1 for word in words[:i]) for i in range(len(words))]
        for i, start in enumerate(starts):
            answer = ' '.join(words[i : i + 1 + i % 2])
            examples.append(SpanExample(str(len(examples)), 'Where?', text, ((answer, start),)))
    rows = span_rows(tokenizer, examples, max_length, stride=16)
    logits = []
    for i, length in enumerate(rows.tokens.lengths):
        row = np.zeros((length, 2), np.float32)
        strength = 10.0 if rows.start[i] else 1.0
        row[rows.start[i], 0] = row[rows.end[i], 1] = strength
        logits.append(row)
    short = (rows.start > 0) & (rows.end - rows.start < MAX_ANSWER)
    held = set(rows.example[short].tolist())
    answers = [answer.text for answer in decode(rows, logits, examples)]
    assert len(held) > 0.8 * len(examples)
    assert {n: answers[n] for n in held} == {n: examples[n].answers[0][0] for n in held}
