"""The command as a user types it, in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from xlmr_flax.cli.main import main

TINY = Path(__file__).parents[2] / 'configs' / 'tiny.py'
Fails = Callable[..., str]


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Fails:
    """Runs a command that must exit with 1 (or `code`) and one line behind 'error:'; returns that line."""

    def run(*arguments: str | Path, code: int = 1) -> str:
        capsys.readouterr()
        assert main([str(a) for a in arguments]) == code
        error = capsys.readouterr().err
        assert 'Traceback' not in error
        lines = error.strip().splitlines()
        assert lines[-1].startswith('error: '), error
        assert error.count('error: ') == 1, error
        return lines[-1]

    return run


@pytest.fixture
def config_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a config file: configs/tiny.py and then these lines on `config`."""

    def write(*lines: str) -> Path:
        path = tmp_path / 'config.py'
        body = ''.join(f'    {line}\n' for line in lines)
        path.write_text(
            f'import runpy\n\n\ndef get_config():\n    config = runpy.run_path({str(TINY)!r})["get_config"]()\n'
            f'{body}    return config\n'
        )
        return path

    return write
