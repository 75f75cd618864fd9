"""The notebooks, each on a fresh kernel in an empty folder: they run without an error and show what they promise."""

from __future__ import annotations

import base64
import json
import os
import re
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('nbclient', reason='notebooks are executed with nbclient')
pytest.importorskip('ipykernel', reason='notebooks are executed on an IPython kernel')

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / 'notebooks').glob('*.ipynb'))
KERNEL = 'under-test'
SOURCE = "SOURCE = ''"  # the line of the first cell that says where to install from


@dataclass(frozen=True)
class Shown:
    """What an executed notebook shows, cell by cell: printed text, Markdown, plain values, PNGs."""

    printed: str
    markdown: list[str]
    plain: list[str]
    images: list[bytes]

    def table(self, start: str) -> dict[str, list[str]]:
        """First cell -> the other cells of each line of the Markdown table whose head line starts so."""
        [text] = [m for m in self.markdown if any(line.startswith(f'| {start}') for line in m.splitlines())]
        lines = [line for line in text.splitlines() if line.startswith('|')]
        cells = [[cell.strip(' *\\') for cell in line.strip('|').split(' | ')] for line in lines[2:]]
        return {line[0]: line[1:] for line in cells}


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in. Kernels are started by `execute`; temporary files and settings lie beside it."""
    for name, folder in (('TMPDIR', 'temporary'), ('IPYTHONDIR', 'ipython'), ('JUPYTER_PATH', 'jupyter')):
        (tmp_path / folder).mkdir()
        monkeypatch.setenv(name, str(tmp_path / folder))
    (tmp_path / 'here').mkdir()
    return tmp_path / 'here'


def execute(name: str, here: Path, changes: dict[str, str] | None = None, python: str = sys.executable) -> Shown:
    """Runs notebooks/NAME*.ipynb in the folder `here`, with lines of its cells replaced. Any error is raised."""
    [path] = [path for path in NOTEBOOKS if path.name.startswith(name)]
    notebook: Any = nbformat.read(path, as_version=4)
    for old, new in (changes or {}).items():
        [cell] = [cell for cell in notebook.cells if old in cell.source.splitlines()]
        cell.source = '\n'.join(new if line == old else line for line in cell.source.splitlines())
    spec = Path(os.environ['JUPYTER_PATH']) / 'kernels' / KERNEL / 'kernel.json'
    spec.parent.mkdir(parents=True, exist_ok=True)
    argv = [python, '-m', 'ipykernel_launcher', '-f', '{connection_file}']
    spec.write_text(json.dumps({'argv': argv, 'display_name': KERNEL, 'language': 'python'}), encoding='utf-8')
    NotebookClient(notebook, timeout=600, kernel_name=KERNEL, resources={'metadata': {'path': str(here)}}).execute()
    assert not list(here.iterdir()), 'a notebook writes into its temporary folder alone'
    outputs = [output for cell in notebook.cells if cell.cell_type == 'code' for output in cell.outputs]
    data = [output.data for output in outputs if output.output_type in ('execute_result', 'display_data')]
    return Shown(
        ''.join(output.text for output in outputs if output.output_type == 'stream'),
        [d['text/markdown'] for d in data if 'text/markdown' in d],
        [d['text/plain'] for d in data],
        [base64.b64decode(d['image/png']) for d in data if 'image/png' in d],
    )


def check_image(png: bytes) -> None:
    """A PNG of a size that can be read, and with more than one colour in it."""
    assert png.startswith(b'\x89PNG\r\n\x1a\n')
    width, height = struct.unpack('>II', png[16:24])
    assert 200 < width < 1600, width
    assert 150 < height < 2000, height
    assert len(png) > 4000  # a heat map of one cell has 4.7 kB


def number(text: str) -> float:
    """A table's number: '+1.2', '−1.2 ± 0.3*', '**12.3**', '50.4 %'."""
    return float(re.split(r' |±', text.strip('*†‡§ ').replace('−', '-'))[0].strip('*†‡§'))


def test_there_are_four() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == ['01', '02', '03', '04']


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_clean(path: Path) -> None:
    text = path.read_text(encoding='utf-8')
    notebook: Any = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == 'code']
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert notebook.cells[0].source.startswith('# '), 'begins with its title'
    assert SOURCE in code[0].source.splitlines()
    assert max(len(cell.source.splitlines()) for cell in notebook.cells) <= 35
    assert max(len(line) for cell in notebook.cells for line in cell.source.splitlines()) <= 120
    assert len(text) < 30_000
    assert not re.search(r'/(work|tmp|home|root|Users)\b', text)


def test_files_that_the_notebooks_name_are_there() -> None:
    named: set[str] = set()
    for path in NOTEBOOKS:
        named |= set(re.findall(r'\b(?:docs|tests|xlmr_flax|configs)/[\w/]+\.\w+', path.read_text(encoding='utf-8')))
        named |= {f'notebooks/{name}' for name in re.findall(r'\d\d_\w+\.ipynb', path.read_text(encoding='utf-8'))}
    assert len(named) > 5
    assert not [name for name in sorted(named) if not (ROOT / name).exists()]


@pytest.mark.slow
def test_from_zero_to_a_table(kernel: Path) -> None:
    shown = execute('01', kernel)
    table = shown.table('Code')
    assert len(table) == 18  # 16 languages and two means
    none = [number(cells[4]) for cells in table.values()]
    english, zero_shot = none[0], number(table['zero-shot mean (15 languages)'][4])
    assert english > zero_shot + 20  # trained in English, and it learned something
    check_image(shown.images[0])
    again, row = re.findall(r'F1 from the file ([\d.]+), in the result row ([\d.]+)', shown.printed)[0]
    assert again == row
    assert 'Anna/' in shown.printed
    assert '3 runs in' in shown.printed


def test_layers_agree_with_pytorch(kernel: Path) -> None:
    pytest.importorskip('torch', reason='compared with torch')
    shown = execute('02', kernel)
    assert 'token ids equal: True' in shown.printed
    layers = shown.table('layer')
    assert list(layers) == ['embeddings', '1', '2', '3', '4']
    assert all(float(size) > 1 and 0 < float(difference) < 1e-4 for size, difference in layers.values())
    assert float(re.findall(r'difference of the logits (\S+)', shown.printed)[0]) < 1e-4
    ours, theirs = map(float, re.findall(r'loss ([\d.]+) and ([\d.]+)', shown.printed)[0])
    assert abs(ours - theirs) < 1e-5
    worst = shown.table('tensor')
    assert len(worst) == 5
    assert all(0 < float(cells[0]) < 1e-4 for cells in worst.values())
    assert len(shown.images) == 2
    for png in shown.images:
        check_image(png)


@pytest.mark.slow
def test_layers_of_a_directory_agree_too(kernel: Path, tmp_path: Path) -> None:
    """The one line changed, as docs/adding_an_encoder.md says."""
    pytest.importorskip('torch', reason='compared with torch')
    from xlmr_flax.cli.main import main

    assert main(['convert', '--source=random:tiny', f'--out={tmp_path / "DIR"}']) == 0
    line = "NAME = 'random'  # the one line to change: 'hf:xlm-roberta-base', or 'hf:' and the path of a directory"
    shown = execute('02', kernel, {line: f"NAME = 'hf:{tmp_path / 'DIR'}'"})
    assert 'token ids equal: True' in shown.printed
    layers = shown.table('layer')
    assert list(layers) == ['embeddings', '1', '2']
    assert all(float(difference) < 1e-4 for _, difference in layers.values())


def test_mixtures_are_exact(kernel: Path) -> None:
    shown = execute('03', kernel)
    rates = shown.table('task | examples')
    assert len(rates) == 9
    for column in range(1, 6):
        assert abs(sum(number(cells[column]) for cells in rates.values()) - 100) < 0.5
    counts = shown.table('task | rate')
    assert [int(n) for n in counts['all'][1:]] == [100] * 7
    for name, (rate, *blocks) in counts.items():
        assert abs(sum(map(int, blocks)) - 7 * float(rate)) < 1.1, name
    assert float(re.findall(r'any block end: ([\d.]+) draws', shown.printed)[0]) < 1
    assert len(shown.images) == 4
    for png in shown.images:
        check_image(png)


def test_a_study_is_read_from_its_rows_alone(kernel: Path, tmp_path: Path) -> None:
    """Rows of the repository, and beside them an arm that is one point better everywhere but ten in Swahili."""
    lines = (ROOT / 'results' / 'xnli_small' / 'results.jsonl').read_text(encoding='utf-8').splitlines()
    rows = [json.loads(line) for line in lines]
    more = [{**r, 'intermediate': 'arm', 'value': r['value'] + (10 if r['language'] == 'sw' else 1)} for r in rows]
    file = tmp_path / 'results.jsonl'
    file.write_text(''.join(json.dumps(row) + '\n' for row in rows + more), encoding='utf-8')
    line = "STUDY = ''  # the one line to change: the workdir of `xlmr-flax run`, or a results.jsonl alone"
    shown = execute('04', kernel, {line: f'STUDY = {str(file)!r}'})
    table = shown.table('Intermediate')
    assert number(table['none'][0]) == 54.0  # without English, which results/xnli_small/agreement.md includes
    assert number(table['arm'][0]) == 1.6  # 23 points over 14 languages
    assert number(shown.table('Code')['sw'][-1]) == 10.0
    assert 'over 14 languages' in shown.printed
    assert len(shown.images) == 3
    for png in shown.images:
        check_image(png)


@pytest.mark.slow
def test_a_study_is_run_and_read(kernel: Path) -> None:
    shown = execute('04', kernel)
    assert '564 rows' in shown.printed  # 3 arms, 2 seeds; 16 languages x 4 metrics, 15 x 2
    assert {'none', 'world\\_nli', 'world\\_ner'} <= set(shown.table('Intermediate'))
    assert len(shown.images) == 3
    assert "'index.html'" in shown.plain[-1]


@pytest.mark.slow
def test_the_first_cell_installs_the_package(kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an environment that has all but the package, from the last commit of the checkout. pip needs its index, from
    which it takes setuptools to build with."""
    if not (ROOT / '.git').exists():
        pytest.skip('no git checkout to install from')
    import numpy as np

    venv = tmp_path / 'venv'
    subprocess.run([sys.executable, '-m', 'venv', venv], check=True)
    [packages] = venv.glob('lib/python*/site-packages')
    for path in Path(np.__file__).parents[1].iterdir():
        if 'xlmr_flax' not in path.name and not (packages / path.name).exists():
            (packages / path.name).symlink_to(path)
    python = str(venv / 'bin' / 'python')
    monkeypatch.delenv('PYTHONPATH', raising=False)
    lacking = subprocess.run([python, '-c', 'import xlmr_flax'], capture_output=True, cwd=tmp_path, check=False)
    assert lacking.returncode, 'the package is installed as a plain folder here: nothing to test'
    monkeypatch.setenv('PIP_DISABLE_PIP_VERSION_CHECK', '1')
    shown = execute('03', kernel, {SOURCE: f"SOURCE = 'git+{ROOT.as_uri()}'"}, python)
    assert len(shown.images) == 4
    where = 'import xlmr_flax; print(xlmr_flax.__file__)'
    found = subprocess.run([python, '-c', where], capture_output=True, cwd=tmp_path, check=True)
    assert str(venv) in found.stdout.decode()
