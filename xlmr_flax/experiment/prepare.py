"""What a config reads, and its tokens made ahead of the run (data/cache.py)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xlmr_flax.config import Arm, Config, Member, Recipe
from xlmr_flax.data.cache import Entry, lookup
from xlmr_flax.data.sources import read_pairs, read_split, with_labels
from xlmr_flax.data.split import Split
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.eval.by_gold import MinedSide
from xlmr_flax.experiment.arms import NONE, arm_of, datasets, member_limit, member_tasks, target_arm, task_of
from xlmr_flax.experiment.plan import evaluation_languages, evaluation_split
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import Example, Task, TaskError


@dataclass(frozen=True)
class Need:
    """One split in one language at one length. limit: first so many rows, 0 = all. repeated: of mining,
    config.Evaluation.repeated_sentences."""

    task: str
    split: str
    language: str
    max_length: int
    limit: int = 0
    repeated: str = 'kept'


@dataclass(frozen=True)
class Built:
    """What became of a Need: of each side of a retrieval task ('asks', 'searched'), else side ''."""

    need: Need
    side: str
    entry: Entry

    @property
    def tokens(self) -> int:
        return len(self.entry.data.tokens.flat)


def config_needs(config: Config) -> list[Need]:
    """Every split that a run of this config reads, once, in the order of its phases. Raises TaskError."""
    found: list[Need] = []
    for arm in config.intermediate:
        if arm != NONE and not arm_of(config, arm).joint:
            found += _training(config, arm_of(config, arm), config.recipe_for(arm), f'arms.{arm}')
    for name in config.targets:
        task, length = task_of(config, name), config.evaluation.max_length
        if task.kind != 'retrieval':
            recipe = config.recipe_for(name)
            length = recipe.max_length
            for arm in config.intermediate:  # a joint arm's rows come with the target's
                found += _training(config, target_arm(config, task, arm), recipe, f'training.{name}')
            if task.warmup_task and name not in config.training:
                warm = Arm(tasks={task.warmup_task: Member()})
                if Split(task_of(config, task.warmup_task), 'en', 'train', config.data_root).is_there():
                    found += _training(config, warm, config.recipes.get(task.warmup_task) or recipe, f'targets {name}')
        split = evaluation_split(config, name)
        by_gold = split in task.gold  # whole pools; mining takes its threshold from dev
        splits = ['dev', split] if by_gold and task.mines else [split]
        limit = 0 if by_gold else config.evaluation.max_examples
        repeated = config.evaluation.repeated_sentences if task.mines else 'kept'
        for each in dict.fromkeys(splits):
            languages = evaluation_languages(config, name)
            found += [Need(name, each, code, length, limit, repeated) for code in languages]
    return list(dict.fromkeys(found))


def _training(config: Config, arm: Arm, recipe: Recipe, where: str) -> list[Need]:
    found = []
    for dataset in datasets(config, arm, where):
        length = dataset.spec.max_length or recipe.max_length
        limit = member_limit(dataset.spec, recipe.max_train)
        found.append(Need(dataset.task.name, dataset.split, dataset.language, length, limit))
        if 'dev' in dataset.task.splits:
            found.append(Need(dataset.task.name, 'dev', 'en', length, recipe.eval_examples))
    return found


def build(needs: Sequence[Need], tokenizer: Tokenizer, data_root: str, positions: int) -> Iterator[Built]:
    """Tokenizes what is not there yet. positions: the encoder's, which longer rows are cut to. Raises DataError."""
    for need in needs:
        task = with_labels(get_task(need.task), data_root)
        length = min(need.max_length, positions)
        for side, examples in _sides(task, need, data_root):
            if task.kind != 'text' and examples:
                yield Built(need, side, lookup(task, examples, tokenizer, length))


def _sides(task: Task, need: Need, data_root: str) -> list[tuple[str, Sequence[Example]]]:
    limit = need.limit or None
    if task.kind != 'retrieval':
        return [('', read_split(task, need.language, need.split, data_root, limit))]
    pairs = read_pairs(task, need.language, need.split, data_root, limit)
    if task.mines:
        pairs = tuple(MinedSide.of(side, need.repeated).sentences for side in pairs)
    return list(zip(('asks', 'searched'), pairs, strict=True))


def config_reads(config: Config) -> list[Split]:
    """All that a config reads from files where everything is there.

    Needs no data root: what is there now changes what a plan takes (dev for a test set without labels), not what it
    would take. Raises TaskError, ConfigError.
    """
    found: list[tuple[str, str, str]] = []
    for arm in config.intermediate:
        if arm != NONE and not arm_of(config, arm).joint:
            found += _trained(arm_of(config, arm))
    for name in config.targets:
        task = get_task(name)
        for arm in config.intermediate if task.kind != 'retrieval' else ():
            found += _trained(target_arm(config, task, arm))
        if task.warmup_task and task.kind != 'retrieval' and name not in config.training:
            found += _trained(Arm(tasks={task.warmup_task: Member()}))
        splits = [config.evaluation.split[name]] if name in config.evaluation.split else ['dev', 'test']
        splits += ['dev'] if task.gold and 'f1' in task.metrics else []  # its threshold
        languages = evaluation_languages(config, name)
        found += [(name, split, code) for split in splits if split in task.splits for code in languages]
    splits = (Split(get_task(task), code, name, config.data_root) for task, name, code in dict.fromkeys(found))
    return [split for split in splits if split.reads_files]


def _trained(arm: Arm) -> list[tuple[str, str, str]]:
    """What the members of an arm are trained on, the task's own training rows where they name another split, and the
    English dev rows that select a checkpoint."""
    found = []
    for name, member in arm.tasks.items():
        for task in map(get_task, member_tasks(name, member)):
            own = [(task.name, member.split, code) for code in member.languages if member.split]
            with contextlib.suppress(TaskError):  # a task without training rows, trained on its dev rows
                own += [(task.name, task.training_split(code), code) for code in member.languages]
            dev = 'dev' in task.splits and 'en' in task.languages
            found += [*own, *([(task.name, 'dev', 'en')] if dev else [])]
    return found
