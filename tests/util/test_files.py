"""Atomic writing, and paths made absolute."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from xlmr_flax.util import files
from xlmr_flax.util.files import absolute, is_remote, safe_name, write_atomically


@pytest.mark.parametrize('write', [write_atomically])
def test_a_full_disk_names_the_file_and_keeps_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: object
) -> None:
    path = tmp_path / 'a.txt'
    path.write_text('old', encoding='utf-8')

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError) as caught:
        write(path, 'new')
    assert caught.value.filename == str(path)
    assert path.read_text(encoding='utf-8') == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_a_written_file_has_the_mode_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        assert write_atomically(tmp_path / 'a' / 'b.txt', 'x').stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(before)


def test_paths_become_absolute_and_addresses_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute('runs/a') == str(tmp_path / 'runs' / 'a')
    assert absolute('gs://bucket/x') == 'gs://bucket/x'
    assert absolute('') == ''
    assert absolute('~/x') == str(Path.home() / 'x')


def test_a_name_from_data_stays_in_its_folder() -> None:
    for plain in ('xnli', 'logic_mnli-to-en', 'a+b.c'):
        assert safe_name(plain) == plain
    texts = ['../../x', '.hidden', '', 'a/b', 'a_b', 'a\\b', 'x' * 300, '..', 'ж', 'a\nb']
    names = [safe_name(text) for text in texts]
    assert len(set(names)) == len(names)
    assert all(name and not name.startswith('.') and '/' not in name and len(name) < 120 for name in names)


def test_a_mounted_bucket_is_told_from_a_local_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / 'mountinfo'
    mounts.write_text(
        '1 0 8:1 / / rw - ext4 /dev/root rw\n'
        '2 1 0:5 / /mnt/my\\040bucket rw shared:1 - fuse.gcsfuse b rw\n'
        '3 1 0:6 / /home rw - nfs4 server:/home rw\n'
        '4 2 8:2 / /mnt/my\\040bucket/local rw - xfs /dev/b rw\n'
    )
    monkeypatch.setattr(files, '_MOUNTS', mounts)
    found = [Path(p) for p in ('/mnt/my bucket/runs/x', '/home/me', '/mnt/other', '/', '/mnt/my bucket/local/x')]
    assert [is_remote(path) for path in found] == [True, True, False, False, False]
    mounts.unlink()
    assert not is_remote(Path('/mnt/my bucket'))
