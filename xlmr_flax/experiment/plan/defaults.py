"""Defaults that depend on the devices: dtype, mesh, unrolled layers, tokens of a forward pass.

They are set here and nowhere else, and nothing here touches a device: they are a function of the config, the shape of
the encoder, the machine (parallel/machine.py) and the plan's batches (experiment/plan/load.py). So `run`,
`run --dry_run` and `estimate` have the same defaults. On a CPU they are float32, rows sharded over all devices, and
scanned layers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xlmr_flax.config import Config, EncoderSpec, MeshSpec, Recipe
from xlmr_flax.data.batches import pass_tokens
from xlmr_flax.encoders import family_of
from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.experiment.plan.load import Load
from xlmr_flax.experiment.plan.mesh_cost import MeshSizes, choose, merged_parts, step_seconds
from xlmr_flax.parallel.machine import CPU, TPU, Machine

AUTO = 'auto'
USEFUL = 0.3  # share of useful tokens below which a training prints a setting that raises it
# On a TPU, unrolled layers save at least this share of a step, and a program takes these seconds longer to compile for
# each layer (docs/estimate.md); a training has about two programs.
_SAVED, _COMPILED, _PROGRAMS = 0.25, 3.0, 2
_REPLICA = 0.4  # share of a device's memory that the weights of an evaluation may take on each device


def dtype_of(spec: EncoderSpec, machine: Machine) -> str:
    """The compute dtype of a config on these devices."""
    if spec.dtype != AUTO:
        return spec.dtype
    return 'bfloat16' if machine.platform != CPU and machine.has_bfloat16 else 'float32'


def with_dtype(config: Config, machine: Machine) -> Config:
    """The config with encoder.dtype resolved for these devices; the dtype is part of the ids of runs."""
    return dataclasses.replace(
        config, encoder=dataclasses.replace(config.encoder, dtype=dtype_of(config.encoder, machine))
    )


@dataclass(frozen=True)
class Defaults:
    """The defaults of a plan on some devices.

    dtype: compute dtype. mesh: devices along each axis. rows_only: in evaluation, rows are sharded over all devices,
    and each device has all weights. unroll: encoder.unroll, -1 = by length: unrolled layers in trainings of at least
    `unrolled_from` steps (0 = never). tokens: number of tokens in a forward pass of evaluation, over all devices.
    batch_text: the part of `line` about a step's batch. seconds: run name -> estimated seconds of its training; empty
    on a CPU.
    """

    machine: Machine
    dtype: str
    mesh: MeshSpec
    rows_only: bool
    unroll: int
    unrolled_from: int
    tokens: int
    batch_text: str = ''
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def with_seconds(self, shape: EncoderConfig, loads: Mapping[str, Sequence[Load]]) -> Defaults:
        """With the seconds of runs. loads: of each run by its name."""
        sizes = self.sizes

        def of_run(own: Sequence[Load]) -> float:
            return sum(load.steps * step_seconds(shape, load, sizes, self.machine) for load in own)

        return dataclasses.replace(self, seconds={name: of_run(own) for name, own in loads.items()})

    def unroll_of(self, steps: int) -> int:
        """encoder.unroll of a training with this number of steps."""
        if self.unroll >= 0:
            return self.unroll
        return 0 if 0 < self.unrolled_from <= steps else 1

    def parts(self, shape: EncoderConfig, recipe: Recipe, loads: Sequence[Load]) -> int:
        """Number of micro-batches per step: the recipe's, or fewer if they only save memory and fewer fit."""
        if self.machine.platform == CPU or not loads:
            return recipe.accumulation
        sizes = self.sizes
        return max(merged_parts(shape, load, sizes, self.machine) for load in loads)

    @property
    def sizes(self) -> MeshSizes:
        """The mesh, with -1 replaced by the remaining devices."""
        given = [self.mesh.data, self.mesh.fsdp, self.mesh.model]
        if -1 in given:
            given[given.index(-1)] = max(1, self.machine.devices // math.prod(n for n in given if n > 0))
        return MeshSizes(*given)

    @property
    def shards(self) -> int:
        """The number of devices over which the rows of a batch are sharded."""
        return self.sizes.shards

    def line(self) -> str:
        """The defaults in one line for the user, with the settings that change them."""
        sizes = self.sizes
        layers = {0: 'layers unrolled', 1: 'layers scanned'}.get(self.unroll, f'{self.unroll} layers a scan step')
        if self.unroll < 0:
            layers = f'layers unrolled from {self.unrolled_from:,} steps on' if self.unrolled_from else 'layers scanned'
        each = 'chip' if self.machine.platform == TPU else 'device'
        parts = [
            f'{self.machine.label}: {self.dtype}',
            f'mesh data={sizes.data} fsdp={sizes.fsdp} model={sizes.model}',
            layers,
            *([self.batch_text] if self.batch_text else []),
            f'evaluation {-(-self.tokens // self.machine.devices):,} tokens a {each}',
        ]
        return ', '.join(parts) + '; change with encoder.dtype, mesh, encoder.unroll, evaluation.batch_tokens'

    def as_json(self) -> dict[str, Any]:
        """As JSON values, for the other processes of a job."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Defaults:
        """The inverse of `as_json`."""
        return cls(**{**values, 'machine': Machine(**values['machine']), 'mesh': MeshSpec(**values['mesh'])})


def decide(config: Config, shape: EncoderConfig, machine: Machine, loads: Callable[[], Sequence[Load]]) -> Defaults:
    """The defaults of a plan. loads: called on accelerators only, as it reads lengths of the training data."""
    spec, is_auto = config.mesh, not (config.mesh.data or config.mesh.fsdp or config.mesh.model)
    found = loads() if machine.platform != CPU else ()
    mesh, rows_only, unrolled = _filled(spec), False, 0
    if machine.platform != CPU and is_auto:
        mesh = dataclasses.replace(choose(shape, found, machine).spec, slices=spec.slices)
        rows_only = _replica_bytes(shape) <= _REPLICA * machine.chip.hbm
    tokens = pass_tokens(config.evaluation.batch_tokens, machine.platform, machine.devices)
    made = Defaults(
        machine, dtype_of(config.encoder, machine), mesh, rows_only, config.encoder.unroll, unrolled, tokens
    )
    sizes = made.sizes
    if machine.platform == TPU and config.encoder.unroll < 0 and found:
        unrolled = _unrolled_from(shape, found, sizes, machine)
    return dataclasses.replace(made, unrolled_from=unrolled, batch_text=_rows_text(found, sizes))


def _filled(spec: MeshSpec) -> MeshSpec:
    """A mesh whose zeros are numbers: see MeshSpec."""
    data = spec.data or (1 if -1 in (spec.fsdp, spec.model) else -1)
    return dataclasses.replace(spec, data=data, fsdp=spec.fsdp or 1, model=spec.model or 1)


def _replica_bytes(shape: EncoderConfig) -> float:
    """Bytes of an encoder's weights for evaluation: layers in bfloat16, the word table in float32."""
    return 2 * family_of(shape).layer_weights(shape) + 4 * float(shape.vocab_size) * shape.hidden_size


def _unrolled_from(shape: EncoderConfig, loads: Sequence[Load], sizes: MeshSizes, machine: Machine) -> int:
    """The number of steps from which on unrolled layers save more time than their compilation takes."""
    total = sum(load.steps for load in loads)
    step = sum(load.steps * step_seconds(shape, load, sizes, machine) for load in loads) / max(total, 1.0)
    return round(_PROGRAMS * _COMPILED * shape.num_layers / (_SAVED * step))


def _rows_text(loads: Sequence[Load], sizes: MeshSizes) -> str:
    if not loads:
        return ''
    load = max(loads, key=lambda each: each.steps)
    tokens = round(load.rows(sizes.shards) * load.group * load.length / sizes.shards)
    return f'batch {tokens:,} tokens a device ({load.useful(sizes.shards):.0%} useful)'


def remedy(load: Load, defaults: Defaults) -> str:
    """A message if most tokens of a training are padding, with the setting that changes it; '' = they are not."""
    shards, devices = defaults.shards, defaults.machine.devices
    useful = load.useful(shards)
    if useful >= USEFUL or (shards == 1 and load.packing is not None):
        return ''
    said = f'{load.dataset}: about {useful:.0%} of the tokens of a step are useful, the rest is padding'
    if load.packing is None:
        return f'{said}; recipe.packing=True fills rows'
    whole = load.useful(1)
    if whole >= USEFUL:
        own = f'{said}; mesh.data=1 mesh.fsdp=1 mesh.model={devices} gives {whole:.0%}'
        return f'{own}, and so does one device for each run (run --devices_a_run=1)'
    return f'{said}; a larger recipe.batch_size fills rows'
