"""The ground: what a run is made of, as frozen dataclasses; parsed once from plain mappings at the door.

A config file starts from `defaults()`, changes fields and returns a ConfigDict; `parse` turns that into a `Config`
and refuses unknown keys and wrong types with the closest known name. Nothing past the door sees a ConfigDict.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import re
import types
import typing
from collections.abc import Mapping
from typing import Any


class ConfigError(ValueError):
    """A config key or value that cannot be used; the message names the field and the closest known one."""


@dataclasses.dataclass(frozen=True)
class EncoderSpec:
    """The pretrained encoder. source: embedded, hf:NAME-OR-DIR, ckpt:DIR or random:SIZE. head: 'jiant' (the authors':
    pooler and a two-layer head) or 'hf' (transformers' classes; can be exported). dtype: compute, float32 or bfloat16
    (parameters are float32 always). dropout rates below 0 mean: as the checkpoint says. unroll: layers per scan step,
    0 = all. attention: 'auto' (by platform), or 'xla_cpu', 'xla', 'cudnn' or 'tpu' (models/attention.py). kept:
    what a layer keeps for its backward pass, 'all', 'products' (of matrices; the rest is computed again), 'layers' (its
    input; as remat says, too) or 'auto'.
    """

    source: str = 'embedded'
    head: str = 'jiant'
    dtype: str = 'float32'
    dropout: float = -1.0
    attention_dropout: float = -1.0
    remat: bool = False
    unroll: int = 1
    attention: str = 'auto'
    kept: str = 'auto'


@dataclasses.dataclass(frozen=True)
class OptimizerSpec:
    """AdamW with decay on everything but biases and layer norms. The defaults are jiant's (simple/runscript.py).

    warmup: share of all steps (jiant: 0.1); warmup_steps >= 0 overrides it. schedule: 'linear' (to 0) or 'constant'.
    clip_norm: global norm, 0 = off. clip_per: 'step' (once per optimizer step) or 'micro_batch' (the authors': on the
    running sum after every micro-batch, jiant/proj/main/runner.py).
    """

    learning_rate: float = 1e-5
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    warmup: float = 0.1
    warmup_steps: int = -1
    schedule: str = 'linear'
    clip_norm: float = 1.0
    clip_per: str = 'step'


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one phase trains. steps > 0 overrides epochs. batch_size: examples per optimizer step, over all devices and
    micro-batches; accumulation: micro-batches per step. max_length: tokens, special ones included. lengths: the row
    lengths that may be compiled (the shortest that holds a batch is taken); () = multiples chosen up to max_length.
    packing: several examples share a row, of the length that the longest of all needs; the loss is the same, dropout
    falls elsewhere. eval_every: steps between dev evaluations (0 = only at the end); eval_examples: the first so many
    dev rows (jiant: 500; 0 = all). keep: 'best' by dev metric or 'last'. patience: evaluations without improvement
    before stopping (0 = never). checkpoint_every: steps between saved states (0 = only when stopped); keep_checkpoints:
    how many of the last of them stay (a damaged one is then passed over). max_train: first so many rows (0 = all).
    """

    epochs: float = 3.0
    steps: int = 0
    batch_size: int = 32
    accumulation: int = 1
    max_length: int = 128
    lengths: tuple[int, ...] = ()
    packing: bool = True
    eval_every: int = 0
    eval_examples: int = 500
    keep: str = 'last'
    patience: int = 0
    checkpoint_every: int = 0
    keep_checkpoints: int = 1
    log_every: int = 10
    max_train: int = 0
    optimizer: OptimizerSpec = OptimizerSpec()


@dataclasses.dataclass(frozen=True)
class Member:
    """One dataset of an `Arm`. task: '' = the task that the member is named after. languages: of its training rows;
    'en' is the task's train split, another language its translated one (or text in that language). head: members that
    name one head share it ('' = one of the task's own). rate: for sampler 'time_dependent', an expression in the step
    t. max_length, lengths, max_train: 0 or () = the recipe's. fraction: share of the training rows, a subset that the
    seed draws. shuffle_labels: labels dealt anew among the rows (a control). select: weight of its dev metric in the
    choice of the best checkpoint. alpha: languages are drawn by size ** alpha. split: trained on instead of the
    training rows, where those are not at hand ('dev'; result rows say so, and it selects nothing by its own dev rows).
    """

    task: str = ''
    languages: tuple[str, ...] = ('en',)
    head: str = ''
    weight: float = 1.0
    rate: str = '1'
    max_length: int = 0
    lengths: tuple[int, ...] = ()
    max_train: int = 0
    fraction: float = 1.0
    shuffle_labels: bool = False
    select: float = 1.0
    alpha: float = 1.0
    split: str = ''


@dataclasses.dataclass(frozen=True)
class Arm:
    """A mixture of datasets that trains one encoder. sampler: 'uniform', 'proportional', 'capped' (cap), 'temperature'
    (temperature, cap), 'weights' (the members' weight) or 'time_dependent' (the members' rate): jiant's
    (proj/main/components/task_sampler.py). mix: 'step' (one task per optimizer step, jiant's) or 'micro_batch' (one
    per micro-batch, of which a step has recipe.accumulation). block: draws after which the counts are exact (0 = 100).
    joint: no phase of its own; its members are mixed into the training of every target.
    """

    tasks: Mapping[str, Member] = dataclasses.field(default_factory=dict)
    sampler: str = 'proportional'
    cap: int = 0
    temperature: float = 1.0
    mix: str = 'step'
    block: int = 0
    joint: bool = False


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Zero-shot evaluation. languages: task name -> languages (absent = all the task has). split: task -> split
    (absent = 'test'). max_examples: first so many rows per language (0 = all). batch_tokens: of a forward pass, padding
    included; 0 = data.batches.pass_tokens. packing: several examples share a row. retrieval_layer: hidden_states index,
    -1 = by convention (layer 14 of 24, as jiant and XTREME, else the last); retrieval_layers: task name -> its own.
    pooling: 'mean' (special tokens included, as both) or 'cls'. max_length: of retrieval sentences (both: 512)."""

    languages: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    split: Mapping[str, str] = dataclasses.field(default_factory=dict)
    max_examples: int = 0
    batch_tokens: int = 0
    packing: bool = True
    retrieval_layer: int = -1
    retrieval_layers: Mapping[str, int] = dataclasses.field(default_factory=dict)
    pooling: str = 'mean'
    max_length: int = 512

    def layer_of(self, task: str) -> int:
        """The configured layer of a retrieval task."""
        return self.retrieval_layers.get(task, self.retrieval_layer)


@dataclasses.dataclass(frozen=True)
class MeshSpec:
    """Devices along each axis; -1 once = all that are left. slices: TPU slices joined by a data-centre network, which
    data then spans (-1 = as many as there are)."""

    data: int = -1
    fsdp: int = 1
    model: int = 1
    slices: int = 1


@dataclasses.dataclass(frozen=True)
class Config:
    """One plan: every intermediate arm x every target x every seed.

    intermediate: 'none', task names or names of `arms`; an arm's encoder is trained once per seed and used by all
    targets. targets: task names; retrieval targets are evaluated without training. arms: mixtures by name. training:
    target -> what it is fine-tuned on where that is not its English train split alone (further languages, translated
    rows). recipe: for every phase; recipes: overrides by name (an arm's or an intermediate task's, or a target's for
    its fine-tuning). skip_bad_rows: rows that cannot be read are left out, counted and listed. data_root: '' = the
    environment's XLMR_DATA_ROOT.
    """

    name: str = 'run'
    title: str = ''
    preset: str = ''
    seeds: tuple[int, ...] = (1,)
    encoder: EncoderSpec = EncoderSpec()
    intermediate: tuple[str, ...] = ('none',)
    targets: tuple[str, ...] = ()
    arms: Mapping[str, Arm] = dataclasses.field(default_factory=dict)
    training: Mapping[str, Arm] = dataclasses.field(default_factory=dict)
    recipe: Recipe = Recipe()
    recipes: Mapping[str, Recipe] = dataclasses.field(default_factory=dict)
    evaluation: Evaluation = Evaluation()
    mesh: MeshSpec = MeshSpec()
    skip_bad_rows: bool = False
    keep_models: str = 'all'
    data_root: str = ''
    tensorboard: bool = True

    def recipe_for(self, task: str) -> Recipe:
        """The recipe of a task's phase: its own override, else the plan's."""
        return self.recipes.get(task, self.recipe)


def to_dict(value: Any) -> Any:
    """A dataclass as nested plain dicts, tuples and scalars (JSON-able)."""
    if dataclasses.is_dataclass(value):
        return {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {k: to_dict(v) for k, v in value.items()}
    return value


def defaults() -> dict[str, Any]:
    """The default `Config` as nested dicts: what a config file starts from."""
    return to_dict(Config())


def parse(raw: Mapping[str, Any]) -> Config:
    """A nested mapping -> Config. Raises ConfigError naming the field, and for unknown keys the closest known one.

    `recipes` entries are changes to `recipe`: a field that an entry leaves out is the plan's.
    """
    raw = dict(raw)
    config = _build(Config, {k: v for k, v in raw.items() if k != 'recipes'}, '', None)
    overrides = raw.get('recipes', {})
    if not isinstance(overrides, Mapping):
        raise ConfigError(f'recipes: expected a mapping of task names to recipes, got {overrides!r}')
    recipes = {name: _build(Recipe, value, f'recipes.{name}', config.recipe) for name, value in overrides.items()}
    config = dataclasses.replace(config, recipes=recipes)
    _check(config)
    return config


def digest(value: Any) -> str:
    """12 hex digits of sha256 over the canonical JSON of a value."""
    return hashlib.sha256(json.dumps(to_dict(value), sort_keys=True).encode()).hexdigest()[:12]


def _build(cls: type, raw: Any, path: str, base: Any) -> Any:
    if not isinstance(raw, Mapping):
        raise ConfigError(f'{path or "config"}: expected a mapping, got {raw!r}')
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    values: dict[str, Any] = {}
    for key, value in raw.items():
        where = f'{path}.{key}' if path else str(key)
        if key not in hints:
            match = difflib.get_close_matches(str(key), names, n=1, cutoff=0.5)
            hint = f'did you mean {match[0]!r}?' if match else f'known: {", ".join(names)}'
            raise ConfigError(f'unknown config key {where!r} ({hint})')
        current = getattr(base, key) if base is not None else None
        values[key] = _convert(hints[key], value, where, current)
    return dataclasses.replace(base, **values) if base is not None else cls(**values)


def _convert(kind: Any, value: Any, path: str, base: Any) -> Any:
    if dataclasses.is_dataclass(kind):
        return _build(typing.cast(type, kind), value, path, base)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, (tuple, list)):
            raise ConfigError(f'{path}: expected a tuple of {args[0].__name__}, got {value!r}')
        return tuple(_convert(args[0], v, f'{path}[{i}]', None) for i, v in enumerate(value))
    if origin is not None and not isinstance(origin, types.UnionType) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f'{path}: expected a mapping, got {value!r}')
        return {str(k): _convert(args[1], v, f'{path}.{k}', None) for k, v in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f'{path}: expected {kind.__name__}, got {value!r} ({type(value).__name__})')
    return value


def _check(config: Config) -> None:
    """Values that would fail late or mean nothing. Task names are checked by the plan, which knows the registry."""
    choices = {
        'encoder.head': (config.encoder.head, ('jiant', 'hf')),
        'encoder.dtype': (config.encoder.dtype, ('float32', 'bfloat16')),
        'encoder.attention': (config.encoder.attention, ('auto', 'xla_cpu', 'xla', 'cudnn', 'tpu', 'interpret')),
        'encoder.kept': (config.encoder.kept, ('auto', 'all', 'products', 'layers')),
        'evaluation.pooling': (config.evaluation.pooling, ('mean', 'cls')),
        'keep_models': (config.keep_models, ('all', 'intermediate')),
    }
    named = {'recipe': config.recipe} | {f'recipes.{k}': v for k, v in config.recipes.items()}
    for where, recipe in named.items():
        choices[f'{where}.keep'] = (recipe.keep, ('best', 'last'))
        choices[f'{where}.optimizer.schedule'] = (recipe.optimizer.schedule, ('linear', 'constant'))
        choices[f'{where}.optimizer.clip_per'] = (recipe.optimizer.clip_per, ('step', 'micro_batch'))
        if recipe.batch_size < 1 or recipe.accumulation < 1 or recipe.batch_size % recipe.accumulation:
            said = f'is not a positive multiple of accumulation {recipe.accumulation}'
            raise ConfigError(f'{where}.batch_size {recipe.batch_size} {said}')
        counts = ('steps', 'eval_every', 'eval_examples', 'patience', 'checkpoint_every', 'max_train')
        for name in (*counts, 'log_every', 'keep_checkpoints'):
            value, least = getattr(recipe, name), int(name not in counts)
            if value < least:
                raise ConfigError(f'{where}.{name} {value} is below {least}')
        if not recipe.steps and recipe.epochs <= 0:
            raise ConfigError(f'{where}: epochs {recipe.epochs} and steps 0 train nothing')
        if recipe.max_length < 8 or any(n > recipe.max_length for n in recipe.lengths):
            said = f'max_length {recipe.max_length} is below 8 or below one of lengths {recipe.lengths}'
            raise ConfigError(f'{where}: {said}')
    for where, arm in [(f'{f}.{k}', v) for f in ('arms', 'training') for k, v in getattr(config, f).items()]:
        choices |= _check_arm(where, arm)
    for where, (value, known) in choices.items():
        if value not in known:
            raise ConfigError(f'{where}: {value!r} is not one of {", ".join(known)}')
    for name, arm in {**config.arms, **config.training}.items():
        recipe = config.recipe_for(name)
        if arm.mix == 'micro_batch' and recipe.optimizer.clip_per == 'micro_batch' and recipe.optimizer.clip_norm:
            said = "mix 'micro_batch' clips once per step; set optimizer.clip_per='step' in its recipe"
            raise ConfigError(f'arms.{name}: {said}')
    for where, items in (('seeds', config.seeds), ('intermediate', config.intermediate), ('targets', config.targets)):
        if not items or len(set(items)) != len(items):
            raise ConfigError(f'{where}: expected at least one entry and no entry twice, got {items!r}')


_NAME = re.compile(r'[\w+.-]+')  # names become folders and parameter paths
SAMPLERS = ('uniform', 'proportional', 'capped', 'temperature', 'weights', 'time_dependent')


def _check_arm(where: str, arm: Arm) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Raises ConfigError for numbers that mean nothing; returns what must be one of a few names."""
    if not _NAME.fullmatch(where.split('.', 1)[1]):
        raise ConfigError(f'{where}: a name may hold letters, digits and ._+- only')
    if not arm.tasks:
        raise ConfigError(f'{where}.tasks: expected at least one entry')
    if arm.cap < 0 or arm.block < 0 or arm.temperature <= 0 or (arm.sampler == 'capped' and not arm.cap):
        said = "expected cap and block >= 0, temperature > 0, and a cap for the sampler 'capped'"
        raise ConfigError(f'{where}: cap {arm.cap}, block {arm.block}, temperature {arm.temperature}: {said}')
    for name, member in arm.tasks.items():
        at = f'{where}.tasks.{name}'
        if not member.languages or len(set(member.languages)) != len(member.languages):
            raise ConfigError(f'{at}.languages: expected one or more, none twice: {member.languages!r}')
        if not _NAME.fullmatch(name) or (member.head and not _NAME.fullmatch(member.head)):
            raise ConfigError(f'{at}: name and head {member.head!r} may hold letters, digits and ._+- only')
        lengths = [n for n in (member.max_length, *member.lengths) if n]
        if any(n < 8 for n in lengths) or (member.max_length and any(n > member.max_length for n in lengths)):
            said = f'max_length {member.max_length} is below 8 or below one of lengths {member.lengths}'
            raise ConfigError(f'{at}: {said}')
        if not 0 < member.fraction <= 1 or min(member.weight, member.select, member.max_train) < 0:
            found = f'fraction {member.fraction}, weight {member.weight}, select {member.select}'
            said = f'max_train {member.max_train}: expected 0 < fraction <= 1 and the others not below 0'
            raise ConfigError(f'{at}: {found}, {said}')
    return {f'{where}.sampler': (arm.sampler, SAMPLERS), f'{where}.mix': (arm.mix, ('step', 'micro_batch'))}
