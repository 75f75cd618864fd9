"""Raw text for masked language modelling: a language's lines, a part of them held out, long ones in pieces.

A mixture over several languages gives each its share by data.mixture.language_shares.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from xlmr_flax.data.sources import BadRow, DataError, read_split
from xlmr_flax.data.split import Split
from xlmr_flax.data.tokenize import Ragged, Tokenizer
from xlmr_flax.tasks.base import Example, SentenceExample, Task, TaskError

HELD_OUT = 20  # one distinct line in so many


def read_texts(
    task: Task,
    language: str,
    split: str,
    data_root: str | Path | None = None,
    limit: int | None = None,
    skip_bad_rows: list[BadRow] | None = None,
) -> list[Example]:
    """The lines of 'train' or 'dev' of a text task in one language, at most `limit` of them.

    Where the task has dev files they are read; else dev is what `hold_out` takes from train. Raises TaskError for other
    kinds and splits, DataError for a file that cannot be read or divided.
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
    """(train, dev), both in file order: dev has every `every`-th distinct text, and at least one.

    Which ones is decided by a hash of the text, so that repeated lines are on the same side (perplexity is measured on
    lines that were not trained on) and the order of a file means nothing.
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
    """(rows `<s> A </s>`, their ids). A text of more than max_length - 2 tokens becomes several rows of nearly equal
    length, of id 'ID/PART' with the part from 0: nothing is dropped (jiant's mlm_simple drops what is too long), and no
    part is left with too few tokens to predict from. Short texts are not joined. Texts without a token give no row.

    Raises TaskError where no row is left.
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
