"""The objects that all runs of a plan share: config, model, tokenizer, mesh, workdir."""

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
    """The objects that all runs of a plan share. log: writes a metrics record. bad_rows: collects rows that cannot be
    read and are then skipped. profiler: records the traces that the user has requested."""

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
    """Makes the model of a plan: the encoder config of the source, with the dropout, dtype and other options of
    `config.encoder`."""
    spec, shape = config.encoder, source.config
    rates = {'dropout': spec.dropout, 'attention_dropout': spec.attention_dropout}
    shape = dataclasses.replace(shape, **{k: v for k, v in rates.items() if v >= 0})
    return Model(shape, spec.head, spec.dtype, spec.remat, spec.unroll, spec.attention)
