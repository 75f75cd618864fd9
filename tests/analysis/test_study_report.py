"""The committed study: its tables follow from its rows, and what the docs say of it stands in the tables."""

from __future__ import annotations

import csv
import re
import shutil
import tarfile
from pathlib import Path

import pytest

from xlmr_flax.analysis.study_report import write_results_report

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / 'results' / 'logic_low_resource'
GIVEN = ('results.jsonl', 'config.json', 'tokens_per_word.json', 'significance.json')
NUMBER = r'[−+]?\d+\.\d'


@pytest.fixture(scope='module')
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('results')
    for name in GIVEN:
        shutil.copy(FOLDER / name, folder / name)
    write_results_report(folder)
    return folder


def test_the_tables_are_made_again_from_the_rows(made: Path) -> None:
    for name in ('effects.md', 'tables.md', 'effects-means.csv', 'results.csv'):
        assert (made / name).read_bytes() == (FOLDER / name).read_bytes(), name


def test_the_table_of_the_docs_is_that_of_the_results(made: Path) -> None:
    with open(made / 'effects-means.csv', encoding='utf-8') as file:
        means = {
            (r['intermediate'], r['target']): tuple(
                round(float(r[key]), 1) + 0.0 for key in ('estimate', 'low', 'high')
            )
            for r in csv.DictReader(file)
            if (r['group'], r['against']) == ('low-resource', 'none')
        }
    text = (ROOT / 'docs' / 'logic_study.md').read_text(encoding='utf-8').split('## The exploratory study')[1]
    said = {}
    for line in text.split('\n## ')[0].splitlines():
        if line.startswith('| `'):
            arm, *cells = (cell.strip() for cell in line.strip('|').split('|'))
            for target, cell in zip(('xnli_plus', 'panx', 'tatoeba'), cells, strict=True):
                found = [float(n.replace('−', '-')) for n in re.findall(NUMBER, cell)]
                said[arm.strip('`'), target] = tuple(found)
    assert len(said) == 15
    assert said == means


def test_no_path_of_a_machine_is_in_them() -> None:
    texts: dict[str, bytes] = {}
    for path in filter(Path.is_file, FOLDER.parent.rglob('*')):
        if path.name.endswith('.tar.gz'):
            with tarfile.open(path) as archive:
                for entry in filter(tarfile.TarInfo.isfile, archive):
                    texts[f'{path.name}: {entry.name}'] = archive.extractfile(entry).read()  # type: ignore[union-attr]
        else:
            texts[path.name] = path.read_bytes()
    assert any(name.startswith('state.tar.gz') for name in texts)
    assert not [name for name, text in texts.items() if re.search(rb'/(work|tmp|home|root|Users)/', text)]
