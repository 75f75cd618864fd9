"""The table of published files, held against the registry of tasks."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

import pytest
from download.small_world import place

from xlmr_flax.config import parse
from xlmr_flax.data.split import Split
from xlmr_flax.download import convert, facts, plan
from xlmr_flax.download.plan import make_plan
from xlmr_flax.download.records import Records
from xlmr_flax.experiment.plan.reads import reads
from xlmr_flax.experiment.plan.runs import make_plan as make_run_plan
from xlmr_flax.experiment.studies.phang2020 import from_argument
from xlmr_flax.tasks import all_tasks

TASKS = [name for name in all_tasks() if not name.startswith('world_')]


def wants(name: str) -> list[Split]:
    task = all_tasks()[name]
    return [
        Split(task, language, split)
        for split in task.splits
        for language in (*task.split_languages(split), *(() if split in task.translated else task.more_languages))
    ]


@pytest.mark.parametrize('name', TASKS)
def test_every_file_of_a_task_is_published_or_said_not_to_be(name: str, tmp_path: Path) -> None:
    found = make_plan(wants(name), tmp_path, Records(tmp_path))
    assert found.unknown == []
    assert found.state or found.manual
    for source in found.manual:
        assert facts.groups()[source.group].note, source.group


def test_what_must_be_got_by_hand(tmp_path: Path) -> None:
    found = make_plan([want for name in TASKS for want in wants(name)], tmp_path, Records(tmp_path))
    assert {source.group for source in found.manual} == {
        'ccg', 'mewslix', 'mlm_text', 'xtreme_translations', 'flores200', 'belebele', 'afrixnli', 'indicxnli', 'uner',
        'logiqa2_nli_new',
    }  # fmt: skip


def test_the_form_of_the_table() -> None:
    sources = facts.sources()
    assert len(sources) == 1587
    fetched = [source for source in sources if source.conversion != facts.MANUAL]
    assert {source.group for source in sources} == set(facts.groups())
    assert len({source.key for source in fetched}) == len(fetched)
    assert len({place(url) for source in fetched for url in source.urls}) == sum(len(s.urls) for s in fetched)
    for source in fetched:
        assert re.fullmatch('([0-9a-f]{64})?', source.sha256)
        assert re.fullmatch('([0-9a-f]{40})?', source.git_blob)
        assert (source.use == facts.HUB) == source.conversion.startswith('hub_')
        assert source.conversion in {*convert.CONVERSIONS, 'copy', 'fracas_plain'}
        for url in source.urls:
            assert url.startswith('https://')
            if 'raw.githubusercontent.com' in url:  # a commit, or a tag of Universal Dependencies
                assert re.search(r'/[0-9a-f]{40}/|/UniversalDependencies/UD_[^/]+/r2\.7/', url), url
        for target in source.targets:
            assert not target.startswith('/')
            assert '..' not in target.split('/')
    assert sum(bool(source.sum) for source in fetched) > 1160


def test_official_rows_are_of_files_that_tasks_read() -> None:
    paths = {path for name in TASKS for want in wants(name) for each in plan.paths_of(want) for a in each for path in a}
    paths |= {target for source in facts.sources() for target in source.targets}  # languages on request
    assert not [path for path in facts.official_rows() if path not in paths]
    assert len(facts.official_rows()) > 1600


@pytest.mark.parametrize(
    ('text', 'found'),
    [
        ('a/{b,c}.txt=d/{b,c}', (('a/b.txt', 'd/b'), ('a/c.txt', 'd/c'))),
        ('a=d/{x,y}', (('a', 'd/x'), ('a', 'd/y'))),
        ('{x,y}', (('', 'x'), ('', 'y'))),
        ('{a,b}.gz={s,t}-{a,b}', (('a.gz', 's-a'), ('b.gz', 's-b'), ('a.gz', 't-a'), ('b.gz', 't-b'))),
    ],
)
def test_members_of_a_cell(text: str, found: tuple[tuple[str, str], ...]) -> None:
    assert facts.members(text) == found
    with pytest.raises(ValueError, match='2 members and 3 targets'):
        facts.members('{a,b}={x,y,z}')


@pytest.mark.parametrize('path', ['a/b.txt', 'UD_X-Y/x_y-ud-dev.conllu', 'AUTO/07/wsj_1.auto', 'q/a'])
@pytest.mark.parametrize('glob', ['a/*.txt', 'UD_*/x_*-ud-dev.conllu', 'AUTO/0[0-9]/wsj_*.auto', '?/a'])
def test_a_pattern_matches_as_a_shell_does(path: str, glob: str) -> None:
    """Of paths without folders in a wildcard's place, fnmatch is right, too."""
    assert bool(facts.pattern(glob).fullmatch(path)) == fnmatch.fnmatchcase(path, glob)
    assert facts.pattern('**/a.txt').fullmatch('x/y/a.txt')
    assert facts.pattern('**/a.txt').fullmatch('a.txt')
    assert not facts.pattern('a*.txt').fullmatch('a/b.txt')


def test_the_files_of_the_papers_main_table(tmp_path: Path) -> None:
    """A data root that is not there: what a config would read does not depend on what is there."""
    config = parse({**from_argument('table=main,size=large'), 'data_root': str(tmp_path / 'none')})
    found = make_plan([read.split for read in reads(make_run_plan(config))], tmp_path, Records(tmp_path))
    groups = {source.group for source in found.state}
    nine = {'anli', 'mnli', 'snli', 'qqp', 'squad_v1', 'squad_v2', 'hellaswag', 'cosmosqa', 'commonsenseqa'}
    targets = {'xnli', 'pawsx', 'udpos', 'panx', 'xquad', 'mlqa', 'tydiqa', 'bucc2018', 'tatoeba'}
    assert groups == nine | targets
    assert {source.group for source in found.manual} == {'ccg'}
    assert all(source.sha256 and source.size for source in found.state)
    assert 1.4e9 < sum(source.size or 0 for source in found.to_fetch()) < 1.5e9
    assert found.disk() > 4e9
