"""The retrieval command: rows of each layer, equal to those of evaluate; resuming; encoders together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlmr_flax.cli.main import main
from xlmr_flax.eval.layer_retrieval import LayerRetrieval

Fails = Callable[..., str]
Rows = list[dict[str, Any]]
LANGUAGES = ('de', 'sw', 'hi')
ASKED = ['--encoder=random:tiny', '--task=world_retrieval', '--max_examples=12']


def rows_of(folder: Path, file: str = 'retrieval.jsonl') -> Rows:
    return [json.loads(line) for line in (folder / file).read_text('utf-8').splitlines()]


@pytest.fixture(scope='module')
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('retrieval') / 'o'
    assert main(['retrieval', *ASKED, f'--languages={",".join(LANGUAGES)}', f'--out={out}']) == 0
    return out


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The languages that a command embeds, collected while it runs."""
    seen: list[str] = []
    real = LayerRetrieval.language

    def language(self: LayerRetrieval, code: str, *rest: Any) -> Any:
        seen.append(code)
        return real(self, code, *rest)

    monkeypatch.setattr(LayerRetrieval, 'language', language)
    return seen


def test_the_last_layer_is_what_evaluate_writes(done: Path, tmp_path: Path) -> None:
    assert main(['evaluate', *ASKED, f'--languages={",".join(LANGUAGES)}', f'--out={tmp_path}/e']) == 0
    want = {(r['language'], r['metric']): r for r in rows_of(tmp_path / 'e', 'results.jsonl')}
    last = max(row['layer'] for row in rows_of(done))
    mine = {row['language']: row for row in rows_of(done) if row['layer'] == last}
    assert list(mine) == list(LANGUAGES)
    for code, row in mine.items():
        for metric in ('accuracy', 'accuracy_to_en'):
            assert row[metric] == want[code, metric]['value']
        for field in ('n', 'chance', 'split', 'encoder', 'target', 'script', 'resource_level', 'cc100_gib'):
            assert row[field] == want[code, 'accuracy'][field]


def test_a_row_is_a_language_and_layer_with_its_many_to_many_mean(done: Path) -> None:
    rows = rows_of(done)
    layers = sorted({row['layer'] for row in rows})
    assert layers == list(range(len(layers))) and len(layers) > 2
    assert [(r['language'], r['layer']) for r in rows] == [(code, layer) for code in LANGUAGES for layer in layers]
    [folder] = [path for path in done.iterdir() if path.name.startswith('random')]
    vectors = {code: np.load(folder / 'vectors' / f'{code}.npy') for code in LANGUAGES}
    for row in rows:
        assert row['among'] == len(LANGUAGES)
        unit = {c: v[row['layer']] / np.linalg.norm(v[row['layer']], axis=1)[:, None] for c, v in vectors.items()}
        ours, gold = unit[row['language']], np.arange(row['n'])
        hits = [
            np.mean((queries @ pool.T).argmax(1) == gold)
            for code, theirs in unit.items() if code != row['language']
            for queries, pool in ((ours, theirs), (theirs, ours))
        ]  # fmt: skip
        assert row['many_to_many'] == pytest.approx(100 * np.mean(hits))
    assert len({row['many_to_many'] for row in rows}) > 2
    assert (done / 'figures' / 'retrieval-layers.svg').read_text('utf-8').startswith('<?xml')
    assert (done / 'retrieval.csv').read_text('utf-8').count('\n') == len(rows) + 1
    for code in LANGUAGES:
        assert f'| {code} ' in (done / 'retrieval.md').read_text('utf-8')


def test_a_rerun_embeds_what_is_missing(tmp_path: Path, embedded: list[str]) -> None:
    out, command = tmp_path / 'o', ['retrieval', *ASKED, f'--out={tmp_path}/o']
    assert main([*command, '--languages=de,sw']) == 0
    assert embedded == ['de', 'sw']
    first = rows_of(out)
    assert main([*command, '--languages=de,sw,hi']) == 0
    assert embedded == ['de', 'sw', 'hi']
    alone = ('many_to_many', 'among', 'command')
    before, after = ([{k: v for k, v in row.items() if k not in alone} for row in rows]
                     for rows in (first, rows_of(out)))  # fmt: skip
    assert after[: len(before)] == before
    [folder] = [path for path in out.iterdir() if path.name.startswith('random')]
    (folder / 'vectors' / 'sw.npy').write_bytes(b'\x93NUMPY')
    (folder / 'languages' / 'hi.json').write_text('{')
    assert main([*command, '--languages=de,sw,hi']) == 0
    assert embedded[3:] == ['sw', 'hi']
    assert main([*command, '--languages=de,sw,hi']) == 0
    assert len(embedded) == 5
    assert main([*command, '--languages=de', '--pooling=cls']) == 0
    assert embedded[5:] == ['de']
    assert {row['pooling'] for row in rows_of(out)} == {'cls'}


def test_a_stop_keeps_the_languages_that_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedded: list[str]
) -> None:
    real = LayerRetrieval.language

    def stops(self: LayerRetrieval, code: str, *rest: Any) -> Any:
        if code == 'sw':
            raise KeyboardInterrupt
        return real(self, code, *rest)

    command = ['retrieval', *ASKED, '--languages=de,sw', f'--out={tmp_path}/o']
    with monkeypatch.context() as patch:
        patch.setattr(LayerRetrieval, 'language', stops)
        assert main(command) == 130
    assert {row['language'] for row in rows_of(tmp_path / 'o')} == {'de'}
    assert 'many_to_many' not in rows_of(tmp_path / 'o')[0]
    assert main(command) == 0
    assert embedded == ['de', 'sw']


def test_several_encoders_and_joined_results(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = ['retrieval', '--encoder=random:tiny', '--encoder=random:bert-tiny', '--names=a,b', *ASKED[1:]]
    assert main([*two, '--languages=de', f'--out={tmp_path}/two']) == 0
    rows = rows_of(tmp_path / 'two')
    assert {(row['name'], row['encoder']) for row in rows} == {('a', 'random:tiny'), ('b', 'random:bert-tiny')}
    monkeypatch.setenv('HOME', str(tmp_path))
    assert main(['retrieval', f'--results={done},~/two', '--out=~/all']) == 0
    assert rows_of(tmp_path / 'all') == rows_of(done) + rows
    assert 'b (1 language)' in (tmp_path / 'all' / 'figures' / 'retrieval-layers.svg').read_text('utf-8')


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['--task=t', '--out=o'], '--encoder is missing'),
        (['--encoder=embedded', '--out=o'], '--task is missing'),
        (['--encoder=embedded', '--task=t'], '--out is missing'),
        (['--results=a'], '--out is missing'),
        (['--results=a', '--task=t', '--out=o'], '--task has no meaning with --results'),
        (['--results=nowhere', '--out=o'], 'retrieval.jsonl'),
        (['--encoder=embedded', '--names=a,b', '--task=t', '--out=o'], '2 names for 1 encoders'),
        (['--encoder=embedded', '--task=world_nli', '--out=o'], "is of kind 'pair'"),
        (['--encoder=random:tiny', '--encoder=random:huge', '--task=world_retrieval', '--out=o'], "'huge'"),
    ],
)
def test_a_command_that_cannot_be_carried_out(
    arguments: list[str], said: str, fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in fails('retrieval', *arguments)
    assert not list(tmp_path.iterdir())
