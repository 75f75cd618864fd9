"""xlmr-flax compare: the command end to end, what is used again, what is refused."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from xlmr_flax.analysis.bootstrap import Interval
from xlmr_flax.analysis.paired import Compared, Pairing
from xlmr_flax.cli.main import main
from xlmr_flax.report.plots.curves import training_curves
from xlmr_flax.tools.torch import comparison
from xlmr_flax.tools.torch.comparison_report import SIDES, Comparison, Curve, page

TINY = Path(__file__).parents[3] / 'configs' / 'tiny.py'
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
        assert "intermediate: 'udhr' is of kind 'mlm'" in error_of(text, capsys)
        best = command(tmp_path, '--config.recipe.eval_every=2', '--config.recipe.keep=best')
        assert 'recipe.eval_every 2' in error_of(best, capsys)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    assert "compare needs torch, which is not installed: pip install -e '.[torch]' in the checkout" in error_of(
        command(tmp_path), capsys
    )
    assert not list(tmp_path.iterdir()), 'refused before anything is run'


def test_losses_of_windows_are_compared() -> None:
    curve = Curve('r', ({2: 1.0, 4: 0.5, 60: 0.1}, {2: 1.0, 4: 0.75, 60: 0.6}), (None, None))
    assert curve.apart(50) == (0.25, 4)
    assert curve.apart() == (0.5, 60)


def made(*speeds: tuple[float | None, float | None]) -> Comparison:
    no = Interval(0.0, 0.0, 0.0, 1.0)
    languages = tuple(Compared(name, 16, 50.0, 50.0, no, 1.0) for name in ('en', 'de'))
    mean = Compared('mean of 2', 0, 50.0, 50.0, no)
    pairing = Pairing('world_pairs', 'accuracy', 'test', languages, (mean,), 2000)
    curves = tuple(Curve(f'run--{i}', ({1: 1.0}, {1: 1.0}), each) for i, each in enumerate(speeds))
    facts = ('the note',), {'jax': '1.2'}, '2026-01-02', ('abc',)
    return Comparison('T', 'xlmr-flax compare', curves, (('none', pairing), ('mnli', pairing)), (36.0, 38.0), *facts)


def test_the_summary_comes_first_and_speeds_only_where_they_were_measured() -> None:
    found = made((None, None))
    first, training, *others = comparison.tables(found)
    assert (first.title, training.title, len(others)) == ('Summary', 'Training', 2)
    assert first.texts() == [
        ['world_pairs', arm, 'accuracy', '2', '50.00', '50.00', '0.00', '0.00', '1.0000'] for arm in ('none', 'mnli')
    ]
    assert not [column for column in training.columns if column.group == 'examples/s']
    assert any('JAX 36 s, PyTorch 38 s' in note for note in training.notes)
    assert 'Speed: measure with: xlmr-flax bench train' in training.notes
    timed = comparison.tables(made((None, None), (20.0, 10.0)))[1]
    assert [line[-2:] for line in timed.texts()] == [['–', '–'], ['20.0', '10.0']]


def test_speed_is_of_trainings_that_say_something() -> None:
    def records(steps: int, speed: float) -> list[dict[str, float]]:
        return [{'step': i + 1, 'examples_per_s': speed} for i in range(steps)]

    assert comparison._speed(records(60, 8.0), 8) == 8.0  # 60 s
    assert comparison._speed(records(49, 1.0), 8) is None
    assert comparison._speed(records(60, 80.0), 8) is None  # 6 s
    assert comparison._speed([{'step': 100, 'examples_per_s': 1.0}], 8) is None  # one record, compilation in it


def test_the_page_says_at_its_head_how_it_was_made() -> None:
    found = made((None, None))
    text = page(found, comparison.tables(found), {'run--0': '<svg width="1"></svg>'})
    head = text[: text.index('</header>')]
    for said in ('xlmr-flax compare', '2026-01-02', 'commit abc', 'jax 1.2'):
        assert said in head
    places = [text.index(f'>{name}</h') for name in ('Summary', 'Training', 'Training losses', 'Scores by language')]
    assert places == sorted(places)
    assert text.count('by a paired bootstrap over test examples') == 1, 'a repeated note is printed once'


def test_a_long_title_does_not_run_under_the_legend() -> None:
    points = [{'run': side, 'intermediate': side, 'step': 1, 'loss': 1.0} for side in SIDES]
    figure = training_curves(points, 'world_nli--intermediate--seed1-' + 40 * 'x', order=SIDES)
    assert figure is not None
    figure.draw_without_rendering()
    title = figure.texts[0].get_window_extent()
    (legend,) = figure.legends
    assert not title.overlaps(legend.get_window_extent())
    assert title.x1 <= figure.bbox.x1


@pytest.mark.slow
def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip('torch')
    off = ['--config.encoder.dropout=0.0', '--config.encoder.attention_dropout=0.0', "--config.intermediate=('none',)"]
    assert main(command(tmp_path, *off)) == 0
    out = capsys.readouterr().out
    assert 'world\\_pairs, accuracy (test), intermediate: none' in out and 'world\\_retrieval, accuracy' in out
    found: dict[str, Any] = json.loads((tmp_path / 'compare' / 'compare.json').read_text(encoding='utf-8'))
    (curve,) = found['curves']
    ours, theirs = (curve['losses'][side] for side in SIDES)
    assert list(ours) == list(theirs) == [str(step) for step in range(1, 7)]
    assert max(abs(ours[step] - theirs[step]) for step in ours) < 1e-4
    text = (tmp_path / 'compare' / 'index.html').read_text(encoding='utf-8')
    assert text.count('<svg ') == 1 and 'PyTorch' in text and 'zero-shot mean of 2' in text
    assert (tmp_path / 'compare' / 'figures' / f'{curve["run"]}.svg').is_file()

    def never(*arguments: Any, **named: Any) -> Any:
        raise AssertionError('the PyTorch side is there')

    monkeypatch.setattr(comparison, 'run_child', never)
    assert main(command(tmp_path, *off)) == 0
    capsys.readouterr()
    # Another plan in the same folder runs again; what is not a run of ours is left alone.
    with pytest.raises(AssertionError, match='is there'):
        main(command(tmp_path, *off, '--config.recipe.steps=2'))
    foreign = tmp_path / 'torch'
    foreign.mkdir(exist_ok=True)
    (foreign / 'something').write_text('x')
    assert 'is not empty' in error_of(command(tmp_path, *off, '--config.recipe.steps=2'), capsys)


def test_a_stop_on_the_other_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends PyTorch's process. What that has begun counts for nothing, also where it had no config yet."""
    pytest.importorskip('torch')
    real, codes = comparison.run_child, []

    def run_child(*arguments: Any) -> int:
        codes.append(None)
        (tmp_path / 'torch').mkdir()
        (tmp_path / 'torch' / '.config.json.half').touch()
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(comparison, 'run_child', run_child)
    monkeypatch.setattr(comparison.Runner, 'run', lambda runner: None)
    for count in (1, 2):
        assert main(command(tmp_path)) == 143
        assert len(codes) == count
        last = capsys.readouterr().err.splitlines()[-1]
        assert 'PyTorch' in last and last.endswith('The same command resumes from what is saved.')
        assert not (tmp_path / 'torch' / comparison.DONE).exists()
        assert not (tmp_path / 'compare').exists()
