"""Token masking for masked language modelling, a pure function of a key, so that every step is reproducible.

As in transformers' DataCollatorForLanguageModeling and jiant (tasks/lib/templates/mlm.py, Devlin et al. 2019), every
token of the text is selected with probability `rate`. Of the selected tokens, 80 % become <mask>, 10 % become a random
token and 10 % stay. There are two differences: a random token is never a special token (in the reference it may be),
and it never comes from rows of the word table that the tokenizer does not use.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from xlmr_flax.data.labels import IGNORED
from xlmr_flax.data.packing import Layout, place, place_segments
from xlmr_flax.data.tokenize import Ragged, Tokenizer, TokenizerError

MASK, RANDOM = 0.8, 0.1  # probabilities that a selected token becomes <mask> or a random token; the rest stays
_STREAM = 0x6D61736B00000000  # keeps these random draws independent of other draws with the same seed
_MULTIPLE = 8


@dataclass(frozen=True)
class Masking:
    """Masking parameters.

    mask_id: id of <mask>. special_ids: ids that are never selected and never used as random tokens. vocab_size: number
    of ids that the tokenizer uses (the word table may have more rows). rate: probability in (0, 1) that a token is
    selected. Raises ValueError for another rate.
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
        """Masking for a tokenizer. Raises TokenizerError if the tokenizer has no mask token."""
        if tokenizer.mask is None:
            raise TokenizerError(f"{tokenizer.path}: no token '<mask>', which masked language modelling needs")
        return cls(tokenizer.mask, tokenizer.special_ids, tokenizer.size, rate)

    def most(self, length: int) -> int:
        """Capacity for predicted tokens in a row of `length` tokens: 1.5 times the expected number plus eight, rounded
        up to a multiple of eight. At XLM-R's rate, fewer than one row in a hundred thousand has more.
        """
        return min(length, -(-(math.ceil(1.5 * self.rate * length) + 8) // _MULTIPLE) * _MULTIPLE)


def mask_tokens(
    ids: np.ndarray, segments: np.ndarray, key: tuple[int, int], masking: Masking
) -> tuple[np.ndarray, np.ndarray]:
    """Masks tokens; returns (ids, labels), int32 in the shape of `ids`.

    In the returned ids the selected tokens are replaced. labels holds the original id of each selected token and
    IGNORED elsewhere.
    ids, segments: int32 of the same shape; segment 0 is padding. key: (seed of the stream, number of the draw;
    0 in evaluation), the key of numpy's Philox generator. Equal arguments give equal results on every machine.
    """
    generator = np.random.Generator(np.random.Philox(key=[key[0] ^ _STREAM, key[1]]))
    chosen, fate, word = np.moveaxis(generator.random((*ids.shape, 3)), -1, 0)
    text = (segments > 0) & ~np.isin(ids, masking.special_ids)
    predicted = text & (chosen < masking.rate)
    special = sorted({i for i in masking.special_ids if i < masking.vocab_size})
    words = (word * (masking.vocab_size - len(special))).astype(np.int32)
    for i in special:  # maps a number k to the k-th id that is not special
        words += words >= i
    masked = np.where(fate < MASK, np.int32(masking.mask_id), np.where(fate < MASK + RANDOM, words, ids))
    return (
        np.where(predicted, masked, ids).astype(np.int32),
        np.where(predicted, ids, IGNORED).astype(np.int32),
    )


def gather(labels: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Gathers the predicted tokens of each row: labels [B, T] -> (positions, labels), both int32 [B, most].

    Positions are in ascending order. Unused entries have position 0 and label IGNORED. In a row with more than `most`
    predicted tokens, the last ones are dropped.

    The head's logits are as wide as the vocabulary, so they are computed for the predicted tokens only
    (models.model.Model.logits, argument `positions`).
    """
    order = np.argsort(labels == IGNORED, axis=1, kind='stable')[:, :most]
    gathered = np.take_along_axis(labels, order, axis=1)
    return np.where(gathered == IGNORED, 0, order).astype(np.int32), gathered.astype(np.int32)


def mask_batch(ids: np.ndarray, segments: np.ndarray, key: tuple[int, int], masking: Masking) -> dict[str, np.ndarray]:
    """Masks a batch of text with ids and segments [B, T]: returns int32 ids [B, T], positions and labels [B, M], where
    M = masking.most(T).
    """
    ids, labels = mask_tokens(ids, segments, key, masking)
    positions, labels = gather(labels, masking.most(ids.shape[1]))
    return {'ids': ids, 'positions': positions, 'labels': labels}


def pack_masked(
    ids: np.ndarray, segments: np.ndarray, key: tuple[int, int], masking: Masking, layout: Layout, pad: int
) -> dict[str, np.ndarray]:
    """Masks the same tokens as `mask_batch` and packs the rows: returns int32 ids, segments [R, T], positions and
    labels [R, M], and float32 valid [R]."""
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
    """Masks rows once for evaluation; returns (ids, labels). The masked tokens of a row depend neither on its batch,
    nor on its padding, nor on the rows after it.
    """
    ids, labels = mask_tokens(tokens.flat, np.ones_like(tokens.flat), (seed, 0), masking)
    return Ragged(ids, tokens.offsets), Ragged(labels, tokens.offsets)
