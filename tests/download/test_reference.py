"""The package's table against a list of the published files with their checksums, where one is at hand.

XLMR_DOWNLOADS_TSV names the list, or it is the file reference/downloads.tsv beside the folder XLMR_DATA_ROOT.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from xlmr_flax.cli.download import MISSING
from xlmr_flax.cli.main import main
from xlmr_flax.config import parse
from xlmr_flax.download import facts
from xlmr_flax.download.plan import make_plan
from xlmr_flax.download.records import Records
from xlmr_flax.experiment.plan.reads import reads
from xlmr_flax.experiment.plan.runs import make_plan as make_run_plan
from xlmr_flax.experiment.studies.phang2020 import from_argument


def known(source: facts.Source) -> tuple[str, str, str]:
    """(bytes, sha256, the SHA-1 of git's blob where no sha256 is known), as the list has them."""
    return '' if source.size is None else str(source.size), source.sha256, source.git_blob


def listed(line: dict[str, str]) -> tuple[str, str, str]:
    return line['bytes'], line['sha256'], '' if line['sha256'] else line['git_blob_sha1']


def test_sizes_and_sums_are_those_of_the_list(reference: dict[str, dict[str, str]]) -> None:
    sources = {url: source for source in facts.sources() for url in source.urls}
    both = reference.keys() & sources.keys()
    assert len(both) > 600
    assert {url: known(sources[url]) for url in both} == {url: listed(reference[url]) for url in both}
    with_sum = {url for url, line in reference.items() if line['sha256'] or line['git_blob_sha1']}
    assert with_sum <= sources.keys()


def test_every_file_of_the_papers_main_table_is_in_the_list(
    reference: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    config = parse({**from_argument('table=main,size=large'), 'data_root': str(tmp_path / 'none')})
    found = make_plan([read.split for read in reads(make_run_plan(config))], tmp_path, Records(tmp_path))
    assert len(found.state) > 20
    for source in found.state:
        assert listed(reference[source.urls[0]]) == known(source)
        assert source.sha256


def test_the_dry_run_of_the_papers_main_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each file with its MB, sum and URL below its dataset's licence; CCGbank must be got by hand (exit code 3)."""
    listing = dry_run(tmp_path, capsys)
    assert len(listing) > 20
    sources = {source.urls[0]: source for source in facts.sources() if source.urls}
    for url, (group, licence, size, kind, digest) in listing.items():
        source = sources[url]
        assert (group, licence) == (source.group, facts.groups()[group].licence)
        assert (size, kind, digest) == (f'{(source.size or 0) / 1e6:.1f}', 'sha256', source.sha256)
    assert not (tmp_path / 'DATA').exists()


def test_the_dry_run_has_the_sums_of_the_list(
    reference: dict[str, dict[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = dry_run(tmp_path, capsys)
    assert {url: line[-1] for url, line in listing.items()} == {url: reference[url]['sha256'] for url in listing}


def dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[str, str, str, str, str]]:
    """{URL: dataset, licence, MB, kind of the sum, sum} of what the command lists for the paper's main table."""
    config = Path(__file__).parents[2] / 'configs' / 'paper.py'
    command = ['download', '--dry_run', f'--config={config}:table=main,size=large', f'--data_root={tmp_path / "DATA"}']
    assert main(command) == MISSING
    found, group, licence = {}, '', ''
    for line in capsys.readouterr().out.splitlines():
        if match := re.match(r'(\w+): 0 of \d+ files are there, .*? to fetch\. Licence: (.*?)( \([a-z -]+\))?$', line):
            group, licence = match[1], match[2]
        elif match := re.match(r'  to fetch  ([\d.]+) MB  (sha256|git) (\w+)  (https://\S+)$', line):
            found[match[4]] = (group, licence, match[1], match[2], match[3])
    return found
