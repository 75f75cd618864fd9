"""Definitions of benchmarks: tasks, languages, groups and the format of each task's prediction files.

XTREME and XTREME-R are as in XTREME's evaluate.py and README. SIB-200, IrokoBench and 'low-resource' are named groups
of tasks for low-resource languages, with prediction files in the same layout. A benchmark can be scored from its files,
whether or not this package can train on its tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

from xlmr_flax.tasks import get_task


@dataclass(frozen=True, slots=True)
class Part:
    """One task of a benchmark.

    form: format of the prediction file: 'labels', 'classes' (labels, scored by F1, too), 'choices', 'tags', 'indices',
      'pairs', 'squad', 'mlqa' or 'ranking'.
    group: the group of tasks whose mean includes this task, '' = none.
    main: the metric that is the score of the task, '' = that of the form.
    """

    form: str
    group: str
    languages: tuple[str, ...]
    main: str = ''

    @property
    def suffix(self) -> str:
        return {'choices': 'jsonl', 'squad': 'json', 'mlqa': 'json', 'ranking': 'json'}.get(self.form, 'tsv')


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark: its name and its tasks, in the order of its tables."""

    name: str
    parts: dict[str, Part]

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """The groups as {group: its tasks}."""
        names = dict.fromkeys(part.group for part in self.parts.values() if part.group)
        return {group: tuple(task for task, part in self.parts.items() if part.group == group) for group in names}


PAIR, STRUCTURED, QA, RETRIEVAL = 'sentence-pair', 'structured', 'qa', 'retrieval'


def _xtreme(task: str) -> tuple[str, ...]:
    """The languages of a task in XTREME, from the task registry."""
    return get_task(task).languages


def _xtreme_r(task: str) -> tuple[str, ...]:
    """The languages of a task in XTREME-R: those of XTREME and the added ones."""
    return get_task(task).languages + get_task(task).more_languages


# In the order of XTREME's evaluate.py, which is the order of PAN-X's languages.
_TATOEBA = tuple(code for code in _xtreme('panx') if code in _xtreme('tatoeba'))

XTREME = Benchmark(
    'xtreme',
    {
        'xnli': Part('labels', PAIR, _xtreme('xnli')),
        'pawsx': Part('labels', PAIR, _xtreme('pawsx')),
        'udpos': Part('tags', STRUCTURED, _xtreme('udpos')),
        'panx': Part('tags', STRUCTURED, _xtreme('panx')),
        'xquad': Part('squad', QA, _xtreme('xquad')),
        'mlqa': Part('mlqa', QA, _xtreme('mlqa')),
        'tydiqa': Part('squad', QA, _xtreme('tydiqa')),
        'bucc2018': Part('pairs', RETRIEVAL, _xtreme('bucc2018')),
        'tatoeba': Part('indices', RETRIEVAL, _TATOEBA),
    },
)

# LAReQA is one of the benchmark's ten tasks and counts in its average. But XTREME's evaluate.py (838c13b) has no reader
# for it, and its retrieval group is only Tatoeba and Mewsli-X; the group is the same here. LAReQA's prediction files
# have Mewsli-X's format: id -> ranked candidates.
XTREME_R = Benchmark(
    'xtreme-r',
    {
        'xnli': Part('labels', PAIR, _xtreme('xnli')),
        'xcopa': Part('choices', PAIR, _xtreme('xcopa')),
        'udpos': Part('tags', STRUCTURED, _xtreme_r('udpos')),
        'panx': Part('tags', STRUCTURED, _xtreme_r('panx')),
        'xquad': Part('squad', QA, _xtreme_r('xquad')),
        'mlqa': Part('mlqa', QA, _xtreme('mlqa')),
        'tydiqa': Part('squad', QA, _xtreme('tydiqa')),
        'tatoeba': Part('indices', RETRIEVAL, _TATOEBA + get_task('tatoeba').more_languages),
        'mewslix': Part('ranking', RETRIEVAL, _xtreme('mewslix')),
        'lareqa': Part('ranking', '', _xtreme('lareqa')),
    },
)


def _part(task: str, form: str, group: str, main: str = '') -> Part:
    return Part(form, group, get_task(task).languages, main)


TOPIC, INFERENCE = 'topic', 'inference'
SIB200 = Benchmark(
    'sib200',
    {
        'sib200': _part('sib200', 'labels', TOPIC),
        'sib200_retrieval': _part('sib200_retrieval', 'indices', RETRIEVAL),
    },
)

# AfriXNLI alone; its other tasks (AfriMMLU, AfriMGSM) are for generating models.
IROKOBENCH = Benchmark('irokobench', {'afrixnli': _part('afrixnli', 'labels', INFERENCE)})

LOW_RESOURCE = Benchmark(
    'low-resource',
    {
        'afrixnli': _part('afrixnli', 'labels', INFERENCE),
        'americasnli': _part('americasnli', 'labels', INFERENCE),
        'indicxnli': _part('indicxnli', 'labels', INFERENCE),
        'sib200': _part('sib200', 'labels', TOPIC),
        'masakhanews': _part('masakhanews', 'classes', TOPIC, 'weighted_f1'),
        'nusax': _part('nusax', 'classes', 'sentiment', 'macro_f1'),
        'uner': _part('uner', 'tags', STRUCTURED),
        'belebele': _part('belebele', 'choices', QA, 'accuracy'),
        'sib200_retrieval': _part('sib200_retrieval', 'indices', RETRIEVAL),
        'flores200': _part('flores200', 'indices', RETRIEVAL),
        'ntrex': _part('ntrex', 'indices', RETRIEVAL),
    },
)

BENCHMARKS = {benchmark.name: benchmark for benchmark in (XTREME, XTREME_R, SIB200, IROKOBENCH, LOW_RESOURCE)}
