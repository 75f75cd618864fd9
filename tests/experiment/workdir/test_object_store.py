"""A workdir on an object store, here one in memory: two machines, one behind the other, stopped and killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from xlmr_flax.cli.main import STOPPED, main
from xlmr_flax.experiment.workdir.object_store import Mirror, MirrorError, local_folder
from xlmr_flax.train import loop
from xlmr_flax.util.stopping import Stopped

ADDRESS = 'memory://bucket/runs/w'


@pytest.fixture
def store() -> Iterator[Any]:
    found = fsspec.filesystem('memory')
    found.store.clear()
    yield found
    found.store.clear()


def objects(store: Any) -> dict[str, bytes]:
    names = store.find('/bucket/runs/w')
    return {n.removeprefix('/bucket/runs/w/'): store.cat_file(n) for n in names if not n.endswith('/mirror.json')}


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def test_what_changes_is_uploaded_and_comes_back_on_another_machine(store: Any, tmp_path: Path) -> None:
    with Mirror(ADDRESS, tmp_path / 'one') as one:
        write(one.folder, 'metrics.jsonl', 'a')
        write(one.folder, 'runs/r/evaluations/de.json', 'b')
        write(one.folder, 'claims/r.1.json', 'of this machine')
        write(one.folder, 'runs/r/.model.xyz/model.json', 'not whole yet')
        write(one.folder, 'runs/r/checkpoints/last/6.orbax-checkpoint-tmp/tree/d', 'not whole yet')
        one.push()
        assert objects(store) == {'metrics.jsonl': b'a', 'runs/r/evaluations/de.json': b'b'}
        write(one.folder, 'metrics.jsonl', 'ab')
        (one.folder / 'runs/r/evaluations/de.json').unlink()
        write(one.folder, 'results.jsonl', 'c')
    assert objects(store) == {'metrics.jsonl': b'ab', 'results.jsonl': b'c'}
    with Mirror(ADDRESS, tmp_path / 'two') as two:
        assert (two.folder / 'metrics.jsonl').read_text() == 'ab'
        write(two.folder, 'results.jsonl', 'cd')
    with Mirror(ADDRESS, tmp_path / 'one') as one:  # whose copy is behind now
        assert (one.folder / 'results.jsonl').read_text() == 'cd'
        assert not (one.folder / 'claims').exists()


def test_nothing_is_uploaded_twice(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put: list[str] = []
    real = type(store).put_file

    def put_file(self: Any, local: str, remote: str, **more: Any) -> None:
        put.append(remote.removeprefix('/bucket/runs/w/'))
        real(self, local, remote, **more)

    monkeypatch.setattr(type(store), 'put_file', put_file)
    for folder, wanted in (('one', ['a', 'b']), ('one', []), ('two', [])):
        with Mirror(ADDRESS, tmp_path / folder) as mirror:
            if wanted:
                write(mirror.folder, 'a', 'a')
                write(mirror.folder, 'b', 'b')
            mirror.push()
        assert put == wanted
        put.clear()


def test_the_order_is_that_of_writing_with_the_list_of_files_last(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut anywhere, the store holds no evaluation without its predictions and no list without its files."""
    mirror = Mirror(ADDRESS, tmp_path / 'one')
    with mirror:
        for number, name in enumerate(['z/prediction', 'runs/r/model/z', 'runs/r/model/manifest.json', 'a/evaluation']):
            write(mirror.folder, name, 'x')
            when = 10**18 + (number - (number == 2)) * 10**9  # as old as the file before it
            os.utime(mirror.folder / name, ns=(when, when))
        order: list[str] = []
        monkeypatch.setattr(mirror._fs, 'put_file', lambda local, remote: order.append(remote.rpartition('/')[2]))
        mirror.push()
        monkeypatch.undo()
    assert order == ['prediction', 'z', 'manifest.json', 'evaluation']


def test_a_checkpoint_that_was_not_uploaded_to_its_end_is_left_out(store: Any, tmp_path: Path) -> None:
    last = 'runs/r/checkpoints/last'
    for name in (f'{last}/3/manifest.json', f'{last}/3/tree/d', f'{last}/6/tree/d', 'runs/r/model/model.json', 'a'):
        store.pipe_file(f'/bucket/runs/w/{name}', b'x')
    with Mirror(ADDRESS, tmp_path / 'one') as one:
        found = {p.relative_to(one.folder).as_posix() for p in one.folder.rglob('*') if p.is_file()}
    assert found == {f'{last}/3/manifest.json', f'{last}/3/tree/d', 'a', '.mirror.json'}
    assert objects(store).keys() == found - {'.mirror.json'}


def test_a_process_that_was_killed_had_uploaded_less_than_it_had(store: Any, tmp_path: Path) -> None:
    """On its own machine the copy counts; on another one what the store has, once the sign of life is old."""
    dead = Mirror(ADDRESS, tmp_path / 'one')
    dead._begin()
    write(dead.folder, 'a', '1')
    write(dead.folder, 'b', '1')
    dead.push()
    write(dead.folder, 'a', '2')
    (dead.folder / 'b').unlink()
    shutil.copytree(tmp_path / 'one', tmp_path / 'copy')
    began = time.monotonic()
    with Mirror(ADDRESS, tmp_path / 'two', every=0.2, gone=1.0) as two:
        assert time.monotonic() - began > 0.5, 'it waited'
        assert (two.folder / 'a').read_text() == '1'
        two._thread, thread = None, two._thread  # killed, too, before it had anything to say
        two._end.set()
        assert thread is not None
        thread.join()
    store.pipe_file('/bucket/runs/w/mirror.json', json.dumps({**dead_sign(dead), 'time': time.time()}).encode())
    with Mirror(ADDRESS, tmp_path / 'one'):
        pass
    assert objects(store) == {'a': b'2'}


def dead_sign(mirror: Mirror) -> dict[str, Any]:
    return {'token': mirror._token, 'who': 'x', 'released': False}


def test_it_waits_for_another_process(store: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sign = {'token': 't', 'who': 'host-1, process 7', 'time': time.time(), 'released': False}
    store.pipe_file('/bucket/runs/w/mirror.json', json.dumps(sign).encode())
    with Mirror(ADDRESS, tmp_path / 'one', every=0.1, gone=1.0):
        pass
    assert f'{ADDRESS}: waiting for host-1, process 7, which works in it (last sign 0 s ago)' in capsys.readouterr().out
    assert json.loads(store.cat_file('/bucket/runs/w/mirror.json'))['released'] is True


DAMAGED = [b'', b'[]', b'{', b'\xff', b'{}', b'{"token": 1, "who": "x", "time": 0.0, "released": true}', b'[' * 9999]


@pytest.mark.parametrize('content', DAMAGED)
def test_a_damaged_sign_is_one_error(content: bytes, store: Any, tmp_path: Path) -> None:
    store.pipe_file('/bucket/runs/w/mirror.json', content)
    with pytest.raises(MirrorError, match=f'{ADDRESS}/mirror.json: damaged'), Mirror(ADDRESS, tmp_path / 'one'):
        pass
    assert store.cat_file('/bucket/runs/w/mirror.json') == content


@pytest.mark.parametrize('content', [*DAMAGED, b'{"token": "t", "pushed": 5}'])
def test_a_copy_whose_notes_are_damaged_is_made_again(content: bytes, store: Any, tmp_path: Path) -> None:
    with Mirror(ADDRESS, tmp_path / 'one') as one:
        write(one.folder, 'a', '1')
    (tmp_path / 'one' / '.mirror.json').write_bytes(content)
    write(one.folder, 'a', 'changed where nobody worked')
    with Mirror(ADDRESS, tmp_path / 'one') as again:
        assert (again.folder / 'a').read_text() == '1'
    assert (tmp_path / 'one.old1' / 'a').read_text() == 'changed where nobody worked'


@pytest.mark.parametrize('changed', [True, False])
def test_a_copy_with_files_that_were_not_uploaded_is_renamed(changed: bool, store: Any, tmp_path: Path) -> None:
    """mirror.json is deleted, as the error about a damaged one says, on the machine with the only copy of results."""
    dead = Mirror(ADDRESS, tmp_path / 'one')
    dead._begin()
    write(dead.folder, 'a', '1')
    dead.push()
    if changed:
        write(dead.folder, 'results.jsonl', 'only here')
    store.rm_file('/bucket/runs/w/mirror.json')
    with Mirror(ADDRESS, tmp_path / 'one', look_only=True) as one:
        assert {path.name for path in one.folder.iterdir()} == {'a', '.mirror.json'}
    kept = tmp_path / 'one.old1'
    assert kept.exists() == changed
    if changed:
        assert (kept / 'results.jsonl').read_text() == 'only here'
    with Mirror(ADDRESS, tmp_path / 'one', look_only=True):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {'one', *(['one.old1'] if changed else [])}


def test_a_copy_is_renamed_if_the_store_was_emptied(store: Any, tmp_path: Path) -> None:
    with Mirror(ADDRESS, tmp_path / 'one') as one:
        write(one.folder, 'a', '1')
    store.store.clear()
    with Mirror(ADDRESS, tmp_path / 'one') as again:
        assert not (again.folder / 'a').exists()
    assert (tmp_path / 'one.old1' / 'a').read_text() == '1'


def test_a_download_that_was_interrupted_leaves_no_copy(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.pipe_file('/bucket/runs/w/a', b'1')
    store.pipe_file('/bucket/runs/w/b', b'1')
    real = type(store).get_file

    def get_file(self: Any, remote: str, local: str, **more: Any) -> None:
        if remote.endswith('/b'):
            raise OSError('503 Service Unavailable')
        real(self, remote, local, **more)

    with monkeypatch.context() as patch:
        patch.setattr(type(store), 'get_file', get_file)
        with pytest.raises(MirrorError, match='503'), Mirror(ADDRESS, tmp_path / 'one'):
            pass
    assert not (tmp_path / 'one').exists()
    with Mirror(ADDRESS, tmp_path / 'one') as one:
        assert (one.folder / 'b').read_text() == '1'
    assert [path.name for path in tmp_path.iterdir()] == ['one']


def test_a_store_that_fails_for_a_while(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*args: Any, **more: Any) -> None:
        raise OSError('503 Service Unavailable')

    with Mirror(ADDRESS, tmp_path / 'one', every=0.05) as mirror:
        monkeypatch.setattr(mirror._fs, 'put_file', fails)
        write(mirror.folder, 'a', '1')
        time.sleep(0.5)
        monkeypatch.undo()
    assert objects(store) == {'a': b'1'}
    said = capsys.readouterr().out
    assert said.count('cannot be written: 503 Service Unavailable; trying again') == 1

    with pytest.raises(MirrorError) as caught, Mirror(ADDRESS, tmp_path / 'one') as mirror:
        write(mirror.folder, 'a', '2')
        monkeypatch.setattr(mirror._fs, 'put_file', fails)
    assert str(caught.value) == (
        f'{ADDRESS}: cannot be written: 503 Service Unavailable; what is missing there is in {tmp_path / "one"}, and '
        'the same command uploads it'
    )
    with pytest.raises(MirrorError, match='state saved, but on this machine alone'), Mirror(ADDRESS, tmp_path / 'one'):
        raise Stopped('stopped at step 1; state saved')
    monkeypatch.undo()
    with Mirror(ADDRESS, tmp_path / 'one'):
        pass
    assert objects(store) == {'a': b'2'}


@pytest.mark.parametrize(
    ('address', 'said'),
    [
        (
            'gs://b/w',
            r"--workdir=gs://b/w: .*pip install -e '\.\[gcs\]' in the checkout\); or mount the bucket and give a path",
        ),
        ('nosuch://b/w', '--workdir=nosuch://b/w: cannot be opened: Protocol not known: nosuch'),
    ],
)
def test_addresses_that_cannot_be_opened(address: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'gcsfs', None)
    with pytest.raises(MirrorError, match=said):
        Mirror(address)


def test_run_on_two_machines(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command, stopped on one machine and started on the next: as in a folder that nothing stopped."""
    tiny = Path(__file__).parents[3] / 'configs' / 'tiny.py'
    config = tmp_path / 'config.py'
    changes = (
        "intermediate = ('none',)", "targets = ('world_pairs',)", "evaluation.languages = {'world_pairs': ('en',)}",
        'recipe.steps = 4', 'recipe.max_train = 64', 'recipe.log_every = 1', 'tensorboard = False',
    )  # fmt: skip
    body = ''.join(f'    config.{line}\n' for line in changes)
    config.write_text(
        f'import runpy\ndef get_config():\n    config = runpy.run_path({str(tiny)!r})["get_config"]()\n'
        f'{body}    return config\n'
    )
    assert main(['run', f'--config={config}', f'--workdir={tmp_path / "whole"}']) == 0

    def stopped(*args: Any, real: Any = loop.put_batch) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*args)

    command = ['run', f'--config={config}', f'--workdir={ADDRESS}']
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'machine-1'))
    with monkeypatch.context() as patch:
        patch.setattr(loop, 'put_batch', stopped)
        assert main(command) == STOPPED
    assert [n for n in objects(store) if n.endswith('/checkpoints/last/1/manifest.json')]
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'machine-2'))
    assert main([*command, '--dry_run']) == 0
    assert main(command) == 0
    found, whole = objects(store), tmp_path / 'whole'
    for path in (*whole.glob('runs/*/model/*'), *whole.glob('predictions/*/*/*')):
        assert found[path.relative_to(whole).as_posix()] == path.read_bytes()
    assert not [n for n in found if '/checkpoints/' in n or n.startswith('claims')]
    assert 'report/index.html' in found
    assert local_folder(ADDRESS).is_relative_to(tmp_path / 'machine-2')
    assert main([*command, '--shard=1/2']) == 1
    assert 'several processes need a folder that all of them see' in capsys.readouterr().err
