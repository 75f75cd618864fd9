"""Scores one prediction file against one gold file of the same form, and compares what they contain.

Both files must have the labels, indices or ids of the task. Otherwise a file with other names (classes by number, tags
of another scheme, another file's ids) would get a score of 0 and no error.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xlmr_flax.data.readers.tables import read_lines
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.scoring import files
from xlmr_flax.scoring.metrics import classification, qa, retrieval, tagging
from xlmr_flax.tasks.base import Task
from xlmr_flax.util.errors import quote

Scores = dict[str, float]
IDS = ('squad', 'mlqa', 'ranking')  # forms with ids


def score_file(task: Task, form: str, language: str, predicted: Path, gold: Path) -> Scores:
    """Computes the metrics of one prediction file against one gold file. form: `Part.form`.

    Raises DataError that names the file, and the line of a label or index that the task does not have.
    """
    try:
        if form in ('labels', 'classes'):
            measure = classification.class_f1 if form == 'classes' else classification.accuracy
            return measure(_labels(task, gold), _labels(task, predicted))
        if form in ('choices', 'indices'):
            return _score_indices(task, form, predicted, gold)
        if form == 'tags':
            wanted = _tags(task, gold)
            if all(tag == 'O' for tags in wanted for tag in tags):
                raise DataError(f'{gold}: no entity in this file, so that its F1 has no value')
            return tagging.entity_scores(wanted, _tags(task, predicted))
        if form == 'pairs':
            return retrieval.pair_f1(files.read_pairs(gold), files.read_pairs(predicted))
        if form == 'ranking':
            return retrieval.map_at_k(files.read_rankings(gold), files.read_rankings(predicted))
        if form == 'mlqa':
            return qa.mlqa(files.read_gold_answers(gold), files.read_answers(predicted), language)
        return qa.squad_v1(files.read_gold_answers(gold), files.read_answers(predicted))
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f'{predicted}: {error} (gold: {gold})') from None


def coverage(form: str, predicted: Path, gold: Path) -> dict[str, int]:
    """Compares the ids of predictions and gold: numbers of gold ids, of gold ids without a prediction ('unanswered')
    and of predictions without a gold id ('unknown'); {} for forms without ids. For BUCC's pairs, the numbers are those
    of pairs. Raises DataError if no id matches, because the predictions are then those of another file and the score
    would be 0, and for BUCC's pairs if the two columns are exchanged.
    """
    if form == 'pairs':
        return _pair_coverage(predicted, gold)
    if form not in IDS:
        return {}
    if form == 'ranking':
        wanted, ids = set(files.read_rankings(gold)), set(files.read_rankings(predicted))
    else:
        wanted, ids = set(files.read_gold_answers(gold)), set(files.read_answers(predicted))
    if ids and not wanted & ids:
        raise DataError(f'{predicted}: none of its {len(ids)} ids is one of the {len(wanted)} of {gold}')
    return {'gold': len(wanted), 'unanswered': len(wanted - ids), 'unknown': len(ids - wanted)}


def _pair_coverage(predicted: Path, gold: Path) -> dict[str, int]:
    wanted, found = files.read_pairs(gold), files.read_pairs(predicted)
    sources, targets = ({pair[side] for pair in wanted} for side in (0, 1))
    for number, (source, target) in enumerate(found, 1):
        if (source in targets and source not in sources) or (target in sources and target not in targets):
            what = f'{source!r} and {target!r} are in the other column of {gold}'
            raise DataError(f'{predicted}, line {number}: {what}; source id, target id is expected')
    if wanted and found and not any(source in sources or target in targets for source, target in found):
        raise DataError(f'{predicted}: none of the ids of its {len(found)} pairs is in {gold}')
    right, given = set(wanted), set(found)
    return {'gold': len(right), 'unanswered': len(right - given), 'unknown': len(given - right)}


def _score_indices(task: Task, form: str, predicted: Path, gold: Path) -> Scores:
    read = files.read_choices if form == 'choices' else files.read_indices
    right, given = read(gold), read(predicted)
    scores = classification.accuracy(right, given)  # first: in a file of another length, other indices are wrong too
    count = len(task.labels) if form == 'choices' else len(right)
    if form == 'choices' or max(right) <= count:  # a higher index: lines drawn from a larger file, of unknown length
        for path, indices in ((gold, right), (predicted, given)):
            files.check_indices(path, indices, count)
    return scores


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
