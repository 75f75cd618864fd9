"""CCG supertagging on CCGbank's AUTO files or on files in C&C's .stagged format.

The tags are collected from the train, test and dev files in the order of their first appearance (jiant v1.3.2:
scripts/ccg/ccg_to_num.py). Sections: 'ccg' uses jiant's 00-18 / 19-21 / 22-24 (scripts/ccg/ccg_proc.py), and
'ccg_usual' uses the usual 02-21 / 00 / 23.
"""

from __future__ import annotations

from xlmr_flax.tasks import parsers
from xlmr_flax.tasks.base import Table, Task

JIANT_SECTIONS = {'train': ('0[0-9]', '1[0-8]'), 'dev': ('19', '2[01]'), 'test': ('2[2-4]',)}
USUAL_SECTIONS = {'train': ('0[2-9]', '1[0-9]', '2[01]'), 'dev': ('00',), 'test': ('23',)}
NOTE = (
    'where CCGbank is not there, .stagged files beside it are read: CCGbank is licensed by the LDC (LDC2005T13), and '
    'tags of a parser are good for testing a pipeline, not for a score'
)


def _table(split: str, sections: tuple[str, ...]) -> tuple[Table, ...]:
    paths = tuple(f'intermediate/ccg/data/AUTO/{section}/wsj_*.auto' for section in sections)
    tagged = Table(
        f'intermediate/ccg/{split}.stagged', 'stagged', (), stand_in='supertags of the C&C parser, not CCGbank'
    )
    return (Table(paths[0], 'ccgbank', (), also=paths[1:], alternatives=(tagged,)),)


def _task(name: str, sections: dict[str, tuple[str, ...]], note: str) -> Task:
    return Task(
        name=name,
        kind='tag',
        labels=(),
        labels_from=('train', 'test', 'dev'),
        metrics=('accuracy',),
        languages=('en',),
        splits={split: _table(split, parts) for split, parts in sections.items()},
        parse=parsers.tags,
        train_task=name,
        scorer='token_accuracy',
        licence='LDC user agreement',
        source='https://catalog.ldc.upenn.edu/LDC2005T13',
        note=note,
        checked_on='stand-in rows (supertags of the C&C parser); hand-made rows for CCGbank',
    )


TASKS = (
    _task('ccg', JIANT_SECTIONS, f"jiant's sections 00-18, 19-21, 22-24; {NOTE}"),
    _task('ccg_usual', USUAL_SECTIONS, f'the usual sections 02-21, 00, 23; {NOTE}'),
)
