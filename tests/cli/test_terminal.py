"""Output on a terminal whose encoding lacks characters."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from xlmr_flax.cli.main import INTERRUPTED, main


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
