"""The bench of evaluation: the same outputs from ours and the others, by kind of task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlmr_flax.cli.main import main
from xlmr_flax.tools.bench import evaluation
from xlmr_flax.tools.bench.subject import BenchError

Make = Callable[..., dict[str, Any]]


@pytest.mark.usefixtures('one_thread')
@pytest.mark.parametrize('task', ['world_pairs', 'world_pos', 'world_choices', 'world_retrieval'])
def test_the_same_outputs(task: str, tmp_path: Path, options_of: Make) -> None:
    options = options_of(task, embed=task == 'world_retrieval', rows=8, target=True, languages=('de', 'ru'))
    evaluation.inputs(options, tmp_path)
    outcomes = {}
    for name in ('ours', 'torch-sorted'):
        run: Any = evaluation.IMPLEMENTATIONS[name].prepare(options, tmp_path)
        outcomes[name] = dict(run())
        assert run() == {}
        assert run.facts['units'] == (32 if task == 'world_retrieval' else 16)
        assert run.facts['flops'] > 0
    assert 'in 2 language(s)' in evaluation.check(options, tmp_path, outcomes)
    broken = {k: dict(v) for k, v in outcomes.items()}
    broken['torch-sorted']['ru'] = np.roll(broken['torch-sorted']['ru'], 1) + 1
    with pytest.raises(BenchError, match='torch-sorted gives other results in ru'):
        evaluation.check(options, tmp_path, broken)
    broken['torch-sorted']['ru'] = outcomes['torch-sorted']['ru'][:-1]
    with pytest.raises((BenchError, ValueError)):
        evaluation.check(options, tmp_path, broken)


def test_blocks_of_a_part(tmp_path: Path, options_of: Make) -> None:
    """Four blocks of a fourth have every row once."""
    pytest.importorskip('torch')
    options = options_of('world_pairs', rows=16, target=True, languages=('de', 'ru'))
    evaluation.inputs(options, tmp_path)
    run: Any = evaluation.IMPLEMENTATIONS['torch-padded'].prepare(options, tmp_path)
    run()
    done = run.facts['units']
    for _ in range(3):
        run()
        done += run.facts['units']
    assert done == 32 and next(run.queue, None) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    'more', [['--task=world_spans', '--languages=en,de'], ['--embed', '--task=world_retrieval', '--languages=de']]
)
def test_the_command(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip('torch')
    tiny = ['--encoder=random:tiny', '--rows=8', '--batch=4', '--max_length=48', '--threads=1', '--alternations=1']
    assert main(['bench', 'eval', *more, *tiny, '--device=cpu', '--sides=torch-sorted']) == 0
    out = capsys.readouterr().out
    assert 'Every implementation has the same outputs' in out and '| torch-sorted |' in out
