"""Reads and writes prediction files in XTREME's layout: ROOT/TASK/test-LANG.tsv, .json or .jsonl (XTREME: README,
evaluate.py).

Classification: one label a line. Multiple choice: one JSON object a line with an index from 0 as its `label`
(XTREME-R's XCOPA; other fields are ignored). Tagging: one tag a line, a blank line between sentences. Tatoeba: for each
English line, in sorted order, the index from 0 of the nearest foreign line. BUCC: source id TAB target id. QA: a JSON
object id -> text. Mewsli-X: a JSON object id -> ranked items.

Writers are atomic: they replace the whole file or leave it unchanged. Readers raise DataError that names file and line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xlmr_flax.data.readers.tables import read_lines, read_text
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.tasks.base import Task
from xlmr_flax.tasks.squad import PLACEHOLDER
from xlmr_flax.util import strict_json
from xlmr_flax.util.errors import closest, quote
from xlmr_flax.util.files import write_atomically


def no_answer_path(path: Path) -> Path:
    """The path of the no-answer scores (JSON: id -> number) that belong to a SQuAD v2 prediction file."""
    return path.with_name(f'{path.stem}.no_answer.json')


def write_labels(path: Path, labels: Iterable[str | int]) -> None:
    """Writes one label (or index) a line."""
    write_atomically(path, ''.join(f'{_clean(path, str(label))}\n' for label in labels))


def write_choices(path: Path, indices: Iterable[int]) -> None:
    """Writes multiple-choice predictions: {"label": index} on each line."""
    write_atomically(path, ''.join(f'{{"label": {int(index)}}}\n' for index in indices))


def write_tags(path: Path, sentences: Iterable[Sequence[str]]) -> None:
    """Writes one tag a line, with a blank line between sentences. Raises DataError for a sentence without words."""
    blocks = []
    for number, tags in enumerate(sentences, 1):
        if not tags:
            raise DataError(f'{path}: sentence {number} has no tags; the format cannot hold it')
        blocks.append(''.join(f'{_clean(path, tag)}\n' for tag in tags))
    write_atomically(path, '\n'.join(blocks))


def write_pairs(path: Path, pairs: Iterable[tuple[str, str]]) -> None:
    """Writes BUCC's pairs: source id TAB target id."""
    write_atomically(path, ''.join(f'{_clean(path, source)}\t{_clean(path, target)}\n' for source, target in pairs))


def write_answers(path: Path, answers: Mapping[str, Any]) -> None:
    """Writes QA answers or rankings: a JSON object with the ids as keys."""
    write_atomically(path, json.dumps(dict(answers), ensure_ascii=False, indent=1, allow_nan=False) + '\n')


def check_labels(task: Task, path: Path, numbered: Iterable[tuple[int, str]]) -> None:
    """Raises DataError that names the line of a prediction that is not a label of the task. numbered: (line, label)."""
    for line, label in numbered:
        if label not in task.labels:
            raise DataError(f'{path}, line {line}: {label!r} is no label of {task.name!r}{closest(label, task.labels)}')


def check_indices(path: Path | str, indices: Sequence[int], count: int) -> None:
    """Raises DataError that names the line of the first index that is not one of 0 to `count` - 1."""
    for line, index in enumerate(indices, 1):
        if index >= count:
            raise DataError(f'{path}, line {line}: index {index} is out of range (0 to {count - 1})')


def _clean(path: Path, value: str) -> str:
    if not value or value != value.strip() or any(c in value for c in '\n\r\t'):
        raise DataError(f'{path}: {value!r} is empty or has white space, which this format cannot hold')
    return value


def read_labels(path: Path) -> list[str]:
    """Reads one label a line and strips white space. Raises DataError for a blank line or an empty file."""
    labels = [line.strip() for line in _lines(path)]
    for number, label in enumerate(labels, 1):
        if not label:
            raise DataError(f'{path}, line {number}: a blank line where a label is expected')
    return labels


def read_indices(path: Path) -> list[int]:
    """Reads one index (from 0) a line."""
    indices = []
    for number, label in enumerate(read_labels(path), 1):
        if not (label.isascii() and label.isdigit() and len(label) < 10):
            raise DataError(f'{path}, line {number}: {quote(label)} is not an index (0, 1, ...)')
        indices.append(int(label))
    return indices


def read_choices(path: Path) -> list[int]:
    """Reads multiple-choice predictions: the `label`, an index from 0, of the JSON object on each line."""
    indices = []
    for number, line in enumerate(_lines(path), 1):
        try:
            row = strict_json.loads(line)
        except strict_json.JsonError as error:
            raise DataError(f'{path}, line {number}: {error.described()}') from None
        label = row.get('label') if isinstance(row, dict) else None
        if type(label) is not int or label < 0:
            raise DataError(f'{path}, line {number}: an object with an index (0, 1, ...) as "label" is expected')
        indices.append(label)
    return indices


def read_tags(path: Path) -> list[list[str]]:
    """Reads the tags of each sentence. A blank line ends a sentence, which may be empty, as in XTREME's read_tag."""
    sentences: list[list[str]] = []
    current: list[str] = []
    for line in _lines(path):
        if tag := line.strip():
            current.append(tag)
        else:
            sentences.append(current)
            current = []
    return [*sentences, current] if current else sentences


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Reads BUCC's pairs (source id, target id). An empty file is valid: perhaps no pair was above the threshold."""
    pairs = []
    for number, line in enumerate(_lines(path, empty=True), 1):
        fields = line.strip().split('\t')
        if len(fields) != 2 or not all(fields):
            raise DataError(f'{path}, line {number}: two ids with a tab between them are expected, not {line!r}')
        pairs.append((fields[0], fields[1]))
    return pairs


def read_answers(path: Path) -> dict[str, str]:
    """Reads QA predictions: question id -> answer text."""
    answers = read_json(path)
    for id_, text in _object(path, answers).items():
        if not isinstance(text, str):
            raise DataError(f'{path}: the answer to {id_!r} is {type(text).__name__}, not a string')
    return answers


def read_no_answer_scores(path: Path) -> dict[str, float]:
    """Reads no-answer scores: question id -> score."""
    scores = read_json(path)
    for id_, score in _object(path, scores).items():
        if isinstance(score, bool) or not isinstance(score, int | float):
            raise DataError(f'{path}: the no-answer score of {id_!r} is {type(score).__name__}, not a number')
    return scores


def read_rankings(path: Path) -> dict[str, list[str]]:
    """Reads rankings: query id -> items, the best first."""
    rankings = read_json(path)
    for id_, items in _object(path, rankings).items():
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise DataError(f'{path}: the ranking of {id_!r} is not a list of strings')
    return rankings


def read_gold_answers(path: Path) -> dict[str, list[str]]:
    """Reads the gold answers of a file in SQuAD's JSON form (with or without the outer 'data'): question id -> answer
    texts. The placeholder that XTREME's public test files have is no answer.

    All lists are empty if the file has no answers. Raises DataError, with the line of the question if only some
    questions have answers.
    """
    text = _text(path)
    content = _parsed(path, text)
    articles = content.get('data') if isinstance(content, dict) else content
    gold: dict[str, list[str]] = {}
    try:
        for article in articles or ():
            for paragraph in article['paragraphs']:
                for question in paragraph['qas']:
                    id_ = question['id']
                    if isinstance(id_, bool) or not isinstance(id_, str | int):
                        raise DataError(f'{path}: an id is expected, not {quote(id_)}')
                    if str(id_) in gold:
                        raise DataError(f'{path}: question id {id_!r} occurs twice')
                    gold[str(id_)] = _texts(path, text, id_, question['answers'])
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f'{path}: not in the SQuAD form (data, paragraphs, qas, id, answers): {error!r}') from None
    if not gold:
        raise DataError(f'{path}: no questions in this file')
    without = [id_ for id_, texts in gold.items() if not texts]
    if len(without) not in (0, len(gold)):
        line = _line_of(text, without[0])
        raise DataError(
            f'{path}, line {line}: question {without[0]!r} has no gold answer ({len(without)} of {len(gold)} have none)'
        )
    return gold


def _texts(path: Path, content: str, id_: str | int, answers: Any) -> list[str]:
    texts = []
    for answer in answers:
        text = answer['text']
        if not isinstance(text, str):
            line = _line_of(content, id_)
            raise DataError(f'{path}, line {line}: an answer to {id_!r} is {type(text).__name__}, not a string')
        if any(answer.get(key, value) != value for key, value in PLACEHOLDER.items()):
            texts.append(text)
    return texts


def _line_of(content: str, id_: str | int) -> int:
    """The line of a question id in the text of a JSON file; 1 if it is written with escapes."""
    return content.count('\n', 0, max(content.find(json.dumps(id_, ensure_ascii=False)), 0)) + 1


def read_json(path: Path) -> Any:
    """Reads a JSON file. Raises DataError that names the line of a syntax error or a key that occurs twice."""
    return _parsed(path, _text(path))


def _parsed(path: Path, text: str) -> Any:
    try:
        return strict_json.loads(text)
    except strict_json.JsonError as error:
        raise DataError(f'{path}, line {error.line}: {error.described()}') from None


def _object(path: Path, content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise DataError(f'{path}: a JSON object by id is expected, not {type(content).__name__}')
    return content


def _text(path: Path) -> str:
    if not path.is_file():
        raise DataError(f'{path}: no such file')
    return read_text(path)


def _lines(path: Path, empty: bool = False) -> list[str]:
    if not path.is_file():
        raise DataError(f'{path}: no such file')
    lines = read_lines(path)
    if not lines and not empty:
        raise DataError(f'{path}: an empty file')
    return lines
