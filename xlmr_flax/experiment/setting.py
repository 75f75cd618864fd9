"""The objects that all runs of a plan share: config, model, tokenizer, mesh, workdir."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jax.sharding import Mesh

from xlmr_flax.config import Config
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.experiment.plan.defaults import Defaults, dtype_of
from xlmr_flax.experiment.workdir.bad_rows import BadRows
from xlmr_flax.experiment.workdir.files import Workdir
from xlmr_flax.models.model import Model
from xlmr_flax.models.source import EncoderSource
from xlmr_flax.parallel.machine import this_machine
from xlmr_flax.parallel.mesh import rows_mesh
from xlmr_flax.train.diagnostics.profile import Profiler


@dataclass(frozen=True)
class Setting:
    """The objects that all runs of a plan share.

    log: writes a metrics record. defaults: those of the plan on these devices. bad_rows: collects rows that cannot be
    read and are then skipped. profiler: records the traces that the user has requested.
    """

    config: Config
    source: EncoderSource
    model: Model
    tokenizer: Tokenizer
    mesh: Mesh
    workdir: Workdir
    log: Callable[[dict[str, Any]], None]
    defaults: Defaults
    bad_rows: BadRows | None = None
    profiler: Profiler | None = None

    @property
    def eval_mesh(self) -> Mesh:
        """The mesh of forward passes: the devices in the order of `mesh`."""
        return rows_mesh(self.mesh) if self.defaults.rows_only else self.mesh


def make_model(config: Config, source: EncoderSource) -> Model:
    """Makes the model of a plan: the encoder config of the source, with the dropout, dtype and other options of
    `config.encoder`. Layers are scanned if `unroll` is left to each training (-1)."""
    spec, shape = config.encoder, source.config
    rates = {'dropout': spec.dropout, 'attention_dropout': spec.attention_dropout}
    shape = dataclasses.replace(shape, **{k: v for k, v in rates.items() if v >= 0})
    dtype = dtype_of(spec, this_machine())
    return Model(shape, spec.head, dtype, spec.remat, 1 if spec.unroll < 0 else spec.unroll, spec.attention)
