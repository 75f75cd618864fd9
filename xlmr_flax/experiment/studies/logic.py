"""The logic study: does intermediate training on logical inference help zero-shot transfer to low-resource languages?

Arms: no intermediate training; MNLI; each data set of logical inference; all of these together, with and without MNLI;
and controls: the same rows with shuffled labels, and a task without inference. Every arm has the same number of
training rows (if its files have that many), of optimizer steps and of rows per step, so that arms differ only in their
data; `mlm` draws as many rows as the others, from all lines of its files. `size` selects the encoder and its recipe,
`where` the part of the grid. All sizes have the same arms with the same names. Which splits and languages have files is
looked up in XLMR_DATA_ROOT while the config loads; the command line sets this variable to its --data_root.

docs/logic_study.md lists the differences from the paper (Phang et al. 2020 trained each task on all its rows).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xlmr_flax.config import NONE, Arm, Config, ConfigError
from xlmr_flax.data.split import Split
from xlmr_flax.experiment.studies import presets
from xlmr_flax.experiment.studies.phang2020 import SIZES, arm, member, only, scored_languages
from xlmr_flax.experiment.studies.preset_values import SMALL
from xlmr_flax.tasks import get_task

NAME = 'logic_low_resource'
WHERE = ('core', 'full')
SEEDS = (1, 2, 3)
CORE_SEEDS = (11, 12, 13, 14, 15)  # not used by any trial of a recipe
# Inference data sets of the mixture that share one head. The other two have two classes, and so separate heads.
SHARED = ('control_whole', 'folio', 'help', 'med', 'conjnli', 'sick', 'proofwriter', 'clutrr_nli')
MIXTURE = ('logiqa2_nli_new', 'logicbench', *SHARED)
# Tokens of sets with whole paragraphs.
LONG = {
    'logiqa2': 256, 'logiqa2_nli': 256, 'logiqa2_nli_new': 256, 'logicbench': 256, 'control': 512, 'control_whole': 512,
    'folio': 256, 'proofwriter': 256, 'squad_v1': 384,
}  # fmt: skip
SHORT = 128  # tokens; the limit of these lengths for the small encoder
CORE_ARMS = (NONE, 'logic', 'logic_shuffled', 'mnli', 'pos_tags', 'proofwriter', 'logic_mnli')
FULL_ARMS = (
    NONE, 'mnli', 'logiqa_nli', 'logiqa_mrc', 'control_nli', 'folio', 'proofwriter', 'help_med', 'conjnli', 'sick',
    'logic', 'logic_mnli', 'logic_shuffled', 'mnli_shuffled', 'pos_tags', 'csqa',
)  # fmt: skip
# In no plan unless `intermediate=` names it. Masked language modelling makes an encoder from which other arms can start
# (encoder.source=ckpt:...), to see what they do if its last training was not contrastive (docs/logic_study.md).
MORE_ARMS = ('mlm',)
CORE_TARGETS = ('xnli_plus', 'sib200', 'sib200_retrieval', 'panx')
FULL_TARGETS = (
    'xnli_plus', 'sib200', 'xcopa', 'pawsx', 'panx', 'masakhaner2_nodate', 'uner', 'udpos', 'masakhapos', 'xquad',
    'tydiqa', 'tatoeba', 'sib200_retrieval',
)  # fmt: skip
# English, three languages with more resources, and low-resource ones, chosen without regard to scores: in alphabetical
# order of their codes, every second one of xnli_plus (and Burmese, the language of myXNLI) and every sixth of sib200.
_MORE_RESOURCES = ('de', 'tr', 'hi')
_SIXTH = (
    'ajp', 'as', 'ba', 'bm', 'cy', 'fj', 'gd', 'hy', 'kac', 'km', 'ks_Deva', 'lij', 'luo', 'min', 'mos', 'nn', 'om',
    'ps', 'sc', 'sm', 'su', 'tg', 'tt', 'vec', 'yue',
)  # fmt: skip
CORE_LANGUAGES = {
    'xnli_plus': (
        'en', *_MORE_RESOURCES,
        'as', 'bzd', 'ee', 'gu', 'hch', 'kn', 'ln', 'mr', 'my', 'nah', 'or', 'pa', 'rw', 'sn', 'sw', 'te', 'wo', 'yo',
    ),
    'sib200': ('en', *_MORE_RESOURCES, *_SIXTH),
    'sib200_retrieval': (*_MORE_RESOURCES, *_SIXTH),
    'panx': ('en', 'de', 'fi', 'hi', 'tr', 'et', 'ka', 'kk', 'az', 'ml', 'mr', 'my', 'sw', 'ur', 'jv', 'qu', 'yo'),
}  # fmt: skip
COMPACT = ('small', 'tiny')  # sizes with the recipe of the preset small
ROWS = {'small': 4000, 'base': 4500, 'large': 4500, 'tiny': 64}  # 4,500 is the size of SICK's train split
EPOCHS = 3.0
# Rows a step and peak learning rate of the arms of the small encoder (docs/presets.md#small).
SMALL_ARM_BATCH, SMALL_ARM_RATE = 16, 1.5e-4
# (arm, control): besides 'none', the arm is compared with this control. If the difference remains, what both share does
# not explain the effect.
CONTRASTS = (
    ('logic', 'logic_shuffled'), ('logic', 'mnli'), ('logic', 'pos_tags'), ('conjnli', 'mnli'), ('mnli', 'pos_tags'),
    ('logic_mnli', 'mnli'), ('mnli', 'mnli_shuffled'), ('logic', 'csqa'), ('proofwriter', 'pos_tags'),
)  # fmt: skip


def study(
    size: str = 'small', where: str = 'core', rows: int = 0, seeds: Sequence[int] = (), preset: str = presets.DEFAULT
) -> dict[str, Any]:
    """Returns the config of the study as nested dicts, for `config.parse` or ConfigDict.

    size: small (the embedded encoder), base, large or tiny. where: 'core' (seven arms, four targets) or 'full'. rows:
    training rows of every arm, 0 = ROWS. preset: name of the preset whose recipes the targets of base and large use;
    small and tiny have the preset `small`. The arms of MORE_ARMS are defined, and not in `intermediate`.
    Raises ConfigError.
    """
    presets.one_of('size', size, tuple(SIZES))
    presets.one_of('where', where, WHERE)
    rows, compact = rows or ROWS[size], size in COMPACT
    names = CORE_ARMS if where == 'core' else FULL_ARMS
    batch = SMALL_ARM_BATCH if compact else 32
    steps = math.ceil((1.0 if compact else EPOCHS) * rows / batch)
    targets = CORE_TARGETS if where == 'core' else FULL_TARGETS
    seeds = tuple(seeds) or (CORE_SEEDS if where == 'core' else SEEDS)
    raw = presets.preset('small' if compact else preset, targets, names, SIZES[size], seeds)
    arms = {name: spec for name, spec in all_arms(rows, steps, compact).items() if name in (*names, *MORE_ARMS)}
    raw |= {'name': NAME, 'keep_models': 'intermediate', 'arms': arms}
    raw['title'] = f'Logical inference before transfer to low-resource languages: {size}, {where}, {rows:,} rows an arm'
    if compact:
        _make_compact(raw, size)
    step = {'batch_size': batch, 'accumulation': 1, 'epochs': 0.0, 'steps': steps, 'keep': 'last', 'eval_every': 0}
    length = {'max_length': SMALL.recipe['max_length'] if compact else 128}
    if compact:
        step['optimizer'] = {'learning_rate': SMALL_ARM_RATE}
    trained = [name for name in (*names, *MORE_ARMS) if name != NONE]
    own = {name: step | length | {'max_train': rows if name not in arms else 0} for name in trained}
    if 'proofwriter' in own:
        own['proofwriter']['max_length'] = min(LONG['proofwriter'], SHORT) if compact else LONG['proofwriter']
    raw['recipes'] = {name: fields for name, fields in raw['recipes'].items() if name in targets} | own
    if where == 'core':
        raw['evaluation']['languages'] = {t: CORE_LANGUAGES[t] for t in targets if t in CORE_LANGUAGES}
    else:
        for target in targets:
            split, there = scored_languages(target, beyond=True)  # low-resource ones are among these
            if there:  # otherwise the plan raises an error that names the missing files
                raw['evaluation']['languages'] = {**raw['evaluation']['languages'], target: there}
                raw['evaluation']['split'] = {**raw['evaluation']['split'], target: split}
    return raw


def all_arms(rows: int, steps: int, compact: bool) -> dict[str, dict[str, Any]]:
    """Returns the arms that are mixtures or need settings, unlike 'none' and single tasks.

    The `max_train` of the members add up to `rows` (rounded up), and after `steps` draws each member has been drawn in
    proportion to its size.
    """
    logic = _shares({name: rows / len(MIXTURE) for name in MIXTURE}, compact)
    half = _shares({name: rows / 2 / len(MIXTURE) for name in MIXTURE}, compact)
    half |= {'mnli': member(max_train=round(rows / 2))}
    return {
        'logiqa_nli': arm(_shares({'logiqa2_nli': rows}, compact)),
        'logiqa_mrc': arm(_shares({'logiqa2': rows}, compact)),
        'control_nli': arm(_shares({'control': rows}, compact)),
        'help_med': arm(_shares({'help': rows / 2, 'med': rows / 2}, compact), block=steps),
        'logic': arm(logic, block=steps),
        'logic_mnli': arm(half, block=steps),
        'logic_shuffled': arm({name: spec | {'shuffle_labels': True} for name, spec in logic.items()}, block=steps),
        'mnli_shuffled': arm({'mnli': member(max_train=rows, shuffle_labels=True)}),
        'pos_tags': arm({'udpos': member(max_train=rows)}),
        'csqa': arm({'commonsenseqa': member(max_train=rows)}),
        'mlm': arm({'udhr': member(languages=get_task('udhr').languages)}),
    }


def _shares(sizes: Mapping[str, float], compact: bool) -> dict[str, dict[str, Any]]:
    """Returns a member for each task of {task: number of rows}."""
    members = {}
    for name, size in sizes.items():
        head = 'nli' if name in SHARED and len(sizes) > 1 else ''
        length = min(LONG.get(name, 0), SHORT) if compact else LONG.get(name, 0)
        members[name] = member(max_train=math.ceil(size), head=head, split=training_rows(name), max_length=length)
    return members


def training_rows(name: str) -> str:
    """Returns the split that replaces a task's train split; '' = the train split exists, or no split does.

    It is 'dev' if only the dev rows are under the data root, and 'test' for a task without a train split (MED).
    """
    task = get_task(name)
    if 'train' not in task.splits:
        return 'test'
    there = {split: Split(task, 'en', split).is_there() for split in ('train', 'dev') if split in task.splits}
    return 'dev' if there.get('dev') and not there['train'] else ''


def contrasts(arms: Iterable[str]) -> list[tuple[str, str]]:
    """Returns the pairs of CONTRASTS for which both arms are in `arms`."""
    there = set(arms)
    return [pair for pair in CONTRASTS if set(pair) <= there]


def notes(config: Config) -> list[str]:
    """Returns a note on each arm's training for the head of a report: maximum rows and their splits, steps, rows per
    step."""
    lines = []
    for name in config.intermediate:
        if name == NONE:
            continue
        recipe, spec = config.recipe_for(name), config.arms.get(name)
        parts = {name: recipe.max_train} if spec is None else {t: m.max_train for t, m in spec.tasks.items()}
        rows = ', '.join(f'{task} {f"{n:,}" if n else "all"}{_remarks(spec, task)}' for task, n in parts.items())
        steps = f'{recipe.steps} steps of {recipe.batch_size} rows'
        lines.append(f'arm {name}: {steps} ({recipe.steps * recipe.batch_size:,} draws); rows at most: {rows}')
    return lines


def _remarks(arm: Arm | None, task: str) -> str:
    if arm is None:
        return ''
    member = arm.tasks[task]
    more = [f'its {member.split} rows'] if member.split else []
    more += ['shuffled labels'] if member.shuffle_labels else []
    return f' ({", ".join(more)})' if more else ''


def _make_compact(raw: dict[str, Any], size: str) -> None:
    """Completes the recipes of the preset `small` and caps the evaluation."""
    raw['preset'] = ''  # the arms and the evaluation are not those of the preset
    raw['recipe'] |= {'log_every': 25}
    spans = {'max_length': 256, 'max_train': 600}
    few = {'max_train': 400, 'epochs': 1.5}
    raw['recipes'] |= {'xquad': spans, 'tydiqa': spans, 'xcopa': few}
    raw['evaluation'] |= {'max_examples': 200, 'max_length': 96}
    if size == 'tiny':
        raw['recipe'] |= {'steps': 2, 'max_train': 32}
        raw['recipes'] = {name: {**fields, 'steps': 2} for name, fields in raw['recipes'].items()}
        raw['evaluation'] |= {'max_examples': 4}


def from_argument(argument: str) -> dict[str, Any]:
    """Returns the study for the argument of configs/logic_low_resource.py: 'size=small,where=core,seeds=1+2+3'."""
    values = presets.arguments(argument, ('size', 'where', 'rows', 'preset', 'seeds', 'intermediate', 'targets'))
    try:
        rows = int(values.get('rows', '0'))
    except ValueError:
        raise ConfigError(f'config argument rows={values["rows"]}: a number is expected') from None
    if rows < 0:
        raise ConfigError(f'config argument rows={rows}: a number above 0 is expected')
    if 'preset' in values and values.get('size', 'small') in COMPACT:
        raise ConfigError(
            f'config argument preset={values["preset"]}: only the sizes base and large have a choice of recipes'
        )
    raw = study(
        values.get('size', 'small'), values.get('where', 'core'), rows, presets.seeds_of(values),
        values.get('preset', presets.DEFAULT),
    )  # fmt: skip
    return only(raw, values)
