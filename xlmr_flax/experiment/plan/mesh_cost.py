"""Time and memory of a training step on a mesh, by arithmetic: the cost model that chooses a plan's mesh.

A step is `parts` micro-batches and one update. For each micro-batch, a device reads, converts and writes the weights
that its rows need, computes, and exchanges weights (axis fsdp), gradients (data and fsdp) and activations (model). The
constants are fitted to `xlmr-flax estimate` for XLM-R Large (docs/estimate.md compares both): the compiler's cycles,
without overlap of collectives. The model ranks meshes; it does not replace an estimate.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xlmr_flax.config import MeshSpec
from xlmr_flax.encoders import family_of
from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.experiment.plan.load import Load
from xlmr_flax.parallel.machine import TPU, Machine

_WORDS = 32_768  # typical number of trained rows of the word table; a language model's head trains the whole table
# Bytes of memory that are read and written for each parameter on a device:
_UPDATE = 37.0  # once per step: the norm of the gradients, clipping and AdamW
# Once per micro-batch, for each weight of the device: conversion; writing, adding and clipping of gradients.
_PART = 69.0
_THROUGH = 6.0  # once per micro-batch, for each weight that other devices send
# Once per layer, for each element of the hidden states: elementwise work, which axis model does not share.
_TOKEN = 133.0
_SPEED = 0.7  # share of the peak that matrix products and attention reach
_LAYER = 60e-6  # seconds per layer and micro-batch: operations that are too small to be limited by memory
_HOP = 2e-6  # seconds until a collective has begun on all devices
_STATE = 20.0  # bytes per parameter: parameter, two moments and gradients in float32, and a copy in bfloat16
_ROOM = 0.85  # share of a device's memory that a step may need by this model
# Lanes of a TPU's vector registers. For the attention kernel, the width of a device's heads is a multiple of it.
_LANES = 128


@dataclass(frozen=True)
class MeshSizes:
    """The shape of a mesh: the number of devices along each axis."""

    data: int
    fsdp: int
    model: int

    @property
    def shards(self) -> int:
        """The number of devices over which the rows of a batch are sharded."""
        return self.data * self.fsdp

    @property
    def spec(self) -> MeshSpec:
        """The same as a config field."""
        return MeshSpec(self.data, self.fsdp, self.model)


def meshes(shape: EncoderConfig, machine: Machine) -> Iterator[MeshSizes]:
    """Yields every mesh over all devices that the shape of the encoder allows."""
    n, width = machine.devices, shape.hidden_size // shape.num_heads
    for data, fsdp in itertools.product(_divisors(n), repeat=2):
        if n % (data * fsdp) or data % machine.slices or shape.hidden_size % fsdp:
            continue
        model = n // (data * fsdp)
        if shape.num_heads % model or shape.ffn_size % model:
            continue
        if machine.platform == TPU and model > 1 and shape.num_heads // model * width % _LANES:
            continue
        yield MeshSizes(data, fsdp, model)


def _divisors(n: int) -> list[int]:
    return [k for k in range(1, n + 1) if n % k == 0]


def weights(shape: EncoderConfig, load: Load) -> tuple[float, float]:
    """Returns (weights in the layers, weights in the trained rows of the word table)."""
    rows = shape.vocab_size if load.whole_table else min(_WORDS, shape.vocab_size)
    return float(family_of(shape).layer_weights(shape)), float(rows * shape.hidden_size)


def step_bytes(shape: EncoderConfig, load: Load, sizes: MeshSizes, parts: int = 0) -> float:
    """Bytes of a device's memory that a step needs: the state, and the activations of one micro-batch that a layer
    keeps for its backward pass (encoders/compute.py `dots`). parts: number of micro-batches, 0 = the load's."""
    layers, table = weights(shape, load)
    tokens = load.rows(sizes.shards) / (parts or load.parts) * load.group * load.length / sizes.shards
    kept = shape.num_layers * (6 * shape.hidden_size + (4 * shape.hidden_size + 2 * shape.ffn_size) / sizes.model) * 2
    logits = 8 * shape.vocab_size * 0.15 if load.whole_table else 0.0
    return _STATE * (layers + table) / (sizes.fsdp * sizes.model) + tokens * (kept + logits / sizes.model)


def step_seconds(shape: EncoderConfig, load: Load, sizes: MeshSizes, machine: Machine) -> float:
    """Seconds of a step if no collective overlaps with computation."""
    chip, (layers, table) = machine.chip, weights(shape, load)
    data, fsdp, model = sizes.data, sizes.fsdp, sizes.model
    tokens = load.rows(sizes.shards) / load.parts * load.group * load.length / sizes.shards  # of a device and part
    own = fsdp * model  # devices that share a parameter
    moved = _PART * layers / own + _THROUGH * layers / model * (fsdp > 1)
    flops = 3 * tokens * (2 * layers + family_of(shape).attention_flops(shape, load.length)) / model
    moved += _TOKEN * tokens * shape.hidden_size * shape.num_layers
    part = moved / chip.hbm_speed + flops / (_SPEED * chip.flops) + _LAYER * shape.num_layers
    sent = 0.0  # bytes a device sends for a micro-batch
    sent += 3 * 2 * layers / model * (fsdp - 1) / fsdp  # weights to two passes, gradients back, in bfloat16
    sent += 2 * 2 * layers / own * (data - 1) / data  # gradients summed, in bfloat16
    sent += 4 * shape.num_layers * tokens * shape.hidden_size * 2 * 2 * (model - 1) / model
    hops = shape.num_layers * (3 * (fsdp > 1) + 4 * (model > 1)) + 8 * (data > 1)
    part += sent / chip.link_speed + _HOP * hops
    update = _UPDATE * (layers + table) / own / chip.hbm_speed
    update += 2 * 4 * table / own * (data - 1) / data / chip.link_speed
    return load.parts * part + update


def choose(shape: EncoderConfig, loads: Sequence[Load], machine: Machine) -> MeshSizes:
    """The mesh that takes the least time for all steps of the loads, among those whose memory suffices.

    If it suffices on no mesh: the one that needs least. Without loads, only rows are sharded.
    """
    known = list(meshes(shape, machine))
    if not loads or not known:
        return MeshSizes(machine.devices, 1, 1)

    def need(sizes: MeshSizes) -> float:
        return max(step_bytes(shape, load, sizes) for load in loads)

    def seconds(sizes: MeshSizes) -> float:
        return sum(load.steps * step_seconds(shape, load, sizes, machine) for load in loads)

    known = [s for s in known if all(load.fits(s.shards) for load in loads)] or known
    room = [s for s in known if need(s) <= _ROOM * machine.chip.hbm]
    return min(room, key=seconds) if room else min(known, key=need)


def merged_parts(shape: EncoderConfig, load: Load, sizes: MeshSizes, machine: Machine) -> int:
    """The smallest divisor of the load's number of micro-batches with which the activations fit. The load's own number
    if micro-batches are `apart`: gradients are then clipped after each, or come from different tasks.
    """
    if load.apart:
        return load.parts
    fewer = [k for k in _divisors(load.parts) if step_bytes(shape, load, sizes, k) <= _ROOM * machine.chip.hbm]
    return fewer[0] if fewer else load.parts
