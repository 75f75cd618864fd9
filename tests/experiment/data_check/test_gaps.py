"""What a config's runs do not train on: gaps by task and language, and who has them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tasks.tiny_files import FILES

from xlmr_flax.config import Arm, Config, Member
from xlmr_flax.experiment.data_check.gaps import find_gaps


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in (name for name in FILES if name.startswith(('logic/', 'intermediate/', 'xtremer/'))):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(FILES[name], encoding='utf-8')
    return tmp_path


def gaps(root: Path, arms: dict[str, Arm], targets: tuple[str, ...] = ('tatoeba',), **more: object) -> list[str]:
    config = Config(data_root=str(root), intermediate=('none', *arms), arms=arms, targets=targets, **more)  # type: ignore[arg-type]
    return [f'{gap.split.task.name} {gap}' for gap in find_gaps(config)]


def test_training_rows_by_their_own_name_are_no_gap(root: Path) -> None:
    assert gaps(root, {'x': Arm({'folio': Member(split='train')}), 'y': Arm({'folio': Member()})}) == []


def test_a_split_of_the_config_s_own_choice(root: Path) -> None:
    [said] = gaps(root, {'x': Arm({'folio': Member(split='dev')})})
    assert said == 'folio train: there, and not used: arm x trains on dev rows (§ in tables)'


def test_a_target_trained_on_other_rows_and_a_joint_arm(root: Path) -> None:
    joint = {'x': Arm({'med': Member(split='test', head='h')}, joint=True)}
    training = {'xcopa': Arm({'copa': Member(split='dev')})}
    found = gaps(root, joint, ('xcopa',), training=training)
    assert [text.split(': ', 1)[1] for text in found if text.startswith('med')] == [
        'the task has none: arm x trains on test rows (§ in tables)'
    ]
    assert [text for text in found if text.startswith('copa')] == [
        'copa train: there, and not used: target xcopa trains on dev rows (§ in tables)'
    ]


def test_a_warm_up_is_a_gap_only_while_it_is_not_there(root: Path) -> None:
    assert gaps(root, {}, ('xcopa',)) == []
    (root / 'intermediate/siqa/train-labels.lst').unlink()
    [said] = gaps(root, {}, ('xcopa',))
    assert said.startswith('siqa train: missing: target xcopa is trained without it')
    own = {'xcopa': Arm({'copa': Member()})}
    assert gaps(root, {}, ('xcopa',), training=own) == [], 'a training of the config has no warm-up'
