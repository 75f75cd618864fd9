"""`xlmr-flax download` against a loopback site with every dataset's layout in small."""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path

import pytest
from download.conftest import Download, files_of
from download.site import Site
from download.small_world import World, place
from relative_folders import absolute
from tasks.parallel_files import READING
from tasks.tiny_files import jsonl

from xlmr_flax.cli.main import main
from xlmr_flax.data.readers.paths import resolve_data_root
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.split import Split
from xlmr_flax.download import facts
from xlmr_flax.download.plan import paths_of
from xlmr_flax.download.records import DOWNLOADS, LICENCES
from xlmr_flax.experiment.data_check.inventory import check, wanted
from xlmr_flax.tasks import all_tasks

ALL = '--accept_licence=all'
TRANSLATED = '--splits=translate_train,translate_dev,translate_test'


# Groups with files that are not fetched. A part of the files of xnli_plus belongs to them.
BY_HAND = (
    'ccg', 'mewslix', 'mlm_text', 'flores200', 'belebele', 'afrixnli', 'indicxnli', 'logiqa2_nli_new',
)  # fmt: skip


def counted(world: World, folder: Path) -> None:
    """Writes rows.tsv of the small world: what the readers find in the files that were written by hand."""
    for path, text in world.tree.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding='utf-8', newline='')
    lines = {}
    for task in all_tasks().values():
        for want in wanted([task.name], folder) if not task.name.startswith('world_') else ():
            tables = task.sources(want.name)
            if len(tables) == 1 or task.kind == 'retrieval':
                for each in (tables[0], *getattr(tables[0], 'alternatives', ())):
                    path = each.path.replace('{language}', task.local_code(want.language, want.name))
                    state = check(want)
                    if state.rows and list(folder.glob(path)):
                        lines[path] = max(state.rows, lines.get(path, 0))  # training leaves misplaced answers out
                        break
    (world.table / 'rows.tsv').write_text(
        'path\trows\n' + ''.join(f'{path}\t{rows}\n' for path, rows in lines.items()), encoding='utf-8'
    )
    facts.official_rows.cache_clear()


def test_all_tasks_from_nothing(
    download: Download, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / 'data'
    code, out, _ = download('--tasks=all', ALL, '--nocount')
    assert code == 3, out
    assert 'failed' not in out
    by_hand = [line.split(':')[0] for line in out.splitlines() if 'not fetched' in line]
    assert sorted(by_hand) == sorted(BY_HAND)
    tasks = [name for name, task in all_tasks().items() if task.translated and not name.startswith('world_')]
    assert download(f'--tasks={",".join(tasks)}', TRANSLATED, ALL, '--nocount')[0] == 3, 'one file of MLQA is not there'
    found = files_of(root)
    assert len(found) > 1700
    assert found == {path: world.tree[path] for path in found}

    counted(world, tmp_path / 'by_hand')
    names = [name for name in all_tasks() if not name.startswith(('world_', 'xnli_plus', 'mlm_', *BY_HAND))]
    capsys.readouterr()
    assert main(['prepare', '--check', f'--tasks={",".join(names)}', '--nooverlap', f'--data_root={root}']) == 0
    table = capsys.readouterr().out.split('\n\n')[1].splitlines()[2:]
    states = {tuple(line.split()[:2]): line for line in table if ' 0/0 ' not in line}
    short = [line for line in states.values() if not any(word in line for word in (' whole ', ' readable '))]
    assert not short
    assert sum(' whole ' in line for line in states.values()) > 60
    assert download('--tasks=all', '--nocount')[1].splitlines()[-1] == '0 files fetched and unpacked'


def test_records_and_a_second_start(download: Download, site: Site, tmp_path: Path) -> None:
    assert download('--tasks=xnli', '--nocount', '--accept_licence=xnli')[0] == 0
    lines = [line.split('\t') for line in (tmp_path / 'data' / DOWNLOADS).read_text().splitlines()]
    assert lines[0] == ['path', 'size', 'sha256', 'url', 'published', 'licence']
    assert len(lines) == 31
    assert {line[3] for line in lines[1:]} == {'https://dl.fbaipublicfiles.com/XNLI/XNLI-1.0.zip'}
    assert (tmp_path / 'data' / LICENCES).read_text().splitlines()[1].startswith('xnli\tCC BY-NC 4.0\t20')
    assert not (tmp_path / 'data' / '.download').exists()
    asked = len(site.asked)
    (tmp_path / 'data' / 'xtreme/xnli/dev-de.tsv').unlink()
    assert download('--tasks=xnli', '--nocount')[0] == 0, 'the licence is asked about once'
    assert len(site.asked) == asked + 1
    assert (tmp_path / 'data' / 'xtreme/xnli/dev-de.tsv').is_file()
    assert download('--tasks=xnli', '--nocount')[0] == 0
    assert len(site.asked) == asked + 1


def test_licences_that_are_not_accepted(download: Download, site: Site, tmp_path: Path) -> None:
    code, out, _ = download('--tasks=xnli,squad_v1', '--nocount')
    assert code == 3
    assert out.splitlines()[-1].endswith('--accept_licence=xnli')
    assert sorted(files_of(tmp_path / 'data')) == [f'intermediate/squad_v1.1/{s}-v1.1.json' for s in ('dev', 'train')]
    assert not [path for path, _ in site.asked if 'XNLI' in path]
    for flag in ('--accept_licence=xnIi', '--accept_changed=xnIi', '--data_root=gs://b/data'):
        code, _, err = download('--tasks=xnli', flag)
        assert (code, flag in err, len(err.splitlines())) == (1, True, 1)
    assert 'gcloud storage rsync --recursive gs://b/data FOLDER' in err
    with pytest.raises(DataError, match='gcloud storage rsync --recursive gs://b/data FOLDER'):
        resolve_data_root('gs://b/data')


def test_dry_run_and_list_urls_fetch_nothing(download: Download, site: Site, tmp_path: Path) -> None:
    code, out, _ = download('--tasks=xnli,squad_v1', '--dry_run')
    assert code == 0
    [line] = [line for line in out.splitlines() if 'XNLI-1.0.zip' in line]
    [source] = [source for source in facts.sources() if source.group == 'xnli']
    assert line.split()[:3] == ['to', 'fetch', f'{(source.size or 0) / 1e6:.1f}']
    assert source.sha256 in line
    code, out, _ = download('--tasks=xnli,ccg', '--list_urls')
    assert (code, out.split()) == (0, ['https://dl.fbaipublicfiles.com/XNLI/XNLI-1.0.zip'])
    assert (site.asked, (tmp_path / 'data').exists()) == ([], False)


def test_archives_and_a_mirror_of_files(download: Download, site: Site, world: World, tmp_path: Path) -> None:
    """Files fetched elsewhere, by name and sum, and a folder that keeps host and path; the site is not asked."""
    elsewhere, mirror = tmp_path / 'elsewhere', tmp_path / 'mirror'
    url = 'https://dl.fbaipublicfiles.com/XNLI/XNLI-1.0.zip'
    (elsewhere / 'wrong').mkdir(parents=True)
    (elsewhere / 'wrong' / 'XNLI-1.0.zip').write_bytes(b'not it')
    (elsewhere / 'XNLI-1.0.zip').write_bytes(world.site[place(url)])
    for path in (path for path in world.site if 'SQuAD-explorer' in path):
        (mirror / path).parent.mkdir(parents=True, exist_ok=True)
        (mirror / path).write_bytes(world.site[path])
    code, out, _ = download(
        '--tasks=xnli,squad_v1', ALL, '--nocount', f'--archives={elsewhere}', f'--mirror={mirror.as_uri()}'
    )
    assert code == 0, out
    assert site.asked == []
    assert len(files_of(tmp_path / 'data')) == 32


@pytest.mark.slow
def test_from_an_empty_machine_to_the_table_of_xnli(
    download: Download, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The two commands of README.md, with one step of a tiny encoder; no folder is made by hand."""
    readme = (Path(__file__).parents[2] / 'README.md').read_text(encoding='utf-8')
    asked, trained = (
        shlex.split(line)
        for line in readme.splitlines()
        if line.startswith(('xlmr-flax download --config=', 'xlmr-flax run --config=')) and 'xnli' in line
    )
    assert download(*[each for each in asked[2:] if not each.startswith('--data_root')])[0] == 0
    config = next(each for each in trained if each.startswith('--config='))
    assert config in asked
    capsys.readouterr()
    sizes = [f'--config.recipes.xnli.{name}' for name in ('steps=1', 'batch_size=2', 'accumulation=1', 'max_length=64')]
    sizes += ['--config.encoder.source=random:tiny', '--config.seeds=(0,)']
    workdir = tmp_path / 'runs' / 'xnli'
    assert main(['run', config, f'--data_root={tmp_path / "data"}', f'--workdir={workdir}', *sizes]) == 0
    rows = [json.loads(line) for line in (workdir / 'results.jsonl').read_text(encoding='utf-8').splitlines()]
    assert {row['language'] for row in rows} == set(all_tasks()['xnli'].languages)
    assert {row['target'] for row in rows} == {'xnli'}
    table = (workdir / 'report' / 'tables.md').read_text(encoding='utf-8')
    assert 'xnli' in table


def test_files_of_the_user_are_kept_and_stand_ins_are_not(download: Download, world: World, tmp_path: Path) -> None:
    root, own, cut = tmp_path / 'data', 'intermediate/mnli/train.tsv', 'intermediate/squad_v1.1/dev-v1.1.json'
    for path, text in ((own, 'mine'), (cut, 'cut')):
        (root / path).parent.mkdir(parents=True)
        (root / path).write_text(text)
    digest = hashlib.sha256(b'cut').hexdigest()
    (root / 'MANIFEST.tsv').write_text(f'path\tsha256\tnote\n{cut}\t{digest}\tSTAND-IN: other rows\n')
    code, out, _ = download('--tasks=mnli,squad_v1', '--nocount')
    assert (code, out.splitlines()[-1].endswith(own)) == (0, True)
    assert (root / own).read_text() == 'mine'
    assert (root / cut).read_text() == world.tree[cut]
    assert (root / f'{cut}.replaced').read_text() == 'cut'
    assert check(Split(all_tasks()['squad_v1'], 'en', 'dev', root)).stand_in == '', 'known by its sum'
    assert download('--tasks=mnli', '--nocount', '--replace')[0] == 0
    assert (root / own).read_text() == world.tree[own]
    assert (root / f'{own}.replaced').read_text() == 'mine'


def test_from_an_empty_machine_to_the_data_of_a_config(
    download: Download, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As docs/downloads.md has it: dry run, download, and a check of exactly what the config reads."""
    config = '--config=configs/xtreme.py:preset=jiant,targets=xnli'
    code, out, _ = download(config, '--dry_run')
    assert code == 0
    assert {line.split(':')[0] for line in out.splitlines() if ' files are there' in line} == {'mnli', 'xnli'}
    code, out, _ = download(config, '--accept_licence=xnli')
    assert code == 0, out
    assert [line.split()[:3] for line in out.splitlines() if line.startswith('xnli  test')] == [
        ['xnli', 'test', '15/15']
    ]
    assert main(['prepare', '--check', config, f'--data_root={tmp_path / "data"}']) == 0
    said = capsys.readouterr().out
    assert 'xlmr-flax download' not in said
    (tmp_path / 'data/intermediate/mnli/train.tsv').unlink()
    assert main(['prepare', '--check', config, f'--data_root={tmp_path / "data"}']) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    said, _, command = last.partition(': xlmr-flax ')
    assert said == 'to fetch what is missing'
    assert absolute(command) == ['download', config, f'--data_root={tmp_path / "data"}']


BY_HAND_ROWS = {'indicxnli': 'premise,hypothesis,label\na,b,0\n', 'belebele': jsonl(READING)}


@pytest.mark.parametrize('name', BY_HAND_ROWS)
def test_files_that_were_put_there_by_hand(name: str, download: Download, site: Site, tmp_path: Path) -> None:
    """Without them the command says what to copy and ends with 3; with them, with 0."""
    root = tmp_path / 'data'
    code, out, _ = download(f'--tasks={name}', '--nocount')
    assert (code, site.asked) == (3, [])
    [line] = [line for line in out.splitlines() if line.startswith(f'{name}: not fetched')]
    assert facts.groups()[name].note in line
    [source] = [source for source in facts.sources() if source.group == name]
    assert source.urls[0] in out
    for split in (split for split, must in wanted([name], root).items() if must):
        [[[path]]] = paths_of(split)
        path = root / path.replace('*', 'any')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(BY_HAND_ROWS[name], encoding='utf-8')
    code, out, _ = download(f'--tasks={name}')
    assert (code, 'not fetched' in out) == (0, False)
    states = [line for line in out.splitlines() if line.startswith(name)]
    assert states
    assert all(line.split()[4] == 'readable' for line in states)
