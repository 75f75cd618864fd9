"""Validates a parsed `Config`: rejects values that would fail late or make no sense."""

from __future__ import annotations

import re

from xlmr_flax.config.spec import Arm, Config, ConfigError, Evaluation, OptimizerSpec

_NAME = re.compile(r'[\w+.-]+')  # names become folders and parameter paths
ATTENTIONS = ('auto', 'xla_cpu', 'xla', 'cudnn', 'triton', 'tpu', 'interpret', 'interpret_triton')
# How sentences become vectors: two plain ones, and the conventions of two sentence encoders.
MEAN, CLS, E5, LABSE = 'mean', 'cls', 'e5', 'labse'
POOLINGS = (MEAN, CLS, E5, LABSE)
QA_DECODINGS = ('offsets', 'reference')
REPEATED = ('kept', 'expanded', 'dropped')
HEAD_STYLES = ('jiant', 'hf', 'mean')  # encoders/heads.py says what they are


def check(config: Config) -> None:
    """Raises ConfigError for a value out of its range or set. The plan checks names of tasks and samplers."""
    choices = {
        'encoder.head': (config.encoder.head, HEAD_STYLES),
        'encoder.dtype': (config.encoder.dtype, ('auto', 'float32', 'bfloat16')),
        'encoder.attention': (config.encoder.attention, ATTENTIONS),
        'encoder.remat': (config.encoder.remat, ('auto', 'none', 'dots', 'full')),
        'evaluation.pooling': (config.evaluation.pooling, POOLINGS),
        'evaluation.repeated_sentences': (config.evaluation.repeated_sentences, REPEATED),
        'evaluation.qa_decoding': (config.evaluation.qa_decoding, QA_DECODINGS),
        'keep_models': (config.keep_models, ('all', 'intermediate')),
    }
    if config.encoder.unroll < -1:
        raise ConfigError(f'encoder.unroll {config.encoder.unroll} is below -1')
    for name in ('dropout', 'attention_dropout'):
        if (rate := getattr(config.encoder, name)) != -1 and not 0 <= rate < 1:
            raise ConfigError(f"encoder.{name} {rate} is not in [0, 1), or -1 for the encoder's own")
    check_evaluation(config.evaluation)
    named = {'recipe': config.recipe} | {f'recipes.{k}': v for k, v in config.recipes.items()}
    for where, recipe in named.items():
        choices[f'{where}.dev_score'] = (recipe.dev_score, ('first', 'mean'))
        choices[f'{where}.keep'] = (recipe.keep, ('best', 'last'))
        choices[f'{where}.optimizer.schedule'] = (recipe.optimizer.schedule, ('linear', 'constant'))
        choices[f'{where}.optimizer.clip_per'] = (recipe.optimizer.clip_per, ('step', 'micro_batch'))
        if recipe.batch_size < 1 or recipe.accumulation < 1 or recipe.batch_size % recipe.accumulation:
            reason = f'is not a positive multiple of accumulation {recipe.accumulation}'
            raise ConfigError(f'{where}.batch_size {recipe.batch_size} {reason}')
        counts = ('steps', 'eval_every', 'eval_examples', 'patience', 'checkpoint_every', 'max_train')
        for name in (*counts, 'log_every', 'keep_checkpoints'):
            value, least = getattr(recipe, name), int(name not in counts)
            if value < least:
                raise ConfigError(f'{where}.{name} {value} is below {least}')
        _check_optimizer(f'{where}.optimizer', recipe.optimizer)
        if not recipe.steps and recipe.epochs <= 0:
            raise ConfigError(f'{where}: epochs {recipe.epochs} and steps 0 train nothing')
        if recipe.max_length < 8 or any(n > recipe.max_length for n in recipe.lengths):
            reason = f'max_length {recipe.max_length} is below 8 or below one of lengths {recipe.lengths}'
            raise ConfigError(f'{where}: {reason}')
    for where, arm in [(f'{f}.{k}', v) for f in ('arms', 'training') for k, v in getattr(config, f).items()]:
        choices |= _check_arm(where, arm)
        recipe = config.recipe_for(where.partition('.')[2])
        if arm.mix == 'micro_batch' and recipe.optimizer.clip_per == 'micro_batch' and recipe.optimizer.clip_norm:
            reason = "mix 'micro_batch' clips once per step; set optimizer.clip_per='step' in its recipe"
            raise ConfigError(f'{where}: {reason}')
    for where, (value, known) in choices.items():
        if value not in known:
            raise ConfigError(f'{where}: {value!r} is not one of {", ".join(known)}')
    for where, items in (('seeds', config.seeds), ('intermediate', config.intermediate), ('targets', config.targets)):
        if not items or len(set(items)) != len(items):
            raise ConfigError(f'{where}: expected at least one entry and no entry twice, got {items!r}')


def check_evaluation(evaluation: Evaluation) -> None:
    """Raises ConfigError for a number out of its range."""
    layers = {f'retrieval_layers.{task}': layer for task, layer in evaluation.retrieval_layers.items()}
    least = {'max_examples': 0, 'batch_tokens': 0, 'max_length': 8, 'retrieval_layer': -1} | dict.fromkeys(layers, -1)
    for name, lowest in least.items():
        value = layers[name] if name in layers else getattr(evaluation, name)
        if value < lowest:
            raise ConfigError(f'evaluation.{name} {value} is below {lowest}')


def _check_optimizer(where: str, spec: OptimizerSpec) -> None:
    """Raises ConfigError for a number out of its range."""
    for name, fits, expected in (
        ('learning_rate', spec.learning_rate >= 0, '0 or above'),
        ('beta1', 0 <= spec.beta1 < 1, 'in [0, 1)'),
        ('beta2', 0 <= spec.beta2 < 1, 'in [0, 1)'),
        ('epsilon', spec.epsilon >= 0, '0 or above'),
        ('weight_decay', spec.weight_decay >= 0, '0 or above'),
        ('warmup', 0 <= spec.warmup <= 1, 'a share of the steps, from 0 to 1'),
        ('warmup_steps', spec.warmup_steps >= -1, '-1 or above'),
        ('clip_norm', spec.clip_norm >= 0, '0 or above'),
        ('layer_decay', 0 < spec.layer_decay <= 1, 'above 0 and at most 1'),
    ):
        if not fits:
            raise ConfigError(f'{where}.{name} {getattr(spec, name)}: expected {expected}')


def _check_arm(where: str, arm: Arm) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Raises ConfigError for invalid numbers and names; returns {field: (value, its allowed values)} to check."""
    if not _NAME.fullmatch(where.split('.', 1)[1]):
        raise ConfigError(f'{where}: a name may hold letters, digits and ._+- only')
    if not arm.tasks:
        raise ConfigError(f'{where}.tasks: expected at least one entry')
    if arm.cap < 0 or arm.block < 0 or arm.temperature <= 0 or (arm.sampler == 'capped' and not arm.cap):
        reason = "expected cap and block >= 0, temperature > 0, and a cap for the sampler 'capped'"
        raise ConfigError(f'{where}: cap {arm.cap}, block {arm.block}, temperature {arm.temperature}: {reason}')
    for field, samplers in (('cap', ('capped', 'temperature')), ('temperature', ('temperature',))):
        if getattr(arm, field) != getattr(Arm, field) and arm.sampler not in samplers:
            used = ' and '.join(map(repr, samplers))
            raise ConfigError(f'{where}.{field} is used only by the sampler {used}; this one is {arm.sampler!r}')
    for name, member in arm.tasks.items():
        at = f'{where}.tasks.{name}'
        if not member.languages or len(set(member.languages)) != len(member.languages):
            raise ConfigError(f'{at}.languages: expected one or more, none twice: {member.languages!r}')
        if not _NAME.fullmatch(name) or (member.head and not _NAME.fullmatch(member.head)):
            raise ConfigError(f'{at}: name and head {member.head!r} may hold letters, digits and ._+- only')
        lengths = [n for n in (member.max_length, *member.lengths) if n]
        if any(n < 8 for n in lengths) or (member.max_length and any(n > member.max_length for n in lengths)):
            reason = f'max_length {member.max_length} is below 8 or below one of lengths {member.lengths}'
            raise ConfigError(f'{at}: {reason}')
        if not 0 < member.fraction <= 1 or min(member.weight, member.select, member.max_train) < 0:
            values = f'fraction {member.fraction}, weight {member.weight}, select {member.select}'
            reason = f'max_train {member.max_train}: expected 0 < fraction <= 1 and the others not below 0'
            raise ConfigError(f'{at}: {values}, {reason}')
    return {f'{where}.mix': (arm.mix, ('step', 'micro_batch'))}
