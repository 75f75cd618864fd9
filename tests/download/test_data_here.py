"""The table of published files against files of a data root, with the numbers of rows in its MANIFEST.tsv."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlmr_flax.download import facts
from xlmr_flax.download.records import file_sum

# The groups whose files with a checksum are whole in the data root. In others, files may be cut.
WHOLE = ('sib200', 'afrixnli', 'nusax', 'masakhanews', 'uner', 'proofwriter', 'logicbench', 'logiqa2_nli_new')
CUT = ('ntrex', 'masakhanews', 'logiqa2_nli_new')

Manifest = dict[str, dict[str, str]]


@pytest.fixture(scope='module')
def manifest(data_root: Path) -> Manifest:
    """path -> its line in the data's own list."""
    header, *lines = (data_root / 'MANIFEST.tsv').read_text(encoding='utf-8').splitlines()
    cells = (dict(zip(header.split('\t'), line.split('\t'), strict=True)) for line in lines)
    found = {line['path']: line for line in cells}
    if not any(path.startswith('low_resource/sib200/') for path in found):
        pytest.skip('the data root has no SIB-200')
    return found


def one_file(groups: tuple[str, ...]) -> dict[str, facts.Source]:
    """Target -> its source, of the sources that are fetched unchanged."""
    return {s.targets[0]: s for s in facts.sources() if s.group in groups and s.conversion in ('copy', 'json_lines')}


def test_checksums_are_those_of_the_whole_files_here(manifest: Manifest, data_root: Path) -> None:
    with_sum = {target: source for target, source in one_file(WHOLE).items() if source.sha256}
    assert len(with_sum) > 600
    for target, source in with_sum.items():
        line = manifest[target]
        assert (str(source.size), source.sha256) == (line['bytes'], line['sha256']), target
        assert file_sum(data_root / target) == source.sha256
        if target in facts.official_rows():
            assert int(line['rows']) == facts.official_rows()[target], target


def test_files_that_are_cut_here_have_no_checksum(manifest: Manifest) -> None:
    known = facts.official_rows()
    cut = [target for target in one_file(CUT) if target in known and int(manifest[target]['rows']) < known[target]]
    assert len(cut) == 18  # the English side of NTREX-128, the test files of MasakhaNEWS and LogiQA 2.0's new one
    assert not any(one_file(CUT)[target].sum for target in cut)


def test_rows_of_several_files(manifest: Manifest) -> None:
    """The numbers of CLUTRR, LogicBench and Universal NER are sums over the files that match a path."""
    groups = ('low_resource/uner/', 'logic/clutrr/', 'logic/logicbench/')
    wild = {path: rows for path, rows in facts.official_rows().items() if path.startswith(groups) and '*' in path}
    sums = {
        path: sum(int(line['rows']) for name, line in manifest.items() if facts.pattern(path).fullmatch(name))
        for path in wild
    }
    assert len(wild) == 14
    assert {path: rows for path, rows in sums.items() if rows != wild[path]} == {
        'low_resource/uner/UNER_*/en_*-ud-train.iob2': 0
    }


def test_the_sources_of_a_task_are_of_the_commit_in_the_list(manifest: Manifest) -> None:
    """Repository, commit and path of each file that is fetched unchanged."""
    checked = 0
    for target, source in one_file((*WHOLE, *CUT)).items():
        repository, _, inside = manifest.get(target, {'source': ''})['source'].partition(':')
        if '@' in repository:
            url = f'https://raw.githubusercontent.com/{repository.replace("@", "/")}/'
            assert source.urls[0].startswith(url), target
            assert source.urls[0].rsplit('/', 1)[1].removeprefix('%20') == inside.rsplit('/', 1)[1]
            checked += 1
    assert checked > 600
