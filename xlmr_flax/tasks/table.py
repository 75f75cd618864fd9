"""Generates docs/tasks.md, the tables of all tasks, from the registry.

python -m xlmr_flax.tasks.table > docs/tasks.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from xlmr_flax.tasks import all_tasks
from xlmr_flax.tasks.base import Embedded, Table, Task

HEAD = """# Tasks

This page lists every task of the package. `python -m xlmr_flax.tasks.table > docs/tasks.md` generates it from the task
registry; a test compares the two. Paths are relative to the data root (`--data_root` or `XLMR_DATA_ROOT`). `{language}`
is the language's code in the file names and `{benchmark_language}` the benchmark's code. "or" separates alternative
paths, which are tried in this order.

* **use**: *train* (an intermediate task), *target* (scored in other languages after training on the English data of
  "trained by"), *evaluation* (has no training data), *text* (masked language modelling).
* **checked on**: the rows that the readers were tested on. Real rows are rows of the dataset, mostly a part of it.
  Stand-in rows are rows of another dataset or split in the dataset's layout: they test the pipeline, and a score on
  them is not a score on the dataset. Hand-made rows: no row of the dataset was available. The first table is a summary.
* A licence with **NC** does not allow commercial use.

For the order and the layout of prediction files, checked against XTREME's `evaluate.py`, see [layout.md](layout.md).
"""

TRIED_ON = ('real data', 'stand-in', 'embedded world only', 'evaluation only')
TRIED_HEAD = """## What each task was tried on

The data with which complete runs of each task were possible during the development of this package. A test compares
this table with the files of that data root. With the official files in place, every task uses its real dataset.

* **real data**: rows of the dataset, at least a part of it, for training and (if it has evaluation rows) for scoring.
* **stand-in**: all rows, or the training rows, are from another dataset or split. Result rows are marked as stand-in.
* **embedded world only**: no rows of the dataset. The reader was tested on hand-made rows in the official layout, and
  complete runs used the embedded world's task of the same kind, which needs no files (for raw text: `udhr`).
* **evaluation only**: real rows for scoring, but none for training: the dataset has no training set, or it was not
  available.
"""
TRANSLATED_HEAD = """## Translated data

Machine-translated files, for training in languages other than English ("translate-train") and for scoring a test set
that was translated into English ("translate-test"). `translate_train` and `translate_dev` contain the English rows in
the requested language, and `translate_test` contains the test rows of that language in English. No task requires them:
`prepare --check` reports them as missing only if `--splits` names them. `translated/xtreme_translations` is the bucket
of that name, in its own layout, which XTREME's page links to as Translations
(<https://github.com/google-research/xtreme>). The others are the unpacked archives of XNLI (XNLI-MT-1.0), MLQA, PAWS-X,
SQuAD-it, KorNLI and XCOPA from the datasets' homes. Only those of XCOPA and SQuAD-it's test set were available during
development; the other readers were tested on hand-made rows.
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
