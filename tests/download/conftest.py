"""The small world, its site, and the command on it."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from download.site import Site, served
from download.small_world import World, build, using

from xlmr_flax.cli.main import main
from xlmr_flax.data.readers.paths import DATA_ROOT_VARIABLE
from xlmr_flax.download import fetch

Download = Callable[..., tuple[int, str, str]]
LIST_VARIABLE = 'XLMR_DOWNLOADS_TSV'


@pytest.fixture(scope='session')
def reference() -> dict[str, dict[str, str]]:
    """The lines of a list of published files by URL; XLMR_DOWNLOADS_TSV names it, or it lies beside the data root."""
    root, named = os.environ.get('XLMR_DATA_ROOT', ''), os.environ.get(LIST_VARIABLE, '')
    path = Path(named) if named else Path(root).absolute().parent / 'reference' / 'downloads.tsv' if root else None
    if path is None or not path.is_file():
        pytest.skip(f'no list of downloads: {LIST_VARIABLE}, or reference/downloads.tsv beside XLMR_DATA_ROOT')
    with path.open(encoding='utf-8', newline='') as file:
        lines = list(csv.DictReader(file, delimiter='\t', quoting=csv.QUOTE_NONE))
    return {line['url']: line for line in lines if line['url']}


@pytest.fixture(scope='session')
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp('world') / 'table')


@pytest.fixture
def site(world: World) -> Iterator[Site]:
    with served(dict(world.site)) as found, using(world.table):
        yield found


@pytest.fixture
def download(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Download:
    """Runs `xlmr-flax download` into DATA below the test's folder; (exit code, stdout, stderr)."""
    monkeypatch.delenv(DATA_ROOT_VARIABLE, raising=False)
    monkeypatch.setattr(fetch.Transport, '__init__', _impatient(fetch.Transport.__init__))

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        given = [] if any(a.startswith('--mirror') for a in arguments) else [f'--mirror={site.address}']
        code = main(['download', *given, f'--data_root={tmp_path / "data"}', *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def _impatient(make: Callable[..., None]) -> Callable[..., None]:
    """Transport with short pauses between attempts."""

    def init(self: fetch.Transport, *arguments: object) -> None:
        make(self, *arguments, attempts=3, pause=0.01)

    return init


def files_of(root: Path) -> dict[str, str]:
    """What lies under a data root, by path, the records left out."""
    found = (path for path in sorted(root.rglob('*')) if path.is_file())
    return {
        path.relative_to(root).as_posix(): path.read_text(encoding='utf-8')
        for path in found
        if path.name not in ('DOWNLOADS.tsv', 'LICENCES.tsv')
    }
