"""Tokenizing ahead of a run: progress in bytes of the data files."""

from __future__ import annotations

from pathlib import Path

import pytest
from tasks.tiny_files import tsv

from xlmr_flax.data import tokenize
from xlmr_flax.data.split import Split
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.experiment.data_check.tokenise import build
from xlmr_flax.experiment.plan.reads import TEST, Read
from xlmr_flax.models.source import open_source
from xlmr_flax.tasks import get_task


def test_progress_is_in_bytes_and_moves_within_a_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenize, '_CHUNK', 4)
    rows = {'train': 20, 'dev': 3}
    names = {'train': 'train', 'dev': 'dev_2k'}
    for split, count in rows.items():
        path = tmp_path / f'xtreme/pawsx/x-final/en/{names[split]}.tsv'
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = ((str(i), f'Text {i} .', 'B', '1') for i in range(count))
        path.write_text(tsv(('id', 'sentence1', 'sentence2', 'label'), *lines), encoding='utf-8')
    reads = [Read(Split(get_task('pawsx'), 'en', split, tmp_path), TEST, 64) for split in rows]
    sizes = [sum(path.stat().st_size for path in read.split.files()) for read in reads]
    source = open_source('embedded')
    tokenizer = Tokenizer(source.tokenizer, source.config.vocab_size)
    seen: list[tuple[int, int, int]] = []
    built = list(build(reads, tokenizer, 64, show=lambda *values: seen.append(values)))
    assert [len(each.entry.data.ids) for each in built] == [20, 3]
    done = [each for each, _, _ in seen]
    assert done == sorted(done)
    assert {total for _, total, _ in seen} == {sum(sizes)}
    assert (seen[0], seen[-1]) == ((0, sum(sizes), 0), (sum(sizes), sum(sizes), 23))
    assert len({each for each in done if each < sizes[0]}) == 10, 'two calls of five chunks'
    assert (sizes[0], sum(sizes), 20) in seen
    assert tokenizer.on_texts is None
