"""Retrieval with gold pairs by id: mining and its threshold, ranking, vectors in memory or in files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.split import Split
from xlmr_flax.eval import mining
from xlmr_flax.eval.by_gold import Embed, MinedSide, mine, rank
from xlmr_flax.experiment.data_check.inventory import BROKEN, check
from xlmr_flax.scoring import files
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


@pytest.mark.parametrize(
    ('old', 'new', 'said'),
    [
        ('de-2\ten-2', 'en-2\tde-2', r"'en-2' is in the file of the other side"),
        ('\ten-2', '\ten-x', r"'en-x' is in neither"),
    ],
)
@pytest.mark.parametrize('split', ['dev', 'test'])
def test_gold_pairs_have_the_ids_of_the_sides(
    root: Path, tmp_path: Path, split: str, old: str, new: str, said: str
) -> None:
    """Before any vector is computed; `prepare --check` says the same."""
    path = root / 'xtreme/bucc2018' / f'de-en.{split}.gold'
    path.write_text(path.read_text('utf-8').replace(f'{old}\n', f'{new}\n'), 'utf-8')
    with pytest.raises(DataError, match=rf'{split}\.gold, line 3, column .gold.: id {said}'):
        mine(get_task('bucc2018'), 'de', split, str(root), None, tmp_path / 'out.tsv')  # type: ignore[arg-type]
    state = check(Split(get_task('bucc2018'), 'de', split, root))
    assert (state.state, f'{path}, line 3' in state.error) == (BROKEN, True)


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


def test_a_query_without_a_gold_pair_is_named_before_anything_is_embedded(root: Path, tmp_path: Path) -> None:
    """The gold file of BUCC has pairs for the first PAIRS sentences alone."""
    with pytest.raises(DataError, match=rf"bucc2018 test de: query 'de-\d+' has no gold pair \({ALONE} have none\)"):
        rank(get_task('bucc2018'), 'de', 'test', str(root), None, tmp_path / 'out.json')  # type: ignore[arg-type]


# The rows of each side by id; _vector makes texts of one number translations of each other.
REPEATED = {
    'de': {'d0': '1 de', 'd1': '0 de', 'd2': '1 de ', 'd3': '2 de', 'd4': '3 de', 'd5': '1000 de'},
    'en': {'e0': '2 en', 'e1': '0 en', 'e2': '2 en', 'e3': '1 en', 'e4': '3 en', 'e5': '2000 en', 'e6': '2000 en'},
}
GOLD = [('d1', 'e1'), ('d0', 'e3'), ('d3', 'e0'), ('d4', 'e4')]
UNIQUE = {('d1', 'e1'), ('d4', 'e4')}
PRODUCT = {('d0', 'e3'), ('d2', 'e3'), ('d3', 'e0'), ('d3', 'e2')}


@pytest.fixture
def repeated_root(tmp_path: Path) -> Path:
    """BUCC in German: text 1 occurs twice in German, text 2 twice in English."""
    folder = tmp_path / 'data' / 'xtreme' / 'bucc2018'
    folder.mkdir(parents=True)
    for split in ('dev', 'test'):
        for side, rows in REPEATED.items():
            lines = ''.join(f'{row}\t{text}\n' for row, text in rows.items())
            (folder / f'de-en.{split}.{side}').write_text(lines, encoding='utf-8')
        (folder / f'de-en.{split}.gold').write_text(''.join(f'{x}\t{y}\n' for x, y in GOLD), encoding='utf-8')
    return tmp_path / 'data'


def _mined(root: Path, repeated: str, split: str = 'dev') -> tuple[set[tuple[str, str]], dict[str, float], list[int]]:
    """(pairs, metrics, sentences of each call of the embedder)"""
    sizes: list[int] = []

    def embed(sentences: Sequence[SentenceExample], file: Path | None = None, /) -> np.ndarray:
        sizes.append(len(sentences))
        return _in_memory(sentences)

    path = root / f'{repeated}.tsv'
    metrics, n = mine(get_task('bucc2018'), 'de', split, str(root), embed, path, repeated=repeated)
    assert n == len(GOLD)
    return set(files.read_pairs(path)), metrics, sizes


@pytest.mark.parametrize('split', ['dev', 'test'])
def test_all_pairs_of_ids_of_repeated_texts_count_as_in_jiant(split: str, repeated_root: Path) -> None:
    pairs, metrics, sizes = _mined(repeated_root, 'expanded', split)
    assert pairs == UNIQUE | PRODUCT
    assert (metrics['recall'], metrics['precision']) == (100.0, pytest.approx(100 * 4 / 6))
    assert set(sizes) == {5}, 'each text is embedded once'


def test_repeated_texts_give_no_pairs_as_in_xtreme(repeated_root: Path) -> None:
    pairs, metrics, sizes = _mined(repeated_root, 'dropped')
    assert pairs == UNIQUE
    assert (metrics['recall'], metrics['precision']) == (50.0, 100.0)
    assert sizes == [5, 5], 'they are mined all the same'


def test_without_a_rule_each_row_is_mined_by_itself(repeated_root: Path) -> None:
    pairs, _, sizes = _mined(repeated_root, 'kept')
    assert pairs >= UNIQUE
    assert len({x for x, _ in pairs}) == len({y for _, y in pairs}) == len(pairs), 'one to one'
    assert sizes == [6, 7]


def test_a_side_of_repeated_texts() -> None:
    rows = [SentenceExample(str(i), text) for i, text in enumerate(['0 de', '0 de', ' 1 de', '1 de'])]
    kept, expanded, dropped = (MinedSide.of(rows, rule) for rule in ('kept', 'expanded', 'dropped'))
    assert [e.id for e in kept.sentences] == ['0', '1', '2', '3'] and kept.ids == [('0',), ('1',), ('2',), ('3',)]
    assert [e.id for e in expanded.sentences] == [e.id for e in dropped.sentences] == ['0', '2']
    assert expanded.ids == [('0', '1'), ('2', '3')]
    assert dropped.ids == [(), ()]
