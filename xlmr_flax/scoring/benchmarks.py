"""What XTREME and XTREME-R consist of: tasks, languages, groups and how each is read and scored.

Facts from XTREME's evaluate.py and README. This is the submission's side: a benchmark
can be scored from its files whether or not this package can train on the task.
"""

from __future__ import annotations

from dataclasses import dataclass

from xlmr_flax.tasks import get_task


@dataclass(frozen=True, slots=True)
class Part:
    """One task of a benchmark. form: 'labels', 'choices', 'tags', 'indices', 'pairs', 'squad', 'mlqa' or 'ranking'.
    group: whose mean it is part of, '' = of none.
    """

    form: str
    group: str
    languages: tuple[str, ...]

    @property
    def suffix(self) -> str:
        return {'choices': 'jsonl', 'squad': 'json', 'mlqa': 'json', 'ranking': 'json'}.get(self.form, 'tsv')


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark's name and its tasks in the order of its tables."""

    name: str
    parts: dict[str, Part]

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Group -> its tasks."""
        names = dict.fromkeys(part.group for part in self.parts.values() if part.group)
        return {group: tuple(task for task, part in self.parts.items() if part.group == group) for group in names}


PAIR, STRUCTURED, QA, RETRIEVAL = 'sentence-pair', 'structured', 'qa', 'retrieval'


def _xtreme(task: str) -> tuple[str, ...]:
    """The languages of a task in XTREME, as tasks/ lists them."""
    return get_task(task).languages


def _xtreme_r(task: str) -> tuple[str, ...]:
    """The languages of a task to which XTREME-R adds some."""
    return get_task(task).languages + get_task(task).more_languages


# In the order of XTREME's evaluate.py, which is PAN-X's.
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

# LAReQA is one of the benchmark's ten tasks and counts in its average, but XTREME's evaluate.py (838c13b) has no reader
# for it and leaves it out of the retrieval group: that is Tatoeba and Mewsli-X there, and here. Its folder is read as
# Mewsli-X's is: id -> ranked candidates.
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

BENCHMARKS = {benchmark.name: benchmark for benchmark in (XTREME, XTREME_R)}
