"""What the benches are made of: rows without JAX, a training let go on by blocks, settings, reports."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlmr_flax.data.batches import train_batch
from xlmr_flax.data.sources import read_split
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.kinds import encode
from xlmr_flax.tasks import get_task
from xlmr_flax.tools.bench import settings
from xlmr_flax.tools.bench.memory import forget_peak
from xlmr_flax.tools.bench.paced import Paced
from xlmr_flax.tools.bench.report import to_markdown
from xlmr_flax.tools.bench.rows import read_rows, write_rows
from xlmr_flax.tools.bench.timing import Measured, Outcome, Ratio, counted_rounds, rate_ratio


@pytest.mark.parametrize('name', ['world_pairs', 'world_choices', 'world_pos', 'world_spans'])
def test_rows_are_batches_as_ours(name: str, tmp_path: Path, tiny_tokenizer: Path) -> None:
    """Row 0 to 5 in our order, padded alike."""
    task, tokenizer = get_task(name), Tokenizer(tiny_tokenizer, 2048)
    data = encode(task, read_split(task, 'en', 'train', '', 6), tokenizer, 48)
    write_rows(tmp_path / 'rows.npz', data, tokenizer.pad)
    rows = read_rows(tmp_path / 'rows.npz')
    ours = train_batch(data, 0, len(data), 0, (48,), tokenizer.pad)
    from xlmr_flax.data.batches import units_at

    theirs = rows.batch(units_at(0, len(data), len(data), 0), 48)
    assert len(rows) == len(data) and set(theirs) == set(ours) - {'valid'}
    for key, value in theirs.items():
        np.testing.assert_array_equal(value, ours[key], err_msg=key)
        assert value.dtype == np.int64


def test_a_process_that_measures_torch_holds_no_jax() -> None:
    pytest.importorskip('torch')
    modules = ', '.join(f'xlmr_flax.tools.bench.{name}' for name in ('worker', 'train', 'torch_loop'))
    code = f'import sys, {modules}; print("jax" in sys.modules)'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout == 'False\n', done.stderr


def test_paced_stands_still_between_blocks() -> None:
    done: list[int] = []

    def work(log: Any) -> None:
        for step in range(100):
            done.append(step)
            log({'dev_metric': 1.0})  # no training loss: it goes on
            if step % 2:
                log({'loss': float(step)})

    training = Paced(work)
    assert done == []
    assert training() == {'loss': 1.0} and done == [0, 1]
    assert training() == {'loss': 3.0} and done == [0, 1, 2, 3]
    before = threading.active_count()
    training.stop()
    assert done == [0, 1, 2, 3] and threading.active_count() == before - 1


def test_paced_says_what_went_wrong() -> None:
    def broken(log: Any) -> None:
        log({'loss': 1.0})
        raise ValueError('no more')

    training = Paced(broken)
    training()
    with pytest.raises(ValueError, match='no more'):
        training()
    with pytest.raises(RuntimeError, match='ended by itself'):
        Paced(lambda log: None)()


def test_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.peak_flops('NVIDIA H100 80GB HBM3') == 989e12
    assert settings.peak_flops('NVIDIA H100 PCIe') == 756e12
    assert settings.peak_flops('NVIDIA L4') == 121e12 and settings.peak_flops('NVIDIA L40S') == 362e12
    assert settings.peak_flops('Voodoo 2') == 0
    fake = tmp_path / 'nvidia-smi'
    fake.write_text('#!/bin/sh\necho NVIDIA A100-SXM4-40GB\n')
    fake.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)
    assert settings.peak_flops(settings.gpu_name()) == 312e12
    assert 'GLIBC_TUNABLES' in settings.environment({'device': 'cpu', 'huge_pages': True})
    assert settings.environment({'device': 'cpu'})['JAX_PLATFORMS'] == 'cpu'
    assert 'JAX_PLATFORMS' not in settings.environment({'device': 'gpu'})
    raw = settings.task_config(
        'world_pairs', 'random:tiny', rows=8, max_length=48, batch=4, dropout=0.1, dtype='float32'
    )
    checked, paced = settings.paced(raw, 3, check=True), settings.paced(raw, 3)
    assert (checked.encoder.dropout, checked.recipe.steps, checked.recipe.log_every) == (0.0, 3, 1)
    assert (paced.encoder.dropout, paced.recipe.log_every, paced.recipe.eval_every) == (0.1, 3, 0)
    assert paced.recipe.optimizer != checked.recipe.optimizer


def test_quiet_rounds_count_where_there_are_enough() -> None:
    others: list[float | None] = [0.0, 0.5, 0.01, None, 0.02]
    noisy = Measured([1.0] * 5, [1.0] * 5, others)
    still = Measured([1.0] * 5, [1.0] * 5, [0.0] * 5)
    assert counted_rounds({'a': noisy, 'b': still}) == [0, 2, 3, 4]
    assert counted_rounds({'a': dataclasses.replace(noisy, others=[0.5] * 5), 'b': still}) == [0, 1, 2, 3, 4]
    assert rate_ratio([2.0, 4.0, 6.0], [1.0, 1.0, 2.0]) == Ratio(4.0, 2.0, 4.0)


def test_a_report_of_speeds() -> None:
    facts = [{'units': 10, 'flops': 4e12, 'device_memory': 5 << 20}] * 3
    measured = {
        'ours': Measured([1.0, 2.0, 2.5], [1.0] * 3, [0.0] * 3, 9.0, 300 << 20, 0, facts),
        'theirs': Measured([2.0, 4.0, 5.0], [1.0] * 3, [0.0, 0.0, 0.3], 1.0, 700 << 20, 0, facts),
    }
    outcome = Outcome(
        'train', 'T', {}, 'Same.', measured, {'theirs': Ratio(2.0, 2.0, 2.0)}, {}, '2 of 2 cores', {}, 'examples',
        [0, 1, 2], 100e12, {'GLIBC_TUNABLES': 'x'},
    )  # fmt: skip
    text = to_markdown(outcome)
    assert '| ours | 5.0 | 4.0 to 10.0 |  | 10 | 1.0 | 300 | 9.0 | 5 | 2.0 % |' in text
    assert '| theirs | 2.5 | 2.0 to 5.0 | 2.00 (2.00 to 2.00) |' in text
    assert 'above 1 ours is faster' in text and 'GLIBC_TUNABLES=x' in text


@pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason='this system cannot forget a peak')
def test_the_peak_can_be_forgotten() -> None:
    code = """if True:
        from xlmr_flax.tools.bench.memory import forget_peak, peak_memory
        held = bytearray(b'x') * (64 << 20)
        high = peak_memory()
        del held
        print(forget_peak(), high - peak_memory() > 50 << 20)
    """
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout == 'True True\n', done.stderr
    assert forget_peak() in (True, False)
