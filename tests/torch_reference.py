"""transformers' encoder in torch with the weights of a parameter tree: what the parity tests compare with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np
import torch
import transformers

from xlmr_flax.encoders import family_of
from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.kinds import HeadSpec, kind_of
from xlmr_flax.models import hf
from xlmr_flax.models.model import Model, Params


def tiny_config(**changes: object) -> EncoderConfig:
    """A tiny shape with every size different, so that a swapped axis cannot pass; dropout 0."""
    base = EncoderConfig(
        vocab_size=101, hidden_size=24, num_layers=3, num_heads=4, ffn_size=40, max_positions=34,
        dropout=0.0, attention_dropout=0.0, initializer_range=0.2,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def random_params(model: Model, heads: dict[str, HeadSpec], seed: int = 0) -> Params:
    """Random parameters, biases and layer norms included (fresh ones are 0 and 1, which would hide mistakes)."""
    params = jax.device_get(model.init(jax.random.key(seed), heads))
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + random.normal(0, 0.05, x.shape).astype(np.float32), params)


def batch(config: EncoderConfig, rows: int = 4, length: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(ids, segments) int32 [rows, length] with rows of different lengths, right-padded."""
    random = np.random.default_rng(seed)
    lengths = random.integers(3, length + 1, rows)
    lengths[0] = length
    ids = random.integers(5, config.vocab_size, (rows, length)).astype(np.int32)
    segments = (np.arange(length) < lengths[:, None]).astype(np.int32)
    return np.where(segments > 0, ids, config.pad_id).astype(np.int32), segments


def torch_model(
    config: EncoderConfig, params: Params, tokenizer: Path, out: Path, head: tuple[str, HeadSpec] | None = None
) -> torch.nn.Module:
    """Exports with `hf.save` and opens with transformers: the parity tests test the export too."""
    hf.save(out, config, params, tokenizer, head=head, style='hf')
    cls = getattr(transformers, family_of(config).class_name + (kind_of(head[1]).architecture if head else 'Model'))
    model, info = cls.from_pretrained(out, output_loading_info=True)
    assert not info['unexpected_keys'] and not info['mismatched_keys'], info
    assert not [k for k in info['missing_keys'] if 'position_ids' not in k], info
    return model.eval()
