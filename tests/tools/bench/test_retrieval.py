"""The retrieval bench: the command end to end, and what counts as the same neighbours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from xlmr_flax.cli.main import main
from xlmr_flax.tools.bench import SUBJECTS, retrieval, timing
from xlmr_flax.tools.bench.subject import BenchError, load_subject

OPTIONS = {'rows': 150, 'dim': 16, 'k': 4, 'seed': 0}
TINY = ['bench', 'retrieval', '--rows=150', '--dim=16']


def test_the_command_without_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(timing, 'installed', lambda package: not package)
    assert main([*TINY, '--alternations=2', '--threads=1', f'--out={tmp_path}']) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(
        '# Retrieval: exact 4 nearest neighbours both ways, 2 × 150 vectors of 16 numbers, float32\n'
    )
    for name, package in (
        ('torch, two passes', 'torch'),
        ('torch, one pass', 'torch'),
    ):
        assert f'Left out: {name}: {package} is not installed.' in captured.out
    assert 'ours: round 2 of 2' in captured.err
    assert (tmp_path / 'retrieval.md').read_text(encoding='utf-8').strip() == captured.out.strip()
    found = json.loads((tmp_path / 'retrieval.json').read_text(encoding='utf-8'))
    assert found['options'] == OPTIONS and found['ratios'] == {}
    (ours,) = found['measured'].values()
    assert len(ours['seconds']) == len(ours['cpu_seconds']) == 2
    assert all(seconds > 0 for seconds in ours['seconds'])
    assert ours['memory'] >= ours['loaded'] > 2**20


@pytest.mark.slow
def test_all_that_are_installed_agree_and_are_compared() -> None:
    outcome = timing.bench('retrieval', OPTIONS, alternations=1)
    names = list(outcome.measured)
    assert names == [name for name in retrieval.IMPLEMENTATIONS if name not in outcome.left_out]
    assert list(outcome.ratios) == names[1:]
    assert outcome.agreement.startswith('Every implementation found the same neighbours')


@pytest.fixture
def outcomes(tmp_path: Path) -> tuple[Path, dict[str, retrieval.Outcome]]:
    """The inputs' folder, ours, and a copy of it."""
    retrieval.inputs(OPTIONS, tmp_path)
    ours = dict(retrieval.IMPLEMENTATIONS['ours'].prepare(OPTIONS, tmp_path)())
    return tmp_path, {'ours': ours, 'other': {key: value.copy() for key, value in ours.items()}}


@pytest.mark.parametrize('name', list(retrieval.IMPLEMENTATIONS)[1:])
def test_the_others_find_the_same(
    name: str, outcomes: tuple[Path, dict[str, retrieval.Outcome]], monkeypatch: pytest.MonkeyPatch
) -> None:
    implementation = retrieval.IMPLEMENTATIONS[name]
    pytest.importorskip(implementation.needs)
    monkeypatch.setattr(retrieval, 'BLOCK', 64)
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    folder, both = outcomes
    both['other'] = dict(implementation.prepare(OPTIONS, folder)())
    assert retrieval.check(OPTIONS, folder, both).startswith('Every implementation found the same neighbours')


def test_what_counts_as_the_same(outcomes: tuple[Path, dict[str, retrieval.Outcome]]) -> None:
    folder, both = outcomes
    both['other']['forward_values'] += 3e-6
    assert 'scores within 3.' in retrieval.check(OPTIONS, folder, both)


@pytest.mark.parametrize('way', ['forward', 'backward'])
@pytest.mark.parametrize('what', ['values', 'indices', 'nan'])
def test_what_does_not(way: str, what: str, outcomes: tuple[Path, dict[str, retrieval.Outcome]]) -> None:
    folder, both = outcomes
    if what == 'values':
        both['other'][f'{way}_values'][7, 2] += 1e-3
    elif what == 'nan':
        both['other'][f'{way}_values'][7, 2] = np.nan
    else:  # a neighbour that scores less, under the score of the right one
        both['other'][f'{way}_indices'][7, 3] = both['other'][f'{way}_indices'][7, 0]
    with pytest.raises(BenchError, match=rf'other finds other neighbours than ours \({way}\)'):
        retrieval.check(OPTIONS, folder, both)


def test_ours_in_the_bench_are_the_neighbours(outcomes: tuple[Path, dict[str, retrieval.Outcome]]) -> None:
    """Against a plain sort: the others are only compared with ours."""
    folder, both = outcomes
    x, y = (np.load(folder / f'{name}.npy') for name in 'xy')
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, rtol=1e-6)
    table = x @ y.T
    np.testing.assert_array_equal(both['ours']['forward_indices'], np.argsort(-table, 1, kind='stable')[:, :4])
    np.testing.assert_array_equal(both['ours']['backward_indices'], np.argsort(-table.T, 1, kind='stable')[:, :4])


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['bench'], 'the subject is missing: xlmr-flax bench retrieval'),
        (['bench', 'startup'], "unknown bench subject 'startup'"),
        (['bench', 'retreival'], "unknown bench subject 'retreival' (did you mean 'retrieval'?)"),
        (['bench', 'retrieval', 'train'], "unexpected argument 'train'"),
        ([*TINY, '--alternations=0'], '--alternations=0'),
        (['bench', 'attention', '--alternations=0'], '--alternations=0'),
        ([*TINY, '--threads=100000'], '100000 threads: this process may use'),
        (['bench', 'retrieval', '--rows=3'], 'rows 3, dim 768: at least 4 rows'),
    ],
)
def test_command_lines_that_cannot_be(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith('error: ') and said in error and 'Traceback' not in error


@pytest.mark.parametrize('name', SUBJECTS)
def test_a_subject_is_whole(name: str) -> None:
    module = load_subject(name)
    assert not next(iter(module.IMPLEMENTATIONS.values())).needs, 'the first is ours and always there'
    assert all(hasattr(module, part) for part in ('UNIT', 'environment', 'inputs', 'check', 'title'))
