"""xlmr-flax compare: the command end to end, what is used again, what is refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from xlmr_flax.baselines import comparison
from xlmr_flax.baselines.comparison import Curve
from xlmr_flax.cli.main import main

TINY = Path(__file__).parents[2] / 'configs' / 'tiny.py'
pytestmark = pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')  # ml_collections'


def command(workdir: Path, *more: str) -> list[str]:
    return ['compare', f'--config={TINY}', f'--workdir={workdir}', *more]


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith('error: ') and 'Traceback' not in error
    return error


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert '--workdir=DIR is missing' in error_of(['compare', f'--config={TINY}'], capsys)
    assert '--config=FILE is missing' in error_of(['compare', f'--workdir={tmp_path}'], capsys)
    if importlib.util.find_spec('torch'):
        text = command(tmp_path, "--config.intermediate=('udhr',)")
        assert "intermediate: 'udhr' is of kind 'text'" in error_of(text, capsys)
        best = command(tmp_path, '--config.recipe.eval_every=2', '--config.recipe.keep=best')
        assert 'recipe.eval_every 2' in error_of(best, capsys)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    assert "compare needs torch, which is not installed: pip install 'xlmr-flax[torch]'" in error_of(
        command(tmp_path), capsys
    )
    assert not list(tmp_path.iterdir()), 'refused before anything is run'


def test_losses_of_windows_are_compared() -> None:
    curve = Curve('r', ({2: 1.0, 4: 0.5, 60: 0.1}, {2: 1.0, 4: 0.75, 60: 0.6}), (None, None))
    assert curve.apart(50) == (0.25, 4)
    assert curve.apart() == (0.5, 60)


@pytest.mark.slow
def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip('torch')
    off = ['--config.encoder.dropout=0.0', '--config.encoder.attention_dropout=0.0', "--config.intermediate=('none',)"]
    assert main(command(tmp_path, *off)) == 0
    out = capsys.readouterr().out
    assert 'world\\_pairs, accuracy (test), intermediate: none' in out and 'world\\_retrieval, accuracy' in out
    found: dict[str, Any] = json.loads((tmp_path / 'compare' / 'compare.json').read_text(encoding='utf-8'))
    (curve,) = found['curves']
    ours, theirs = (curve['losses'][side] for side in comparison.SIDES)
    assert list(ours) == list(theirs) == [str(step) for step in range(1, 7)]
    assert max(abs(ours[step] - theirs[step]) for step in ours) < 1e-4
    page = (tmp_path / 'compare' / 'index.html').read_text(encoding='utf-8')
    assert page.count('<svg ') == 1 and 'PyTorch' in page and 'zero-shot mean of 2' in page
    assert (tmp_path / 'compare' / 'figures' / f'{curve["run"]}.svg').is_file()

    def never(*arguments: Any, **named: Any) -> Any:
        raise AssertionError('the PyTorch side is there')

    monkeypatch.setattr(comparison.subprocess, 'run', never)
    assert main(command(tmp_path, *off)) == 0
    capsys.readouterr()
    # Another plan in the same folder runs again; what is not a run of ours is left alone.
    with pytest.raises(AssertionError, match='is there'):
        main(command(tmp_path, *off, '--config.recipe.steps=2'))
    foreign = tmp_path / 'torch'
    foreign.mkdir(exist_ok=True)
    (foreign / 'something').write_text('x')
    assert 'holds something else' in error_of(command(tmp_path, *off, '--config.recipe.steps=2'), capsys)
