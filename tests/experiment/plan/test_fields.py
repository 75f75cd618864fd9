"""The config fields that messages about training data name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from xlmr_flax.config import Config, ConfigError, Member
from xlmr_flax.experiment.plan.fields import length_field, member_field, phase_field
from xlmr_flax.experiment.plan.runs import make_plan

Configs = Callable[..., Config]
ARMS = {
    'mixed': {'tasks': {'world_pos': {}}},
    'together': {'tasks': {'pos': {'task': 'world_pos'}}, 'joint': True},
}
TRAINING = {'world_pairs': {'tasks': {'world_pairs': {}}}}


@pytest.mark.parametrize(
    ('arm', 'target', 'member', 'field'),
    [
        ('mixed', '', 'world_pos', 'arms.mixed'),
        ('world_nli', '', 'world_nli', 'intermediate'),
        ('mixed', 'world_pairs', 'world_pairs', 'training.world_pairs'),
        ('mixed', 'world_nli', 'world_nli', 'targets'),
        ('together', 'world_pairs', '', 'arms.together'),
        ('together', 'world_pairs', 'pos', 'arms.together'),
        ('together', 'world_pairs', 'world_pairs', 'training.world_pairs'),
        ('together', 'world_nli', 'world_nli', 'targets'),
    ],
)
def test_fields_of_phases(arm: str, target: str, member: str, field: str, config_of: Configs) -> None:
    assert phase_field(config_of(arms=ARMS, training=TRAINING), arm, target, member) == field


def test_fields_of_members_and_lengths(config_of: Configs) -> None:
    config = config_of(recipes={'siqa': {'steps': 3}})
    assert member_field('arms.a', 'x') == 'arms.a.tasks.x'
    assert member_field('targets', 'x') == 'targets'
    assert length_field(config, 'arms.a', 'x', Member(max_length=9), ('siqa',)) == 'arms.a.tasks.x.max_length'
    assert length_field(config, 'targets', 'siqa', Member(), ('siqa', 'xcopa')) == 'recipes.siqa.max_length'
    assert length_field(config, 'targets', 'x', Member(), ('x',)) == 'recipe.max_length'


@pytest.mark.parametrize(
    ('arms', 'training', 'field'),
    [
        ({'a': {'tasks': {'pos': {'task': 'world_po'}}, 'joint': True}}, {}, 'arms.a.tasks.pos: '),
        ({'a': {'tasks': {'pos': {'task': 'world_pos'}}, 'joint': True}}, 'xx', 'training.world_pairs.tasks.p: '),
        (
            {'a': {'tasks': {'pos': {'task': 'world_pos'}}, 'joint': True}},
            {'world_pairs': {'tasks': {'p': {'task': 'world_pairs', 'weight': 2.0}}, 'sampler': 'proportional'}},
            'training.world_pairs.tasks.p.weight is used only by ',
        ),
    ],
)
def test_members_of_a_joint_arm_and_of_its_target(
    arms: dict[str, object], training: object, field: str, config_of: Configs
) -> None:
    if isinstance(training, str):
        training = {'world_pairs': {'tasks': {'p': {'task': 'world_pairs', 'languages': (training,)}}}}
    config = config_of(arms=arms, training=training, intermediate=('a',), targets=('world_pairs',))
    with pytest.raises(ConfigError) as caught:
        make_plan(config)
    assert str(caught.value).startswith(field)
