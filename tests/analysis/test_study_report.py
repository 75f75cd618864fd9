"""The committed studies: their tables follow from their rows, and what the docs say of them stands in the tables."""

from __future__ import annotations

import csv
import re
import shutil
import tarfile
from pathlib import Path

import pytest

from xlmr_flax.analysis.study_report import write_results_report

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / 'results'
# Results folder -> heading of its section in docs/logic_study.md.
STUDIES = {'logic_exploratory': 'The exploratory study', 'logic_low_resource': 'The third study'}
GIVEN = ('results.jsonl', 'config.json', 'tokens_per_word.json', 'significance.json', 'example_noise.json')
NUMBER = r'[−+]?\d+\.\d'


@pytest.fixture(scope='module', params=STUDIES)
def study(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope='module')
def made(study: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('results')
    for path in (RESULTS / study / name for name in GIVEN):
        if path.is_file():
            shutil.copy(path, folder / path.name)
    write_results_report(folder)
    return folder


def test_the_tables_are_made_again_from_the_rows(made: Path, study: str) -> None:
    for name in ('effects.md', 'tables.md', 'effects-means.csv', 'results.csv'):
        assert (made / name).read_bytes() == (RESULTS / study / name).read_bytes(), name


def test_the_table_of_the_docs_is_that_of_the_results(made: Path, study: str) -> None:
    with open(made / 'effects-means.csv', encoding='utf-8') as file:
        means = {
            (r['intermediate'], r['against'], r['target']): tuple(
                round(float(r[key]), 1) + 0.0 for key in ('estimate', 'low', 'high')
            )
            for r in csv.DictReader(file)
            if r['group'] == 'low-resource'
        }
    text = (ROOT / 'docs' / 'logic_study.md').read_text(encoding='utf-8').split(f'\n## {STUDIES[study]}\n')[1]
    said: dict[tuple[str, str, str], tuple[float, ...]] = {}
    targets: list[str] = []
    for line in text.split('\n## ')[0].splitlines():
        if not line.startswith('| '):
            continue
        first, *cells = (cell.strip() for cell in line.strip('|').split('|'))
        if first == 'arm':
            targets = [re.findall(r'`(\w+)`', cell)[0] for cell in cells]
        elif first.startswith('`') and ' to ' in line:
            arm, against = [*re.findall(r'`(\w+)`', first), 'none'][:2]
            for target, cell in zip(targets, cells, strict=True):
                found = [float(n.replace('−', '-')) for n in re.findall(NUMBER, cell)]
                said[arm, against, target] = tuple(found)
    assert {key for key in means if key[1] == 'none'} <= set(said)
    assert said == {key: means[key] for key in said}


def test_the_page_has_the_numbers_that_its_code_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of the third study that stand in no table of the results folder."""
    text = (ROOT / 'docs' / 'logic_study.md').read_text(encoding='utf-8').split('\n## The third study\n')[1]
    before, code = text.split('```python\n')[0], text.split('```python\n')[1].split('```')[0]
    monkeypatch.chdir(ROOT)
    exec(compile(code, 'logic_study.md', 'exec'), {})
    printed = [line.replace('-', '−').split(': ') for line in capsys.readouterr().out.splitlines()]
    said = set(re.findall(NUMBER, before))
    lines = {name: re.findall(NUMBER, result) for name, result in printed}
    for target in ('xnli_plus', 'sib200'):
        assert set(lines[f'{target}, low−resource'][-1:] + lines[f'{target}, seeds 11 to 15'][:1]) <= said
        direct = lines[f'{target}, English']
        assert {direct[0].lstrip('−'), direct[1], lines[f'{target}, German, Turkish, Hindi'][0]} <= said
        without = sorted(lines[f'{target}, without seed {seed}'][0] for seed in range(11, 19))  # all are below 0
        assert {without[0], without[-1]} <= said
    for name in ('without Lingala', 'without the four'):
        assert set(lines[f'xnli_plus, {name}'][:3]) <= said
    assert {lines[f'xnli_plus, {code}'][-1] for code in ('ln', 'hch', 'nah', 'bzd')} <= said


def test_no_path_of_a_machine_is_in_them() -> None:
    texts: dict[str, bytes] = {}
    for path in filter(Path.is_file, RESULTS.rglob('*')):
        if path.name.endswith('.tar.gz'):
            with tarfile.open(path) as archive:
                for entry in filter(tarfile.TarInfo.isfile, archive):
                    texts[f'{path.name}: {entry.name}'] = archive.extractfile(entry).read()  # type: ignore[union-attr]
        else:
            texts[path.name] = path.read_bytes()
    assert any(name.startswith('state.tar.gz') for name in texts)
    assert not [name for name, text in texts.items() if re.search(rb'/(work|tmp|home|root|Users)/', text)]
