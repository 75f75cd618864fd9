"""Mirrors, files fetched elsewhere, hosts that cannot be reached, and values of flags that cannot work."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
from download.conftest import Download, files_of
from download.site import Site
from download.small_world import World, place

from xlmr_flax.cli import download as command
from xlmr_flax.download import facts, fetch, job
from xlmr_flax.download.facts import Source
from xlmr_flax.download.records import DOWNLOADS, DownloadError

PANX = 'https://www.dropbox.com/s/12h3qqog6q4bjve/panx_dataset.tar?dl=1'
XNLI = 'https://dl.fbaipublicfiles.com/XNLI/XNLI-1.0.zip'
ACCEPT = ('--accept_licence=all', '--nocount')


@pytest.mark.parametrize('base', ['ftp://host', 'mirror', '/mirror', 'http://', 'file://host/mirror', 'http://[x'])
def test_a_mirror_that_is_no_address(
    base: str, download: Download, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = download('--tasks=xnli', *ACCEPT, f'--mirror={base}')
    assert (code, out, len(err.splitlines())) == (1, '', 1)
    assert f'--mirror={base}: ' in err
    monkeypatch.setenv(fetch.MIRROR_VARIABLE, base)
    code, out, err = download('--tasks=xnli', *ACCEPT, '--mirror=')
    assert (code, out) == (1, '')
    assert f'XLMR_MIRROR={base}: ' in err
    assert not (tmp_path / 'data').exists()


def test_a_folder_without_its_scheme_is_named_with_it(tmp_path: Path) -> None:
    folder = tmp_path / 'my mirror'
    folder.mkdir()
    assert folder.as_uri() in fetch.mirror_fault(str(folder))
    assert fetch.mirror_fault(folder.as_uri()) == ''
    assert str(folder / 'x') in fetch.mirror_fault((folder / 'x').as_uri())
    assert fetch.mirror_fault('') == fetch.mirror_fault('https://host/base') == ''


@pytest.mark.parametrize('flag', ['--archives=/no/folder', '--timeout=0', '--timeout=-1', '--timeout=nan'])
def test_flags_that_cannot_work(flag: str, download: Download, site: Site) -> None:
    code, out, err = download('--tasks=xnli', *ACCEPT, flag)
    assert (code, out, site.asked) == (1, '', [])
    assert flag in err


@pytest.mark.parametrize('name', ['panx_dataset.tar?dl=1', 'panx_dataset.tar'])
@pytest.mark.parametrize('flag', ['mirror', 'archives'])
def test_a_name_with_a_query(
    name: str, flag: str, download: Download, site: Site, world: World, tmp_path: Path
) -> None:
    """PAN-X's address has a query: wget makes it a part of the file's name, other programs do not."""
    folder = tmp_path / 'ein Ordner' / 'www.dropbox.com/s/12h3qqog6q4bjve'
    folder.mkdir(parents=True)
    (folder / name).write_bytes(world.site[place(PANX)])
    base = tmp_path / 'ein Ordner'
    code, out, _ = download('--tasks=panx', *ACCEPT, f'--{flag}={base.as_uri() if flag == "mirror" else base}')
    assert code == 0, out
    assert site.asked == []


def test_a_mirror_on_a_web_server_with_wgets_names(download: Download, site: Site) -> None:
    path = place(PANX)
    site.files[path.replace('?', '%3F')] = site.files.pop(path)
    assert download('--tasks=panx', *ACCEPT)[0] == 0
    assert [asked for asked, _ in site.asked] == [path, path.replace('?', '%3F')]


def test_an_archive_without_a_sum_must_lie_at_its_place(site: Site, tmp_path: Path) -> None:
    """At host and path, where another file of the table has its name. A name of its own is enough."""
    folder = tmp_path / 'elsewhere'
    fetcher = fetch.Fetcher(tmp_path, fetch.Transport(site.address, folder), lambda *_: None, threading.Event())
    fetcher.folder.mkdir()
    shared = next(source.urls[0] for source in facts.sources() if source.name == 'train.tsv')
    for name in ('other/train.tsv', place(shared), 'other/a b.txt'):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    for url, found in ((shared, place(shared)), ('https://h/a%20b.txt', 'other/a b.txt')):
        source = Source('x', '', (url,), None, '', '', 'copy', (('', 'a'),))
        assert fetcher.fetch(source)[0].read_text() == found


def test_an_archive_with_another_content(download: Download, site: Site, world: World, tmp_path: Path) -> None:
    """It is named with both sums where the file cannot be fetched either, and taken where that was accepted."""
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    (elsewhere / 'XNLI-1.0.zip').write_bytes(world.site[place(XNLI)] + b'x')
    ask = ('--tasks=xnli', *ACCEPT, f'--archives={elsewhere}')
    files = dict(site.files)
    site.files.clear()
    code, out, _ = download(*ask)
    assert code == 1
    [line] = [line for line in out.splitlines() if line.startswith('failed: ')]
    assert f'{elsewhere}/XNLI-1.0.zip: wrong sum' in line
    assert 'status 404' in line
    site.files.update(files)
    assert download(*ask)[0] == 0, 'fetched'
    site.files.clear()
    code, _, _ = download(*ask, '--accept_changed=xnli', f'--data_root={tmp_path / "other"}')
    assert code == 0
    assert files_of(tmp_path / 'other') == files_of(tmp_path / 'data')


def test_a_changed_file_is_accepted_only_when_whole(site: Site, tmp_path: Path) -> None:
    """The size that the server names counts, not the published one."""
    content = bytes(range(256)) * 512
    site.files['h/a'], site.faults['h/a'] = content, ['truncated', '']
    source = Source('x', '', ('https://h/a',), 7, '0' * 64, '', 'copy', (('', 'a'),))
    transport = fetch.Transport(site.address, accept_changed=('x',), attempts=2, pause=0.01)
    fetcher = fetch.Fetcher(tmp_path, transport, lambda *_: None, threading.Event())
    fetcher.folder.mkdir()
    assert fetcher.fetch(source)[0].read_bytes() == content
    assert len(site.asked) == 2


@pytest.mark.parametrize('page', [b'<!DOCTYPE html>\n<html>Log in', b'\n <HTML lang="en">'])
def test_a_web_page_in_place_of_a_file_without_a_sum(page: bytes, site: Site, tmp_path: Path) -> None:
    site.files['h/a'], site.files['h/b'] = page, b'<b> a row\n'
    fetcher = fetch.Fetcher(tmp_path, fetch.Transport(site.address), lambda *_: None, threading.Event())
    fetcher.folder.mkdir()
    first, second = (Source('x', '', (f'https://h/{name}',), None, '', '', 'copy', (('', name),)) for name in 'ab')
    with pytest.raises(DownloadError, match='a web page came'):
        fetcher.fetch(first)
    assert list(fetcher.folder.iterdir()) == []
    assert fetcher.fetch(second)[0].read_bytes() == site.files['h/b']


def test_a_host_that_cannot_be_reached_is_asked_for_one_file_only(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        host = f'127.0.0.1:{free.getsockname()[1]}'
    sources = [Source('x', '', (f'http://{host}/{name}',), None, '', '', 'copy', (('', name),)) for name in 'ab']
    fetcher = fetch.Fetcher(tmp_path, fetch.Transport(attempts=3, pause=0.01), lambda *_: None, threading.Event())
    fetcher.folder.mkdir()
    with pytest.raises(DownloadError, match=r'refused\) \(3 attempts\)'):
        fetcher.fetch(sources[0])
    with pytest.raises(DownloadError, match=f'not tried: there was no connection to {host}'):
        fetcher.fetch(sources[1])


@pytest.mark.parametrize('fault', ['503', 'truncated', 'slow'])
def test_a_host_that_answers_is_asked_for_each_file(fault: str, site: Site, tmp_path: Path) -> None:
    transport = fetch.Transport(site.address, timeout=0.3, attempts=2, pause=0.01)
    fetcher = fetch.Fetcher(tmp_path, transport, lambda *_: None, threading.Event())
    fetcher.folder.mkdir()
    for name in 'ab':
        site.files[f'h/{name}'], site.faults[f'h/{name}'] = bytes(1 << 10), [fault]
        source = Source('x', '', (f'https://h/{name}',), 1 << 10, '', '', 'copy', (('', name),))
        with pytest.raises(DownloadError, match=r'\(2 attempts\)'):
            fetcher.fetch(source)
    assert fetcher.unreached == set()


def test_a_whole_data_root_is_not_written_to(
    download: Download, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be on a read-only or full disk."""
    assert download('--tasks=xnli', *ACCEPT)[0] == 0

    def refuse(root: Path) -> None:
        raise AssertionError(root)

    monkeypatch.setattr(job, 'locked', refuse)
    monkeypatch.setattr('shutil.disk_usage', lambda _: type('Usage', (), {'free': 0}))
    assert download('--tasks=xnli', *ACCEPT)[0] == 0
    assert download('--tasks=ccg', '--nocount', f'--data_root={tmp_path / "new"}')[0] == command.MISSING
    assert not (tmp_path / 'new').exists()


def test_a_data_root_with_blanks_and_other_letters(download: Download, tmp_path: Path) -> None:
    root = tmp_path / 'mes données – 数据'
    assert download('--tasks=xnli', *ACCEPT, f'--data_root={root}')[0] == 0
    assert (root / DOWNLOADS).is_file()
    assert download('--tasks=xnli', '--nocount', f'--data_root={root}')[1].splitlines()[-1].startswith('0 files')


def test_urls_for_another_machine(download: Download, site: Site) -> None:
    """Addresses alone on the standard output; what must be got by hand, on the standard error."""
    code, out, err = download('--tasks=xnli,ccg', '--list_urls')
    assert (code, out.splitlines(), site.asked) == (0, [XNLI], [])
    assert 'LDC2005T13' in err
    assert 'intermediate/ccg/data/AUTO' in err
