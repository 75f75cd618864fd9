"""The files of a workdir that several processes write."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from xlmr_flax.experiment.plan.runs import Run
from xlmr_flax.experiment.workdir import claims
from xlmr_flax.experiment.workdir.files import Workdir
from xlmr_flax.util.files import write_atomically


def record(run: str, step: int) -> dict[str, Any]:
    return {'run': run, 'step': step, 'loss': 1.0}


def test_metrics_of_several_processes_are_gathered(tmp_path: Path) -> None:
    one, two, alone = Workdir(tmp_path, '1/2'), Workdir(tmp_path, '2/2'), Workdir(tmp_path)
    for step in (1, 2, 3):
        one.log(record('a', step))
        two.log(record('b', step))
    assert not alone.metrics_path.exists()
    wanted = [record(run, step) for run in 'ab' for step in (1, 2, 3)]
    assert alone.metrics() == wanted
    two.forget_metrics('a', 1)  # killed there, gone on with here
    two.log(record('a', 2))
    with (tmp_path / 'runs' / 'b' / 'metrics.jsonl').open('a') as file:
        file.write('{"run": "b", "st')  # killed while it wrote
    wanted = [record('a', 1), record('a', 2), *wanted[3:]]
    for each in (one, two, alone):
        each.gather_metrics()
        assert [json.loads(line) for line in alone.metrics_path.read_text().splitlines()] == wanted
    stamp = alone.metrics_path.stat().st_mtime_ns
    one.gather_metrics()
    assert alone.metrics_path.stat().st_mtime_ns == stamp, 'nothing new, nothing written'


def test_metrics_of_older_versions_are_kept(tmp_path: Path) -> None:
    lines = [json.dumps(record(run, step)) for step in (1, 2) for run in 'ab']
    (tmp_path / 'metrics.jsonl').write_text('\n'.join(lines) + '\n')
    workdir = Workdir(tmp_path)
    workdir.gather_metrics()
    assert (tmp_path / 'metrics.jsonl').read_text().splitlines() == lines
    workdir.forget_metrics('b', 1)
    workdir.log(record('b', 2))
    workdir.log(record('b', 3))
    assert workdir.metrics() == [*(record('a', i) for i in (1, 2)), *(record('b', i) for i in (1, 2, 3))]
    assert len((tmp_path / 'metrics.jsonl').read_text().splitlines()) == 5, 'it can be watched while a run trains'


def test_time_of_several_processes_is_summed(tmp_path: Path) -> None:
    for shard, seconds in (('', 1.0), ('1/2', 2.0), ('2/2', 4.0), ('2/2', 8.0)):
        Workdir(tmp_path, shard).add_seconds(seconds)
    assert Workdir(tmp_path).seconds() == 15.0
    assert sorted(p.name for p in tmp_path.iterdir()) == ['time-1of2.json', 'time-2of2.json', 'time.json']


def test_what_a_kill_left_while_a_file_was_written_goes(tmp_path: Path) -> None:
    """Of the run's own task alone: another process may be writing another one's."""
    workdir, run = Workdir(tmp_path), Run('0' * 12, 'none', 'pawsx', 'pawsx', 1, None, None)
    folder = workdir.predictions(run)
    left = [folder / 'pawsx' / '.test-de.tsv.12-ab.tmp', workdir.run_dir(run) / 'evaluations' / '.x.json.12-ab.tmp']
    kept = [folder / 'pawsx' / 'test-de.tsv', folder / 'xnli' / '.test-de.tsv.13-cd.tmp']
    for path in (*left, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    vectors = [folder / 'pawsx' / f'test-de.embeddings{process}' for process in ('', '-1')]
    for path in vectors:
        path.mkdir()
    workdir.forget_partial(run, 'pawsx')
    assert [path.exists() for path in (*left, *vectors, *kept)] == [False, False, False, False, True, True]


def leave_temporary_files(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """What every writer of a workdir leaves where it is killed before the file has its name or is deleted."""
    before = set(workdir.rglob('*'))

    def killed(*arguments: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        for name in ('replace', 'link'):
            patch.setattr(os, name, killed)
        patch.setattr(Path, 'unlink', lambda path, missing_ok=False: None)
        for call in (
            lambda: write_atomically(workdir / 'results.jsonl', 'x'),
            lambda: write_atomically(workdir / 'failed' / 'a.json', 'x'),
            lambda: write_atomically(workdir / 'report' / 'figures' / 'a.svg', 'x'),
            lambda: claims.Claims(workdir / 'claims').take('a'),
        ):
            with pytest.raises(KeyboardInterrupt):
                call()
        claims.Claims(workdir / 'claims')._now()
        Workdir(workdir)
    return {path for path in set(workdir.rglob('*')) - before if path.is_file()}


def test_temporary_files_of_killed_processes_go_when_they_are_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A young one may be of a process that is writing; what is not ours stays."""
    old = leave_temporary_files(tmp_path, monkeypatch)
    young = leave_temporary_files(tmp_path, monkeypatch)
    assert len(old) == len(young) == 6
    foreign = {tmp_path / name for name in ('.notes.tmp', '.gitignore', 'a.12-0123abcd.tmp', '.mirror.json')}
    for path in foreign:
        path.touch()
    probe = tmp_path / f'.renamed-{"0" * 32}'  # a folder, of a process that was killed between its two names
    probe.mkdir()
    (probe / 'file').touch()
    for path in old | foreign | {probe}:
        os.utime(path, (time.time() - 7200,) * 2)
    Workdir(tmp_path, look_only=True)
    assert all(path.exists() for path in old)
    Workdir(tmp_path)
    assert {path for path in tmp_path.rglob('*') if path.is_file()} == young | foreign
