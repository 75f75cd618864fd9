"""Scores one prediction file against gold of the same form, and compares what they contain.

Both must have the labels, indices or ids of the task. Otherwise a file with other names (classes by number, tags
of another scheme, another file's ids) would get a score of 0 and no error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlmr_flax.data.readers.tables import read_lines
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.scoring import files
from xlmr_flax.scoring.metrics import classification, qa, retrieval, tagging
from xlmr_flax.tasks.base import Task
from xlmr_flax.util.errors import quote

Scores = dict[str, float]
IDS = ('squad', 'mlqa', 'ranking')  # forms with ids


@dataclass(frozen=True, slots=True)
class Gold:
    """The gold labels of one task and language.

    name: where they come from, in messages: the path of a gold file, or the split and its data root.
    values: by `Part.form`, label names ('labels', 'classes'), numbers ('choices', 'indices'), lists of tags ('tags'),
      pairs of ids ('pairs'), {id: right ids} ('ranking') or {id: answer texts} ('squad', 'mlqa'). None if there are no
      labels (a benchmark's public test file).
    stand_in: a note on gold rows that stand in for the dataset's, '' for real ones.
    """

    name: str
    values: Any
    stand_in: str = ''


def read_gold_file(task: Task, form: str, path: Path) -> Gold:
    """Reads a gold file. form: `Part.form`. Raises DataError that names the file, and the line where there is one."""
    if form not in ('squad', 'mlqa'):
        return Gold(str(path), _read(task, form, path))
    answers = files.read_gold_answers(path)
    return Gold(str(path), answers if any(answers.values()) else None)


def score_file(task: Task, form: str, language: str, predicted: Path, gold: Gold) -> Scores:
    """Computes the metrics of one prediction file. form: `Part.form`. gold: with labels.

    Raises DataError that names the file, and the line of a label or index that the task does not have.
    """
    right, given = gold.values, _read(task, form, predicted)
    try:
        if form in ('labels', 'classes'):
            measure = classification.class_f1 if form == 'classes' else classification.accuracy
            return measure(right, given)
        if form in ('choices', 'indices'):
            return _score_indices(task, form, predicted, given, gold)
        if form == 'tags':
            if all(tag == 'O' for tags in right for tag in tags):
                raise DataError(f'{gold.name}: no entity, so that F1 has no value')
            return tagging.entity_scores(right, given)
        if form == 'pairs':
            return retrieval.pair_f1(right, given)
        if form == 'ranking':
            return retrieval.map_at_k(right, given)
        return qa.mlqa(right, given, language) if form == 'mlqa' else qa.squad_v1(right, given)
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f'{predicted}: {error} (gold: {gold.name})') from None


def coverage(form: str, predicted: Path, gold: Gold) -> dict[str, int]:
    """Compares the ids of predictions and gold: numbers of gold ids, of gold ids without a prediction ('unanswered')
    and of predictions without a gold id ('unknown'); {} for forms without ids. For BUCC's pairs, the numbers are those
    of pairs. Raises DataError if no id matches, because the predictions are then those of another file and the score
    would be 0, and for BUCC's pairs if the two columns are exchanged.
    """
    if form == 'pairs':
        return _pair_coverage(predicted, gold)
    if form not in IDS:
        return {}
    read = files.read_rankings if form == 'ranking' else files.read_answers
    wanted, ids = set(gold.values), set(read(predicted))
    if ids and not wanted & ids:
        raise DataError(f'{predicted}: none of its {len(ids)} ids is one of the {len(wanted)} of {gold.name}')
    return {'gold': len(wanted), 'unanswered': len(wanted - ids), 'unknown': len(ids - wanted)}


def _pair_coverage(predicted: Path, gold: Gold) -> dict[str, int]:
    wanted, found = gold.values, files.read_pairs(predicted)
    sources, targets = ({pair[side] for pair in wanted} for side in (0, 1))
    for number, (source, target) in enumerate(found, 1):
        if (source in targets and source not in sources) or (target in sources and target not in targets):
            what = f'{source!r} and {target!r} are in the other column of {gold.name}'
            raise DataError(f'{predicted}, line {number}: {what}; source id, target id is expected')
    if wanted and found and not any(source in sources or target in targets for source, target in found):
        raise DataError(f'{predicted}: none of the ids of its {len(found)} pairs is in {gold.name}')
    right, given = set(wanted), set(found)
    return {'gold': len(right), 'unanswered': len(right - given), 'unknown': len(given - right)}


def _score_indices(task: Task, form: str, predicted: Path, given: list[int], gold: Gold) -> Scores:
    right = gold.values
    scores = classification.accuracy(right, given)  # first: in a file of another length, other indices are wrong too
    count = len(task.labels) if form == 'choices' else len(right)
    if form == 'choices' or max(right) <= count:  # a higher index: lines drawn from a larger file, of unknown length
        for name, indices in ((gold.name, right), (predicted, given)):
            files.check_indices(name, indices, count)
    return scores


def _read(task: Task, form: str, path: Path) -> Any:
    """Reads a prediction file: its values as in `Gold`, but {id: answer text} for questions."""
    if form in ('labels', 'classes'):
        return _labels(task, path)
    if form == 'tags':
        return _tags(task, path)
    readers = {'choices': files.read_choices, 'indices': files.read_indices, 'pairs': files.read_pairs,
               'ranking': files.read_rankings}  # fmt: skip
    return readers.get(form, files.read_answers)(path)


def _labels(task: Task, path: Path) -> list[str]:
    labels = _bare(path, files.read_labels(path))
    files.check_labels(task, path, enumerate(labels, 1))
    return labels


def _tags(task: Task, path: Path) -> list[list[str]]:
    sentences = files.read_tags(path)
    lines = _bare(path, [line.strip() for line in read_lines(path)])
    files.check_labels(task, path, ((number, tag) for number, tag in enumerate(lines, 1) if tag))
    return sentences


def _bare(path: Path, labels: Sequence[str]) -> list[str]:
    """Raises DataError for a line with several columns (the datasets' own files have texts or words before the
    label)."""
    for number, label in enumerate(labels, 1):
        if len(label.split()) > 1:
            raise DataError(f'{path}, line {number}: one label is expected, not {quote(label)}')
    return list(labels)
