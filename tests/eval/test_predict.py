"""Forward passes over a set, and nearest neighbours: every row once, in file order, whatever the batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from xlmr_flax.data.tokenize import Ragged
from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.eval import predict
from xlmr_flax.eval import predict as module
from xlmr_flax.eval.predict import (
    SMALL_VECTORS,
    Forward,
    VectorFiles,
    embed_layers,
    embed_sentences,
    predict_logits,
    predict_tokens,
)
from xlmr_flax.eval.retrieval import nearest, normalise
from xlmr_flax.kinds import HeadSpec
from xlmr_flax.models.model import Model
from xlmr_flax.parallel.mesh import make_mesh, put_tree

CONFIG = EncoderConfig(
    vocab_size=60, hidden_size=8, num_layers=2, num_heads=2, ffn_size=12, max_positions=18, initializer_range=0.5
)
PAIR, TAG = HeadSpec('pair', 3), HeadSpec('tag', 5)
LENGTHS = [3, 16, 5, 9, 2, 12, 7, 16, 4, 8, 6]


@pytest.fixture(scope='module')
def forward() -> Forward:
    model, mesh = Model(CONFIG), make_mesh()
    params = put_tree(jax.device_get(model.init(jax.random.key(0), {'x': PAIR, 'y': TAG})), mesh)
    return Forward(model, params, mesh, lengths=(8, 16), batch_tokens=64, pad=1)


@pytest.fixture(scope='module')
def tokens() -> Ragged:
    random = np.random.default_rng(0)
    return Ragged.from_rows([random.integers(5, 60, n) for n in LENGTHS])


def alone(tokens: Ragged, i: int) -> tuple[np.ndarray, np.ndarray]:
    ids = tokens[i][None]
    return ids, np.ones_like(ids)


def logits_of(forward: Forward, name: str, head: HeadSpec, tokens: Ragged, rows: Sequence[int]) -> list[np.ndarray]:
    """Logits of some rows without padding or neighbours."""
    logits = jax.jit(lambda *inputs: forward.model.logits(forward.params, name, head, *inputs)[0])
    return [np.asarray(logits(*alone(tokens, i))) for i in rows]


@pytest.mark.parametrize('batch_tokens', [1, 64, 4096])
def test_logits_are_each_rows_own_in_file_order(batch_tokens: int, forward: Forward, tokens: Ragged) -> None:
    ticks: list[int] = []
    changed = dataclasses.replace(forward, batch_tokens=batch_tokens)
    found = predict_logits(changed, 'x', PAIR, tokens, tick=ticks.append)
    assert (found.shape, found.dtype) == ((len(LENGTHS), 3), np.float32)
    assert sum(ticks) == len(LENGTHS)
    rows = (1, 4, 10)
    np.testing.assert_allclose(found[list(rows)], logits_of(forward, 'x', PAIR, tokens, rows), atol=1e-5)


def test_tags_come_with_their_probability_where_asked_for(forward: Forward, tokens: Ragged) -> None:
    rows = range(len(tokens))
    plain = predict_tokens(forward, 'y', TAG, tokens)
    scored = predict_tokens(forward, 'y', TAG, tokens, scored_tags=True)
    for row, logits in zip(rows, logits_of(forward, 'y', TAG, tokens, rows), strict=True):
        assert (plain[row].dtype, plain[row].shape) == (np.int32, (LENGTHS[row],))
        assert plain[row].tolist() == logits.argmax(-1).tolist() == scored[row][:, 0].tolist()
        softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        np.testing.assert_allclose(scored[row][:, 1], softmax.max(-1), atol=1e-5)


def test_packed_rows_give_what_padded_ones_do(forward: Forward, tokens: Ragged) -> None:
    """For every kind of head, and sentence vectors."""
    heads = {'x': PAIR, 'y': TAG, 'span': HeadSpec('span'), 'choice': HeadSpec('choice')}
    params = {**forward.params, 'heads': forward.model.init(jax.random.key(0), heads)['heads']}
    packed = dataclasses.replace(forward, params=params)
    padded = dataclasses.replace(packed, packing=False)
    for name in ('x', 'choice'):
        found, want = (predict_logits(each, name, heads[name], tokens) for each in (packed, padded))
        np.testing.assert_allclose(found, want, rtol=0, atol=1e-5)
        assert found.argmax(-1).tolist() == want.argmax(-1).tolist()
    for name in ('y', 'span'):
        found, want = (predict_tokens(each, name, heads[name], tokens) for each in (packed, padded))
        for a, b in zip(found, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 if name == 'span' else 0)
    for layer, pooling in ((None, 'mean'), (1, 'cls')):
        found, want = (embed_sentences(each, tokens, layer=layer, pooling=pooling) for each in (packed, padded))
        np.testing.assert_allclose(found, want, rtol=0, atol=1e-5)


def test_a_set_takes_few_programs(forward: Forward, monkeypatch: pytest.MonkeyPatch) -> None:
    """One shape, and one for a last batch that is not full; a few rows are not padded to a whole batch."""
    random, shapes = np.random.default_rng(0), []
    real = module.put_batch
    monkeypatch.setattr(
        module, 'put_batch', lambda batch, *rest: (shapes.append(batch['ids'].shape), real(batch, *rest))[1]
    )
    for n in (97, 2):
        tokens = Ragged.from_rows([random.integers(5, 60, size) for size in random.integers(2, 9, n)])
        assert len(predict_logits(forward, 'x', PAIR, tokens)) == n
    assert set(shapes) == {(4, 16), (1, 16)}
    assert shapes[-1] != (4, 16)


@pytest.mark.parametrize(('layer', 'pooling'), [(None, 'mean'), (1, 'mean'), (0, 'cls')])
def test_vectors_are_of_the_layer_and_pooling(
    layer: int | None, pooling: str, forward: Forward, tokens: Ragged
) -> None:
    found = embed_sentences(forward, tokens, layer=layer, pooling=pooling)
    encode = jax.jit(partial(forward.model.encode, all_layers=True))
    states = encode(forward.params, *alone(tokens, 3))
    hidden = np.asarray(states)[2 if layer is None else layer, 0]
    np.testing.assert_allclose(found[3], hidden.mean(0) if pooling == 'mean' else hidden[0], atol=1e-5)


@pytest.mark.parametrize('pooling', ['mean', 'cls'])
@pytest.mark.parametrize('packing', [True, False])
def test_vectors_of_all_layers_come_from_one_pass(
    pooling: str, packing: bool, forward: Forward, tokens: Ragged
) -> None:
    ticks: list[int] = []
    mine = dataclasses.replace(forward, packing=packing)
    found = embed_layers(mine, tokens, pooling=pooling, tick=ticks.append)
    assert (found.shape, found.dtype) == ((CONFIG.num_layers + 1, len(LENGTHS), 8), np.float32)
    assert sum(ticks) == len(LENGTHS)
    for layer, vectors in enumerate(found):
        want = embed_sentences(mine, tokens, layer=layer, pooling=pooling)
        np.testing.assert_allclose(vectors, want, rtol=0, atol=1e-6)
    assert np.abs(found[1] - found[2]).max() > 0.1


def test_vectors_in_a_file_are_those_in_memory(forward: Forward, tokens: Ragged, tmp_path: Path) -> None:
    path = tmp_path / 'embeddings' / 'a.npy'
    held = embed_sentences(forward, tokens, layer=None, pooling='mean')
    found = embed_sentences(forward, tokens, layer=None, pooling='mean', out=path)
    assert isinstance(found, np.memmap) and not found.flags.writeable
    assert (found.shape, found.dtype) == (held.shape, held.dtype) == ((len(LENGTHS), 8), np.float32)
    np.testing.assert_array_equal(found, held)
    np.testing.assert_array_equal(np.load(path, allow_pickle=False), held)
    assert [p.name for p in path.parent.iterdir()] == ['a.npy']


def test_a_pass_that_fails_leaves_no_file(forward: Forward, tokens: Ragged, tmp_path: Path) -> None:
    def stop(rows: int) -> None:
        raise RuntimeError('stopped')

    with pytest.raises(RuntimeError, match='stopped'):
        embed_sentences(forward, tokens, layer=None, pooling='mean', out=tmp_path / 'a.npy', tick=stop)
    assert not list(tmp_path.iterdir())


def test_small_vectors_stay_in_memory_and_files_go_when_the_work_is_done(tmp_path: Path) -> None:
    folder, row = tmp_path / 'embeddings', 4 * 1024
    many = SMALL_VECTORS // row
    with VectorFiles(folder, 1024) as vectors:
        assert vectors.place('a.npy', many // 2) is None
        assert vectors.place('b.npy', many // 2 - 1) is None, 'together still below the limit'
        path = vectors.place('c.npy', 1)
        assert path is not None and path == folder / 'c.npy'
        assert vectors.place(None, many) is None, 'nobody asked for a file'
        folder.mkdir()
        path.write_bytes(b'x')
    assert not folder.exists()
    folder.mkdir()
    (folder / 'of somebody else').write_bytes(b'x')
    with pytest.raises(RuntimeError, match='stopped'), VectorFiles(folder, 1024) as vectors:
        path = vectors.place(folder / 'd.npy', many)
        assert path is not None
        path.write_bytes(b'x')
        raise RuntimeError('stopped')
    assert [p.name for p in folder.iterdir()] == ['of somebody else']


def test_vectors_of_a_workdir_on_a_mount_lie_on_the_local_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, 'is_remote', lambda path: True)
    monkeypatch.setattr(predict.tempfile, 'gettempdir', lambda: str(tmp_path / 'local'))
    with VectorFiles(tmp_path / 'mount', 1024) as vectors:
        path = vectors.place('a.npy', SMALL_VECTORS)
        assert path is not None and path.is_relative_to(tmp_path / 'local')
        path.parent.mkdir(parents=True)
        path.write_bytes(b'x')
    assert not (tmp_path / 'mount').exists() and not list((tmp_path / 'local').iterdir())


def test_the_nearest_is_by_cosine_and_of_equals_the_first() -> None:
    queries = np.array([[1.0, 0.0], [0.0, 5.0], [-3.0, 0.1], [0.0, 0.0]], np.float32)
    pool = np.array([[0.1, 0.2], [100.0, 30.0], [0.2, 0.4], [-1.0, 0.0]], np.float32)
    assert nearest(queries, pool).tolist() == [1, 0, 3, 0]
    np.testing.assert_allclose(np.linalg.norm(normalise(queries), axis=1), [1, 1, 1, 0])


def test_many_queries_are_the_same_as_few(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    queries, pool = (random.normal(size=(n, 5)).astype(np.float32) for n in (33, 17))
    cosine = queries @ pool.T / np.linalg.norm(pool, axis=1)
    assert nearest(queries, pool).tolist() == cosine.argmax(1).tolist()
    monkeypatch.setattr('xlmr_flax.eval.retrieval._BLOCK', 8)
    assert nearest(queries, pool).tolist() == cosine.argmax(1).tolist()
