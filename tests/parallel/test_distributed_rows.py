"""Each process makes the rows of its own devices: parts of a batch are the same wherever it is cut."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from xlmr_flax.data.batches import eval_batches
from xlmr_flax.data.encode import NO_LABELS, Encoded
from xlmr_flax.data.masking import Masking
from xlmr_flax.data.tokenize import Ragged
from xlmr_flax.kinds import HeadSpec
from xlmr_flax.parallel.mesh import fetch, make_mesh, own_rows, put_batch
from xlmr_flax.train.streams import Stream

PAD = 1


def encoded(kind: str, n: int = 21) -> Encoded:
    random = np.random.default_rng(3)
    group = 2 if kind == 'choice' else 1
    rows = [random.integers(5, 200, random.integers(4, 30)) for _ in range(n * group)]
    label = NO_LABELS if kind == 'mlm' else np.arange(n, dtype=np.int32) % 2
    names = tuple(map(str, range(n)))
    return Encoded(kind, Ragged.from_rows(rows), label, names, group)


def stream_of(kind: str) -> Stream:
    masking = Masking(4, (0, 1, 2, 3, 4), 2048) if kind == 'mlm' else None
    head = HeadSpec('mlm') if kind == 'mlm' else HeadSpec(kind, 2)
    return Stream(kind, kind, head, encoded(kind), (16, 32), 7, masking)


@pytest.mark.parametrize('kind', ['pair', 'choice', 'mlm'])
@pytest.mark.parametrize('processes', [2, 4])
def test_parts_of_a_training_batch_make_it_up(kind: str, processes: int) -> None:
    stream, size = stream_of(kind), 8
    each = size // processes
    for draw in range(6):
        whole = stream.plan(draw, size).batch(PAD)
        parts = [stream.plan(draw, size).batch(PAD, slice(i, i + each)) for i in range(0, size, each)]
        for name, value in whole.items():
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), value, name)


@pytest.mark.parametrize('processes', [2, 3])
def test_parts_of_an_evaluation_batch_make_it_up(processes: int) -> None:
    tokens = encoded('pair', 23).tokens
    whole = list(eval_batches(tokens, (16, 32), 96, PAD, processes))
    assert any(len(rows) < len(batch['ids']) for rows, batch in whole), 'a remainder that is no full batch'

    def of(process: int) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
        def own(size: int) -> slice:
            return slice(process * size // processes, (process + 1) * size // processes)

        return list(eval_batches(tokens, (16, 32), 96, PAD, processes, own))

    for (rows, batch), *parts in zip(whole, *map(of, range(processes)), strict=True):
        for name, value in batch.items():
            np.testing.assert_array_equal(np.concatenate([part[name] for _, part in parts]), value, name)
        for numbers, _ in parts:
            np.testing.assert_array_equal(numbers, rows)


def test_one_process_owns_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = make_mesh()
    assert own_rows(8, mesh) == slice(0, 8)
    monkeypatch.setattr(jax, 'process_count', lambda: 2)  # the devices of this process are still all there are
    assert own_rows(8, mesh) == slice(0, 8)


def test_a_batch_there_and_back() -> None:
    mesh = make_mesh()
    batch = {'ids': np.arange(12).reshape(4, 3), 'valid': np.ones(4, np.float32)}
    for rows in (0, 4):
        back = fetch(put_batch(batch, mesh, rows), mesh)
        for name, value in batch.items():
            np.testing.assert_array_equal(back[name], value)
