"""Records written in the background: none lost, none waited for, failures raised."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from xlmr_flax.config import ConfigError
from xlmr_flax.experiment.workdir import files
from xlmr_flax.experiment.workdir.files import Workdir
from xlmr_flax.experiment.workdir.log_writer import LogWriter, append


def test_a_slow_file_system_is_not_waited_for(tmp_path: Path) -> None:
    """The first write takes as long as the whole training."""
    paths, threads, is_over = (tmp_path / 'a', tmp_path / 'b'), [], threading.Event()

    def write(path: Path, text: str) -> None:
        threads.append(threading.get_ident())
        assert is_over.wait(60), 'the training waits for a write'
        append(path, text)

    log = LogWriter(interval=0.01, write=write)
    with log.background():
        for number in range(200):
            log.add(paths, f'{number}\n')
            time.sleep(0.001)  # the writer is at work before the end
        before = list(threads)
        is_over.set()
    assert before and threading.get_ident() not in before
    assert len(threads) < 20, 'many records in one write'
    for path in paths:
        assert path.read_text().split() == [str(number) for number in range(200)]


def test_without_the_context_a_record_is_there_at_once(tmp_path: Path) -> None:
    log = LogWriter()
    log.add([tmp_path / 'a'], 'x\n')
    assert (tmp_path / 'a').read_text() == 'x\n'


def test_a_flush_waits_for_all_records(tmp_path: Path) -> None:
    log = LogWriter(interval=100)
    with log.background():
        for number in range(3):
            log.add([tmp_path / 'a'], f'{number}\n')
        log.flush()
        assert (tmp_path / 'a').read_text() == '0\n1\n2\n'


def test_a_failure_is_raised_and_does_not_replace_another(tmp_path: Path) -> None:
    log = LogWriter(interval=0.01)
    with pytest.raises(FileNotFoundError) as caught, log.background():
        log.add([tmp_path / 'missing' / 'a'], 'x\n')
    assert str(tmp_path / 'missing' / 'a') in str(caught.value)
    with pytest.raises(RuntimeError, match='other'), log.background():
        log.add([tmp_path / 'missing' / 'a'], 'x\n')
        raise RuntimeError('other')


def test_folders_that_cannot_be_renamed_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Workdir(tmp_path / 'w')
    assert not list((tmp_path / 'w').iterdir()), 'nothing is left of the probe'

    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(1, 'Operation not permitted')

    monkeypatch.setattr(files.Path, 'rename', refuse)
    with pytest.raises(ConfigError, match='hierarchical namespace'):
        Workdir(tmp_path / 'v')
