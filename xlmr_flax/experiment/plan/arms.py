"""Training data of arms and targets: their members as datasets (task x language x split), each with its head.

The arm 'none' trains nothing. A name in `config.arms` is that mixture; any other name is a single task.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from xlmr_flax.config import NONE, Arm, Config, ConfigError, Member, Recipe
from xlmr_flax.data.batches import row_lengths
from xlmr_flax.data.corpus import read_texts
from xlmr_flax.data.expression import Expression, ExpressionError
from xlmr_flax.data.mixture import (
    CAPPED,
    DEFAULT_BLOCK,
    SAMPLERS,
    TIME_DEPENDENT,
    Mixture,
    MixtureError,
    fixed_quotas,
    language_shares,
    mixture_rates,
    timed_quotas,
)
from xlmr_flax.data.sources import BadRow, read_split, with_labels
from xlmr_flax.data.split import Split
from xlmr_flax.experiment.plan.fields import member_field, task_named
from xlmr_flax.kinds import HeadSpec, head_spec, kind_of
from xlmr_flax.kinds.mlm import Mlm
from xlmr_flax.tasks import all_tasks, get_task
from xlmr_flax.tasks.base import ChoiceExample, Example, PairExample, TagExample, Task, TaskError
from xlmr_flax.train.phase import total_steps
from xlmr_flax.util.errors import closest

MLM = Mlm.name


@dataclass(frozen=True)
class Dataset:
    """Training rows of one task in one language. name: its name in logs. member: the arm's entry to which it belongs.
    spec: that entry. head: the name of its head. recipe: the recipe of the phase.
    """

    name: str
    member: str
    rows: Split
    head: str
    spec: Member
    recipe: Recipe

    @property
    def task(self) -> Task:
        """The task. Labels that come from files are missing before `labelled`."""
        return self.rows.task

    @property
    def language(self) -> str:
        """The language of the rows."""
        return self.rows.language

    @property
    def split(self) -> str:
        """The name of the split of the rows."""
        return self.rows.name

    @property
    def max_length(self) -> int:
        """The largest number of tokens of a row."""
        return self.spec.max_length or self.recipe.max_length

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths to which rows are padded; the last is `max_length`."""
        asked = self.spec.lengths or self.recipe.lengths
        return row_lengths(self.max_length, [n for n in asked if n <= self.max_length])

    @property
    def limit(self) -> int:
        """Number of rows that are read, from the first; 0 = all."""
        return self.spec.max_train or self.recipe.max_train

    @property
    def dev(self) -> Split | None:
        """The task's English dev split; None if it has none. Text has no dev split: a part of its rows is held out."""
        has_dev = 'dev' in self.task.splits and 'en' in self.task.languages
        return replace(self.rows, name='dev', language='en') if has_dev else None

    def selects(self) -> bool:
        """Returns whether English dev rows exist that can select checkpoints, and the dataset does not train on dev."""
        return self.dev is not None and self.split != 'dev' and self.dev.is_there()

    def labelled(self) -> Dataset:
        """Returns the dataset with the labels of its task; some tasks read them from their files. Raises DataError."""
        return replace(self, rows=self.rows.labelled())


def task_of(config: Config, name: str) -> Task:
    """Returns the named task with its labels (some tasks read them from their files). Raises TaskError, DataError."""
    return with_labels(get_task(name), config.data_root)


def arm_of(config: Config, name: str) -> Arm:
    """Returns the mixture of an intermediate name. Raises ConfigError if the name is neither an arm nor a task."""
    if name in config.arms:
        return config.arms[name]
    try:
        get_task(name)
    except TaskError:
        raise ConfigError(f'intermediate: {name!r} is no arm or task{closest(name, known_names(config))}') from None
    return Arm(tasks={name: Member()})


def known_names(config: Config) -> list[str]:
    """Returns the names that `intermediate` may hold."""
    return [NONE, *config.arms, *all_tasks()]


def member_tasks(name: str, member: Member) -> tuple[str, ...]:
    """Returns the task names of a member; '+' joins several (ANLI+: five datasets with one rate and one head)."""
    return tuple((member.task or name).split('+'))


def arm_tasks(config: Config, name: str) -> tuple[str, ...]:
    """Returns every task on which an intermediate name trains; () for 'none'."""
    if name == NONE:
        return ()
    names = (task for key, member in arm_of(config, name).tasks.items() for task in member_tasks(key, member))
    return tuple(dict.fromkeys(names))


def training_task(target: Task) -> Task:
    """Returns the task whose English train split fine-tunes a target. Raises ConfigError for evaluation-only tasks."""
    if target.train_task is None:
        if 'train' not in target.splits:
            raise ConfigError(f'targets: {target.name!r} has no training data and is not a retrieval task')
        return target
    return get_task(target.train_task)


def target_arm(config: Config, target: Task, arm: str) -> Arm:
    """Returns the fine-tuning mixture of a target: its entry in `config.training`, else its English train split. The
    members of a `joint` arm are added to it.
    """
    own = config.training.get(target.name) or Arm(tasks={training_task(target).name: Member()})
    members = {
        name: replace(member, head=member.head or _own_head(target, name, member)) for name, member in own.tasks.items()
    }
    own = replace(own, tasks=members)
    if arm in config.arms and config.arms[arm].joint:
        joint = config.arms[arm]
        if twice := sorted(set(joint.tasks) & set(members)):
            raise ConfigError(f'arms.{arm}.tasks.{twice[0]}: target {target.name!r} is trained on it too: rename one')
        own = replace(joint, tasks={**members, **joint.tasks}, joint=False)
    return own


def _own_head(target: Task, name: str, member: Member) -> str:
    task = task_named(member_tasks(name, member)[0], member_field(f'training.{target.name}', name))
    return MLM if task.is_text else target.name


def datasets(config: Config, arm: Arm, recipe: Recipe, where: str) -> tuple[Dataset, ...]:
    """Returns the datasets of a mixture, in the order of its members; opens no file. recipe: the recipe of its phase.

    where: the field of the mixture (`phase_field`). Raises ConfigError, which names the field, for an unknown task, for
    one that cannot be trained on, for a language without training rows, and for members that share a head but not its
    shape.
    """
    result: list[Dataset] = []
    for name, member in arm.tasks.items():
        tasks = [task_named(task, member_field(where, name)) for task in member_tasks(name, member)]
        for task in tasks:
            for language in member.languages:
                try:
                    if member.split:  # these raise TaskError, which names the known splits or languages
                        task.sources(member.split)
                        task.local_code(language, member.split)
                    split = member.split or task.training_split(language)
                except TaskError as e:
                    raise ConfigError(f'{member_field(where, name)}: {e}') from None
                parts = [name]
                parts += [task.name] if len(tasks) > 1 else []
                parts += [language] if len(member.languages) > 1 else []
                head = member.head or (MLM if task.is_text else (name if len(tasks) > 1 else task.name))
                rows = Split(task, language, split, config.data_root)
                result.append(Dataset('/'.join(parts), name, rows, head, member, recipe))
    _check_heads(result, where)
    names = [d.name for d in result]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f'{where}: {twice[0]!r} occurs twice')
    return tuple(result)


def _check_heads(datasets: Sequence[Dataset], where: str) -> None:
    first: dict[str, Dataset] = {}
    for dataset in datasets:
        other = first.setdefault(dataset.head, dataset)
        # A multiple-choice head scores one choice at a time, so its shape does not depend on their number.
        labels = {known_labels(d.task) for d in (dataset, other) if kind_of(d.task).classes}
        if dataset.task.kind != other.task.kind or len(labels) > 1:
            raise ConfigError(
                f'{where}: {dataset.name!r} and {other.name!r} share the head {dataset.head!r}, but not its kind and '
                f'labels ({dataset.task.kind}: {", ".join(dataset.task.labels) or "-"}; '
                f'{other.task.kind}: {", ".join(other.task.labels) or "-"})'
            )
        if dataset.spec.shuffle_labels and not kind_of(dataset.task).shuffles:
            raise ConfigError(f'{where}: {dataset.name!r}: labels of kind {dataset.task.kind!r} cannot be shuffled')


def known_labels(task: Task) -> tuple[str, ...]:
    """Identifies a task's label set before any file is read: its labels, or a marker that names their source."""
    return task.labels or (f'from the files of {task.name}',) * bool(task.labels_from)


def heads_of(datasets: Sequence[Dataset]) -> dict[str, HeadSpec]:
    """Returns {head name: head shape} of the datasets."""
    return {dataset.head: head_spec(dataset.task) for dataset in datasets}


def data_digests(datasets: Sequence[Dataset]) -> dict[str, str]:
    """Returns {dataset or dev set: digest of its rows}, which is a part of a run's id."""
    digests = {dataset.name: dataset.rows.digest() for dataset in datasets}
    for dataset in datasets:
        if dataset.dev and dataset.dev.is_there():
            digests[f'{dataset.task.name} dev'] = dataset.dev.digest()
    return digests


def dev_metrics(task: Task, rule: str = 'first') -> tuple[str, ...]:
    """Returns the metrics whose mean is a task's dev score. rule: Recipe.dev_score.

    The means follow jiant (tasks/evaluate/core.py), which scores SQuAD v2 at its best thresholds.
    """
    pair = kind_of(task).metric_pair
    if rule == 'mean' and pair:
        return tuple(f'best_{name}' for name in pair) if task.scorer == 'squad_v2' else pair
    if rule == 'mean' and task.scorer == 'f1':
        return ('accuracy', 'f1')
    return task.metrics[:1]


def training_examples(dataset: Dataset, seed: int, bad_rows: list[BadRow] | None = None) -> list[Example]:
    """Reads the training rows of a dataset: the first `limit` rows, then a random `fraction` of them, then with
    shuffled labels if its member says so. bad_rows: a list that collects rows that cannot be read."""
    read = read_texts if dataset.task.is_text else read_split
    rows, member = dataset.rows, dataset.spec
    examples = read(rows.task, rows.language, rows.name, rows.root, dataset.limit or None, bad_rows)
    if member.fraction < 1:
        random = np.random.Generator(np.random.Philox(key=[seed, 0x66726163]))
        kept = random.permutation(len(examples))[: max(1, round(member.fraction * len(examples)))]
        examples = [examples[i] for i in sorted(kept.tolist())]
    return shuffled_labels(examples, seed) if member.shuffle_labels else examples


def shuffled_labels(examples: Sequence[Example], seed: int) -> list[Example]:
    """Shuffles the labels among the examples: a control that keeps the texts and the label counts.

    Tags are shuffled over the words of all examples.
    """
    random = np.random.Generator(np.random.Philox(key=[seed, 0x73687566]))
    if examples and isinstance(examples[0], TagExample):
        rows = [e for e in examples if isinstance(e, TagExample)]
        flat = np.asarray([tag for e in rows for tag in e.tags or ()])
        flat, start, tagged = flat[random.permutation(len(flat))], 0, []
        for e in rows:
            size = len(e.tags or ())
            tagged.append(replace(e, tags=tuple(flat[start : start + size].tolist()) if e.tags else e.tags))
            start += size
        return list(tagged)
    labelled = [e for e in examples if isinstance(e, PairExample | ChoiceExample)]
    order = random.permutation(len(labelled))
    permuted = [labelled[i].label for i in order.tolist()]
    shuffled: list[Example] = []
    shuffled += [replace(e, label=label) for e, label in zip(labelled, permuted, strict=True)]
    return shuffled


def mixture_of(
    arm: Arm, datasets: Sequence[Dataset], sizes: Sequence[int], seed: int, where: str, steps: int = 0, parts: int = 1
) -> Mixture:
    """Makes the mixture over datasets. A member's rate is divided among its datasets in proportion to size ** alpha.

    sizes: examples per dataset. steps: optimizer steps of the training. parts: micro-batches per step. Raises
    ConfigError for invalid rates.
    """
    share = np.ones(len(datasets))
    for member, spec in arm.tasks.items():
        own = [i for i, d in enumerate(datasets) if d.member == member]
        share[own] = language_shares([sizes[i] for i in own], spec.alpha)
    names, block = tuple(d.name for d in datasets), arm.block or DEFAULT_BLOCK
    try:
        if arm.sampler == TIME_DEPENDENT:
            rates = [Expression(arm.tasks[d.member].rate) for d in datasets]
            per_step = parts if arm.mix == 'micro_batch' else 1
            quotas = timed_quotas(rates, names, block, shares=share.tolist(), per_step=per_step, steps=steps)
        else:
            of_members = _member_rates(arm, datasets, sizes)
            quotas = fixed_quotas(np.asarray([of_members[d.member] for d in datasets]) * share, block)
    except (MixtureError, ExpressionError) as e:
        raise ConfigError(f'{where}: {e}') from None
    return Mixture(names, quotas, seed)


def _member_rates(arm: Arm, datasets: Sequence[Dataset], sizes: Sequence[int]) -> dict[str, float]:
    """Returns {member: rate} for samplers with fixed rates. Raises MixtureError."""
    totals = [n for n, _ in member_sizes(arm, datasets, sizes).values()]
    return dict(zip(arm.tasks, mixture_rates(arm, totals).tolist(), strict=True))


def check_rates(arm: Arm, datasets: Sequence[Dataset], where: str, owner: Callable[[str], str] | None = None) -> None:
    """Raises ConfigError for an unknown sampler and for rates that are invalid for any data, or that the sampler
    ignores; reads no data. owner: member -> the field of the mixture that defines it; None = `where`."""
    if arm.sampler not in (*SAMPLERS, TIME_DEPENDENT):
        known = ', '.join((*SAMPLERS, TIME_DEPENDENT))
        raise ConfigError(f'{where}.sampler: {arm.sampler!r} is not one of {known}')
    for name, member in arm.tasks.items():
        for each, sampler in (('weight', 'weights'), ('rate', TIME_DEPENDENT)):
            if getattr(member, each) != getattr(Member, each) and arm.sampler != sampler:
                field = f'{member_field(owner(name) if owner else where, name)}.{each}'
                raise ConfigError(f'{field} is used only by sampler {sampler!r}; this one is {arm.sampler!r}')
    mixture_of(arm, datasets, [1] * len(datasets), 0, where, steps=1)


def phase_steps(arm: Arm, recipe: Recipe, datasets: Sequence[Dataset], sizes: Sequence[int]) -> int:
    """Returns the number of optimizer steps of a training.

    Text (masked LM) that is mixed with a task adds steps: with fixed rates, the task keeps the number of steps that it
    would have alone.
    """
    text = {d.member for d in datasets if d.task.is_text}
    members = member_sizes(arm, datasets, sizes)
    tasks = {member: capped for member, (_, capped) in members.items() if member not in text}
    steps = total_steps(recipe, *(tasks or {m: capped for m, (_, capped) in members.items()}).values())
    if recipe.steps or not text or not tasks or arm.sampler == TIME_DEPENDENT:
        return steps
    rates = _member_rates(arm, datasets, sizes)
    share = sum(rate for member, rate in rates.items() if member in tasks)
    return math.ceil(steps / share) if share else steps


def member_sizes(arm: Arm, datasets: Sequence[Dataset], sizes: Sequence[int]) -> dict[str, tuple[int, int]]:
    """Returns {member: (examples, examples limited by the cap)}; the second sets the number of steps, as in jiant."""
    totals = {m: sum(n for d, n in zip(datasets, sizes, strict=True) if d.member == m) for m in arm.tasks}
    cap = arm.cap if arm.sampler in CAPPED else 0
    return {m: (n, min(n, cap) if cap else n) for m, n in totals.items()}
