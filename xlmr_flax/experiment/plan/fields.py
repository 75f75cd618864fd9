"""Names of the config fields that define a plan's training data, for error messages."""

from __future__ import annotations

from xlmr_flax.config import Config, ConfigError, Member
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import Task, TaskError


def phase_field(config: Config, arm: str, target: str = '', member: str = '') -> str:
    """Returns the field that defines the mixture of a phase: 'arms.X', 'training.X', 'intermediate' or 'targets'.

    target: '' = the intermediate phase of an arm. member: the member in question, as a joint arm adds its own to those
    of the target; '' = the mixture as a whole.
    """
    mixture = config.arms.get(arm)
    if mixture and (not target or (mixture.joint and (not member or member in mixture.tasks))):
        return f'arms.{arm}'
    if target:
        return f'training.{target}' if target in config.training else 'targets'
    return 'intermediate'


def member_field(where: str, member: str) -> str:
    """Returns the field of a member of a mixture: 'arms.X.tasks.MEMBER'. where: from `phase_field`. A mixture that is
    one task, named in `intermediate` or `targets`, has no such field: returns `where`.
    """
    return f'{where}.tasks.{member}' if '.' in where else where


def length_field(config: Config, where: str, member: str, spec: Member, phases: tuple[str, ...]) -> str:
    """Returns the field that sets the maximum length of a member's rows. phases: the names of the phase in `recipes`,
    the first that is there counts.
    """
    if spec.max_length:
        return f'{member_field(where, member)}.max_length'
    own = [f'recipes.{name}' for name in phases if name in config.recipes]
    return f'{own[0] if own else "recipe"}.max_length'


def task_named(name: str, where: str) -> Task:
    """Returns the task of a name. Raises ConfigError, which names the field `where`, if there is none."""
    try:
        return get_task(name)
    except TaskError as e:
        raise ConfigError(f'{where}: {e}') from None
