"""What all runs of a plan share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jax.sharding import Mesh

from xlmr_flax.config import Config
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.experiment.workdir.bad_rows import BadRows
from xlmr_flax.experiment.workdir.files import Workdir
from xlmr_flax.models.model import Model
from xlmr_flax.models.source import EncoderSource
from xlmr_flax.train.diagnostics.profile import Profiler


@dataclass(frozen=True)
class Setting:
    """What all runs of a plan share. bad_rows: takes rows that cannot be read, which are then left out. profiler: what
    this process was asked to trace."""

    config: Config
    source: EncoderSource
    model: Model
    tokenizer: Tokenizer
    mesh: Mesh
    workdir: Workdir
    log: Callable[[dict[str, Any]], None]
    bad_rows: BadRows | None = None
    profiler: Profiler | None = None


def make_model(config: Config, source: EncoderSource) -> Model:
    """The model of a plan: the source's shape with the config's dropout and dtype."""
    spec, shape = config.encoder, source.config
    rates = {'dropout': spec.dropout, 'attention_dropout': spec.attention_dropout}
    shape = dataclasses.replace(shape, **{k: v for k, v in rates.items() if v >= 0})
    return Model(shape, spec.head, spec.dtype, spec.remat, spec.unroll, spec.attention)
