"""The studies of Phang et al. 2020 as configs: intermediate tasks and mixtures for the nine targets of XTREME.

Settings follow the authors' code where it states them (recipes: presets.py; ANLI+ as one head over five datasets:
jiant, guides/tasks/task_specific.md). No source that we could read states the sampler of the multi-task row, the text,
languages and rate of the masked-LM variant, or the tasks and languages of the translated variant. These values are our
choice; `CHOICES` lists them, and the reports of these studies show them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xlmr_flax.config import NONE, ConfigError, to_dict
from xlmr_flax.config import Arm as ArmSpec
from xlmr_flax.config import Member as MemberSpec
from xlmr_flax.data.split import Split
from xlmr_flax.experiment.studies import presets
from xlmr_flax.tasks import get_task
from xlmr_flax.util.errors import closest

ANLI_PARTS = ('anli_r1', 'anli_r2', 'anli_r3', 'mnli', 'snli')
TASKS = ('anli_plus', 'mnli', 'qqp', 'squad_v1', 'squad_v2', 'hellaswag', 'ccg', 'cosmosqa', 'commonsenseqa')
TARGETS = ('xnli', 'pawsx', 'udpos', 'panx', 'xquad', 'mlqa', 'tydiqa', 'bucc2018', 'tatoeba')
TABLES = ('main', 'mlm', 'translation', 'best', 'fraction', 'joint')
SIZES = {'large': 'hf:xlm-roberta-large', 'base': 'hf:xlm-roberta-base', 'small': 'embedded', 'tiny': 'random:tiny'}
SPANS = ('squad_v1', 'squad_v2')
# The tasks that the abstract of the paper names: MNLI, SQuAD, HellaSwag, and all nine together.
BEST = ('mnli', 'squad_v1', 'hellaswag', 'multi')
MLM_TASKS = ('mnli', 'squad_v1', 'hellaswag')
TRANSLATED_TASKS = ('mnli', 'squad_v1')
FRACTIONS = (0.01, 0.1, 0.5, 1.0)
MLM_RATE, MLM_ALPHA = 0.2, 0.3
CHOICES = (
    "multi: jiant's default sampler (proportional); the paper's is not known",
    f"mlm: {MLM_RATE:.0%} of the steps, beside as many of the task's own as without it; languages by size ** "
    f"{MLM_ALPHA} (XLM-R's exponent); the paper's corpus, languages and rate are not known",
    "translation: English and all translated languages of a task, each by its size; the paper's tasks, languages and "
    'translations are not known',
)
_SPAN_LENGTH = 384


def anli_plus(**changes: Any) -> dict[str, Any]:
    """Returns the member ANLI+: the rounds of ANLI, MNLI and SNLI with one head, sampled in proportion to size."""
    return member(task='+'.join(ANLI_PARTS), head='anli_plus', **changes)


def member(**fields: Any) -> dict[str, Any]:
    """Returns a `config.Member` with these fields as a dict."""
    return to_dict(MemberSpec()) | fields


def arm(tasks: Mapping[str, Mapping[str, Any]], **fields: Any) -> dict[str, Any]:
    """Returns a `config.Arm` with these tasks and fields as a dict."""
    return to_dict(ArmSpec()) | {'tasks': dict(tasks), **fields}


def part(name: str, **fields: Any) -> dict[str, Any]:
    """Returns one of the nine intermediate tasks as a member of a mixture."""
    length = {'max_length': _SPAN_LENGTH} if name in SPANS else {}
    return anli_plus(**fields) if name == 'anli_plus' else member(**length, **fields)


def with_text(task: str, text: str, languages: Sequence[str]) -> dict[str, Any]:
    """Returns an arm that mixes a task with masked language modelling, which gets the share MLM_RATE of the steps."""
    mlm = member(task=text, languages=tuple(languages), weight=MLM_RATE, alpha=MLM_ALPHA)
    return arm({task: part(task, weight=1 - MLM_RATE), 'mlm': mlm}, sampler='weights')


def study(table: str, size: str = 'large', preset: str = presets.DEFAULT, seeds: Sequence[int] = ()) -> dict[str, Any]:
    """Returns the config of a study as nested dicts, for `config.parse` or ConfigDict.

    table: 'main' (each of the nine tasks, and all together), 'mlm' (some tasks with and without masked language
    modelling), 'translation' (with and without translated rows), 'best' (the tasks that the abstract names, on the test
    sets), 'fraction' (a sweep over the share of the training rows), 'joint' (trained together with each target instead
    of before it).
    size: large, base, small (the embedded encoder) or tiny. Raises ConfigError for unknown names.
    """
    presets.one_of('table', table, TABLES)
    presets.one_of('size', size, tuple(SIZES))
    arms = _arms(table)
    rows = (NONE, *_rows(table, arms))
    raw = presets.preset(preset, TARGETS, rows, SIZES[size], seeds)
    raw['arms'] = {name: arms[name] for name in rows if name in arms}
    raw['name'], raw['keep_models'] = f'paper_{table}', 'intermediate'
    raw['title'] = f'English intermediate tasks and XTREME: {table}, {size}, recipe of {preset}'
    lengths = {task: {'max_length': _SPAN_LENGTH} for task in rows if task in SPANS}
    raw['recipes'] = lengths | raw['recipes']
    raw['evaluation']['split'] = {} if table == 'best' else {t: 'dev' for t in TARGETS if _has_dev(t)}
    if table == 'joint':
        raw = only(raw, {'targets': '+'.join(t for t in TARGETS if not get_task(t).embeds)})
    return raw


def _has_dev(target: str) -> bool:
    """Returns whether a target has dev sets in its languages; a target without them is scored on the test set."""
    task = get_task(target)
    return 'dev' in task.splits and target != 'udpos'


def _arms(table: str) -> dict[str, dict[str, Any]]:
    arms = {'anli_plus': arm({'anli_plus': anli_plus()}), 'multi': arm({task: part(task) for task in TASKS})}
    if table == 'mlm':
        languages = text_languages('mlm_text')
        arms |= {f'{task}_mlm': with_text(task, 'mlm_text', languages) for task in MLM_TASKS}
    if table == 'translation':
        for task in TRANSLATED_TASKS:
            foreign = get_task(task).translated['translate_train']
            arms[f'{task}_translated'] = arm({task: part(task, languages=('en', *foreign))})
            arms[f'{task}_translated_only'] = arm({task: part(task, languages=tuple(foreign))})
    if table == 'fraction':
        for task in MLM_TASKS:
            arms |= {f'{task}_{f * 100:g}pct': arm({task: part(task, fraction=f)}) for f in FRACTIONS}
    if table == 'joint':
        # The member has a separate name, because some targets train on the same task with their own head.
        arms |= {f'{t}_joint': arm({f'{t}_joint': part(t, task=t, head=t)}, joint=True) for t in MLM_TASKS}
    return arms


def _rows(table: str, arms: Mapping[str, Any]) -> tuple[str, ...]:
    if table == 'main':
        return (*TASKS, 'multi')
    if table == 'best':
        return BEST
    of = TRANSLATED_TASKS if table == 'translation' else MLM_TASKS
    if table == 'fraction':
        return tuple(name for name in arms if name not in ('anli_plus', 'multi'))
    return tuple(name for task in of for name in (task, *(a for a in arms if a.startswith(f'{task}_'))))


def text_languages(task: str) -> tuple[str, ...]:
    """Returns the languages of XTREME in which a text task has data."""
    known = sorted({code for target in TARGETS for code in get_task(target).languages if '-' not in code})
    return tuple(code for code in known if code in get_task(task).languages)


def only(raw: dict[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """Keeps only the rows and columns of a study that the arguments intermediate=a+b and targets=a+b name.

    `intermediate` may also name an arm that the study defines and does not run by default.
    """
    known = {'intermediate': {*raw['intermediate'], *raw['arms']}, 'targets': raw['targets']}
    for key, names in known.items():
        wanted = tuple(values[key].split('+')) if key in values else raw[key]
        for name in wanted:
            if name not in names:
                raise ConfigError(
                    f'config argument {key}={values[key]}: {name!r} is not in the study{closest(name, names)}'
                )
        raw[key] = wanted
    raw['arms'] = {k: v for k, v in raw['arms'].items() if k in raw['intermediate']}
    there = {*raw['intermediate'], *raw['targets']}
    raw['recipes'] = {k: v for k, v in raw['recipes'].items() if k in there}
    for field in ('languages', 'split'):
        by_target = raw['evaluation'][field]
        raw['evaluation'][field] = {k: v for k, v in by_target.items() if k in raw['targets']}
    return raw


def from_argument(argument: str) -> dict[str, Any]:
    """Returns the study for the argument of configs/paper.py: 'table=main,size=large,preset=jiant,seeds=1+2'."""
    values = presets.arguments(argument, ('table', 'size', 'preset', 'seeds', 'intermediate', 'targets'))
    table, size = values.get('table', 'main'), values.get('size', 'large')
    return only(study(table, size, values.get('preset', presets.DEFAULT), presets.seeds_of(values)), values)


def small(table: str, seeds: Sequence[int] = ()) -> dict[str, Any]:
    """Returns a study with the same rows and columns, the embedded encoder and the available data: a pipeline check.

    table: as for `study`, or 'subset' (four arms, four targets, three seeds). Rows, steps and scored examples are
    capped. The recipe is our own, for a small encoder; the results are not comparable with the paper's.
    """
    raw = study('main' if table == 'subset' else table, 'small')
    raw |= {'name': f'paper_small_{table}', 'preset': '', 'seeds': tuple(seeds) or (1,)}
    raw['title'] = f'Pipeline check, not a result: {table} of the study at a small size'
    steps = {'learning_rate': 1e-4, 'epsilon': 1e-6, 'clip_per': 'step'}
    short = {'batch_size': 8, 'accumulation': 1, 'max_length': 64, 'lengths': (64,), 'max_train': 600, 'steps': 16}
    quiet = {'eval_every': 0, 'eval_examples': 32, 'dev_score': 'first', 'patience': 0, 'keep': 'last', 'log_every': 6}
    raw['recipe'] |= short | quiet | {'optimizer': raw['recipe']['optimizer'] | steps}
    raw['encoder'] |= {'head': 'jiant'}
    span = {'batch_size': 4, 'max_length': 128, 'lengths': (128,), 'max_train': 300}
    raw['recipes'] = {task: dict(span) for task in (*SPANS, 'xquad', 'mlqa', 'tydiqa')} | {'multi': {'steps': 60}}
    for name in raw['arms']:
        for task, spec in raw['arms'][name]['tasks'].items():
            if task in SPANS:
                spec |= {'max_length': 128, 'lengths': (128,)}
    if table == 'mlm':
        for name, spec in raw['arms'].items():
            if name.endswith('_mlm'):
                spec['tasks']['mlm'] |= {'task': 'udhr', 'languages': text_languages('udhr')}
    if table == 'translation':
        _only_there(raw)
    evaluation = {'max_examples': 8, 'max_length': 64, 'batch_tokens': 512, 'split': {}}
    raw['evaluation'] |= {**evaluation, **presets.OWN_EVALUATION}
    if table == 'subset':
        raw['intermediate'] = (NONE, 'mnli', 'squad_v1', 'multi')
        raw['targets'] = ('xnli', 'udpos', 'xquad', 'tatoeba')
        raw['seeds'] = tuple(seeds) or (1, 2, 3)
    _scored_there(raw)
    return only(raw, {})


def scored_languages(target: str, *, beyond: bool) -> tuple[str, tuple[str, ...]]:
    """Returns the split with labelled files in the most languages (test before dev), and these languages.

    beyond: also languages beyond the benchmark's. Without a data root, there are none.
    """
    task = get_task(target)
    by_split = {
        split: tuple(
            code
            for code in (*task.languages, *(task.more_languages if beyond else ()))
            if (rows := Split(task, code, split)).is_there() and rows.has_gold()
        )
        for split in ('test', 'dev')
        if split in task.splits
    }
    split = max(by_split, key=lambda s: len(by_split[s]))
    return split, by_split[split]


def _scored_there(raw: dict[str, Any]) -> None:
    """Restricts each target to the split with the most labelled languages under the data root and to these."""
    for name in raw['targets']:
        split, there = scored_languages(name, beyond=False)
        if name == 'bucc2018':  # max_examples does not limit its pools, which are large: use two languages only
            there = there[:2]
        if there:  # otherwise the plan raises an error that names the missing files
            raw['evaluation']['languages'] = {**raw['evaluation']['languages'], name: there}
            raw['evaluation']['split'] = {**raw['evaluation']['split'], name: split}


def _only_there(raw: dict[str, Any]) -> None:
    """Keeps the translated languages whose files are under the data root, and drops arms without any."""
    for name in list(raw['arms']):
        for task, spec in raw['arms'][name]['tasks'].items():
            splits = {c: Split(get_task(task), c, 'translate_train') for c in spec['languages']}
            there = [c for c, split in splits.items() if c == 'en' or split.is_there()]
            spec['languages'] = tuple(there)
            if not [c for c in there if c != 'en']:
                raw['arms'].pop(name)
                raw['intermediate'] = tuple(n for n in raw['intermediate'] if n != name)
                break


def small_from_argument(argument: str) -> dict[str, Any]:
    """Returns the study for the argument of configs/paper_small.py: 'table=main' or 'table=subset,seeds=1+2+3'."""
    values = presets.arguments(argument, ('table', 'seeds', 'intermediate', 'targets'))
    table = values.get('table', 'main')
    presets.one_of('table', table, (*TABLES, 'subset'))
    return only(small(table, presets.seeds_of(values)), values)
