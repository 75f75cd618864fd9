"""Pads the heads of one kind to the same number of outputs, so that they share a training program."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from xlmr_flax.kinds import HeadSpec


@dataclass(frozen=True)
class ProgramHead:
    """A head in the form that a training program uses.

    spec: its shape in the program; if the heads of its kind have different numbers of outputs, it has the largest.
    outputs: the number of outputs that it really has, 0 = as in `spec`: not padded.
    """

    spec: HeadSpec
    outputs: int = 0

    @property
    def real_outputs(self) -> jax.Array | None:
        """The program's argument int32 [] with the real number of outputs; None = not padded."""
        return jnp.int32(self.outputs) if self.outputs else None

    def pad(self, params: Any) -> Any:
        """Pads the head's parameters (host arrays) with zero columns. They stay zero, as their logits are masked."""
        if not self.outputs or 'out' not in params:
            return params
        more = self.spec.outputs - params['out']['bias'].shape[-1]
        out = {k: jnp.pad(v, [(0, 0)] * (v.ndim - 1) + [(0, more)]) for k, v in params['out'].items()}
        return {**params, 'out': jax.device_get(out)}

    def cut(self, params: Any) -> Any:
        """Removes the columns that `pad` added."""
        if not self.outputs or 'out' not in params:
            return params
        return {**params, 'out': {k: v[..., : self.outputs] for k, v in params['out'].items()}}


def program_heads(heads: Mapping[str, HeadSpec]) -> dict[str, ProgramHead]:
    """Returns the heads of a training in the form that its programs use, by name."""
    sizes: dict[str, set[int]] = {}
    for head in heads.values():
        sizes.setdefault(head.kind, set()).add(head.outputs)

    def one(head: HeadSpec) -> ProgramHead:
        own = head.outputs if len(sizes[head.kind]) > 1 else 0
        return ProgramHead(dataclasses.replace(head, outputs=max(sizes[head.kind])), own)

    return {name: one(head) for name, head in heads.items()}
