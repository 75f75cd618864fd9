"""A plan: which runs a config asks for, in which order, each named by the hash of what decides it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xlmr_flax.config import Config, ConfigError, Recipe, digest, to_dict
from xlmr_flax.data.sources import DataError, available, content_digest, read_split, split_files, with_labels
from xlmr_flax.models.source import EncoderSource
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import ChoiceExample, PairExample, SpanExample, TagExample, Task, closest

NONE = 'none'
# Raised when the code changes what a run computes, so that an old workdir is not taken for a new result.
_FORMAT = 1


@dataclass(frozen=True)
class Run:
    """One run: a training (intermediate or target) or, for retrieval, an evaluation only.

    id: hash of what decides the weights. intermediate: the arm. target: '' for the intermediate phase itself. task:
    what is trained on ('' = nothing). parent: id of the run whose encoder this one starts from, '' = the pretrained
    one.
    """

    id: str
    intermediate: str
    target: str
    task: str
    seed: int
    parent: str
    recipe: Recipe | None

    @property
    def name(self) -> str:
        """A folder name that a person can read; unique within a plan, and by the hash between plans."""
        phase = self.target or 'intermediate'
        return f'{self.intermediate}--{phase}--seed{self.seed}-{self.id[:8]}'


def task_of(config: Config, name: str) -> Task:
    """The task of that name with its labels (some take them from their files). Raises TaskError, DataError."""
    return with_labels(get_task(name), config.data_root)


def has_dev(config: Config, task: Task) -> bool:
    """Whether English dev rows for selection are there."""
    return 'dev' in task.splits and available(task, 'en', 'dev', config.data_root)


def training_task(config: Config, target: Task) -> Task:
    """The task whose English train split fine-tunes a target. Raises ConfigError for evaluation-only tasks."""
    if target.train_task is None:
        if 'train' not in target.splits:
            raise ConfigError(f'targets: {target.name!r} has no training data and is no retrieval task')
        return target
    return task_of(config, target.train_task)


def evaluation_languages(config: Config, target: str) -> tuple[str, ...]:
    """The languages that a target is evaluated in, English first where it is one of them."""
    names = config.evaluation.languages.get(target) or get_task(target).languages
    return tuple(sorted(names, key=lambda code: code != 'en'))


def evaluation_split(config: Config, target: str) -> str:
    """The split that a target is evaluated on: as configured, else `default_split` of the languages asked for."""
    if target in config.evaluation.split:
        return config.evaluation.split[target]
    languages = evaluation_languages(config, target)
    return default_split(get_task(target), languages, config.data_root)


def default_split(task: Task, languages: Sequence[str], data_root: str) -> str:
    """'test' where its files are there with gold labels in every language, else 'dev' where its are, else 'test' (and
    an error later). The public test files of several tasks (COPA, CommonsenseQA, XTREME's) have no labels.
    """
    for split in ('test', 'dev'):
        if split in task.splits and all(
            available(task, code, split, data_root) and has_gold(task, code, split, data_root) for code in languages
        ):
            return split
    return 'test' if 'test' in task.splits else 'dev'


def has_gold(task: Task, language: str, split: str, data_root: str) -> bool:
    """Whether the first row of a split has a gold label. Raises DataError for files that are missing or unreadable."""
    files = split_files(task, language, split, data_root)
    if task.kind in ('retrieval', 'text') or not files:
        return True
    key = (task.name, language, *((str(path), path.stat().st_mtime_ns) for path in files))
    if key not in _HAS_GOLD:  # asked for often, and a JSON file is read as a whole
        _HAS_GOLD[key] = all(_labelled(example) for example in read_split(task, language, split, data_root, 1))
    return _HAS_GOLD[key]


_HAS_GOLD: dict[tuple[object, ...], bool] = {}


def _labelled(example: object) -> bool:
    if isinstance(example, SpanExample):
        return bool(example.answers) or example.is_impossible
    if isinstance(example, TagExample):
        return example.tags is not None
    return not isinstance(example, PairExample | ChoiceExample) or example.label is not None


def make_plan(config: Config, source: EncoderSource) -> list[Run]:
    """The runs in an order that respects their parents. Raises ConfigError and TaskError for names that do not exist,
    DataError for training or evaluation files that are missing."""
    for name in (*config.intermediate, *config.targets):
        if name != NONE:
            get_task(name)
    known = set(config.intermediate) | set(config.targets)
    for name in config.recipes:
        if name not in known:
            raise ConfigError(f'recipes.{name}: no such intermediate or target task in this plan{closest(name, known)}')
    for field, names in (('languages', config.evaluation.languages), ('split', config.evaluation.split)):
        for name in names:
            if name not in config.targets:
                raise ConfigError(f'evaluation.{field}.{name}: no such target{closest(name, config.targets)}')
    for name in config.targets:  # found here, not after the training
        task, split = get_task(name), evaluation_split(config, name)
        for language in evaluation_languages(config, name):
            if not has_gold(task, language, split, config.data_root):
                raise DataError(f'targets: {name!r} has no gold labels for {split} in {language!r}: nothing to score')
    runs = []
    for seed in config.seeds:
        for arm in config.intermediate:
            parent = ''
            if arm != NONE:
                task = _trainable(config, arm)
                run = _train_run(config, source, arm, '', task, seed, '', config.recipe_for(arm))
                runs.append(run)
                parent = run.id
            runs.extend(
                _target_run(config, source, arm, task_of(config, name), seed, parent) for name in config.targets
            )
    return runs


def _trainable(config: Config, arm: str) -> Task:
    task = task_of(config, arm)
    if 'train' not in task.splits:
        raise ConfigError(f'intermediate: task {arm!r} has no train split')
    return task


def _target_run(config: Config, source: EncoderSource, arm: str, target: Task, seed: int, parent: str) -> Run:
    if target.kind == 'retrieval':
        return Run(_hash(config, source, parent, seed=seed), arm, target.name, '', seed, parent, None)
    task, recipe = training_task(config, target), config.recipe_for(target.name)
    return _train_run(config, source, arm, target.name, task, seed, parent, recipe)


def _train_run(
    config: Config, source: EncoderSource, arm: str, target: str, task: Task, seed: int, parent: str, recipe: Recipe
) -> Run:
    splits = ('train', 'dev') if has_dev(config, task) else ('train',)
    data = {split: content_digest(task, 'en', split, config.data_root) for split in splits}
    decides = {'task': task.name, 'head': target or task.name, 'recipe': to_dict(recipe), 'data': data}
    return Run(_hash(config, source, parent, seed=seed, **decides), arm, target, task.name, seed, parent, recipe)


def _hash(config: Config, source: EncoderSource, parent: str, **decides: object) -> str:
    # The mesh and the unrolling change where numbers are computed, not what is asked for.
    encoder = {k: v for k, v in to_dict(config.encoder).items() if k not in ('source', 'unroll', 'remat')}
    base = {'format': _FORMAT, 'encoder': encoder, 'weights': source.digest, 'parent': parent}
    return digest(base | decides)
