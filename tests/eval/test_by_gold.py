"""Retrieval with gold pairs by id: mining and its threshold, ranking, vectors in memory or in files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from xlmr_flax.data.sources import DataError
from xlmr_flax.eval import files, mining
from xlmr_flax.eval.by_gold import Embed, mine, rank
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import SentenceExample

PAIRS, ALONE = 30, 20  # sentences that have a translation, and those of each side that have none


def _vector(text: str) -> np.ndarray:
    """A pair's sentences ('7 de', '7 en') lie near each other; the others lie anywhere. Any length."""
    number, side = text.split()
    common = np.random.default_rng(int(number)).normal(size=24)
    own = np.random.default_rng([int(number), *side.encode()]).normal(size=24)
    weight = 0.2 if int(number) < PAIRS else 5.0
    return ((common + weight * own) * (1 + int(number) % 3)).astype(np.float32)


def _in_memory(sentences: Sequence[SentenceExample], file: Path | None = None, /) -> np.ndarray:
    return np.stack([_vector(sentence.text) for sentence in sentences])


def _in_files(folder: Path) -> tuple[Embed, list[Path]]:
    given: list[Path] = []

    def embed(sentences: Sequence[SentenceExample], file: Path | None = None, /) -> np.ndarray:
        assert file is not None and not file.is_absolute()
        given.append(file)
        np.save(folder / file, _in_memory(sentences))
        return np.load(folder / file, mmap_mode='r')

    return embed, given


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """BUCC in German, dev and test: PAIRS translations in shuffled order among sentences that have none."""
    folder = tmp_path / 'data' / 'xtreme' / 'bucc2018'
    folder.mkdir(parents=True)
    for split in ('dev', 'test'):
        for side, first in (('de', 1000), ('en', 2000)):
            numbers = [*range(PAIRS), *range(first, first + ALONE)]
            np.random.default_rng(first).shuffle(numbers)
            rows = [f'{side}-{n}\t{n} {side}\n' for n in numbers]
            (folder / f'de-en.{split}.{side}').write_text(''.join(rows), encoding='utf-8')
        gold = ''.join(f'de-{n}\ten-{n}\n' for n in range(PAIRS))
        (folder / f'de-en.{split}.gold').write_text(gold, encoding='utf-8')
    return tmp_path / 'data'


@pytest.mark.parametrize('split', ['dev', 'test'])
def test_mining_finds_the_pairs_and_leaves_the_others(
    split: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mining, '_CPU_BLOCK', 16)
    task, path = get_task('bucc2018'), tmp_path / 'mined.tsv'
    metrics, n = mine(task, 'de', split, str(root), _in_memory, path)
    assert (metrics['f1'], n) == (100.0, PAIRS)
    assert set(files.read_pairs(path)) == {(f'de-{i}', f'en-{i}') for i in range(PAIRS)}
    embed, given = _in_files(tmp_path)
    from_files = tmp_path / 'from_files.tsv'
    assert mine(task, 'de', split, str(root), embed, from_files) == (metrics, n)
    assert from_files.read_bytes() == path.read_bytes()
    splits = ('dev',) if split == 'dev' else ('test', 'dev')
    assert [str(file) for file in given] == [f'{s}-{side}.npy' for s in splits for side in ('first', 'second')]


def test_a_threshold_needs_dev(root: Path, tmp_path: Path) -> None:
    (root / 'xtreme' / 'bucc2018' / 'de-en.dev.gold').unlink()
    with pytest.raises(
        DataError, match="'bucc2018' in 'de': the threshold is chosen on dev, and its files are missing"
    ):
        mine(get_task('bucc2018'), 'de', 'test', str(root), _in_memory, tmp_path / 'mined.tsv')


def test_ranking_by_cosine_whatever_the_lengths(root: Path, tmp_path: Path) -> None:
    """BUCC's files read as a ranking task: every German sentence asks, the first 20 by cosine answer."""
    task, path = get_task('bucc2018'), tmp_path / 'ranked.json'
    gold = root / 'xtreme' / 'bucc2018' / 'de-en.test.gold'
    lines = [f'de-{n}\ten-{n if n < PAIRS else 0}\n' for n in [*range(PAIRS), *range(1000, 1000 + ALONE)]]
    gold.write_text(''.join(lines), encoding='utf-8')
    _, n = rank(task, 'de', 'test', str(root), _in_memory, path)
    ranked = files.read_rankings(path)
    assert n == len(ranked) == PAIRS + ALONE
    assert all(ranked[f'de-{i}'][0] == f'en-{i}' for i in range(PAIRS))
    names = [line.split('\t')[0] for line in (gold.parent / 'de-en.test.en').read_text(encoding='utf-8').splitlines()]
    pool = np.stack([_vector(f'{name[3:]} en') for name in names])
    pool /= np.linalg.norm(pool, axis=1, keepdims=True)
    order = np.argsort(-(pool @ _vector('5 de')), kind='stable')[:20]
    assert ranked['de-5'] == [names[i] for i in order]
    embed, given = _in_files(tmp_path)
    rank(task, 'de', 'test', str(root), embed, tmp_path / 'again.json')
    assert (tmp_path / 'again.json').read_bytes() == path.read_bytes()
    assert [str(file) for file in given] == ['test-queries.npy', 'test-pool.npy']
