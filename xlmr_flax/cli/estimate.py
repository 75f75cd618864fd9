"""usage: xlmr-flax estimate --config=FILE --topology=v5e:4x4[,v5p:2x2x4] [--config.KEY=VALUE ...]
       xlmr-flax estimate --size=large --rows=32 --length=128 --topology=v5e:2x4,h100:8

Compiles training steps and forward passes ahead of time for a slice of TPU chips or for GPUs, on any machine. For each
chip it prints the memory compared with HBM, model FLOPs, collectives, the compiler's own estimate of the cycles (by
kind of operation and part of the model), the ideal time, the ratio of both times, and the largest operations with their
source lines. For a GPU the times are rooflines, and bytes moved and custom calls are printed as well. For a config it
also prints the hours and chip-hours of every phase and of the whole plan, on each slice.
pip install -e '.[tpu]' in the checkout installs the compiler for TPUs, '.[estimate-gpu]' that for GPUs; no TPU or GPU
is needed. The first form needs the data files of the plan, as run --dry_run does.

Chips: v4 and v5p (three numbers), v5e and v6e (two numbers), h100 and a100 (the number of GPUs of a machine). Mesh,
dtype, unrolled layers and tokens of a forward pass are those that `run` decides for the slice, unless the config gives
them: --config.mesh.data=1 --config.mesh.fsdp=-1 shards parameters over all chips. --one_run_a_chip says whether `run
--devices_a_run=1` completes the table sooner.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from xlmr_flax.cli.run import with_command
from xlmr_flax.config.flag import define_config_flag, define_data_root, load_config

if TYPE_CHECKING:
    from xlmr_flax.tools.estimate.chips import Topology
    from xlmr_flax.tools.estimate.plan import PlanEstimate
    from xlmr_flax.tools.estimate.programs import Compiled, Program


def define_flags(values: flags.FlagValues) -> None:
    define_data_root(values)
    define_config_flag(values, 'Config file: a Python file with get_config(); estimates its whole plan.')
    flags.DEFINE_list('topology', [], 'Slices or GPUs, as v5e:4x4,v5p:2x2x4,h100:8.', flag_values=values)
    flags.DEFINE_string('json', None, 'Keep everything in this JSON file.', flag_values=values)
    flags.DEFINE_string('text', None, 'Keep the compiled programs as text in this folder.', flag_values=values)
    flags.DEFINE_bool(
        'one_run_a_chip',
        False,
        'Of a plan, also compile for one chip, and say whether one run a chip or one on all chips finishes first.',
        flag_values=values,
    )
    flags.DEFINE_bool('every', False, 'Of a plan, print every program in full.', flag_values=values)
    flags.DEFINE_integer(
        'active_rows',
        0,
        'Rows of the word table that are trained, those that the data use; 0 = estimated from samples of the data '
        '(without a config: all rows). A language model always trains all rows.',
        flag_values=values,
    )
    flags.DEFINE_string('size', None, 'Without a config: an encoder size, as large.', flag_values=values)
    flags.DEFINE_integer('rows', 32, 'Without a config: rows of a chip and micro-batch.', flag_values=values)
    flags.DEFINE_integer('length', 128, 'Without a config: tokens a row.', flag_values=values)
    flags.DEFINE_string('head', 'pair', 'Without a config: pair, choice, span, tag or mlm.', flag_values=values)
    flags.DEFINE_integer('accumulation', 1, 'Without a config: micro-batches of a step.', flag_values=values)
    flags.DEFINE_string('dtype', 'bfloat16', 'Without a config: compute dtype.', flag_values=values)
    flags.DEFINE_enum(
        'remat',
        'auto',
        ('auto', 'none', 'dots', 'full'),
        'Without a config: encoder.remat.',
        flag_values=values,
    )
    flags.DEFINE_integer(
        'unroll',
        1,
        'Without a config: layers a step of the scan, 0 = all, which compiles several times longer and runs faster.',
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_integer('fsdp', -1, 'Without a config: chips that share parameters, -1 = all.', flag_values=values)
    flags.DEFINE_integer('model', 1, 'Without a config: chips that share the work of a layer.', flag_values=values)


def run(values: flags.FlagValues) -> int:
    from xlmr_flax.cli.main import UsageError
    from xlmr_flax.tools.estimate import EstimateError
    from xlmr_flax.tools.estimate.chips import parse_topologies
    from xlmr_flax.util.files import write_atomically

    if not values.topology:
        raise UsageError('--topology=SLICE is missing, as --topology=v5e:4x4')
    if (values.config is None) == (values.size is None):
        raise UsageError('give either --config=FILE or --size=SIZE')
    _without_devices()
    try:
        topologies = parse_topologies(values.topology)
        text, records = (_plan if values.config is not None else _programs)(values, topologies)
    except EstimateError as e:
        raise UsageError(str(e)) from None
    if values.json:
        write_atomically(Path(values.json), json.dumps(records, indent=1) + '\n')
    print(text)
    return 0


def _without_devices() -> None:
    """Limits jax to the CPU, unless the user has chosen: it would look for a TPU, and for a GPU's driver, without which
    it does not load the plugin that compiles."""
    import jax

    if not os.environ.get('JAX_PLATFORMS'):
        jax.config.update('jax_platforms', 'cpu')


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _keep(values: flags.FlagValues, compiled: Compiled) -> None:
    from xlmr_flax.util.files import write_atomically

    if values.text and compiled.text:
        name = re.sub(r'\W+', '-', f'{compiled.topology.name} {compiled.program.name}')
        write_atomically(Path(values.text) / f'{name}.txt', compiled.text)


def _plan(values: flags.FlagValues, topologies: Sequence[Topology]) -> tuple[str, object]:
    from xlmr_flax.data.readers.paths import MissingFile
    from xlmr_flax.data.readers.text import DataError
    from xlmr_flax.tools.estimate.one_run_a_chip import compare, single_chip
    from xlmr_flax.tools.estimate.plan import PlanWork, estimate_plan
    from xlmr_flax.tools.estimate.report import plan_dict, plan_text

    try:
        work = PlanWork(load_config(values), values.active_rows)

        def estimate(topology: Topology) -> PlanEstimate:
            return estimate_plan(work, topology, _say, lambda compiled: _keep(values, compiled))

        estimates = [estimate(topology) for topology in topologies]
        wanted = [each for each in estimates if values.one_run_a_chip and each.topology.chips > 1]
        singles = {one.name: estimate(one) for one in {single_chip(each.topology): None for each in wanted}}
        compared = [compare(work.plan, each, singles[single_chip(each.topology).name]) for each in wanted]
    except MissingFile as e:
        raise DataError(with_command(e)) from None
    text = '\n'.join([plan_text(estimates, every=values.every), *(f'\n{each.text()}' for each in compared)])
    facts = {each.topology.name: {'together': each.together, 'apart': each.apart} for each in compared}
    hours = {name: {k: None if math.isnan(v) else v for k, v in both.items()} for name, both in facts.items()}
    return text, [{**plan_dict(e), 'table_hours': hours.get(e.topology.name)} for e in estimates]


def _programs(values: flags.FlagValues, topologies: Sequence[Topology]) -> tuple[str, object]:
    """Estimates the training step and the forward pass of one shape, without a config."""
    from xlmr_flax.config import MeshSpec
    from xlmr_flax.tools.estimate.programs import compile_program, mesh_on
    from xlmr_flax.tools.estimate.report import compiled_dict, method, program_text, programs_table

    wanted = [(topology, _both(values, topology.chips // max(1, values.model))) for topology in topologies]
    compiled: list[Compiled] = []
    for topology, programs in wanted:
        mesh = mesh_on(topology, MeshSpec(-1 if values.fsdp != -1 else 1, values.fsdp, values.model))
        for program in programs:
            _say(f'{topology.name}: {program.name}')
            compiled.append(compile_program(program, topology, mesh))
            _keep(values, compiled[-1])
    parts = [programs_table(compiled), *(program_text(c) for c in compiled), method(topologies)]
    return '\n\n'.join(parts), [compiled_dict(c) for c in compiled]


def _both(values: flags.FlagValues, shards: int) -> list[Program]:
    import dataclasses

    from xlmr_flax.cli.main import UsageError
    from xlmr_flax.encoders import named_sizes
    from xlmr_flax.kinds import KINDS, HeadSpec
    from xlmr_flax.models.model import Model
    from xlmr_flax.tools.estimate.programs import EMBED, EVALUATE, TRAIN, Program
    from xlmr_flax.util.errors import closest

    sizes, heads = named_sizes(), {name: kind for name, kind in KINDS.items() if kind.architecture}
    for name, value, known in (('size', values.size, sizes), ('head', values.head, heads)):
        if value not in known:
            raise UsageError(f'--{name}: {value!r} is not one of {", ".join(known)}{closest(value, known)}')
    shape = sizes[values.size]
    for name, most in (('rows', 0), ('length', shape.max_length), ('accumulation', 0), ('model', 0)):
        if getattr(values, name) < 1 or 0 < most < getattr(values, name):
            raise UsageError(f'--{name}={getattr(values, name)}: expected 1 or more{f", at most {most}" * bool(most)}')
    model = Model(shape, dtype=values.dtype, remat=values.remat, unroll=values.unroll)
    trained = dataclasses.replace(shape, vocab_size=min(values.active_rows or shape.vocab_size, shape.vocab_size))
    kind, rows = heads[values.head], values.rows * shards
    head, is_mlm = HeadSpec(kind.name, kind.typical_outputs), kind.pretraining
    train = Program(
        TRAIN,
        model if is_mlm else dataclasses.replace(model, config=trained),
        head,
        rows * values.accumulation,
        values.length,
        values.accumulation,
        2 if kind.stacked else 1,
        -(-values.length * 15 // 100) if is_mlm else 0,
    )
    return [train, Program(EMBED if is_mlm else EVALUATE, model, head, rows, values.length)]
