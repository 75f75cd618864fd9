"""A plan: which runs a config asks for, in which order, each named by the hash of what decides it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from xlmr_flax.config import Arm, Config, ConfigError, Member, Recipe, digest, to_dict
from xlmr_flax.data.sources import available, read_split, split_files
from xlmr_flax.experiment.arms import (
    NONE,
    Dataset,
    arm_of,
    check_rates,
    data_digests,
    datasets,
    dev_metrics,
    has_dev,
    head_spec,
    member_tasks,
    selects,
    target_arm,
    task_of,
    training_task,
)
from xlmr_flax.models.source import EncoderSource
from xlmr_flax.tasks import all_tasks, get_task
from xlmr_flax.tasks.base import Task, closest, has_label

__all__ = ['NONE', 'Run', 'has_dev', 'make_plan', 'task_of', 'training_task']
# Raised when the code changes what a run computes, so that an old workdir is not taken for a new result.
_FORMAT = 3


@dataclass(frozen=True)
class Run:
    """One run: a training (intermediate, warm-up or target) or, for retrieval, an evaluation only.

    id: hash of what decides the weights. intermediate: the arm. target: '' for the intermediate phase itself and for a
    warm-up. task: what is trained on, for people: the task, or the mixture's name ('' = nothing). parent: id of the run
    whose encoder this one starts from, '' = the pretrained one. arm: the datasets of the training, None without one.
    warms: the target whose head this run trains first; keeps_head: the parent is such a run, and its head goes on.
    decides: what `id` is the hash of, to show how two runs differ.
    """

    id: str
    intermediate: str
    target: str
    task: str
    seed: int
    parent: str
    recipe: Recipe | None
    arm: Arm | None = None
    warms: str = ''
    keeps_head: bool = False
    decides: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)

    @property
    def name(self) -> str:
        """A folder name that a person can read; unique within a plan, and by the hash between plans."""
        phase = self.target or (f'{self.warms}-warmup' if self.warms else 'intermediate')
        return f'{self.intermediate}--{phase}--seed{self.seed}-{self.id[:8]}'

    @property
    def where(self) -> str:
        """The config field that a message about the run's data names."""
        return f'targets {self.target or self.warms}' if self.target or self.warms else f'arms.{self.intermediate}'


def run_tasks(run: Run) -> tuple[str, ...]:
    """Names of the tasks that a run trains on."""
    if run.arm is None:
        return ()
    return tuple(dict.fromkeys(t for name, member in run.arm.tasks.items() for t in member_tasks(name, member)))


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


def evaluation_split(config: Config, target: str) -> str:
    """The split that a target is evaluated on: as configured, else `default_split` of the languages asked for."""
    if target in config.evaluation.split:
        return config.evaluation.split[target]
    languages = evaluation_languages(config, target)
    return default_split(get_task(target), languages, config.data_root, config.skip_bad_rows)


def default_split(task: Task, languages: Sequence[str], data_root: str, skip_bad_rows: bool = False) -> str:
    """'test' where its files are there with gold labels in every language, else 'dev' where its are, else 'test' (and
    an error later). The public test files of several tasks (COPA, CommonsenseQA, XTREME's) have no labels.
    """
    for split in ('test', 'dev'):
        if split in task.splits and all(
            available(task, code, split, data_root) and has_gold(task, code, split, data_root, skip_bad_rows)
            for code in languages
        ):
            return split
    return 'test' if 'test' in task.splits else 'dev'


def has_gold(task: Task, language: str, split: str, data_root: str, skip_bad_rows: bool = False) -> bool:
    """Whether the first row of a split (skip_bad_rows: that can be read) has a gold label. Raises DataError for files
    that are missing or unreadable.
    """
    files = split_files(task, language, split, data_root)
    if task.kind in ('retrieval', 'text') or not files:
        return True
    key = (task.name, language, *((str(path), path.stat().st_mtime_ns) for path in files))
    if key not in _HAS_GOLD:  # asked for often, and a JSON file is read as a whole
        bad_rows = [] if skip_bad_rows else None
        first = read_split(task, language, split, data_root, 1, bad_rows)
        _HAS_GOLD[key] = all(has_label(example) for example in first)
    return _HAS_GOLD[key]


_HAS_GOLD: dict[tuple[object, ...], bool] = {}


def make_plan(config: Config, source: EncoderSource) -> list[Run]:
    """The runs in an order that respects their parents. Raises ConfigError and TaskError for names that do not exist,
    DataError for training or evaluation files that are missing."""
    _check_names(config)
    for name in config.targets:  # found here, not after the training
        task, split = get_task(name), evaluation_split(config, name)
        for language in evaluation_languages(config, name):
            has_gold(task, language, split, config.data_root, config.skip_bad_rows)  # raises for what cannot be read
    builder = _Builder(config, source)
    runs = [run for seed in config.seeds for arm in config.intermediate for run in builder.arm(arm, seed)]
    runs = [replace(run, decides=builder.decided[run.id]) for run in runs]
    first: dict[str, Run] = {}
    for run in (run for run in runs if not run.target):  # two names of one definition would be trained twice
        other = first.setdefault(run.id, run)
        if other.intermediate != run.intermediate:
            raise ConfigError(f'intermediate: {other.intermediate!r} and {run.intermediate!r} train on the same')
    return runs


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
        if config.training[name].joint or get_task(name).kind == 'retrieval':
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


class _Builder:
    """Makes the runs of an arm; rows are digested once."""

    def __init__(self, config: Config, source: EncoderSource):
        self.config, self.source = config, source
        self.decided: dict[str, dict[str, object]] = {}  # by id: what it is the hash of, with the parent's in full

    def arm(self, name: str, seed: int) -> list[Run]:
        """The intermediate run of an arm, if it has one, then its targets'."""
        config, runs, parent = self.config, [], ''
        if name != NONE and not arm_of(config, name).joint:
            parts = arm_of(config, name)
            found = datasets(config, parts, f'arms.{name}' if name in config.arms else 'intermediate')
            check_rates(parts, found, f'arms.{name}')
            recipe = config.recipe_for(name)
            runs.append(Run(self.train_id(parts, found, recipe, seed, ''), name, '', name, seed, '', recipe, parts))
            parent = runs[0].id
        for target in config.targets:
            runs += self.target(name, task_of(config, target), seed, parent)
        return runs

    def target(self, arm: str, target: Task, seed: int, parent: str) -> list[Run]:
        """A target's run, behind its warm-up where it has one and the rows for it are there."""
        config, joint = self.config, arm in self.config.arms and self.config.arms[arm].joint
        if target.kind == 'retrieval':
            if joint:
                raise ConfigError(
                    f'arms.{arm}: joint with a target, and the retrieval target {target.name!r} has no training'
                )
            return [Run(self.id(parent, seed=seed), arm, target.name, '', seed, parent, None)]
        runs: list[Run] = []
        if target.warmup_task and target.name not in config.training and not joint:
            runs = self.warmup(arm, target, seed, parent)
        parts, recipe = target_arm(config, target, arm), config.recipe_for(target.name)
        found, where = datasets(config, parts, f'training.{target.name}'), runs[0].id if runs else parent
        self.check_head(target, found)
        check_rates(parts, found, f'training.{target.name}')
        identity = self.train_id(parts, found, recipe, seed, where)
        task = found[0].task.name if len(found) == 1 else '+'.join(parts.tasks)
        return [*runs, Run(identity, arm, target.name, task, seed, where, recipe, parts, keeps_head=bool(runs))]

    def check_head(self, target: Task, found: list[Dataset]) -> None:
        """A target's training must have the head that it is scored with. Raises ConfigError."""
        task = training_task(self.config, target)
        heads = {dataset.head: dataset.task for dataset in found}
        own = heads.get(target.name)
        if own is None or head_spec(own) != head_spec(task) or (own.kind != 'choice' and own.labels != task.labels):
            said = f'{own.name!r} has another kind or other labels' if own else f'the heads are {", ".join(heads)}'
            raise ConfigError(f'training.{target.name}: no head {target.name!r} as {task.name!r} trains it: {said}')

    def warmup(self, arm: str, target: Task, seed: int, parent: str) -> list[Run]:
        """What a target is trained on before its own rows, with the same head (XCOPA: Social IQa); [] without them."""
        config, name = self.config, str(target.warmup_task)
        if not available(task_of(config, name), 'en', 'train', config.data_root):
            return []
        parts = Arm(tasks={name: Member(head=target.name)})
        recipe = config.recipes.get(name) or config.recipe_for(target.name)
        found = datasets(config, parts, f'targets {target.name}')
        identity = self.train_id(parts, found, recipe, seed, parent)
        return [Run(identity, arm, '', name, seed, parent, recipe, parts, warms=target.name)]

    def train_id(self, arm: Arm, found: list[Dataset], recipe: Recipe, seed: int, parent: str) -> str:
        # How often it logs and saves its state changes nothing that is trained.
        beside = ('log_every', 'checkpoint_every', 'keep_checkpoints', 'dev_score')
        decides = {k: v for k, v in to_dict(recipe).items() if k not in beside}
        parts = to_dict(arm)
        for member in parts['tasks'].values():
            if not member['split']:  # so that runs from before there was this field keep their names
                del member['split']
        more = {}
        if recipe.keep == 'best' or recipe.patience:  # what is older than these settings is named without them
            scored = [dataset.task for dataset in found if selects(self.config, dataset)]
            if any(task.kind == 'span' for task in scored):
                more |= self.config.evaluation.qa_decides()
            if any(dev_metrics(task, recipe.dev_score) != dev_metrics(task) for task in scored):
                more['dev_score'] = recipe.dev_score
        return self.id(parent, seed=seed, arm=parts, recipe=decides, data=data_digests(self.config, found), **more)

    def id(self, parent: str, **decides: object) -> str:
        # The mesh and these change where and how numbers are computed, not what is asked for.
        beside = ('source', 'unroll', 'remat', 'attention')
        encoder = {k: v for k, v in to_dict(self.config.encoder).items() if k not in beside}
        found = {'format': _FORMAT, 'encoder': encoder, 'weights': self.source.digest, 'parent': parent} | decides
        self.decided[digest(found)] = found | {'parent': self.decided.get(parent, parent)}
        return digest(found)
