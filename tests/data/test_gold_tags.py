"""No word of a tagged file is lost: rows of any length, joined again, hold every word's tag."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from xlmr_flax.data.labels import IGNORED
from xlmr_flax.data.sources import read_split
from xlmr_flax.data.split import Split
from xlmr_flax.data.tagging import join_tags, tag_rows
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.encoders.config import ModelError
from xlmr_flax.models.embedded import tokenizer_path
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import TagExample

VOCABULARY = 250_037
EVERY = 12  # sentences, of which one is cut into rows unless the slow tests are asked for


@pytest.fixture(scope='module')
def tokenizer(tiny_tokenizer: Path) -> Tokenizer:
    """XLM-R's where it is installed; the tiny one cuts words into more pieces and serves as well."""
    try:
        return Tokenizer(tokenizer_path(), VOCABULARY)
    except ModelError:
        return Tokenizer(tiny_tokenizer, 2048)


def _languages(name: str, root: Path) -> list[str]:
    """The languages of a task and, of one that takes any by its file name, those that are there."""
    task = get_task(name)
    known = list(task.languages + task.more_languages)
    if name == 'udpos':
        stems = [path.name.split('_')[0] for path in root.glob('xtreme/udpos/UD_*/*.conllu')]
        stems += [path.stem.split('-')[1] for path in root.glob('xtreme/udpos_tsv/*.tsv')]
        known += sorted(set(stems) - set(known) - {task.local_code(code) for code in known})
    return known


def _files(name: str, root: Path) -> Iterator[tuple[str, str, list[TagExample]]]:
    task = get_task(name)
    for split in task.splits:
        for language in _languages(name, root):
            if Split(task, language, split, root).is_there():
                examples = read_split(task, language, split, root)
                yield language, split, [e for e in examples if isinstance(e, TagExample)]


def _words_in(path: Path) -> int:
    """Words of a CoNLL file, counted without the package's reader; CoNLL-U: multi-word tokens are one word."""
    lines = path.read_text(encoding='utf-8').splitlines()
    if path.suffix != '.conllu':
        return sum(1 for line in lines if line.strip() and not line.startswith('-DOCSTART-'))
    words, inside = 0, 0
    for line in lines:
        number = line.split('\t')[0]
        if number == '' or line.startswith('#'):
            inside = 0
        elif '-' in number:
            first, last = map(int, number.split('-'))
            words, inside = words + 1, last - first + 1
        elif number.isdigit() and inside:
            inside -= 1
        elif number.isdigit():
            words += 1
    return words


@pytest.mark.parametrize('every', [EVERY, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize('name', ['udpos', 'panx', 'masakhaner2', 'masakhapos'])
def test_every_word_keeps_its_tag(name: str, every: int, tokenizer: Tokenizer, data_root: Path) -> None:
    """Every word of a file is read, and every word of a sentence that is tokenized keeps its tag.

    By default one sentence in 12 is tokenized, in the slow test every one.
    """
    files, split_up = 0, 0
    for language, split, examples in _files(name, data_root):
        where = f'{name} {language} {split}'
        in_files = sum(_words_in(path) for path in Split(get_task(name), language, split, data_root).files())
        assert sum(len(e.tags or ()) for e in examples) == in_files, where
        examples = examples[::every]
        gold = [list(e.tags or ()) for e in examples]
        words = sum(map(len, gold))
        for max_length in (128, 32):
            rows = tag_rows(tokenizer, examples, max_length)
            assert rows.tokens.lengths.max() <= max_length, where
            assert (rows.labels.flat != IGNORED).sum() == rows.word_starts.flat.sum() == words, where
            row_tags = [np.where(rows.word_starts[i] == 1, rows.labels[i], -7) for i in range(len(rows.labels))]
            assert join_tags(rows, row_tags, len(examples)) == gold, where
            split_up += len(rows.tokens) > len(examples) if max_length == 32 else 0
        files += 1
    assert files, f'no files of {name}'
    assert split_up, 'at least one file has sentences longer than 32 tokens'
