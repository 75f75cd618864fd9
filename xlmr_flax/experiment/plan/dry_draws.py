"""run --dry_run: the table of what each mixture samples from its members, and notes on substituted training rows."""

from __future__ import annotations

from collections.abc import Iterable

from xlmr_flax.config import Arm, Config, Member
from xlmr_flax.experiment.data_check.gaps import MARK, find_gaps
from xlmr_flax.experiment.plan.cost import Estimator, TrainingCost
from xlmr_flax.experiment.plan.draws import Draws
from xlmr_flax.experiment.plan.reads import own_training_rows
from xlmr_flax.experiment.plan.runs import Run
from xlmr_flax.kinds import kind_of

HEAD = ['arm', 'member', 'rows', 'split', 'rate', 'batches', 'passes']


def draws_table(estimator: Estimator, trainings: Iterable[tuple[Run, TrainingCost]]) -> list[list[str]]:
    """Returns a table with one row per dataset of every mixture, for the first seed; [] if there is no mixture.

    A training on just the training rows of one task is not a mixture. Column `rows`: used rows, of those in the files
    (a task may drop some).
    """
    rows: dict[tuple[str, str], list[list[str]]] = {}
    for run, training in trainings:
        name = _name(estimator.config, run)
        key = (run.target or run.intermediate, name)
        if run.arm is None or run.recipe is None or key in rows or _is_plain(run.arm):
            continue
        rows[key] = [[name, *_cells(estimator, part)] for part in training.draws]
    lines = [row for those in rows.values() for row in those]
    return [HEAD, *lines] if lines else []


def draws_notes(config: Config, table: list[list[str]]) -> list[str]:
    """Returns the notes below the table of `draws_table`."""
    notes = []
    if table:
        notes.append(
            'A batch, or micro-batch, has rows of one member. passes: how often each row is seen. '
            'All numbers are for the first seed.'
        )
    if any(MARK in row[HEAD.index('split')] for row in table):
        notes.append(
            f'{MARK}: not the training rows of the dataset, but others in their place; tables mark the results.'
        )
    return notes + [f'{gap.split.task.name} {gap}' for gap in find_gaps(config)]


def _name(config: Config, run: Run) -> str:
    if not run.target and not run.warms:
        return run.intermediate
    joint = run.intermediate in config.arms and config.arms[run.intermediate].joint
    return f'{run.intermediate}, {run.target}' if joint else run.target or run.warms


def _is_plain(arm: Arm) -> bool:
    """Returns whether an arm is only the English training rows of one task, perhaps limited to the first rows."""
    [*members] = arm.tasks.items()
    if len(members) > 1:
        return False
    name, member = members[0]
    plain = Member()
    names = ('fraction', 'languages', 'shuffle_labels', 'split')
    return member.task in ('', name) and '+' not in name and all(getattr(member, n) == getattr(plain, n) for n in names)


def _cells(estimator: Estimator, part: Draws) -> list[str]:
    dataset, spec = part.dataset, part.dataset.spec
    mark = f' {MARK}' if dataset.rows.stand_in() or own_training_rows(dataset) != dataset.rows else ''
    shuffled = ' (shuffled labels)' if spec.shuffle_labels else ''
    there = estimator.count(dataset.rows)
    used = max(1, round(spec.fraction * min(there, dataset.limit or there)))
    cut = kind_of(dataset.task).cuts  # one row may become several
    rows = f'{used if cut else part.rows:,}'
    rows += f' of {there:,}' if used < there else ''
    rows += f', cut into {part.rows:,}' if cut else ''
    rows += f', cap {part.cap:,}' if part.cap else ''
    split = f'{dataset.split}{mark}'
    return [f'{dataset.name}{shuffled}', rows, split, f'{part.rate:.4f}', f'{part.draws:,}', f'{part.passes:.2f}']
