"""What XTREME and XTREME-R consist of: tasks, languages, groups and how each is read and scored.

Facts from XTREME's evaluate.py and README. This is the submission's side: a benchmark
can be scored from its files whether or not this package can train on the task.
"""

from __future__ import annotations

from dataclasses import dataclass


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


def _codes(text: str) -> tuple[str, ...]:
    return tuple(text.split())


PAIR, STRUCTURED, QA, RETRIEVAL = 'sentence-pair', 'structured', 'qa', 'retrieval'

_XNLI = _codes('ar bg de el en es fr hi ru sw th tr ur vi zh')
_UDPOS = _codes('af ar bg de el en es et eu fa fi fr he hi hu id it ja kk ko mr nl pt ru ta te th tl tr ur vi yo zh')
_PANX = _codes(
    'ar he vi id jv ms tl eu ml ta te af nl en de el bn hi mr ur fa fr it pt es bg ru ja ka ko th sw yo my zh kk tr et '
    'fi hu'
)
_TATOEBA = tuple(code for code in _PANX if code not in ('en', 'ms', 'my', 'yo'))
_XQUAD = _codes('en es de el ru tr ar vi th zh hi')
_MLQA = _codes('en es de ar hi vi zh')
_TYDIQA = _codes('en ar bn fi id ko ru sw te')

XTREME = Benchmark(
    'xtreme',
    {
        'xnli': Part('labels', PAIR, _XNLI),
        'pawsx': Part('labels', PAIR, _codes('de en es fr ja ko zh')),
        'udpos': Part('tags', STRUCTURED, _UDPOS),
        'panx': Part('tags', STRUCTURED, _PANX),
        'xquad': Part('squad', QA, _XQUAD),
        'mlqa': Part('mlqa', QA, _MLQA),
        'tydiqa': Part('squad', QA, _TYDIQA),
        'bucc2018': Part('pairs', RETRIEVAL, _codes('de fr ru zh')),
        'tatoeba': Part('indices', RETRIEVAL, _TATOEBA),
    },
)

# LAReQA is one of the benchmark's ten tasks and counts in its average, but XTREME's evaluate.py (838c13b) has no reader
# for it and leaves it out of the retrieval group: that is Tatoeba and Mewsli-X there, and here. Its folder is read as
# Mewsli-X's is: id -> ranked candidates.
XTREME_R = Benchmark(
    'xtreme-r',
    {
        'xnli': Part('labels', PAIR, _XNLI),
        'xcopa': Part('choices', PAIR, _codes('et ht id it qu sw ta th tr vi zh')),
        'udpos': Part('tags', STRUCTURED, _UDPOS + _codes('lt pl uk wo ro')),
        'panx': Part('tags', STRUCTURED, _PANX + _codes('qu pl uk az lt pa gu ro')),
        'xquad': Part('squad', QA, _XQUAD + _codes('ro')),
        'mlqa': Part('mlqa', QA, _MLQA),
        'tydiqa': Part('squad', QA, _TYDIQA),
        'tatoeba': Part('indices', RETRIEVAL, _TATOEBA + _codes('az lt pl uk ro')),
        'mewslix': Part('ranking', RETRIEVAL, _codes('ar de en es fa ja pl ro ta tr uk')),
        'lareqa': Part('ranking', '', _codes('ar de el en es hi ru th tr vi zh')),
    },
)

BENCHMARKS = {benchmark.name: benchmark for benchmark in (XTREME, XTREME_R)}
