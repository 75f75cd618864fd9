"""What is noticed beside a training: a trace of some steps, compilations that should not be, and lack of memory with
the arrays and settings that matter."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from one_head import single

from xlmr_flax.config import OptimizerSpec, Recipe
from xlmr_flax.data.encode import Encoded
from xlmr_flax.encoders.config import SIZES
from xlmr_flax.kinds import HeadSpec
from xlmr_flax.models.model import Model
from xlmr_flax.parallel.mesh import make_mesh
from xlmr_flax.train import loop
from xlmr_flax.train.diagnostics.memory_estimate import StepShapes, estimate, options, size
from xlmr_flax.train.diagnostics.out_of_memory import (
    OutOfMemory,
    buffers_in,
    explained,
    limit_in,
    option_lines,
    summary,
)
from xlmr_flax.train.diagnostics.profile import DATA, EVALUATE, SAVE, STEP, ProfileError, Profiler, Window
from xlmr_flax.train.loop import train
from xlmr_flax.train.optimizer import Optimizer
from xlmr_flax.train.phase import Phase
from xlmr_flax.train.step import step_program

GIB = 1 << 30
RECIPE = Recipe(
    steps=8, batch_size=6, max_length=12, lengths=(12,), log_every=1, eval_every=4, checkpoint_every=3,
    optimizer=OptimizerSpec(learning_rate=1e-2),
)  # fmt: skip


@pytest.fixture
def bench(tiny: Any, data: Encoded, tmp_path: Path) -> Any:
    """run(**fields of the phase) -> (what was logged without what the clock decides, what was said)."""

    def run(**fields: Any) -> tuple[list[dict[str, Any]], list[str]]:
        records: list[dict[str, Any]] = []
        said: list[str] = []
        phase = Phase(
            task='toy', model=tiny.model, recipe=RECIPE, data=single('toy', 'x', tiny.head, data, (12,), 7),
            steps=8, seed=7, pad=1, mesh=make_mesh(), directory=tmp_path / f'run-{len(list(tmp_path.iterdir()))}',
            run_hash='h', evaluate=lambda params: {'dev_metric': 1.0}, log=records.append, say=said.append,
        )  # fmt: skip
        train(dataclasses.replace(phase, **fields), tiny.params)
        return [{k: v for k, v in r.items() if k != 'examples_per_s'} for r in records], said

    return run


def test_a_trace_holds_the_steps_that_were_asked_for_and_changes_nothing(bench: Any, tmp_path: Path) -> None:
    said: list[str] = []
    profiler = Profiler(Window(2, 5, exact=True), tmp_path / 'profile', said.append)
    traced, _ = bench(trace=profiler.of('a run'))
    plain, told = bench(trace=profiler.of('another run'))
    assert traced == plain
    assert not told, 'nothing was compiled that should not be'
    assert not any('recompiled' in record for record in plain)

    assert not (tmp_path / 'profile' / 'another run').exists(), 'one trace a process'
    (path,) = (tmp_path / 'profile' / 'a run').glob('plugins/profile/*/*.xplane.pb')  # where its viewers look
    assert path.parent == profiler.taken
    # Events are read while the file, plane and line that they belong to are there: jaxlib does not keep them.
    profile, names, numbers = jax.profiler.ProfileData.from_file(str(path)), Counter[str](), []
    with warnings.catch_warnings():
        # On Python 3.12 jaxlib's type of an event's facts warns as it is made, and dies where warnings are errors.
        warnings.simplefilter('ignore', DeprecationWarning)
        for plane in profile.planes:
            for line in plane.lines:
                for event in line.events:
                    names[event.name] += 1
                    if event.name == STEP:
                        numbers.append(dict(event.stats)['step_num'])
    assert numbers == [2, 3, 4]
    assert (names[DATA], names[EVALUATE], names[SAVE]) == (3, 1, 1)  # after steps 3 and 4 of the log
    assert said == [
        f'profile: steps 2 to 4 in {path.parent}; to open it: pip install xprof && '
        f'xprof --logdir={tmp_path}/profile/a run (or tensorboard --logdir={tmp_path}/profile/a run)'
    ]


def test_which_steps_are_traced() -> None:
    assert Window.parse('') is Window.parse('false') is None
    for text in ('5', '5:5', '6:5', 'a:b', '-1:3'):
        with pytest.raises(ProfileError, match=f'--profile={text}: expected FIRST:STOP'):
            Window.parse(text)
    default, asked = Window.parse('true'), Window.parse('10:15')
    assert default is not None
    assert asked is not None
    found = {steps: default.within(steps) for steps in (100, 12, 6, 2, 1, 0)}
    shown = {steps: (w.first, w.stop) if w else None for steps, w in found.items()}
    assert shown == {100: (10, 15), 12: (7, 12), 6: (1, 6), 2: (1, 2), 1: (0, 1), 0: None}
    ends = {steps: w.stop if (w := asked.within(steps)) else None for steps in (100, 12, 10)}
    assert ends == {100: 15, 12: 12, 10: None}


def test_a_batch_of_another_type_or_shape_is_reported_once(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = loop.put_batch, iter(range(100))

    def put_batch(batch: Any, *rest: Any) -> Any:
        call = next(calls)
        if call in (3, 4):
            batch = {**batch, 'valid': batch['valid'].astype(np.int32)}
        elif call == 6:
            batch = {**batch, **{k: np.pad(batch[k], ((0, 0), (0, 1)), mode='edge') for k in ('ids', 'segments')}}
        return real(batch, *rest)

    monkeypatch.setattr(loop, 'put_batch', put_batch)
    records, said = bench()
    reports = [(r['step'], r['recompiled']) for r in records if 'recompiled' in r]
    assert [step for step, _ in reports] == [4, 7]
    assert [text for _, text in reports] == said
    assert 'unexpected compilation at step 4: another program for pair batches' in said[0]
    assert "batches of 6 rows of 12 tokens of 'toy' differ among each other" in said[0]
    assert 'batch/valid: int32[6]' in said[0]
    assert 'instead of float32[6]' in said[0]
    assert "a batch of 'toy' has 6 rows of 13 tokens, its shapes should be 6 x 12" in said[1]
    assert 'batch/ids: int32[6, 13]' in said[1]
    assert 'instead of int32[6, 12]' in said[1]


def test_a_known_program_that_is_compiled_again_is_reported(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = loop._Loop.flush

    def flush(run: Any, step: int) -> None:
        real(run, step)
        if step == 5:  # a Python number slipped into the state
            step_array = jax.device_put(jnp.asarray(5), run.state['step'].sharding)
            run.state = {**run.state, 'step': step_array}

    monkeypatch.setattr(loop._Loop, 'flush', flush)
    records, said = bench()
    assert [r['step'] for r in records if 'recompiled' in r] == [6]
    assert "the program for pair batches of 6 x 12 ('toy') was compiled again" in said[0]
    assert 'shared/step: int32[] (weak)' in said[0]
    assert len(said) == 1


def no_room(text: str = 'Out of memory while trying to allocate 123 bytes.') -> Exception:
    return jax.errors.JaxRuntimeError(f'RESOURCE_EXHAUSTED: {text}')


def test_what_is_said_where_a_step_has_no_room(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = loop.make_train_step

    def make_train_step(*arguments: Any, **options: Any) -> Any:
        step = real(*arguments, **options)

        def failing(state: Any, batch: Any, key: Any) -> Any:
            if int(state['step']) == 2:
                raise no_room()
            return step(state, batch, key)

        return failing

    monkeypatch.setattr(loop, 'make_train_step', make_train_step)
    with pytest.raises(OutOfMemory) as caught:
        bench()
    assert isinstance(caught.value.__cause__, jax.errors.JaxRuntimeError)
    first, *lines = str(caught.value).splitlines()
    assert first == (
        "out of memory: training step 3 of task 'toy': pair batch of 'toy', 6 rows of 12 tokens, 1 layers of 16 in "
        'float32, mesh data=1 fsdp=1 model=1 of cpu'
    )
    assert lines[0] == '  XLA: Out of memory while trying to allocate 123 bytes.'
    assert 'parameters 9' in lines[1]
    assert 'by the compiler: arguments' in lines[2]
    text = '\n'.join(lines)
    word = size(1300 * 16 * 4)
    for part in (
        f'{word}  float32[1300, 16]  params/encoder/embeddings/word',
        f'{word}  float32[1300, 16]  opt/shared/0/mu/encoder/embeddings/word',
        'attention weights kept for the backward pass',
        '    recipe.batch_size=3 (now 6): activations',
        "    encoder.dtype='bfloat16': activations",
        '    mesh.fsdp=8 on 8 devices: parameters',
    ):
        assert part in text, part
    assert 'encoder.remat' not in text, 'the one layer there is has to be there whole'


def test_an_error_that_is_none_of_memory_stays_what_it_is(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any, **options: Any) -> Any:
        raise jax.errors.JaxRuntimeError('INTERNAL: a driver')

    monkeypatch.setattr(loop, 'make_train_step', broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match='INTERNAL: a driver'):
        bench()


def test_other_work_that_has_no_room() -> None:
    tree = {'pooler': {'dense': {'kernel': jax.device_put(np.zeros((256, 256), np.float32))}}}
    with pytest.raises(OutOfMemory) as caught, explained('evaluation of x', tree, ['evaluation.batch_tokens=1']):
        raise no_room('Attempting to allocate 3G.\n\nand a table')
    lines = str(caught.value).splitlines()
    assert lines[:2] == ['out of memory: evaluation of x', '  XLA: Attempting to allocate 3G.']
    assert '     256.0 KiB  float32[256, 256]  pooler/dense/kernel'.strip() in str(caught.value)
    assert lines[-1] == '    evaluation.batch_tokens=1'


def step_of(model: Model, rows: int = 8, length: int = 64, mesh: tuple[int, int, int] = (1, 1, 1)) -> StepShapes:
    head = HeadSpec('pair', 3)
    params = model.shapes({'head': head})
    ids, label = (jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((rows, length), (rows,)))
    batch = {'ids': ids, 'segments': ids, 'label': label, 'valid': jax.ShapeDtypeStruct((rows,), jnp.float32)}
    sizes = dict(zip(('data', 'fsdp', 'model'), mesh, strict=True))
    return StepShapes(model, head, params, batch, rows, 1, Optimizer(RECIPE.optimizer, 8), sizes)


def test_what_settings_change_of_what_a_step_needs() -> None:
    step = step_of(Model(SIZES['tiny']), rows=16, mesh=(4, 1, 1))
    base = estimate(step)
    count = sum(leaf.size for leaf in jax.tree.leaves(step.params))
    assert (base.parameters, base.moments, base.gradients) == (4 * count, 8 * count + 4, 4 * count)  # 4: update count
    found = {setting: estimate(changed) for setting, _, changed in options(step)}
    assert list(found) == [
        'recipe.accumulation=2 (now 1)', "encoder.remat='full'", "encoder.dtype='bfloat16'", 'mesh.data=1 mesh.fsdp=4',
        'recipe.batch_size=8 (now 16)', 'recipe.max_length=32',
    ]  # fmt: skip
    parts, remat, half, cut, small, short = found.values()
    assert parts.activations == small.activations == base.activations / 2
    assert parts.gradients == 2 * base.gradients
    assert 0.4 < remat.activations / base.activations < 0.8, 'of two layers one is there whole'
    assert 0.4 < half.activations / base.activations < 0.8, 'what is computed in float32 stays'
    assert cut.activations == base.activations
    assert cut.parameters < 0.4 * base.parameters
    assert 0.25 < short.activations / base.activations < 0.5, 'linear in the length, and quadratic'
    one_device = step_of(step.model, rows=16)  # with room for what each of the four needs
    first = next(setting for setting, _, _ in options(one_device, limit=base.total))
    assert first == 'recipe.accumulation=8 (now 1)', 'two gradients, and a part that is as small as that'


@pytest.mark.parametrize(('clip_per', 'said'), [('step', 'the same training'), ('micro_batch', 'another training')])
def test_more_micro_batches_are_the_same_training_only_if_gradients_are_clipped_once(clip_per: str, said: str) -> None:
    optimizer = Optimizer(dataclasses.replace(RECIPE.optimizer, clip_per=clip_per), 8)
    step = dataclasses.replace(step_of(Model(SIZES['tiny'])), optimizer=optimizer)
    meanings = {setting.partition('=')[0]: meaning for setting, meaning, _ in options(step)}
    assert meanings['recipe.accumulation'].startswith(said)


def test_a_setting_that_makes_nothing_smaller_is_not_named() -> None:
    step = step_of(Model(SIZES['tiny']), rows=2, length=8)
    assert any(setting.startswith('recipe.accumulation') for setting, _, _ in options(step))
    lines = option_lines(step, estimate(step), 0.0)
    assert lines and not any('recipe.accumulation' in line for line in lines), 'a second copy of the gradients is more'


def test_the_arithmetic_is_near_what_the_compiler_says(tiny: Any) -> None:
    step = step_of(tiny.model, rows=6, length=12)
    step = dataclasses.replace(step, head=tiny.head)
    optimizer = Optimizer(RECIPE.optimizer, 8)
    program = step_program(tiny.model, tiny.head, optimizer, make_mesh(), 1)
    shared = {k: v for k, v in step.params.items() if k != 'heads'}
    mine = {'heads': step.params['heads']}
    opt = [jax.eval_shape(optimizer.init, tree) for tree in (shared, mine)]
    state = {'params': shared, 'opt': opt[0], 'step': jax.ShapeDtypeStruct((), jnp.int32)}
    key = jax.eval_shape(lambda: jax.random.key(0))
    lowered = program.lower(state, {'params': mine, 'opt': opt[1]}, step.batch, key, None)
    found, want = estimate(step), lowered.compile().memory_analysis()
    assert found.parameters + found.moments == pytest.approx(want.output_size_in_bytes, rel=0.02)
    assert 0.4 < (found.gradients + found.activations) / want.temp_size_in_bytes < 2.5


TPU = """RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. \
Used 20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G.

Total hbm usage >= 21.75G:
    program          20.50G

  Largest program allocations in hbm:

  1. Size: 512.00M
     Operator: op_name="jit(step)/jvp()/dot_general" source_file="encoder.py" source_line=95
     Shape: f32[8,16,1024,1024]{3,2,1,0:T(8,128)}
     Unpadded size: 512.00M
     ==========================

  2. Size: 1.50G
     Shape: bf16[24,64,512,1024]{3,2,1,0:T(8,128)(2,1)}
     ==========================
"""
GPU = """RESOURCE_EXHAUSTED: Out of memory while trying to allocate 6291456 bytes.
BufferAssignment OOM Debugging.
Peak buffers:
\tBuffer 1:
\t\tSize: 6.00MiB
\t\tOperator: op_name="jit(step)/concatenate" source_file="x.py" source_line=689
\t\tXLA Label: concatenate
\t\tShape: f32[4096,128,3]
\t\t==========================
"""


def test_what_compilers_say_is_read() -> None:
    second, first = buffers_in(TPU)
    assert (first.bytes, first.shape, first.name) == (GIB / 2, (8, 16, 1024, 1024), 'jit(step)/jvp()/dot_general')
    assert (second.bytes, second.dtype, second.name) == (1.5 * GIB, 'bf16', '')
    assert limit_in(TPU) == 15.75 * GIB
    assert limit_in('memory required for HLO temporaries (53.67G) exceeds available HBM (15.75G).') == 15.75 * GIB
    assert summary(jax.errors.JaxRuntimeError(TPU)).startswith('XLA:TPU compile permanent error. Ran out of memory')
    (only,) = buffers_in(GPU)
    assert (only.bytes, only.shape) == (6 << 20, (4096, 128, 3))
    assert limit_in(GPU) == 0
    assert buffers_in('Out of memory.') == []


@pytest.mark.slow
def test_a_batch_that_is_really_too_large(tmp_path: Path) -> None:
    """24 GiB of attention weights and more in a process that may have 12."""
    config = Path(__file__).parents[2] / 'configs' / 'tiny.py'
    flags = [
        'run', f'--config={config}', f'--workdir={tmp_path}', "--config.intermediate=('none',)",
        "--config.targets=('world_pairs',)", "--config.evaluation.languages={'world_pairs': ('en',)}",
        '--config.recipe.batch_size=16384', '--config.recipe.max_train=64', '--config.recipe.packing=False',
        '--config.recipe.max_length=128', '--config.recipe.lengths=(128,)',
    ]  # fmt: skip
    program = (
        f'import resource, sys\nresource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))\n'
        f'from xlmr_flax.cli.main import main\nsys.exit(main({flags!r}))'
    )
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert 'Traceback' not in done.stderr
    assert "error: out of memory: training step 1 of task 'world_pairs'" in done.stderr.replace('step 2', 'step 1')
    assert 'attention weights kept for the backward pass' in done.stderr
    assert 'recipe.accumulation=2 (now 1)' in done.stderr
