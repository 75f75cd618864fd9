"""What an arm or a target trains on: its members as datasets (task x language x split), each with its head.

'none' trains nothing. A name of `config.arms` is that mixture; any other name is the task itself, alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from xlmr_flax.config import NONE, Arm, Config, ConfigError, Member, Recipe
from xlmr_flax.data.batches import row_lengths
from xlmr_flax.data.corpus import read_texts
from xlmr_flax.data.expression import Expression, ExpressionError
from xlmr_flax.data.mixture import (
    DEFAULT_BLOCK,
    Mixture,
    MixtureError,
    fixed_quotas,
    language_shares,
    mixture_rates,
    timed_quotas,
)
from xlmr_flax.data.sources import BadRow, read_split, with_labels
from xlmr_flax.data.split import Split
from xlmr_flax.kinds import HeadSpec, head_spec, kind_of
from xlmr_flax.kinds.mlm import Mlm
from xlmr_flax.tasks import all_tasks, get_task
from xlmr_flax.tasks.base import ChoiceExample, Example, PairExample, TagExample, Task, TaskError, closest
from xlmr_flax.train.phase import total_steps

MLM = Mlm.name


@dataclass(frozen=True)
class Dataset:
    """Training rows of one task in one language. name: in logs. member: the entry of the arm that it is a part of, with
    `spec`. head: the name of its head. recipe: of the phase.
    """

    name: str
    member: str
    rows: Split
    head: str
    spec: Member
    recipe: Recipe

    @property
    def task(self) -> Task:
        """The task; its labels may be missing before `labelled`."""
        return self.rows.task

    @property
    def language(self) -> str:
        """The language of the rows."""
        return self.rows.language

    @property
    def split(self) -> str:
        """The name of the split that the rows are."""
        return self.rows.name

    @property
    def max_length(self) -> int:
        """Tokens a row, at most."""
        return self.spec.max_length or self.recipe.max_length

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths that rows are padded to; the last is `max_length`."""
        asked = self.spec.lengths or self.recipe.lengths
        return row_lengths(self.max_length, [n for n in asked if n <= self.max_length])

    @property
    def limit(self) -> int:
        """Rows that are read, from the first; 0 = all."""
        return self.spec.max_train or self.recipe.max_train

    @property
    def dev(self) -> Split | None:
        """The task's English dev rows, where it has some (of text, which is divided, they are no split)."""
        has_dev = 'dev' in self.task.splits and 'en' in self.task.languages
        return replace(self.rows, name='dev', language='en') if has_dev else None

    def selects(self) -> bool:
        """Whether there are English dev rows to select by, which it is not itself trained on."""
        return self.dev is not None and self.split != 'dev' and self.dev.is_there()

    def labelled(self) -> Dataset:
        """The same with the task's labels, which some tasks take from their files. Raises DataError."""
        return replace(self, rows=self.rows.labelled())


def task_of(config: Config, name: str) -> Task:
    """The task of that name with its labels (some take them from their files). Raises TaskError, DataError."""
    return with_labels(get_task(name), config.data_root)


def arm_of(config: Config, name: str) -> Arm:
    """The mixture of an intermediate name. Raises ConfigError for a name that is neither an arm nor a task."""
    if name in config.arms:
        return config.arms[name]
    try:
        get_task(name)
    except TaskError:
        raise ConfigError(f'intermediate: {name!r} is no arm and no task{closest(name, known_names(config))}') from None
    return Arm(tasks={name: Member()})


def known_names(config: Config) -> list[str]:
    """Names that `intermediate` may hold."""
    return [NONE, *config.arms, *all_tasks()]


def member_tasks(name: str, member: Member) -> tuple[str, ...]:
    """Task names of a member; several are joined by '+' (ANLI+: five datasets under one rate and one head)."""
    return tuple((member.task or name).split('+'))


def arm_tasks(config: Config, name: str) -> tuple[str, ...]:
    """Every task that an intermediate name trains on; () for 'none'."""
    if name == NONE:
        return ()
    found = (task for key, member in arm_of(config, name).tasks.items() for task in member_tasks(key, member))
    return tuple(dict.fromkeys(found))


def training_task(target: Task) -> Task:
    """The task whose English train split fine-tunes a target. Raises ConfigError for evaluation-only tasks."""
    if target.train_task is None:
        if 'train' not in target.splits:
            raise ConfigError(f'targets: {target.name!r} has no training data and is no retrieval task')
        return target
    return get_task(target.train_task)


def target_arm(config: Config, target: Task, arm: str) -> Arm:
    """What a target is fine-tuned on: `config.training`, else its English train split; with the members of a `joint`
    arm mixed in.
    """
    own = config.training.get(target.name) or Arm(tasks={training_task(target).name: Member()})
    members = {
        name: replace(member, head=member.head or _own_head(target, name, member)) for name, member in own.tasks.items()
    }
    own = replace(own, tasks=members)
    if arm in config.arms and config.arms[arm].joint:
        joint = config.arms[arm]
        if twice := sorted(set(joint.tasks) & set(members)):
            raise ConfigError(
                f'arms.{arm}: joint, and target {target.name!r} is trained on {twice[0]!r} too: rename one'
            )
        own = replace(joint, tasks={**members, **joint.tasks}, joint=False)
    return own


def _own_head(target: Task, name: str, member: Member) -> str:
    return MLM if get_task(member_tasks(name, member)[0]).is_text else target.name


def datasets(config: Config, arm: Arm, recipe: Recipe, where: str) -> tuple[Dataset, ...]:
    """The datasets of a mixture in the order of its members; opens no file. recipe: of its phase. Raises ConfigError
    that names the member for a task that cannot be trained on, a language without training rows, and members that share
    a head but not its shape.
    """
    found: list[Dataset] = []
    for name, member in arm.tasks.items():
        tasks = [get_task(task) for task in member_tasks(name, member)]
        for task in tasks:
            for language in member.languages:
                try:
                    if member.split:  # these say which split or language there is
                        task.sources(member.split)
                        task.local_code(language, member.split)
                    split = member.split or task.training_split(language)
                except TaskError as e:
                    raise ConfigError(f'{where}: {e}') from None
                parts = [name]
                parts += [task.name] if len(tasks) > 1 else []
                parts += [language] if len(member.languages) > 1 else []
                head = member.head or (MLM if task.is_text else (name if len(tasks) > 1 else task.name))
                rows = Split(task, language, split, config.data_root)
                found.append(Dataset('/'.join(parts), name, rows, head, member, recipe))
    _check_heads(found, where)
    names = [d.name for d in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f'{where}: {twice[0]!r} is there twice')
    return tuple(found)


def _check_heads(found: Sequence[Dataset], where: str) -> None:
    first: dict[str, Dataset] = {}
    for dataset in found:
        other = first.setdefault(dataset.head, dataset)
        # The head of a choice scores one of them, however many there are.
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
    """What tells a task's labels from others' before any file is read: themselves, or where they come from."""
    return task.labels or (f'from the files of {task.name}',) * bool(task.labels_from)


def heads_of(found: Sequence[Dataset]) -> dict[str, HeadSpec]:
    """{head name: its shape}."""
    return {dataset.head: head_spec(dataset.task) for dataset in found}


def data_digests(found: Sequence[Dataset]) -> dict[str, str]:
    """{dataset or dev set: digest of its rows}, part of a run's name."""
    digests = {dataset.name: dataset.rows.digest() for dataset in found}
    for dataset in found:
        if dataset.dev and dataset.dev.is_there():
            digests[f'{dataset.task.name} dev'] = dataset.dev.digest()
    return digests


def dev_metrics(task: Task, rule: str = 'first') -> tuple[str, ...]:
    """The metrics whose mean is the task's score on dev rows. rule: Recipe.dev_score; jiant's means are those of
    tasks/evaluate/core.py, where SQuAD v2 is taken at its best thresholds.
    """
    pair = kind_of(task).metric_pair
    if rule == 'mean' and pair:
        return tuple(f'best_{name}' for name in pair) if task.scorer == 'squad_v2' else pair
    if rule == 'mean' and task.scorer == 'f1':
        return ('accuracy', 'f1')
    return task.metrics[:1]


def training_examples(dataset: Dataset, seed: int, bad_rows: list[BadRow] | None = None) -> list[Example]:
    """The rows of a dataset as its member asks for them: the first `limit`, of these a fraction that the seed draws,
    with shuffled labels where asked for. bad_rows: takes rows that cannot be read."""
    read = read_texts if dataset.task.is_text else read_split
    rows, member = dataset.rows, dataset.spec
    found = read(rows.task, rows.language, rows.name, rows.root, dataset.limit or None, bad_rows)
    if member.fraction < 1:
        random = np.random.Generator(np.random.Philox(key=[seed, 0x66726163]))
        kept = random.permutation(len(found))[: max(1, round(member.fraction * len(found)))]
        found = [found[i] for i in sorted(kept.tolist())]
    return shuffled_labels(found, seed) if member.shuffle_labels else found


def shuffled_labels(examples: Sequence[Example], seed: int) -> list[Example]:
    """The same texts with the same labels in another order: a control that keeps everything but what the labels say.

    Tags are dealt anew over all words.
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
    dealt = [labelled[i].label for i in order.tolist()]
    found: list[Example] = []
    found += [replace(e, label=label) for e, label in zip(labelled, dealt, strict=True)]
    return found


def mixture_of(
    arm: Arm, found: Sequence[Dataset], sizes: Sequence[int], seed: int, where: str, steps: int = 0, parts: int = 1
) -> Mixture:
    """The mixture over datasets of so many examples. A member's rate is divided among its datasets by size ** alpha.

    steps, parts: of the training, and micro-batches of a step. Raises ConfigError for rates that no mixture can have.
    """
    share = np.ones(len(found))
    for member, spec in arm.tasks.items():
        own = [i for i, d in enumerate(found) if d.member == member]
        share[own] = language_shares([sizes[i] for i in own], spec.alpha)
    names, block = tuple(d.name for d in found), arm.block or DEFAULT_BLOCK
    try:
        if arm.sampler == 'time_dependent':
            rates = [Expression(arm.tasks[d.member].rate) for d in found]
            per_step = parts if arm.mix == 'micro_batch' else 1
            quotas = timed_quotas(rates, names, block, shares=share.tolist(), per_step=per_step, steps=steps)
        else:
            of_members = _member_rates(arm, found, sizes)
            quotas = fixed_quotas(np.asarray([of_members[d.member] for d in found]) * share, block)
    except (MixtureError, ExpressionError) as e:
        raise ConfigError(f'{where}: {e}') from None
    return Mixture(names, quotas, seed)


def _member_rates(arm: Arm, found: Sequence[Dataset], sizes: Sequence[int]) -> dict[str, float]:
    """{member: its rate} of samplers with fixed rates. Raises MixtureError."""
    totals = [n for n, _ in member_sizes(arm, found, sizes).values()]
    weights = [spec.weight for spec in arm.tasks.values()]
    rates = mixture_rates(arm.sampler, totals, cap=arm.cap, temperature=arm.temperature, weights=weights)
    return dict(zip(arm.tasks, rates.tolist(), strict=True))


def check_rates(arm: Arm, found: Sequence[Dataset], where: str) -> None:
    """Raises ConfigError for rates that are wrong whatever the data are, or that the sampler does not read, before
    anything is."""
    for name, member in arm.tasks.items():
        for field, sampler in (('weight', 'weights'), ('rate', 'time_dependent')):
            if getattr(member, field) != getattr(Member, field) and arm.sampler != sampler:
                raise ConfigError(
                    f'{where}: tasks.{name}.{field} is read by sampler {sampler!r} alone; this one is {arm.sampler!r}'
                )
    mixture_of(arm, found, [1] * len(found), 0, where, steps=1)


def phase_steps(arm: Arm, recipe: Recipe, found: Sequence[Dataset], sizes: Sequence[int]) -> int:
    """Optimizer steps of a training. Text beside a task adds its share of the steps and takes none from the task: with
    fixed rates the task has as many steps of its own as it would have alone.
    """
    text = {d.member for d in found if d.task.is_text}
    members = member_sizes(arm, found, sizes)
    tasks = {member: capped for member, (_, capped) in members.items() if member not in text}
    steps = total_steps(recipe, *(tasks or {m: capped for m, (_, capped) in members.items()}).values())
    if recipe.steps or not text or not tasks or arm.sampler == 'time_dependent':
        return steps
    rates = _member_rates(arm, found, sizes)
    share = sum(rate for member, rate in rates.items() if member in tasks)
    return math.ceil(steps / share) if share else steps


def member_sizes(arm: Arm, found: Sequence[Dataset], sizes: Sequence[int]) -> dict[str, tuple[int, int]]:
    """{member: (examples, the same under the cap)}; the number of steps follows the second, as in jiant."""
    totals = {m: sum(n for d, n in zip(found, sizes, strict=True) if d.member == m) for m in arm.tasks}
    cap = arm.cap if arm.sampler in ('capped', 'temperature') else 0
    return {m: (n, min(n, cap) if cap else n) for m, n in totals.items()}
