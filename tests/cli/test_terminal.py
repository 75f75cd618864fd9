"""Output on a terminal whose encoding lacks characters."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from xlmr_flax.cli.main import INTERRUPTED, main
from xlmr_flax.util.stopping import SAME_REQUEST, SIGNALS


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """SIGINT is not ignored, as it is in what a shell starts in the background; child processes inherit this."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_characters_that_the_terminal_lacks_are_replaced() -> None:
    code = "import sys; from xlmr_flax.cli import main as m; m.overview = lambda: '日本 –'; sys.exit(m.main())"
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, env=os.environ | {'PYTHONIOENCODING': 'latin-1'}, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, b'?? ?'), done.stderr


def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(values: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr('xlmr_flax.cli.score.run', interrupted)
    assert main(['score', '--predictions=a', '--labels=b']) == INTERRUPTED
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize('number', SIGNALS)
@pytest.mark.parametrize(('command', 'resumes'), [('score', False), ('download', True)])
def test_a_signal_in_a_command_is_one_line(
    command: str, resumes: bool, number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    left = []

    def interrupted(values: object) -> int:
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), number)  # belongs to the same request
            left.append('cleaned up')
        return 0

    monkeypatch.setattr(f'xlmr_flax.cli.{command}.run', interrupted)
    assert main([command]) == 128 + number
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(('Interrupted.', 'Terminated.'))
    assert ('resumes' in line, 'begins again' in line) == (resumes, not resumes)
    assert left == ['cleaned up']
    assert [signal.getsignal(each) for each in SIGNALS] == before


KILL = """
import os, signal, sys, time
import xlmr_flax.__main__ as entry

class Kill:
    def find_spec(name, *_):
        if name == {module!r}:
            os.kill(os.getpid(), {number})

sys.meta_path.insert(0, Kill)
sys.argv = ['xlmr-flax', 'score', '--predictions=a', '--labels=b']
sys.exit(entry.main())
"""


@pytest.mark.parametrize('number', SIGNALS)
@pytest.mark.parametrize('module', ['absl.flags', 'xlmr_flax.cli.score', 'xlmr_flax.scoring.score'])
def test_a_signal_during_imports_is_one_line(number: int, module: str) -> None:
    code = KILL.format(module=module, number=int(number))
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (128 + number, '')
    assert done.stderr == f'{signal.Signals(number).name}: ended at once\n'


def test_a_second_signal_ends_a_command_and_a_child_has_the_default() -> None:
    code = f"""
import os, signal, time
from xlmr_flax.util.stopping import raised
with raised():
    if not (child := os.fork()):
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        time.sleep({2 * SAME_REQUEST})
        os.kill(os.getpid(), signal.SIGINT)
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, f'{-signal.SIGTERM}\n')
    assert done.stderr == 'SIGINT: ended at once\n'
