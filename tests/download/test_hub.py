"""`xlmr-flax download --source=hub` against a loopback server that answers as the hub does."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from download.conftest import Download, files_of
from download.site import Site, served
from download.small_world import World, build, place, using

from xlmr_flax.data.split import Split
from xlmr_flax.download import facts, fetch, hub, parquet
from xlmr_flax.download.archive import Budget
from xlmr_flax.tasks import all_tasks
from xlmr_flax.tasks.base import Example

pytest.importorskip('pyarrow', reason='the extra `hub` is not installed')
TASKS = ('mnli', 'qqp', 'snli', 'xnli', 'commonsenseqa')
ALL = ('--source=hub', f'--tasks={",".join(TASKS)}', '--accept_licence=all', '--nocount', '--timeout=5')
MNLI = 'datasets/nyu-mll/glue/resolve/bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c/mnli/train-00000-of-00001.parquet'


@pytest.fixture(scope='module')
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp('hub') / 'table', hub=True)


@pytest.fixture
def site(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site with the published files, which is the hub as well: --mirror=http://none asks it as the hub."""
    copies = {path.removeprefix('huggingface.co/'): data for path, data in world.site.items() if 'huggingface' in path}
    with served({**world.site, **copies}) as found, using(world.table):
        monkeypatch.setenv(hub.ENDPOINT_VARIABLE, found.address)
        monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', False)
        original = fetch.mirrored
        monkeypatch.setattr(
            fetch,
            'mirrored',
            lambda url, base: [url] if base == 'http://none' and hub.parts_of(url) else original(url, found.address),
        )
        yield found


def rows(root: Path) -> dict[str, list[object]]:
    """Label and texts of every row that the tasks read from the hub's copies."""
    result: dict[str, list[object]] = {}
    for name in TASKS:
        task = all_tasks()[name]
        for split in set(task.splits) - set(task.translated):
            for code in task.languages if split != 'train' else ['en']:
                examples = Split(task, code, split, root).read()
                result[f'{name} {split} {code}'] = [without_id(example) for example in examples]
    return result


def without_id(example: Example) -> dict[str, object]:
    return {each.name: getattr(example, each.name) for each in fields(example) if each.name != 'id'}


def test_the_hubs_copies_give_the_same_rows(download: Download, site: Site, tmp_path: Path) -> None:
    code, out, err = download(*ALL, '--mirror=http://none')
    assert (code, 'instead' in out) == (0, False), out + err
    fetched = {source.urls[0] for source in facts.sources() if source.use == facts.HUB}
    lines = [line.split('\t') for line in (tmp_path / 'data' / 'DOWNLOADS.tsv').read_text().splitlines()[1:]]
    assert {line[3] for line in lines} == fetched
    assert all(path.startswith(('datasets/', 'api/')) for path, _ in site.asked)
    assert not (tmp_path / 'data' / '.download').exists()
    from_hub = rows(tmp_path / 'data')
    assert sum(map(len, from_hub.values())) > 60
    asked = len(site.asked)
    assert download(*ALL[1:])[0] == 0, 'made from another source of the same data: nothing to fetch'
    assert len(site.asked) == asked
    for path in (tmp_path / 'data').iterdir():
        path.rename(tmp_path / path.name)
    assert download(*ALL[1:])[0] == 0
    assert rows(tmp_path / 'data') == from_hub


def test_a_mirror_and_the_next_source(download: Download, site: Site, tmp_path: Path) -> None:
    """A mirror has the hub's files by host and path; where the hub has no such file, the published one is fetched."""
    code, out, _ = download('--source=hub', '--tasks=mnli', '--nocount')
    assert code == 0, out
    assert {path for path, _ in site.asked} == {
        path for path in site.files if path.startswith('huggingface.co/datasets/nyu-mll') and '/mnli/' in path
    }
    site.asked.clear()
    site.faults[MNLI] = ['404']
    code, out, _ = download(
        '--source=hub', '--tasks=mnli', '--nocount', '--mirror=http://none', f'--data_root={tmp_path / "two"}'
    )
    assert (code, 'failed' in out) == (0, False), out
    assert place('https://dl.fbaipublicfiles.com/glue/data/MNLI.zip') in {path for path, _ in site.asked}


@pytest.mark.parametrize(('fault', 'said'), [('wrong', 'wrong sum: expected '), ('truncated', 'received')])
def test_a_fault_of_the_hub_is_one_line(fault: str, said: str, download: Download, site: Site, tmp_path: Path) -> None:
    site.faults[MNLI] = [fault]
    site.faults[place('https://dl.fbaipublicfiles.com/glue/data/MNLI.zip')] = ['404']
    code, out, _ = download('--source=hub', '--tasks=mnli', '--nocount', '--mirror=http://none')
    lines = [line for line in out.splitlines() if line.startswith('failed: ')]
    assert code == 1
    [line] = [line for line in lines if 'train-00000' in line]
    assert said in line
    made = sorted(path for path in files_of(tmp_path / 'data') if not path.startswith('.download/'))
    assert made == [f'intermediate/mnli/dev_{s}matched.tsv' for s in ('', 'mis')]
    site.faults.clear()
    assert download('--source=hub', '--tasks=mnli', '--nocount', '--mirror=http://none')[0] == 0


def test_pyarrow_is_asked_for_before_anything_is_fetched(
    download: Download, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, 'can_convert', lambda: False)
    code, _, err = download(*ALL)
    assert (code, "pip install -e '.[hub]'" in err, site.asked) == (1, True, [])


def test_a_parquet_file_with_other_columns_or_damage(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow.parquet import write_table

    out = io.BytesIO()
    write_table(pyarrow.table({'premise': ['a\tb\nc', 'd'], 'hypothesis': ['e', 'f'], 'label': [-1, 2]}), out)
    path = tmp_path / 'x.parquet'
    path.write_bytes(out.getvalue())

    def made(name: str) -> bytes:
        with path.open('rb') as stream:
            [(_, chunks)] = getattr(parquet, name)(stream, ['t-en.tsv'], Budget(path))
            return b''.join(chunks)

    assert made('nli') == b'sentence1\tsentence2\tgold_label\na b c\te\t-\nd\tf\tcontradiction\n'
    with pytest.raises(LookupError, match='idx'):
        made('qqp')
    path.write_bytes(out.getvalue()[:-20])
    with pytest.raises(ValueError, match=r'[Pp]arquet'):
        made('nli')
