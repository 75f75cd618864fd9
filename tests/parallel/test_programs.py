"""Compiled programs are let go of when a process has no room for more."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from xlmr_flax.parallel import programs
from xlmr_flax.parallel.programs import is_crowded, release


def test_a_process_is_crowded_by_the_share_of_its_maps() -> None:
    assert not is_crowded(1.0)
    assert is_crowded(0.0) or not programs._MAPS.exists()


def test_release_lets_programs_go_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    traced = []

    @jax.jit
    def program(x: jax.Array) -> jax.Array:
        traced.append(1)
        return x + 1

    program(jnp.zeros(3))
    monkeypatch.setattr(programs, 'is_crowded', lambda: False)
    assert not release()
    program(jnp.zeros(3))
    assert len(traced) == 1
    monkeypatch.setattr(programs, 'is_crowded', lambda: True)
    assert release()
    assert program(jnp.zeros(3)).tolist() == [1, 1, 1] and len(traced) == 2
