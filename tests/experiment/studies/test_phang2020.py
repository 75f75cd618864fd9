"""The paper's studies as configs: every table loads, and every target has a head that it can be scored with."""

from __future__ import annotations

from typing import Any

import pytest
from ml_collections import ConfigDict

from xlmr_flax.config import Arm, Config, parse
from xlmr_flax.experiment.plan.arms import arm_of, datasets, target_arm
from xlmr_flax.experiment.studies import phang2020 as paper
from xlmr_flax.tasks import get_task


@pytest.mark.parametrize('table', ['main', 'mlm', 'translation', 'best', 'fraction', 'joint'])
def test_the_papers_studies_are_configs(table: str) -> None:
    config = parse(ConfigDict(paper.study(table, 'large')).to_dict())
    assert config.encoder.source == 'hf:xlm-roberta-large'
    assert config.intermediate[0] == 'none' and len(config.intermediate) > 4
    for arm_name in config.intermediate:
        for target in config.targets:
            if get_task(target).kind not in ('retrieval', 'tag'):
                assert target in {d.head for d in _datasets(config, target_arm(config, get_task(target), arm_name))}
    found = [d for name in config.intermediate[1:] for d in _datasets(config, name)]
    assert {d.task.name for d in found} <= {*paper.TASKS, *paper.ANLI_PARTS, 'mlm_text'}
    if table == 'main':
        assert config.intermediate == (
            'none', 'anli_plus', 'mnli', 'qqp', 'squad_v1', 'squad_v2', 'hellaswag', 'ccg', 'cosmosqa', 'commonsenseqa',
            'multi',
        )  # fmt: skip
        assert len(config.targets) == 9
        assert {d.head for d in found if d.member == 'anli_plus'} == {'anli_plus'}, 'five datasets, one head'


def _datasets(config: Config, name: str | Arm) -> list[Any]:
    parts = name if isinstance(name, Arm) else arm_of(config, name)
    return [*datasets(config, parts, config.recipe, 'x')]
