"""The list of a folder's files with their sha256."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from xlmr_flax.util.manifest import ManifestError, check_manifest, write_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'a').write_bytes(b'abc')
    (tmp_path / 'sub' / 'b').write_bytes(b'')
    (tmp_path / 'sub' / 'notes').write_bytes(b'x')
    write_manifest(tmp_path, leave_out=('sub/notes',))
    return tmp_path


def test_sizes_and_sums(folder: Path) -> None:
    assert json.loads((folder / 'manifest.json').read_text()) == {
        'format': 1,
        'files': {
            'a': {
                'size': 3,
                'sha256': 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad',
            },  # FIPS 180-2
            'sub/b': {'size': 0, 'sha256': hashlib.sha256(b'').hexdigest()},
        },
    }
    check_manifest(folder)
    write_manifest(folder, leave_out=('sub/notes',))  # does not list itself
    check_manifest(folder)


def test_files_that_are_not_listed_may_change(folder: Path) -> None:
    (folder / 'sub' / 'notes').unlink()
    (folder / 'more').write_text('x')
    check_manifest(folder)
    (folder / 'a').write_bytes(b'abd')
    check_manifest(folder, ['sub/b', 'more'])
    with pytest.raises(ManifestError, match='/a is damaged: its sha256'):
        check_manifest(folder, ['a'])


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        (None, 'manifest.json is missing'),
        ('', 'manifest.json cannot be read'),
        ('[]', 'manifest.json cannot be read'),
        ('{"format": 1, "files": {"a": 3}}', 'manifest.json cannot be read'),
        ('{"format": 1, "files": {"a": {"size": 4, "sha256": ""}}}', 'a has 3 bytes, and 4 were written'),
        ('{"format": 2, "files": {}}', 'manifest.json has format 2; this version knows 1'),
        ('{"format": 1, "files": {"c": {"size": 4, "sha256": ""}}}', 'c is missing'),
    ],
)
def test_a_list_that_says_something_else(text: str | None, said: str, folder: Path) -> None:
    (folder / 'manifest.json').unlink() if text is None else (folder / 'manifest.json').write_text(text)
    with pytest.raises(ManifestError, match=said):
        check_manifest(folder)
