"""What goes wrong on the way: one clear line each, what is there stays, and the next start goes on."""

from __future__ import annotations

import errno
import hashlib
import io
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest
from download.conftest import Download, files_of
from download.site import Site
from download.small_world import packed, place

from xlmr_flax.download import archive, facts, fetch
from xlmr_flax.download.facts import Source
from xlmr_flax.download.records import DOWNLOADS, LICENCES, DownloadError, Sums, file_sum, size_of

XNLI = ('dl.fbaipublicfiles.com/XNLI/XNLI-1.0.zip', 'cims.nyu.edu/~sbowman/xnli/XNLI-1.0.zip')
SQUAD = 'rajpurkar.github.io/SQuAD-explorer/dataset/train-v1.1.json'
ASK = ('--tasks=squad_v1', '--splits=train', '--nocount')


def failure(out: str) -> str:
    [line] = [line for line in out.splitlines() if line.startswith('failed: ')]
    return line


@pytest.mark.parametrize(
    ('fault', 'said'),
    [
        ('404', 'status 404'),
        ('wrong', 'wrong sum: expected '),
        ('longer', 'bytes, not the published'),
        ('other', '1 bytes, not the published'),
        ('truncated', 'the connection '),
        ('503', 'status 503'),
        ('slow', 'no byte for 0.3 seconds'),
    ],
)
def test_a_file_that_does_not_come(fault: str, said: str, download: Download, site: Site, tmp_path: Path) -> None:
    """The other files come, the exit code is 1, and a later start gets the file."""
    site.faults[SQUAD] = [fault]
    code, out, _ = download('--tasks=squad_v1', '--nocount', *(['--timeout=0.3'] if fault == 'slow' else []))
    assert code == 1
    assert said in failure(out)
    assert SQUAD in failure(out)
    assert list(files_of(tmp_path / 'data'))[-1] == 'intermediate/squad_v1.1/dev-v1.1.json'
    site.faults.clear()
    assert download('--tasks=squad_v1', '--nocount')[0] == 0
    assert sorted(path.name for path in (tmp_path / 'data').iterdir()) == ['DOWNLOADS.tsv', 'intermediate']


def test_a_wrong_sum_names_both_and_can_be_accepted(download: Download, site: Site, tmp_path: Path) -> None:
    site.faults[SQUAD] = ['wrong']
    [source] = [each for each in facts.sources() if SQUAD in ''.join(each.urls)]
    line = failure(download(*ASK)[1])
    assert source.sha256 in line
    assert '--accept_changed=squad_v1' in line
    assert download(*ASK, '--accept_changed=squad_v1')[0] == 0
    record = (tmp_path / 'data' / 'DOWNLOADS.tsv').read_text().splitlines()[1].split('\t')
    assert record[4] != source.sha256, 'the sum of what came'
    assert record[4] in line


@pytest.mark.parametrize('faults', [['503', ''], ['truncated', ''], ['slow', ''], ['truncated', 'no ranges', '']])
def test_what_passes_is_tried_again(
    faults: list[str], site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cut file goes on at the last 64 KiB that came, at its beginning where the server gives no ranges.

    No byte is read a second time for its checksum.
    """
    read_again: list[int] = []

    def read(sums: Sums, path: Path, count: int | None = None) -> Sums:
        if count != 0:
            read_again.append(size_of(path))
        return original(sums, path, count)

    original = Sums.read
    monkeypatch.setattr(Sums, 'read', read)
    content = bytes(range(256)) * 1024
    source = Source('x', '', ('https://h/b.bin',), len(content), hashlib.sha256(content).hexdigest(), '', 'copy', ())
    site.files['h/b.bin'], site.faults['h/b.bin'] = content, list(faults)
    seen: list[int] = []
    transport = fetch.Transport(site.address, timeout=0.5)
    fetcher = fetch.Fetcher(tmp_path, transport, lambda _, size: seen.append(size), threading.Event())
    fetcher.folder.mkdir()
    path, sha256 = fetcher.fetch(source)
    assert (path.read_bytes(), sha256) == (content, source.sha256)
    assert read_again == []
    spans = [span for _, span in site.asked]
    assert spans == (['', ''] if faults[0] == '503' else ['', f'bytes={1 << 17}-'])
    assert (seen == sorted(seen), seen[-1]) == ('no ranges' not in faults, len(content))


@pytest.mark.parametrize('size', [0, 1, 5 << 20])
def test_sums_of_what_is_written_and_of_what_is_read(size: int, tmp_path: Path) -> None:
    content = bytes(size)
    path = tmp_path / 'a'
    path.write_bytes(content)
    blob = hashlib.sha1(b'blob %d\0' % size + content).hexdigest()
    assert (file_sum(path), file_sum(path, 'git_blob')) == (hashlib.sha256(content).hexdigest(), blob)
    source = Source('x', '', ('https://h/a',), size, '', blob, 'copy', ())
    for sums in (Sums(size), Sums()):
        sums.update(content[: size // 2])
        path.write_bytes(content[size // 2 :])
        sums.read(path)
        path.write_bytes(content)
        assert (sums.size, sums.sha256, sums.of(source, path)) == (size, hashlib.sha256(content).hexdigest(), blob)
        assert sums.match(source, path)
        sums.update(b'x')
        assert not sums.match(source, path)


def test_the_next_address_and_the_next_source(download: Download, site: Site, tmp_path: Path) -> None:
    site.faults[XNLI[0]] = ['404']
    assert download('--tasks=xnli', '--accept_licence=xnli', '--nocount')[0] == 0
    assert [path for path, _ in site.asked] == list(XNLI)


def test_a_part_of_another_file_is_begun_again(download: Download, site: Site, tmp_path: Path) -> None:
    """416: the file there ends before what is here (a file whose size is not published)."""
    url = 'https://storage.googleapis.com/' + XNLI[0]
    source = Source('squad_v1', '', (url,), None, '', '', 'copy', (('', 'a/b.json'),))
    site.files[place(url)] = b'12345'
    fetcher = fetch.Fetcher(tmp_path, fetch.Transport(site.address), lambda *_: None, threading.Event())
    fetcher.folder.mkdir()
    part = fetcher.folder / f'{source.key}.part'
    part.write_bytes(b'1234567')
    assert fetcher.fetch(source)[0].read_bytes() == b'12345'
    assert [span for _, span in site.asked] == ['bytes=7-', '']
    fetcher.fetch(source)[0].unlink()
    part.write_bytes(b'12345')
    assert fetcher.fetch(source)[0].read_bytes() == b'12345', 'it was whole, and not yet renamed'


def test_a_full_disk_ends_with_the_name_of_the_file(
    download: Download, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr('os.fsync', full)
    code, _, err = download(*ASK)
    assert code == 1
    last = err.splitlines()[-1]
    assert last.endswith('train-v1.1.json.part: No space left on device')
    monkeypatch.undo()


def test_room_is_looked_at_before(download: Download, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type('Usage', (), {'free': 1000})
    monkeypatch.setattr('shutil.disk_usage', lambda _: usage)
    code, _, err = download(*ASK)
    assert (code, 'MB are free' in err, site.asked) == (1, True, [])


def linked(name: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w') as file:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = tarfile.SYMTYPE, '/etc/passwd'
        file.addfile(info)
    return out.getvalue()


def encrypted(data: bytes) -> bytes:
    """A zip archive whose members are marked as encrypted."""
    local, central = data.find(b'PK\x03\x04'), data.find(b'PK\x01\x02')
    changed = bytearray(data)
    changed[local + 6] |= 1
    changed[central + 8] |= 1
    return bytes(changed)


def plain_zip(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w', zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return out.getvalue()


@pytest.mark.parametrize(
    ('data', 'said'),
    [
        (packed('a.tar', {'../x': b'1', 'a': b'2'}), "'../x' has a path outside of the folder"),
        (packed('a.tar', {'/x': b'1', 'a': b'2'}), "'/x' has a path outside of the folder"),
        (packed('a.zip', {'..\\x': b'1', 'a': b'2'}), 'has a path outside of the folder'),
        (linked('a'), "'a' is a link"),
        (packed('a.zip', {'b': b'1'}), "'a' is not in it"),
        (packed('a.tgz', {'a': b'1' * 5000})[:60], 'broken archive'),
        (plain_zip(a=b'1' * 5000)[:60], 'broken archive'),
        (plain_zip(a=bytes(80 << 20)), 'unpacks to more than'),
        (encrypted(plain_zip(a=b'1')), 'encrypted and no password'),
        (b'<html>not found</html>', 'broken archive'),
    ],
    ids=range(10),  # archives hold the time of their making, and test workers must agree on names
)
def test_an_archive_that_is_refused(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / 'archive'
    path.write_bytes(data)
    source = Source('x', '', ('https://h/a.zip',), None, '', '', 'unpack', (('a', 'b'),))
    with pytest.raises(DownloadError, match=said.replace('.', r'\.').replace('\\', '')):
        for _, _, stream, _ in archive.listed(source, path):
            while stream.read(1 << 20):
                pass


@pytest.mark.parametrize(
    ('member', 'size', 'said'),
    [('../../evil', 1, 'has a path outside of the folder'), ('XNLI-1.0/xnli.dev.tsv', 80 << 20, 'unpacks to')],
)
def test_an_unsafe_member_or_a_bomb_writes_nothing(
    member: str, size: int, said: str, download: Download, site: Site, tmp_path: Path
) -> None:
    for path in XNLI:
        site.files[path] = packed('a.zip', {member: bytes(size)})
    code, out, _ = download('--tasks=xnli', '--accept_licence=xnli', '--accept_changed=xnli', '--nocount')
    assert code == 1
    assert said in failure(out)
    assert files_of(tmp_path / 'data') == {}
    assert not (tmp_path.parent / 'evil').exists()


@pytest.mark.parametrize('name', [DOWNLOADS, LICENCES])
def test_damaged_records_are_named(name: str, download: Download, site: Site, tmp_path: Path) -> None:
    path = tmp_path / 'data' / name
    path.parent.mkdir()
    path.write_bytes(b'group\tlicence\naccepted\xff')
    code, _, err = download('--tasks=xnli', '--accept_licence=xnli', '--nocount')
    assert (code, len(err.splitlines()), site.asked) == (1, 1, [])
    assert f'{path}: no UTF-8 text' in err
    assert path.read_bytes() == b'group\tlicence\naccepted\xff'


def test_a_folder_in_the_place_of_a_file(download: Download, tmp_path: Path) -> None:
    place = tmp_path / 'data' / 'intermediate/squad_v1.1/train-v1.1.json'
    place.mkdir(parents=True)
    code, out, _ = download('--tasks=squad_v1', '--nocount')
    assert code == 1
    assert f'{place}: a folder' in failure(out)
    assert (place.parent / 'dev-v1.1.json').is_file(), 'the other files come'
    place.rmdir()
    assert download('--tasks=squad_v1', '--nocount')[0] == 0


@pytest.mark.parametrize(('answer', 'code'), [('y', 0), ('YES ', 0), ('n', 3), ('', 3), (None, 3)])
def test_the_question_about_licences(
    answer: str | None, code: int, download: Download, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None: the input ends without an answer."""

    def reply(_: str) -> str:
        if answer is None:
            raise EOFError
        return answer

    monkeypatch.setattr('sys.stdin.isatty', lambda: True, raising=False)
    monkeypatch.setattr('builtins.input', reply)
    found, out, _ = download('--tasks=xnli', '--nocount')
    assert found == code
    assert 'CC BY-NC 4.0 (non-commercial)' in out
    assert (tmp_path / 'data' / LICENCES).exists() == (code == 0)
