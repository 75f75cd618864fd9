"""Several heads on one encoder: only what is drawn moves, wide heads are the narrow ones, programs are few."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from one_head import make_train_step

from xlmr_flax.config import OptimizerSpec, Recipe
from xlmr_flax.data.encode import Encoded
from xlmr_flax.data.masking import Masking
from xlmr_flax.data.mixture import Mixture, fixed_quotas, stream_seed
from xlmr_flax.data.spans import SpanRows
from xlmr_flax.data.tagging import TagRows
from xlmr_flax.data.tokenize import Ragged
from xlmr_flax.kinds import HeadSpec
from xlmr_flax.parallel.mesh import make_mesh, put_batch, put_tree
from xlmr_flax.train import loop
from xlmr_flax.train import step as step_module
from xlmr_flax.train.compilations import compilations
from xlmr_flax.train.head_padding import ProgramHead, program_heads
from xlmr_flax.train.loop import train
from xlmr_flax.train.mixed import make_mixed_step
from xlmr_flax.train.optimizer import Optimizer
from xlmr_flax.train.phase import Phase, Trained
from xlmr_flax.train.step import init_state
from xlmr_flax.train.streams import Stream, TrainingData

SPEC = OptimizerSpec(learning_rate=1e-2, epsilon=1e-4, warmup=0.0, clip_norm=0.5, weight_decay=0.1)
HEADS = {
    'nli': HeadSpec('pair', 3),
    'squad': HeadSpec('span'),
    'qqp': HeadSpec('pair', 2),
    'ccg': HeadSpec('tag', 7),
    'mlm': HeadSpec('mlm'),
}


def rows_of(kind: str, n: int, outputs: int, length: int, seed: int) -> Encoded:
    random = np.random.default_rng(seed)
    tokens = Ragged.from_rows([random.integers(5, 1300, random.integers(4, length + 1)) for _ in range(n)])
    label = random.integers(0, outputs, n).astype(np.int32) if kind == 'pair' else np.zeros(0, np.int32)
    data = Encoded(kind, tokens, label, tuple(f'row-{i}' for i in range(n)))
    if kind == 'tag':
        labels = Ragged(random.integers(0, outputs, len(tokens.flat)).astype(np.int32), tokens.offsets)
        slots = Ragged(np.ones_like(labels.flat), tokens.offsets)
        data = dataclasses.replace(data, tags=TagRows(tokens, slots, labels, np.arange(n)))
    return data


def stream(name: str, n: int = 40, length: int = 12) -> Stream:
    spec = HEADS[name]
    masking = Masking(4, (0, 1, 2, 3, 4), 1300, 0.3) if spec.kind == 'mlm' else None
    data = rows_of(spec.kind, n, spec.outputs, length, seed=len(name))
    return Stream(name, name, spec, data, (length,), stream_seed(0, name, 2), masking)


def phase_of(
    tiny: Any, folder: Path, streams: list[Stream], rates: list[float], mix: str = 'step', **more: Any
) -> Phase:
    recipe = Recipe(
        steps=more.pop('steps', 12), batch_size=8, accumulation=more.pop('accumulation', 1), max_length=12, log_every=6,
        checkpoint_every=more.pop('every', 0), optimizer=SPEC,
    )  # fmt: skip
    mixture = Mixture(tuple(s.name for s in streams), fixed_quotas(np.asarray(rates), 12), 5)
    records: list[dict[str, Any]] = more.pop('records', [])
    return Phase(
        task='mix', model=tiny.model, recipe=recipe, data=TrainingData(tuple(streams), mixture, mix), steps=12,
        seed=7, pad=1, mesh=make_mesh(), directory=folder, run_hash='h', evaluate=None, log=records.append, **more,
    )  # fmt: skip


def params_of(tiny: Any, names: list[str]) -> Any:
    return jax.device_get(tiny.model.init(jax.random.key(3), {name: HEADS[name] for name in names}))


def host(trained: Trained) -> Any:
    return jax.device_get(trained.params)


def same(a: Any, b: Any) -> bool:
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), a, b)))


def batch_of(s: Stream, draw: int = 0, size: int = 8) -> Any:
    return put_batch(s.plan(draw, size).batch(1), make_mesh())


def test_only_the_drawn_head_moves(tiny: Any) -> None:
    """Neither by its momentum nor by weight decay: bit by bit the same after the others' steps."""
    params, mesh, optimizer = params_of(tiny, ['nli', 'qqp', 'ccg']), make_mesh(), Optimizer(SPEC, 10)
    state = init_state(put_tree(params, mesh), optimizer, mesh)
    steps = {n: make_train_step(tiny.model, n, ProgramHead(HEADS[n]), optimizer, mesh=mesh) for n in ('nli', 'ccg')}
    for name in ('nli', 'ccg', 'ccg'):
        before = jax.device_get({k: (state['params']['heads'][k], state['opt']['heads'][k]) for k in params['heads']})
        state, _ = steps[name](state, batch_of(stream(name)), jax.random.key(0))
        after = jax.device_get({k: (state['params']['heads'][k], state['opt']['heads'][k]) for k in params['heads']})
        assert {k for k in before if not same(before[k], after[k])} == {name}
    counts = {k: int(jax.device_get(v[0].count)) for k, v in state['opt']['heads'].items()}
    assert counts == {'nli': 1, 'qqp': 0, 'ccg': 2}, 'bias correction follows the updates of each head'


def test_a_wide_head_is_the_narrow_one(tiny: Any) -> None:
    """A two-class head among three-class ones: same losses, and the columns added stay zero."""
    params, mesh, optimizer, qqp = params_of(tiny, ['qqp']), make_mesh(), Optimizer(SPEC, 10), stream('qqp')
    heads = ProgramHead(HEADS['qqp']), program_heads({name: HEADS[name] for name in ('qqp', 'nli')})['qqp']
    assert (heads[1].spec.outputs, heads[1].outputs) == (3, 2)
    found = []
    for head in heads:
        start = {**params, 'heads': {'qqp': head.pad(params['heads']['qqp'])}}
        state = init_state(put_tree(start, mesh), optimizer, mesh)
        step = make_train_step(tiny.model, 'qqp', head, optimizer, mesh=mesh)
        losses = []
        for draw in range(4):
            state, metrics = step(state, batch_of(qqp, draw), jax.random.key(0))
            losses.append({k: float(v) for k, v in metrics.items()})
        found.append((jax.device_get(state['params']), losses))
    (narrow, want), (padded, losses) = found
    for a, b in zip(losses, want, strict=True):
        assert a == pytest.approx(b, rel=1e-5)
    assert not np.asarray(padded['heads']['qqp']['out']['kernel'])[:, 2].any()
    padded['heads']['qqp'] = heads[1].cut(padded['heads']['qqp'])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), padded, narrow)


def test_programs_are_kinds_times_lengths(tiny: Any, tmp_path: Path) -> None:
    """Three heads of two kinds at one length: two programs, whatever is drawn; a second phase compiles none."""
    streams, rates = [stream('nli'), stream('qqp', 30), stream('ccg')], [0.4, 0.3, 0.3]
    before = compilations.count
    first = train(phase_of(tiny, tmp_path / 'a', streams, rates), params_of(tiny, ['nli', 'qqp', 'ccg']))
    assert first.programs == compilations.count - before == 2
    assert {k: v['out']['bias'].shape for k, v in host(first)['heads'].items()} == {
        'nli': (3,),
        'qqp': (2,),
        'ccg': (7,),
    }
    second = train(phase_of(tiny, tmp_path / 'b', streams, rates), params_of(tiny, ['nli', 'qqp', 'ccg']))
    assert second.programs == 0
    assert same(host(first), host(second))


@pytest.mark.parametrize('mix', ['step', 'micro_batch'])
def test_a_step_function_is_made_once_a_run(
    mix: str, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    for name in ('make_train_step', 'make_mixed_step'):
        real = getattr(loop, name)
        monkeypatch.setattr(loop, name, lambda *a, real=real, name=name, **k: (made.append(name), real(*a, **k))[1])
    accumulation = 2 if mix == 'micro_batch' else 1
    phase = phase_of(tiny, tmp_path, [stream('nli'), stream('ccg')], [0.5, 0.5], mix, accumulation=accumulation)
    train(phase, params_of(tiny, ['nli', 'ccg']))
    assert made == ['make_mixed_step' if mix == 'micro_batch' else 'make_train_step']


def test_the_number_of_outputs_is_placed_once_a_run(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in a step, where its own small program would count as another compilation of the step's program."""
    reads: list[int] = []
    placed = ProgramHead.real_outputs
    monkeypatch.setattr(
        ProgramHead, 'real_outputs', property(lambda head: reads.append(head.outputs) or placed.__get__(head))
    )
    heads, mesh, optimizer = (
        program_heads({name: HEADS[name] for name in ('qqp', 'nli')}),
        make_mesh(),
        Optimizer(SPEC, 10),
    )
    params = params_of(tiny, ['qqp', 'nli'])
    padded = {name: head.pad(params['heads'][name]) for name, head in heads.items()}
    state = init_state(put_tree({**params, 'heads': padded}, mesh), optimizer, mesh)
    step = step_module.make_train_step(tiny.model, heads, optimizer, mesh=mesh)
    for name in ('qqp', 'qqp', 'nli'):
        state, _ = step(state, [(name, batch_of(stream(name)))], jax.random.key(0))
    assert sorted(reads) == [2, 3], 'of qqp and of nli'


def test_the_log_says_what_was_drawn(tiny: Any, tmp_path: Path) -> None:
    records: list[dict[str, Any]] = []
    train(
        phase_of(tiny, tmp_path, [stream('nli'), stream('ccg')], [0.75, 0.25], records=records),
        params_of(tiny, ['nli', 'ccg']),
    )
    assert [(r['step'], r['draws/nli'] + r['draws/ccg']) for r in records] == [(6, 6), (12, 12)]
    assert (records[-1]['draws/nli'], records[-1]['draws/ccg']) == (9, 3)
    assert all(np.isfinite(r['loss/nli']) for r in records)


def test_heads_of_a_kind_with_a_fixed_size_keep_it(tiny: Any, tmp_path: Path) -> None:
    """A span head has two outputs per token, which its spec does not count."""
    trained = train(phase_of(tiny, tmp_path, [stream('nli')], [1.0]), params_of(tiny, ['nli']))
    assert host(trained)['heads']['nli']['out']['bias'].shape == (3,)
    span = dataclasses.replace(stream('nli'), name='squad', head_name='squad', head=HEADS['squad'])
    spans = SpanRows(**{f.name: np.zeros(40, np.int32) for f in dataclasses.fields(SpanRows)})
    span = dataclasses.replace(span, data=dataclasses.replace(span.data, kind='span', spans=spans))
    trained = train(phase_of(tiny, tmp_path / 'span', [span], [1.0]), params_of(tiny, ['squad']))
    assert host(trained)['heads']['squad']['out']['bias'].shape == (2,)


@pytest.mark.parametrize('mix', ['step', 'micro_batch'])
def test_a_mixture_goes_on_as_if_nothing_had_stopped_it(mix: str, tiny: Any, tmp_path: Path) -> None:
    streams, rates = [stream('nli'), stream('mlm')], [0.5, 0.5]
    start, accumulation = params_of(tiny, ['nli', 'mlm']), 2 if mix == 'micro_batch' else 1
    whole = train(phase_of(tiny, tmp_path / 'a', streams, rates, mix, accumulation=accumulation, every=5), start)

    class Crash(Exception):
        pass

    def stop(step: int, *_: Any, **__: Any) -> None:
        if step >= 6:
            raise Crash

    phase = phase_of(tiny, tmp_path / 'b', streams, rates, mix, accumulation=accumulation, every=5, progress=stop)
    with pytest.raises(Crash):
        train(phase, start)
    again = train(dataclasses.replace(phase, progress=None), start)
    assert same(host(whole), host(again))


def test_micro_batches_of_one_task_are_an_accumulated_step(tiny: Any) -> None:
    """Two micro-batches of the same head: what one step over both gives, since both count alike."""
    params, mesh, optimizer, nli = params_of(tiny, ['nli']), make_mesh(), Optimizer(SPEC, 10), stream('nli')
    whole = nli.plan(0, 8).batch(1)
    state = init_state(put_tree(params, mesh), optimizer, mesh)
    step = make_train_step(tiny.model, 'nli', ProgramHead(HEADS['nli']), optimizer, mesh=mesh, accumulation=2)
    want, metrics = step(state, put_batch(whole, mesh), jax.random.key(0))
    state = init_state(put_tree(params, mesh), optimizer, mesh)
    parts = [('nli', put_batch({k: v[i : i + 4] for k, v in whole.items()}, mesh)) for i in (0, 4)]
    mixed_step = make_mixed_step(tiny.model, program_heads({'nli': HEADS['nli']}), optimizer, mesh=mesh)
    found, mixed = mixed_step(state, parts, jax.random.key(0))
    for name, value in metrics.items():
        assert float(mixed[name]) == pytest.approx(float(value), rel=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *map(jax.device_get, (found, want)))


def test_micro_batches_of_two_tasks_move_both_heads(tiny: Any) -> None:
    params, mesh, optimizer = params_of(tiny, ['nli', 'qqp', 'ccg']), make_mesh(), Optimizer(SPEC, 10)
    state = init_state(put_tree(params, mesh), optimizer, mesh)
    parts = [(n, batch_of(stream(n), size=4)) for n in ('nli', 'ccg')]
    mixed_step = make_mixed_step(tiny.model, program_heads({n: HEADS[n] for n in ('nli', 'ccg')}), optimizer, mesh=mesh)
    state, metrics = mixed_step(state, parts, jax.random.key(0))
    moved = {k for k, v in jax.device_get(state['params']['heads']).items() if not same(v, params['heads'][k])}
    assert moved == {'nli', 'ccg'}
    assert int(state['step']) == 1
    assert np.isfinite([float(v) for v in metrics.values()]).all()
