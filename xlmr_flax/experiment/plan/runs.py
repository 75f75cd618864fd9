"""A plan: which runs a config asks for, in which order, each named by the hash of what decides it.

plan = make_plan(config)        # pure: opens no file
plan = find_data(plan)          # looks which files are there
plan = resolve(plan, source)    # both, and reads labels and digests: the runs have their names
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from xlmr_flax.config import Arm, Config, ConfigError, Member, Recipe, digest, to_dict
from xlmr_flax.data.split import Split
from xlmr_flax.experiment.plan.arms import (
    NONE,
    Dataset,
    arm_of,
    check_rates,
    data_digests,
    datasets,
    dev_metrics,
    known_labels,
    member_tasks,
    target_arm,
    training_task,
)
from xlmr_flax.kinds import kind_of
from xlmr_flax.models.source import EncoderSource
from xlmr_flax.tasks import all_tasks, get_task
from xlmr_flax.tasks.base import Task, closest

# Raised when the code changes what a run computes, so that an old workdir is not taken for a new result.
_FORMAT = 3


@dataclass(frozen=True)
class Run:
    """One run: a training (intermediate, warm-up or target) or, for retrieval, an evaluation only.

    id: hash of what decides the weights, '' before `resolve`. intermediate: the arm. target: '' for the intermediate
    phase itself and for a warm-up. task: what is trained on, for people: the task, or the mixture's name ('' =
    nothing). start: the run whose encoder this one starts from, None = the pretrained one. arm, datasets: of the
    training, None and () without one. warms: the target whose head this run trains first.
    decides: what `id` is the hash of, to show how two runs differ.
    """

    id: str
    intermediate: str
    target: str
    task: str
    seed: int
    start: Run | None
    recipe: Recipe | None
    arm: Arm | None = None
    datasets: tuple[Dataset, ...] = field(default=(), compare=False, repr=False)
    warms: str = ''
    decides: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)

    @property
    def key(self) -> str:
        """Arm, phase and seed: unique within a plan."""
        phase = self.target or (f'{self.warms}-warmup' if self.warms else 'intermediate')
        return f'{self.intermediate}--{phase}--seed{self.seed}'

    @property
    def name(self) -> str:
        """A folder name that a person can read; unique within a plan, and by the hash between plans."""
        return f'{self.key}-{self.id[:8]}'

    @property
    def parent(self) -> str:
        """The id of `start`, '' = the pretrained encoder."""
        return self.start.id if self.start else ''

    @property
    def keeps_head(self) -> bool:
        """Whether `start` is a warm-up, whose head goes on."""
        return bool(self.start and self.start.warms)

    @property
    def lineage(self) -> tuple[Run, ...]:
        """The runs that its weights come from in their order, itself last."""
        return (*(self.start.lineage if self.start else ()), self)

    @property
    def where(self) -> str:
        """The config field that a message about the run's data names."""
        return f'targets {self.target or self.warms}' if self.target or self.warms else f'arms.{self.intermediate}'

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that it trains on."""
        return tuple(dict.fromkeys(dataset.task.name for dataset in self.datasets))


@dataclass(frozen=True)
class Plan(Sequence[Run]):
    """The runs of a config, each after the one that it starts from. splits: target -> the splits that it may be scored
    on, the first choice first; after `find_data` one."""

    config: Config
    runs: tuple[Run, ...]
    splits: Mapping[str, tuple[str, ...]]

    def __getitem__(self, index: Any) -> Any:
        return self.runs[index]

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)


def make_plan(config: Config) -> Plan:
    """What a config asks for where all its data are there. Opens no file and needs no weights: runs have no id, and a
    target has every split that it may be scored on. Raises ConfigError and TaskError."""
    _check_names(config)
    runs = tuple(run for seed in config.seeds for arm in config.intermediate for run in _arm_runs(config, arm, seed))
    return Plan(config, runs, {name: _possible_splits(config, name) for name in config.targets})


def find_data(plan: Plan, must_be_there: bool = False) -> Plan:
    """The plan as the files that are there allow: warm-ups without rows are left out, and every target has the split
    that `evaluation_split` says. must_be_there: raises DataError for rows to be scored that are missing or unreadable.
    """
    config = plan.config
    found: dict[str, Run | None] = {}  # by key; of a run that is left out what it would have started from
    splits = {name: (evaluation_split(config, name, must_be_there),) for name in config.targets}
    for run in plan:
        start = found[run.start.key] if run.start else None
        is_left_out = run.warms and not all(dataset.rows.is_there() for dataset in run.datasets)
        found[run.key] = start if is_left_out else replace(run, start=start)
    return Plan(config, tuple(run for key, run in found.items() if run and run.key == key), splits)


def resolve(plan: Plan, source: EncoderSource) -> Plan:
    """The plan as it is run: `find_data`, with labels that are read from files, and names. Reads every file that is
    trained on and the first rows of those that are scored. Raises DataError for files that are missing or cannot be
    read, and ConfigError for arms that train on the same.
    """
    plan = find_data(plan, must_be_there=True)
    found: dict[str, Run] = {}
    for run in plan:
        start = found[run.start.key] if run.start else None
        run = replace(run, start=start, datasets=tuple(dataset.labelled() for dataset in run.datasets))
        decides = _decides(plan.config, source, run)
        with_start = decides | {'parent': start.decides if start else ''}
        found[run.key] = replace(run, id=digest(decides), decides=with_start)
    first: dict[str, Run] = {}
    for run in (run for run in found.values() if not run.target):  # two names of one definition would be trained twice
        other = first.setdefault(run.id, run)
        if other.intermediate != run.intermediate:
            raise ConfigError(f'intermediate: {other.intermediate!r} and {run.intermediate!r} train on the same')
    return replace(plan, runs=tuple(found.values()))


def scored_length(config: Config, run: Run) -> int:
    """Tokens a row when a target is scored: those of the training rows of its head, else the evaluation's."""
    if run.recipe is None or run.arm is None:
        return config.evaluation.max_length
    own = [spec.max_length for name, spec in run.arm.tasks.items() if (spec.head or name) == run.target]
    return max(own, default=0) or run.recipe.max_length


def evaluation_languages(config: Config, target: str) -> tuple[str, ...]:
    """The languages that a target is evaluated in, English first where it is one of them."""
    split = config.evaluation.split.get(target, '')
    names = config.evaluation.languages.get(target) or get_task(target).split_languages(split)
    return tuple(sorted(names, key=lambda code: code != 'en'))


def evaluation_split(config: Config, target: str, must_be_there: bool = False) -> str:
    """The split that a target is evaluated on: as configured, else `default_split` of the languages asked for."""
    languages, skip = evaluation_languages(config, target), config.skip_bad_rows
    task, asked = get_task(target), config.evaluation.split.get(target, '')
    split = asked or default_split(task, languages, config.data_root, skip, must_be_there)
    if asked and must_be_there:
        for code in languages:
            Split(task, code, split, config.data_root).has_gold(skip)  # raises for what cannot be read
    return split


def default_split(
    task: Task, languages: Sequence[str], data_root: str, skip_bad_rows: bool = False, must_be_there: bool = False
) -> str:
    """'test' where its files are there with gold labels in every language, else 'dev' where its are, else 'test' (and
    an error later; must_be_there: now). The public test files of several tasks (COPA, CommonsenseQA, XTREME's) have no
    labels.
    """
    splits = [name for name in ('test', 'dev') if name in task.splits] or ['dev']
    for name in splits:
        rows = [Split(task, code, name, data_root) for code in languages]
        if all(each.is_there() and each.has_gold(skip_bad_rows) for each in rows):
            return name
    if must_be_there:
        for code in languages:
            Split(task, code, splits[0], data_root).has_gold(skip_bad_rows)
    return splits[0]


def _possible_splits(config: Config, target: str) -> tuple[str, ...]:
    """Raises TaskError for a split or language that a target does not have."""
    task, asked = get_task(target), config.evaluation.split.get(target, '')
    found = (asked,) if asked else tuple(name for name in ('test', 'dev') if name in task.splits) or ('dev',)
    for name in found:
        task.sources(name)
        for language in evaluation_languages(config, target):
            task.local_code(language, name)
    return found


def _check_names(config: Config) -> None:
    for name, languages in config.evaluation.languages.items():
        if len(set(languages)) != len(languages):
            raise ConfigError(f'evaluation.languages.{name}: a language twice: {", ".join(languages)}')
    for name in config.arms:
        if name == NONE or name in all_tasks():
            raise ConfigError(f'arms.{name}: the name of a task; give the mixture another')
    for name in config.intermediate:
        if name != NONE:
            arm_of(config, name)
    _check_recipe_names(config)
    of_targets = {
        'evaluation.languages': config.evaluation.languages,
        'evaluation.split': config.evaluation.split,
        'evaluation.retrieval_layers': config.evaluation.retrieval_layers,
        'training': config.training,
    }
    for where, names in of_targets.items():
        for name in names:  # of a task that this plan leaves out (--config.targets=...) it says nothing
            if name not in config.targets and name not in all_tasks():
                raise ConfigError(f'{where}.{name}: no such target{closest(name, {*config.targets, *all_tasks()})}')
    for name in config.training:
        if config.training[name].joint or get_task(name).embeds:
            raise ConfigError(f'training.{name}: joint is for arms, and a retrieval target trains nothing')


def _check_recipe_names(config: Config) -> None:
    """A recipe is of a phase of this plan, or of one that it leaves out; the datasets of a mixture have none."""
    targets = [get_task(name) for name in config.targets]
    known = {*config.intermediate, *config.targets, *(t.warmup_task for t in targets if t.warmup_task)}
    arms = [config.arms[name] for name in config.intermediate if name in config.arms]
    arms += [arm for name, arm in config.training.items() if name in config.targets]
    members = {t for arm in arms for name, member in arm.tasks.items() for t in (name, *member_tasks(name, member))}
    others = {*config.arms, *all_tasks()} - members
    for name in config.recipes:
        if name not in known | others:
            raise ConfigError(f'recipes.{name}: no such intermediate or target task in this plan{closest(name, known)}')


def _arm_runs(config: Config, name: str, seed: int) -> list[Run]:
    """The intermediate run of an arm, if it has one, then its targets'."""
    runs: list[Run] = []
    if name != NONE and not arm_of(config, name).joint:
        arm, where = arm_of(config, name), f'arms.{name}' if name in config.arms else 'intermediate'
        recipe = config.recipe_for(name)
        found = datasets(config, arm, recipe, where)
        check_rates(arm, found, f'arms.{name}')
        runs.append(Run('', name, '', name, seed, None, recipe, arm, found))
    start = runs[0] if runs else None
    for target in config.targets:
        runs += _target_runs(config, name, get_task(target), seed, start)
    return runs


def _target_runs(config: Config, arm: str, target: Task, seed: int, start: Run | None) -> list[Run]:
    """A target's run, after its warm-up where it has one."""
    joint = arm in config.arms and config.arms[arm].joint
    if target.embeds:
        if joint:
            raise ConfigError(
                f'arms.{arm}: joint with a target, and the retrieval target {target.name!r} has no training'
            )
        return [Run('', arm, target.name, '', seed, start, None)]
    runs: list[Run] = []
    if target.warmup_task and target.name not in config.training and not joint:
        # What it is trained on before its own rows, with the same head (XCOPA: Social IQa).
        first = Arm(tasks={target.warmup_task: Member(head=target.name)})
        recipe = config.recipes.get(target.warmup_task) or config.recipe_for(target.name)
        found = datasets(config, first, recipe, f'targets {target.name}')
        runs = [Run('', arm, '', target.warmup_task, seed, start, recipe, first, found, target.name)]
    parts, recipe, where = target_arm(config, target, arm), config.recipe_for(target.name), f'training.{target.name}'
    found = datasets(config, parts, recipe, where)
    _check_head(target, found)
    check_rates(parts, found, where)
    task = found[0].task.name if len(found) == 1 else '+'.join(parts.tasks)
    return [*runs, Run('', arm, target.name, task, seed, runs[0] if runs else start, recipe, parts, found)]


def _check_head(target: Task, found: Sequence[Dataset]) -> None:
    """A target's training must have the head that it is scored with. Raises ConfigError."""
    task = training_task(target)
    heads = {dataset.head: dataset.task for dataset in found}
    own = heads.get(target.name)
    if own is None or own.kind != task.kind or (kind_of(own).classes and known_labels(own) != known_labels(task)):
        said = f'{own.name!r} has another kind or other labels' if own else f'the heads are {", ".join(heads)}'
        raise ConfigError(f'training.{target.name}: no head {target.name!r} as {task.name!r} trains it: {said}')


def _decides(config: Config, source: EncoderSource, run: Run) -> dict[str, object]:
    """What the id of a run is the hash of; its start and its datasets have been resolved."""
    # The mesh and these change where and how numbers are computed, not what is asked for.
    encoder = _without(to_dict(config.encoder), 'source', 'unroll', 'remat', 'attention')
    decides = {'format': _FORMAT, 'encoder': encoder, 'weights': source.digest, 'parent': run.parent, 'seed': run.seed}
    if run.arm is None or run.recipe is None:
        return decides
    arm = to_dict(run.arm)
    for member in arm['tasks'].values():
        if not member['split']:  # so that runs from before there was this field keep their names
            del member['split']
    # How often it logs and saves its state changes nothing that is trained.
    recipe = _without(to_dict(run.recipe), 'log_every', 'checkpoint_every', 'keep_checkpoints', 'dev_score')
    decides |= {'arm': arm, 'recipe': recipe, 'data': data_digests(run.datasets)}
    if run.recipe.keep == 'best' or run.recipe.patience:  # what is older than these settings is named without them
        scored = [dataset.task for dataset in run.datasets if dataset.selects()]
        if any('qa_decoding' in kind_of(task).settings for task in scored):
            decides |= config.evaluation.qa_decides()
        if any(dev_metrics(task, run.recipe.dev_score) != dev_metrics(task) for task in scored):
            decides['dev_score'] = run.recipe.dev_score
    return decides


def _without(fields: Mapping[str, object], *names: str) -> dict[str, object]:
    return {name: value for name, value in fields.items() if name not in names}
