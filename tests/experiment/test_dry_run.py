"""run --dry_run: what the mixtures draw, which rows stand in, and what is said of the times."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tasks.tiny_files import FILES

from xlmr_flax.config import Config
from xlmr_flax.experiment import dry_run
from xlmr_flax.experiment.plan.cost import Speed, Work
from xlmr_flax.experiment.runner import Runner
from xlmr_flax.experiment.training import Training

ARMS = {
    'both': {'tasks': {'world_nli': {}, 'world_pairs': {'max_train': 16}}, 'sampler': 'capped', 'cap': 24},
    'dealt': {'tasks': {'world_nli': {'shuffle_labels': True}}},
    'long': {'tasks': {'world_spans': {'max_train': 4, 'split': 'train'}, 'world_nli': {'fraction': 0.5}}},
    'plain': {'tasks': {'world_nli': {'max_train': 24}}},
}
ONE: dict[str, Any] = {'targets': ('world_retrieval',), 'evaluation__languages': {'world_retrieval': ('de',)}}


@pytest.fixture
def runner(config_of: Callable[..., Config], tmp_path: Path) -> Any:
    def make(**changes: Any) -> Runner:
        config = config_of(**{**ONE, 'recipe__steps': 10, **changes})
        return Runner.open(config, tmp_path / 'w', 'x')

    return make


def members(text: str) -> dict[tuple[str, str], list[str]]:
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith('arm '))
    found = [line.replace(' (shuffled labels)', '*').split() for line in lines[first + 1 :]]
    return {(cells[0], cells[1]): cells[2:] for cells in found[: next(i for i, c in enumerate(found) if c[0] == 'A')]}


def test_the_draws_of_a_plan_are_those_of_its_run(runner: Any) -> None:
    mine = runner(arms=ARMS, intermediate=('none', *ARMS))
    text = dry_run.describe(mine)
    found = members(text)
    assert [key for key in found if key[0] != 'long'] == [
        ('both', 'world_nli'), ('both', 'world_pairs'), ('dealt', 'world_nli*'),
    ]  # fmt: skip
    [run] = [run for run in mine.plan if run.intermediate == 'both' and not run.target]
    logged = [line.split() for line in Training(mine.setting, run).mixture_table()[2:]]
    for name, n, _, rate, draws, passes in logged:
        assert found['both', name][0] == n
        assert [float(cell) for cell in found['both', name][-3:]] == [float(rate), float(draws), float(passes)]
    assert found['long', 'world_spans'][:6] == ['4', 'of', '3,000,', 'cut', 'into', '7']
    assert found['long', 'world_nli'][:3] == ['32', 'of', '3,000']
    assert found['both', 'world_nli'][:6] == ['64', 'of', '3,000,', 'cap', '24', 'train']


def test_rows_that_stand_in_are_marked_and_explained(runner: Any, tmp_path: Path) -> None:
    path = tmp_path / 'logic/control/dev.jsonl'
    path.parent.mkdir(parents=True)
    path.write_text(FILES['logic/control/dev.jsonl'] * 3, encoding='utf-8')
    arms = {'logic': {'tasks': {'control': {'split': 'dev', 'max_train': 2}}}}
    text = dry_run.describe(runner(arms=arms, intermediate=('logic',), data_root=str(tmp_path)))
    assert members(text)['logic', 'control'] == ['2', 'of', '3', 'dev', '§', '1.0000', '10', '40.00']
    assert '§: not the training rows of the dataset' in text
    assert 'control train: missing: arm logic trains on dev rows (§ in tables)' in text.splitlines()


def test_a_plan_without_mixtures_has_no_table_of_them(runner: Any) -> None:
    text = dry_run.describe(runner(intermediate=('none',)))
    assert text.startswith('1 run in ')
    assert 'member' not in text and '§' not in text
    assert 'evaluation programs' in text and 'training program' not in text


def test_times_are_no_zeros_and_compilation_is_named(runner: Any) -> None:
    text = dry_run.describe(runner(intermediate=('none', 'world_nli'), recipe__packing=False, recipe__lengths=(32,)))
    assert ' 0s ' not in text and '<1s' in text
    lengths = 2  # 32 and 64 tokens, which is max_length
    said = ' '.join(text.split())
    assert f'at most {lengths} training programs (head kinds × row lengths, 1 training;' in said
    assert 'T, P, E = 10^12, 10^15, 10^18' in said and 'Times are for this machine' in said
    assert text.index('Compilation') < text.index('Estimates')


@pytest.mark.parametrize(('flops', 'said'), [(0, '0s'), (1, '<1s'), (49, '<1s'), (51, '1s'), (6000, '1m00s')])
def test_what_rounds_to_nothing(flops: float, said: str) -> None:
    assert dry_run._time(Work(1.0, flops), Speed(100.0, '')) == said
