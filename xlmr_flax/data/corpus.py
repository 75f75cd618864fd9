"""Raw text for masked language modelling: reads lines, holds out a dev set and splits long lines.

In a mixture over several languages, data.mixture.language_shares gives the sampling rate of each language.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.sources import BadRow, read_split
from xlmr_flax.data.split import Split
from xlmr_flax.data.tokenize import Ragged, Tokenizer
from xlmr_flax.tasks.base import Example, SentenceExample, Task, TaskError

HELD_OUT = 20  # one of this many distinct lines is held out


def read_texts(
    task: Task,
    language: str,
    split: str,
    data_root: str | Path | None = None,
    limit: int | None = None,
    skip_bad_rows: list[BadRow] | None = None,
) -> list[Example]:
    """Reads the lines of 'train' or 'dev' of a text task in one language, at most `limit` lines.

    If the task has dev files, they are read. Otherwise `hold_out` takes dev from train. Raises TaskError for other
    kinds and splits, and DataError for a file that cannot be read or divided.
    """
    if not task.is_text:
        raise TaskError(f'task {task.name!r} is of kind {task.kind!r}, not text')
    if split not in ('train', 'dev'):
        raise TaskError(f'task {task.name!r}: split {split!r} is not one of train, dev')
    if Split(task, language, 'dev', data_root or '').is_there():
        return read_split(task, language, split, data_root, limit, skip_bad_rows)
    train, dev = hold_out(read_split(task, language, 'train', data_root, None, skip_bad_rows))
    if not train:
        raise DataError(
            f'task {task.name!r}, language {language!r}: {len(dev)} lines, all alike, '
            'cannot be divided into train and dev'
        )
    return (train if split == 'train' else dev)[:limit]


def hold_out(examples: Sequence[Example], every: int = HELD_OUT) -> tuple[list[Example], list[Example]]:
    """Splits lines into (train, dev), both in file order. Dev has one of `every` distinct texts, and at least one text.

    A hash of the text selects the held-out texts. So repeated lines are always on the same side, and perplexity is
    measured on lines that were not trained on. The order of the file has no influence.
    """
    texts = {e.text for e in examples if isinstance(e, SentenceExample)}
    order = sorted(texts, key=lambda text: hashlib.sha256(text.encode('utf-8', 'surrogatepass')).digest())
    chosen = set(order[: max(1, len(order) // every)])
    dev = [isinstance(e, SentenceExample) and e.text in chosen for e in examples]
    return (
        [e for e, out in zip(examples, dev, strict=True) if not out],
        [e for e, out in zip(examples, dev, strict=True) if out],
    )


def text_rows(
    tokenizer: Tokenizer, examples: Sequence[SentenceExample], max_length: int
) -> tuple[Ragged, tuple[str, ...]]:
    """Encodes texts as rows `<s> A </s>`; returns (rows, ids of the rows).

    A text of more than max_length - 2 tokens becomes several rows of nearly equal length with the ids 'ID/PART', PART
    counted from 0. So no token is dropped (jiant's mlm_simple drops the rest of a long text), and no part is too short
    to predict from. Short texts are not joined. Texts without a token give no row.

    Raises TaskError if no row is left.
    """
    tokens, budget = tokenizer.encode([e.text for e in examples]), max_length - 2
    rows, ids = [], []
    for i, example in enumerate(examples):
        count = -(-len(tokens[i]) // budget)
        for part, piece in enumerate(np.array_split(tokens[i], count) if count else ()):
            rows.append(np.concatenate([[tokenizer.bos], piece, [tokenizer.eos]]))
            ids.append(example.id if count == 1 else f'{example.id}/{part}')
    if not rows:
        raise TaskError(f'{len(examples)} texts have no token')
    return Ragged.from_rows(rows), tuple(ids)
