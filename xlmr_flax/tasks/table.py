"""Generates docs/tasks.md, the tables of all tasks, from the registry.

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
language's code in the file names, `{benchmark_language}` the benchmark's, and "or"
joins places that are looked at in this order.

* **use**: *train* (an intermediate task), *target* (scored in other languages after training on the English data of
  "trained by"), *evaluation* (nothing of it can be trained on), *text* (masked language modelling).
* **checked on**: what the readers were tried on. Real rows are those of the dataset, mostly a part of it. Stand-in rows
  are rows of something else, or of another split, in the dataset's layout: they test the pipeline, and no score on them
  is a score on the dataset. Hand-made rows: no row of the dataset was at hand. The first table sums it up.
* A licence with **NC** does not allow commercial use.

The order and the layout of prediction files, held against XTREME's `evaluate.py`: [layout.md](layout.md).
"""

TRIED_ON = ('real data', 'stand-in', 'embedded world only', 'evaluation only')
TRIED_HEAD = """## What each task was tried on

On which rows whole runs of a task were possible where this package was made; a test holds this table against the files
of that data root. With the official files in their place, every task is what its dataset is.

* **real data**: rows of the dataset, a part of it at least, to train on and (where it has any) to be scored on.
* **stand-in**: all rows or the training rows are those of something else, or of another split. Result rows carry it.
* **embedded world only**: none. The reader was tried on hand-made rows in the official layout, and whole runs on the
  embedded world's task of the same kind, which needs no file (of raw text, on `udhr`).
* **evaluation only**: real rows to be scored on, none to train on: the dataset has no training set, or it was not
  there.
"""
TRANSLATED_HEAD = """## Translated data

Machine-translated files, for training in other languages than English ("translate-train") and for scoring a test set
that was translated into English ("translate-test"). `translate_train` and `translate_dev` hold the English rows in the
language asked for, `translate_test` the test rows of that language in English. No task needs them: `prepare --check`
misses them only where `--splits` names them. `translated/xtreme_translations` is the bucket of that name, in its own
layout, that XTREME's page links to as Translations (<https://github.com/google-research/xtreme>); the others are the
archives of XNLI (XNLI-MT-1.0), MLQA, PAWS-X, SQuAD-it, KorNLI and XCOPA, unpacked, from the datasets' homes. None of
them was at hand here but those of XCOPA and SQuAD-it's test set; the other readers were tried on hand-made rows.
"""

KINDS = {
    'pair': 'Sentence pairs and single sentences, with a class',
    'choice': 'Multiple choice',
    'span': 'Extractive question answering',
    'tag': 'Tagging',
    'retrieval': 'Retrieval',
    'mlm': 'Raw text',
}


COLUMNS = (
    'task', 'use', 'languages', 'train files', 'evaluation files', 'metrics', 'trained by', 'checked on', 'licence',
)  # fmt: skip


def use_of(task: Task) -> str:
    """The use of a task: 'train', 'target', 'evaluation', 'text', or two of them."""
    if task.is_text:
        return 'text'
    if task.train_task is None or task.embeds:
        return 'evaluation' if 'train' not in task.splits else 'evaluation, train'
    several = len(task.languages) > 1 or task.train_task != task.name
    trains = task.train_task == task.name
    return ', '.join(use for use, holds in (('train', trains), ('target', several)) if holds)


def tried_on(task: Task) -> str:
    """The entry of TRIED_ON for a task, from its `checked_on` and its splits."""
    if task.checked_on.startswith(('hand-made rows', 'embedded world')):
        return 'embedded world only'
    if 'stand-in rows' in task.checked_on:
        return 'stand-in'
    trains = 'train' in task.splits and 'none for train' not in task.checked_on
    return 'real data' if trains else 'evaluation only'


def files_of(task: Task, splits: Iterable[str]) -> str:
    """The table cell with the files of some splits."""
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
    """The table cell with the languages; those that are not in the benchmark's mean are in brackets."""
    if len(task.languages) > 60:
        listed = f'{len(task.languages)}, all that tasks/languages.tsv lists' if task.name == 'mlm_text' else ''
        text = listed or f'{len(task.languages)}: {" ".join(task.languages)}'
    else:
        text = ' '.join(task.languages)
    more = [' '.join(task.more_languages)] if task.more_languages else []
    more += ['any other by its code'] if task.open_languages else []
    return f'{text} ({"; ".join(more)})' if more else text


def trained_by(task: Task) -> str:
    """The table cell with the tasks that are trained before scoring, in order."""
    return ', then '.join(f'`{name}`' for name in (task.warmup_task, task.train_task) if name) or '–'


def markdown() -> str:
    """The text of docs/tasks.md."""
    tasks = list(all_tasks().values())
    columns = ('task', *TRIED_ON, 'in detail')
    lines = [HEAD, TRIED_HEAD, _row(columns), _row(['---'] * len(columns))]
    for task in tasks:
        marks = ('yes' if name == tried_on(task) else '' for name in TRIED_ON)
        lines.append(_row([f'`{task.name}`', *marks, task.checked_on]))
    lines.append('')
    for kind, title in (KINDS | {task.kind: task.kind for task in tasks if task.kind not in KINDS}).items():
        lines += [f'## {title}', '']
        lines += [_row(COLUMNS), _row(['---'] * len(COLUMNS))]
        of_kind = [task for task in tasks if task.kind == kind]
        for task in of_kind:
            training = [split for split in task.splits if split == 'train']
            others = [split for split in task.splits if split != 'train' and split not in task.translated]
            cells = (
                f'`{task.name}`', use_of(task), languages_of(task), files_of(task, training), files_of(task, others),
                ', '.join(task.metrics), trained_by(task), task.checked_on, task.licence,
            )  # fmt: skip
            lines.append(_row(cells))
        lines += ['', 'Homes and notes:', '']
        lines += [f'* `{task.name}`: {_home(task)}{_sentence(task.note)}' for task in of_kind]
        lines.append('')
    columns = ('task', 'split', 'languages', 'files')
    lines += [TRANSLATED_HEAD, _row(columns), _row(['---'] * len(columns))]
    for task in tasks:
        for split, languages in task.translated.items():
            files = files_of(task, [split]).removeprefix(f'{split}: ')
            lines.append(_row([f'`{task.name}`', split, ' '.join(languages), files]))
    return '\n'.join(lines).rstrip('\n') + '\n'


def _home(task: Task) -> str:
    return f'<{task.source}>' if task.source.startswith('https://') else task.source


def _sentence(note: str) -> str:
    return f'. {note[0].upper()}{note[1:]}.' if note else ''


def _row(cells: Iterable[str]) -> str:
    return f'| {" | ".join(cell.replace("|", chr(92) + "|") for cell in cells)} |'


if __name__ == '__main__':
    sys.stdout.write(markdown())
