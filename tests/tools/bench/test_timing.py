"""What the subjects of the bench share: ratios, workers, memory, the report."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from xlmr_flax.cli.main import main
from xlmr_flax.tools.bench import timing
from xlmr_flax.tools.bench.report import to_markdown
from xlmr_flax.tools.bench.subject import BenchError
from xlmr_flax.tools.bench.timing import Measured, Outcome, Ratio, Worker, ratio


def test_ratios_pair_the_rounds() -> None:
    """The second round was slow for both: the ratio of medians would be 2 / 4."""
    assert ratio([1.0, 8.0, 2.0], [4.0, 10.0, 2.5]) == Ratio(0.8, 0.25, 0.8)
    with pytest.raises(ValueError, match='zip'):
        ratio([1.0], [1.0, 2.0])


def _outcome(others: float | None) -> Outcome:
    measured = {
        'ours': Measured([1.0, 2.0, 4.0], [2.0, 2.0, 2.0], [others, others, 0.0], 9.0, 300 << 20, 100 << 20),
        'theirs': Measured([2.0, 4.0, 4.0], [4.0, 4.0, 4.0], [others, others, 0.0], 1.5, 700 << 20, 200 << 20),
    }
    ratios = {'theirs': Ratio(0.5, 0.5, 1.0)}
    return Outcome(
        's', 'T', {}, 'Same.', measured, ratios, {'third': 'x is not installed'}, '2 of 2 cores', {'jax': '1'}
    )


def test_the_report_has_every_figure() -> None:
    text = to_markdown(_outcome(0.01))
    assert '| ours | 2.000 | 1.000 to 4.000 | 2.000 |  | 300 | 100 | 9.000 |' in text
    assert '| theirs | 4.000 | 2.000 to 4.000 | 4.000 | 0.50 (0.50 to 1.00) | 700 | 200 | 1.500 |' in text
    assert 'Medians of 3 round(s)' in text and 'Same.' in text and 'jax 1' in text
    assert 'Left out: third: x is not installed.' in text
    assert 'The machine was quiet: other processes used at most 0.01 of a core' in text


def test_the_report_says_that_the_machine_was_busy() -> None:
    assert '**The machine was not quiet**' in to_markdown(_outcome(0.7))
    assert 'ours 0.70, theirs 0.70' in to_markdown(_outcome(0.7))
    text = to_markdown(_outcome(None))
    assert 'The machine was quiet' in text  # of one round it is known


def test_the_warning_stands_above_the_table() -> None:
    text = to_markdown(_outcome(0.7))
    assert text.index('**The machine was not quiet**') < text.index('| ours |')


def test_short_rounds_have_no_ratio() -> None:
    found = _outcome(0.01)
    found.measured['theirs'].seconds[:] = [0.07, 0.08, 2.5]
    text = to_markdown(found)
    assert '| theirs | 0.080 | 0.070 to 2.500 | 4.000 | trial only | 700' in text and '0.50 (' not in text
    assert 'no ratio where the median round of either side is shorter than 1 s (theirs 0.08 s)' in text
    assert 'trial only' not in to_markdown(_outcome(0.01))


def test_footnotes_say_why_rounds_differ_and_what_the_first_run_has() -> None:
    found = dataclasses.replace(_outcome(0.01), unit='examples')
    for measured, units in zip(found.measured.values(), (64, 16), strict=True):
        measured.facts = [{'units': units}] * 3
    text = to_markdown(found)
    assert 'examples a round: slower implementations have a share of the rows' in text
    assert 'First run: before the timed ones' in text and 'includes compilation' in text
    for measured in found.measured.values():
        measured.facts = [{'units': 64}] * 3
    assert 'a share of the rows' not in to_markdown(found)


def test_an_implementation_that_stops_says_why(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"bench: nobody stopped with exit code 1: KeyError: 'nobody'"):
        Worker('retrieval', 'nobody', {}, tmp_path, 1)


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_peak_memory_counts_what_is_no_longer_held() -> None:
    code = """if True:
        from xlmr_flax.tools.bench.memory import peak_memory
        before = peak_memory()
        held = bytearray(b'x') * (64 << 20)
        del held
        print(before, peak_memory())
    """
    before, after = map(int, _python(code).split())
    assert 5 << 20 < before < after - (60 << 20)


def test_peak_memory_is_not_the_parents() -> None:
    """A child that is started by a large process begins small."""
    held = bytearray(b'x') * (256 << 20)
    assert int(_python('from xlmr_flax.tools.bench.memory import peak_memory; print(peak_memory())')) < len(held) // 2


@pytest.mark.skipif(not hasattr(os, 'sched_setaffinity'), reason='this system cannot keep a process to some cores')
def test_a_worker_keeps_to_its_cores() -> None:
    code = """if True:
        import os
        from xlmr_flax.tools.bench.worker import use_cores
        assert use_cores(1)
        print(len(os.sched_getaffinity(0)))
    """
    assert _python(code) == '1\n'


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_stop_leaves_no_process_and_no_file(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the first run of an implementation, as a launcher or a terminal stops it."""
    started: list[Any] = []
    real = Worker.run

    def run(worker: Worker) -> dict[str, Any]:
        started.append(worker._process)
        os.kill(os.getpid(), number)
        return real(worker)

    monkeypatch.setattr(timing.Worker, 'run', run)
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    out = tmp_path / 'out'
    command = ['bench', 'retrieval', '--rows=30000', '--dim=64', '--sides=', f'--out={out}']
    assert main(command) == 128 + number
    found = capsys.readouterr()
    assert found.out == ''
    assert found.err.splitlines()[-1] == 'bench stopped; nothing of it is kept. The same command begins again.'
    assert [process.returncode for process in started] == [-signal.SIGKILL]
    assert not list(tmp_path.iterdir())
