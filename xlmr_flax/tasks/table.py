"""docs/tasks.md: a table of every task, from the registry alone.

python -m xlmr_flax.tasks.table > docs/tasks.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from xlmr_flax.tasks import all_tasks
from xlmr_flax.tasks.base import Embedded, Table, Task

HEAD = """# Tasks

Every task that this package knows, from `python -m xlmr_flax.tasks.table > docs/tasks.md`; a test holds this file
against the registry. Paths are relative to the data root (`--data_root` or `XLMR_DATA_ROOT`); `{language}` is the
language's code in the file names, and "or" joins places that are looked at in this order.

* **use**: *train* (an intermediate task), *target* (scored in other languages after training on the English data of
  "trained by"), *evaluation* (nothing of it can be trained on), *text* (masked language modelling).
* **checked on**: what the readers were tried on. Real rows are those of the dataset, mostly a part of it. Stand-in rows
  are rows of something else, or of another split, in the dataset's layout: they test the pipeline, and no score on them
  is a score on the dataset. Hand-made rows: no row of the dataset was at hand.
* A licence with **NC** does not allow commercial use.
"""

KINDS = {
    'pair': 'Sentence pairs and single sentences, with a class',
    'choice': 'Multiple choice',
    'span': 'Extractive question answering',
    'tag': 'Tagging',
    'retrieval': 'Retrieval',
    'text': 'Raw text',
}


COLUMNS = (
    'task', 'use', 'languages', 'train files', 'evaluation files', 'metrics', 'trained by', 'checked on', 'licence',
)  # fmt: skip


def use_of(task: Task) -> str:
    """'train', 'target', 'evaluation', 'text', or two of them."""
    if task.kind == 'text':
        return 'text'
    if task.train_task is None or task.kind == 'retrieval':
        return 'evaluation' if 'train' not in task.splits else 'evaluation, train'
    several = len(task.languages) > 1 or task.train_task != task.name
    trains = task.train_task == task.name
    return ', '.join(use for use, holds in (('train', trains), ('target', several)) if holds)


def files_of(task: Task, splits: Iterable[str]) -> str:
    """The files of some splits, by split."""
    parts = []
    for split in splits:
        paths = [_source(source) for source in task.splits[split]]
        if split in task.gold:
            paths.append(_source(task.gold[split]))
        parts.append(f'{split}: ' + ', '.join(dict.fromkeys(paths)))
    return '<br>'.join(parts) or '–'


def _source(source: Table | Embedded) -> str:
    if isinstance(source, Embedded):
        return 'embedded'
    places = []
    for table in (source, *source.alternatives):
        paths = ', '.join(f'`{path}`' for path in (table.path, *table.also, *filter(None, [table.label_file])))
        places.append(f'{paths} (stand-in)' if table.stand_in else paths)
    return ' or '.join(places)


def languages_of(task: Task) -> str:
    """The languages, those beyond the benchmark in brackets."""
    if len(task.languages) > 60:
        listed = f'{len(task.languages)}, all that tasks/languages.tsv lists' if task.name == 'mlm_text' else ''
        text = listed or f'{len(task.languages)}: {" ".join(task.languages)}'
    else:
        text = ' '.join(task.languages)
    more = [' '.join(task.more_languages)] if task.more_languages else []
    more += ['any other by its code'] if task.open_languages else []
    return f'{text} ({"; ".join(more)})' if more else text


def trained_by(task: Task) -> str:
    """What is trained before it is scored, in order."""
    return ', then '.join(f'`{name}`' for name in (task.warmup_task, task.train_task) if name) or '–'


def markdown() -> str:
    """The whole file."""
    lines = [HEAD]
    tasks = list(all_tasks().values())
    for kind, title in KINDS.items():
        lines += [f'## {title}', '']
        lines += [_row(COLUMNS), _row(['---'] * len(COLUMNS))]
        of_kind = [task for task in tasks if task.kind == kind]
        for task in of_kind:
            training = [split for split in task.splits if split == 'train']
            others = [split for split in task.splits if split != 'train']
            cells = (
                f'`{task.name}`', use_of(task), languages_of(task), files_of(task, training), files_of(task, others),
                ', '.join(task.metrics), trained_by(task), task.checked_on, task.licence,
            )  # fmt: skip
            lines.append(_row(cells))
        lines += ['', 'Homes and notes:', '']
        lines += [f'* `{task.name}`: {_home(task)}{_sentence(task.note)}' for task in of_kind]
        lines.append('')
    return '\n'.join(lines).rstrip('\n') + '\n'


def _home(task: Task) -> str:
    return f'<{task.source}>' if task.source.startswith('https://') else task.source


def _sentence(note: str) -> str:
    return f'. {note[0].upper()}{note[1:]}.' if note else ''


def _row(cells: Iterable[str]) -> str:
    return f'| {" | ".join(cell.replace("|", chr(92) + "|") for cell in cells)} |'


if __name__ == '__main__':
    sys.stdout.write(markdown())
