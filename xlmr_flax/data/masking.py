"""Which tokens a masked language model has to predict: a pure function of a key, so that a step can be made again.

As transformers' DataCollatorForLanguageModeling and jiant (tasks/lib/templates/mlm.py, Devlin et al. 2019): every token
of the text is chosen with probability `rate`; of the chosen ones 80 % become <mask>, 10 % a random word, 10 % stay. Two
differences: a random word is never a special token (there it may be), and none comes from rows of the word table that
the tokenizer does not use.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from xlmr_flax.data.labels import IGNORED
from xlmr_flax.data.packing import Layout, place, place_segments
from xlmr_flax.data.tokenize import Ragged, Tokenizer, TokenizerError

MASK, RANDOM = 0.8, 0.1  # what becomes of a chosen token; the rest stays
_STREAM = 0x6D61736B00000000  # draws of the same seed for other purposes are others
_MULTIPLE = 8


@dataclass(frozen=True)
class Masking:
    """How tokens are masked. mask_id: of <mask>. special_ids: never chosen and never a random word. vocab_size: ids
    that the tokenizer uses, which the word table may exceed. rate: probability that a token is chosen, in (0, 1).
    """

    mask_id: int
    special_ids: tuple[int, ...]
    vocab_size: int
    rate: float = 0.15

    def __post_init__(self) -> None:
        if not 0.0 < self.rate < 1.0:
            raise ValueError(f'masking rate {self.rate} does not lie between 0 and 1')

    @classmethod
    def of(cls, tokenizer: Tokenizer, rate: float = 0.15) -> Masking:
        """Raises TokenizerError where the tokenizer has no token '<mask>'."""
        if tokenizer.mask is None:
            raise TokenizerError(f"{tokenizer.path}: no token '<mask>', which masked language modelling needs")
        return cls(tokenizer.mask, tokenizer.special_ids, tokenizer.size, rate)

    def most(self, length: int) -> int:
        """Predicted tokens that a row of `length` has places for: half as many again as are expected and eight, rounded
        up to a multiple of eight. Fewer than one row in a hundred thousand has more at XLM-R's rate.
        """
        return min(length, -(-(math.ceil(1.5 * self.rate * length) + 8) // _MULTIPLE) * _MULTIPLE)


def mask_tokens(
    ids: np.ndarray, segments: np.ndarray, key: tuple[int, int], masking: Masking
) -> tuple[np.ndarray, np.ndarray]:
    """(ids, labels) int32 in the shape of `ids`: with chosen tokens replaced; their own ids and IGNORED elsewhere.

    ids, segments: int32 of any one shape; segment 0 is padding. key: (seed, step), of numpy's Philox. Equal arguments
    give equal results on every machine.
    """
    generator = np.random.Generator(np.random.Philox(key=[key[0] ^ _STREAM, key[1]]))
    chosen, fate, word = np.moveaxis(generator.random((*ids.shape, 3)), -1, 0)
    text = (segments > 0) & ~np.isin(ids, masking.special_ids)
    predicted = text & (chosen < masking.rate)
    special = sorted({i for i in masking.special_ids if i < masking.vocab_size})
    words = (word * (masking.vocab_size - len(special))).astype(np.int32)
    for i in special:  # the k-th id that is not special
        words += words >= i
    masked = np.where(fate < MASK, np.int32(masking.mask_id), np.where(fate < MASK + RANDOM, words, ids))
    return (
        np.where(predicted, masked, ids).astype(np.int32),
        np.where(predicted, ids, IGNORED).astype(np.int32),
    )


def gather(labels: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """labels [B, T] -> (positions, labels) int32 [B, most]: where the predicted tokens of a row stand, from left to
    right, and what they are; unused places have position 0 and label IGNORED.

    The head's logits are as large as the vocabulary, so only those of predicted tokens are computed
    (models.model.Model.logits, positions). Of a row with more than `most` the last ones do not count.
    """
    order = np.argsort(labels == IGNORED, axis=1, kind='stable')[:, :most]
    found = np.take_along_axis(labels, order, axis=1)
    return np.where(found == IGNORED, 0, order).astype(np.int32), found.astype(np.int32)


def mask_batch(ids: np.ndarray, segments: np.ndarray, key: tuple[int, int], masking: Masking) -> dict[str, np.ndarray]:
    """What a batch of text becomes, given ids and segments [B, T]: int32 ids [B, T], positions and labels [B, M] with
    M = masking.most(T).
    """
    ids, labels = mask_tokens(ids, segments, key, masking)
    positions, labels = gather(labels, masking.most(ids.shape[1]))
    return {'ids': ids, 'positions': positions, 'labels': labels}


def pack_masked(
    ids: np.ndarray, segments: np.ndarray, key: tuple[int, int], masking: Masking, layout: Layout, pad: int
) -> dict[str, np.ndarray]:
    """As `mask_batch`, with the same tokens masked, in packed rows: int32 ids, segments [R, T], positions and labels
    [R, M], float32 valid [R]."""
    ids, labels = mask_tokens(ids, segments, key, masking)
    lengths, start, shape = (segments > 0).sum(axis=1), layout.start[:, 0], (layout.rows, layout.length)

    def packed(values: np.ndarray, fill: int) -> np.ndarray:
        cut = [row[:n] for row, n in zip(values, lengths, strict=True)]
        return place(cut, layout.row, start, shape, fill)

    positions, wanted = gather(packed(labels, IGNORED), masking.most(layout.length))
    return {
        'ids': packed(ids, pad),
        'segments': place_segments(lengths, layout.row, layout.slot, start, shape),
        'positions': positions,
        'labels': wanted,
        'valid': np.ones(layout.rows, np.float32),
    }


def mask_rows(tokens: Ragged, seed: int, masking: Masking) -> tuple[Ragged, Ragged]:
    """(ids, labels) of rows that are masked once, for evaluation: what is predicted depends on neither the batch nor
    the padding that a row is seen in, nor on the rows behind it.
    """
    ids, labels = mask_tokens(tokens.flat, np.ones_like(tokens.flat), (seed, 0), masking)
    return Ragged(ids, tokens.offsets), Ragged(labels, tokens.offsets)
