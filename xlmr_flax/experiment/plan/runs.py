"""Plans: the ordered list of a config's runs. The id of a run is a hash of everything that determines its weights.

plan = make_plan(config)        # pure: opens no file
plan = find_data(plan)          # checks which files exist
plan = resolve(plan, source)    # calls find_data, reads labels and digests, and gives the runs their ids
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from xlmr_flax.config import NONE, Arm, Config, ConfigError, Member, OptimizerSpec, Recipe, digest, to_dict
from xlmr_flax.data.split import Split
from xlmr_flax.eval.retrieval import retrieval_layer
from xlmr_flax.experiment.plan.arms import (
    Dataset,
    arm_of,
    check_rates,
    data_digests,
    datasets,
    dev_metrics,
    known_labels,
    target_arm,
    training_task,
)
from xlmr_flax.experiment.plan.defaults import with_dtype
from xlmr_flax.experiment.plan.fields import length_field, phase_field
from xlmr_flax.experiment.plan.names import check_names
from xlmr_flax.kinds import kind_of
from xlmr_flax.models.source import EncoderSource
from xlmr_flax.parallel.machine import this_machine
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import Task, TaskError

# Increased when a change of the code changes what a run computes, so that results of an old workdir are not reused.
_FORMAT = 3


@dataclass(frozen=True)
class Run:
    """One run: a training (intermediate, warm-up or target) or, for retrieval, an evaluation only.

    id: hash of everything that determines the weights, '' before `resolve`. intermediate: name of the arm. target: ''
    for the intermediate phase itself and for a warm-up phase. task: display name of the training data, which is the
    task or the mixture's name ('' = no training). start: the run whose encoder this run starts from, None = the
    pretrained encoder. arm, datasets: the training data; None and () without training. warms: the target whose head
    this run trains in a warm-up phase. decides: the settings and data digests that determine `id`, to show how two runs
    differ. Its field 'parent' has those of `start`; in the hash, it is the id of `start`.
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
        """Name of the run from arm, phase and seed; unique within a plan."""
        phase = self.target or (f'{self.warms}-warmup' if self.warms else 'intermediate')
        return f'{self.intermediate}--{phase}--seed{self.seed}'

    @property
    def name(self) -> str:
        """Readable folder name of the run: `key` and the start of the hash, which makes it unique between plans."""
        return f'{self.key}-{self.id[:8]}'

    @property
    def parent(self) -> str:
        """The id of `start`; '' = the pretrained encoder."""
        return self.start.id if self.start else ''

    @property
    def keeps_head(self) -> bool:
        """Whether `start` is a warm-up phase; its head is then trained further."""
        return bool(self.start and self.start.warms)

    @property
    def lineage(self) -> tuple[Run, ...]:
        """The chain of runs that produced its weights, from the first run to this one."""
        return (*(self.start.lineage if self.start else ()), self)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks on which the run trains."""
        return tuple(dict.fromkeys(dataset.task.name for dataset in self.datasets))


@dataclass(frozen=True)
class Plan(Sequence[Run]):
    """The runs of a config; each run comes after the one that it starts from. splits: target -> the splits on which it
    may be scored, in order of preference; after `find_data` there is one."""

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
    """Makes the plan of a config as if all data existed. Opens no file and needs no weights.

    The runs have no id, and a target has every split on which it may be scored. Raises ConfigError and TaskError.
    """
    check_names(config)
    runs = tuple(run for seed in config.seeds for arm in config.intermediate for run in _arm_runs(config, arm, seed))
    return Plan(config, runs, {name: _possible_splits(config, name) for name in config.targets})


def find_data(plan: Plan, must_be_there: bool = False) -> Plan:
    """Adapts a plan to the existing files: drops warm-up phases without data, and sets the split of every target
    (`evaluation_split`). must_be_there: raise DataError if rows to be scored are missing or unreadable.
    """
    config = plan.config
    by_key: dict[str, Run | None] = {}  # by key; for a dropped run, the run that it would have started from
    splits = {name: (evaluation_split(config, name, must_be_there),) for name in config.targets}
    for run in plan:
        start = by_key[run.start.key] if run.start else None
        is_left_out = run.warms and not all(dataset.rows.is_there() for dataset in run.datasets)
        by_key[run.key] = start if is_left_out else replace(run, start=start)
    return Plan(config, tuple(run for key, run in by_key.items() if run and run.key == key), splits)


def resolve(plan: Plan, source: EncoderSource) -> Plan:
    """Makes a plan executable: calls `find_data`, reads labels from files, and sets the ids of the runs.

    Reads every training file completely, and the first rows of the files to be scored. Raises DataError for files that
    are missing or cannot be read, ConfigError for two arms with the same training and for rows that are longer than the
    encoder's positions, and ModelError for a retrieval layer that the encoder does not have.
    """
    plan, limit = find_data(plan, must_be_there=True), source.config.max_length
    wanted = plan.config.evaluation
    for target in plan.config.targets:
        if get_task(target).embeds:
            field = f'retrieval_layers.{target}' if target in wanted.retrieval_layers else 'retrieval_layer'
            retrieval_layer(source.config, wanted.layer_of(target), wanted.pooling, f'evaluation.{field}')
    by_key: dict[str, Run] = {}
    for run in plan:
        for dataset in run.datasets:
            if dataset.max_length > limit:
                what = f'{_length_field(plan.config, run, dataset)} {dataset.max_length}'
                raise ConfigError(f'{what}: {source.name} has positions for {limit} tokens')
        start = by_key[run.start.key] if run.start else None
        run = replace(run, start=start, datasets=tuple(dataset.labelled() for dataset in run.datasets))
        decides = _decides(plan.config, source, run)
        with_start = decides | {'parent': start.decides if start else ''}
        by_key[run.key] = replace(run, id=digest(decides), decides=with_start)
    first: dict[str, Run] = {}
    for run in by_key.values():  # two arms with one definition would be trained twice
        if run.target:
            continue
        other = first.setdefault(run.id, run)
        if other.intermediate != run.intermediate:
            names = f'{other.intermediate!r} and {run.intermediate!r}'
            raise ConfigError(f'intermediate: {names} train in the same way (same members, recipe and data)')
    return replace(plan, runs=tuple(by_key.values()))


def _length_field(config: Config, run: Run, dataset: Dataset) -> str:
    """Returns the config field that sets the maximum length of a run's dataset."""
    where = phase_field(config, run.intermediate, run.target or run.warms, dataset.member)
    phases = (run.task, run.warms) if run.warms else (run.target or run.intermediate,)
    return length_field(config, where, dataset.member, dataset.spec, phases)


def scored_length(config: Config, run: Run) -> int:
    """Returns the maximum tokens of a row when a target is scored: that of its head's training rows, else that of
    config.evaluation."""
    if run.recipe is None or run.arm is None:
        return config.evaluation.max_length
    own = [spec.max_length for name, spec in run.arm.tasks.items() if (spec.head or name) == run.target]
    return max(own, default=0) or run.recipe.max_length


def evaluation_languages(config: Config, target: str) -> tuple[str, ...]:
    """Returns the languages in which a target is evaluated; English comes first if it is one of them."""
    split = config.evaluation.split.get(target, '')
    names = config.evaluation.languages.get(target) or get_task(target).split_languages(split)
    return tuple(sorted(names, key=lambda code: code != 'en'))


def evaluation_split(config: Config, target: str, must_be_there: bool = False) -> str:
    """Returns the split on which a target is evaluated: the configured one, else `default_split` of its languages."""
    languages, skip = evaluation_languages(config, target), config.skip_bad_rows
    task, asked = get_task(target), config.evaluation.split.get(target, '')
    split = asked or default_split(task, languages, config.data_root, skip, must_be_there)
    if asked and must_be_there:
        for code in languages:
            Split(task, code, split, config.data_root).has_gold(skip)  # raises DataError if it cannot be read
    return split


def default_split(
    task: Task, languages: Sequence[str], data_root: str, skip_bad_rows: bool = False, must_be_there: bool = False
) -> str:
    """Returns 'test' if its files exist with gold labels in every language, else 'dev' if its files do, else 'test'.

    In the last case reading fails later, or at once if must_be_there. The public test files of several tasks (COPA,
    CommonsenseQA, those of XTREME) have no labels.
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
    """Returns the splits on which a target may be scored. Raises ConfigError for a split or language that it lacks."""
    task, asked = get_task(target), config.evaluation.split.get(target, '')
    splits = (asked,) if asked else tuple(name for name in ('test', 'dev') if name in task.splits) or ('dev',)
    where = f'evaluation.split.{target}' if asked else 'targets'
    try:
        for name in splits:
            task.sources(name)
        if target in config.evaluation.languages:
            where = f'evaluation.languages.{target}'
        for name, language in itertools.product(splits, evaluation_languages(config, target)):
            task.local_code(language, name)
    except TaskError as e:
        raise ConfigError(f'{where}: {e}') from None
    return splits


def _arm_runs(config: Config, name: str, seed: int) -> list[Run]:
    """Returns the intermediate run of an arm, if it has one, then the runs of its targets."""
    runs: list[Run] = []
    if name != NONE and not arm_of(config, name).joint:
        arm, where, recipe = arm_of(config, name), phase_field(config, name), config.recipe_for(name)
        parts = datasets(config, arm, recipe, where)
        check_rates(arm, parts, where)
        runs.append(Run('', name, '', name, seed, None, recipe, arm, parts))
    start = runs[0] if runs else None
    for target in config.targets:
        runs += _target_runs(config, name, get_task(target), seed, start)
    return runs


def _target_runs(config: Config, arm: str, target: Task, seed: int, start: Run | None) -> list[Run]:
    """Returns the run of a target, after the run of its warm-up phase if it has one."""
    joint = arm in config.arms and config.arms[arm].joint
    if target.embeds:
        if joint:
            raise ConfigError(
                f'arms.{arm}: joint with a target, and the retrieval target {target.name!r} has no training'
            )
        return [Run('', arm, target.name, '', seed, start, None)]
    runs: list[Run] = []
    if target.warmup_task and target.name not in config.training and not joint:
        # The warm-up phase trains on another task before the target's own rows, with the same head (XCOPA: Social IQa).
        first = Arm(tasks={target.warmup_task: Member(head=target.name)})
        recipe = config.recipes.get(target.warmup_task) or config.recipe_for(target.name)
        data = datasets(config, first, recipe, phase_field(config, arm, target.name))
        runs = [Run('', arm, '', target.warmup_task, seed, start, recipe, first, data, target.name)]
    recipe, where = config.recipe_for(target.name), phase_field(config, arm, target.name)
    if joint and target.name in config.training:  # so that errors in the target's own members name their field
        datasets(config, config.training[target.name], recipe, f'training.{target.name}')
    parts = target_arm(config, target, arm)
    data = datasets(config, parts, recipe, where)
    _check_head(target, data)
    check_rates(parts, data, where, lambda member: phase_field(config, arm, target.name, member))
    task = data[0].task.name if len(data) == 1 else '+'.join(parts.tasks)
    return [*runs, Run('', arm, target.name, task, seed, runs[0] if runs else start, recipe, parts, data)]


def _check_head(target: Task, datasets: Sequence[Dataset]) -> None:
    """Checks that a target's training includes the head with which it is scored. Raises ConfigError."""
    task = training_task(target)
    heads = {dataset.head: dataset.task for dataset in datasets}
    own = heads.get(target.name)
    if own is None or own.kind != task.kind or (kind_of(own).classes and known_labels(own) != known_labels(task)):
        reason = f'{own.name!r} has another kind or other labels' if own else f'the heads are {", ".join(heads)}'
        raise ConfigError(f'training.{target.name}: no head {target.name!r} as {task.name!r} trains it: {reason}')


def _decides(config: Config, source: EncoderSource, run: Run) -> dict[str, object]:
    """Returns the data of which a run's id is the hash. Its start and datasets must be resolved."""
    # The mesh and these fields change where and how numbers are computed, but not the requested result.
    encoder = _without(to_dict(with_dtype(config, this_machine()).encoder), 'source', 'unroll', 'remat', 'attention')
    decides = {'format': _FORMAT, 'encoder': encoder, 'weights': source.digest, 'parent': run.parent, 'seed': run.seed}
    if run.arm is None or run.recipe is None:
        return decides
    arm = to_dict(run.arm)
    for member in arm['tasks'].values():
        if not member['split']:  # so that runs of versions without this field keep their names
            del member['split']
    recipe = to_dict(run.recipe)
    if recipe['optimizer']['name'] == OptimizerSpec.name:  # runs of versions without this field keep their ids
        del recipe['optimizer']['name']
    # How often a run logs and saves checkpoints does not change its weights.
    recipe = _without(recipe, 'log_every', 'checkpoint_every', 'keep_checkpoints', 'dev_score')
    decides |= {'arm': arm, 'recipe': recipe, 'data': data_digests(run.datasets)}
    if run.recipe.keep == 'best' or run.recipe.patience:  # default values are left out, so that older runs keep ids
        scored = [dataset.task for dataset in run.datasets if dataset.selects()]
        if any('qa_decoding' in kind_of(task).settings for task in scored):
            decides |= config.evaluation.qa_decides()
        if any(dev_metrics(task, run.recipe.dev_score) != dev_metrics(task) for task in scored):
            decides['dev_score'] = run.recipe.dev_score
    return decides


def _without(fields: Mapping[str, object], *names: str) -> dict[str, object]:
    return {name: value for name, value in fields.items() if name not in names}
