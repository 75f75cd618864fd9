"""The estimate command as a user types it, with programs whose cycles are known."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from xlmr_flax.cli.main import main
from xlmr_flax.tools.estimate import chips
from xlmr_flax.tools.estimate.gpus import has_cuda

from .conftest import CYCLES

TINY = Path(__file__).parents[3] / 'configs' / 'tiny.py'


def test_a_shape(tmp_path: Path, no_compiler: Callable[..., object], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        'estimate',
        '--size=tiny',
        '--rows=2',
        '--length=32',
        '--topology=v5e:2x4,v5p:2x2x1',
        '--active_rows=100',
        '--unroll=0',
    ]
    assert main([*arguments, f'--json={tmp_path}/out.json', f'--text={tmp_path}/text']) == 0
    captured = capsys.readouterr()
    assert 'train pair 16 × 32 on v5e:2x4: 8 chips' in captured.out
    assert 'evaluate pair 8 × 32 on v5p:2x2x1: 4 chips' in captured.out
    assert 'kernels *' in captured.out and 'encoders/encoder.py:29 Dense.__call__' in captured.out
    assert 'costed by a roofline: 25.0% of the cycles' in captured.out
    assert 'v5e:2x4: train pair 16 × 32' in captured.err
    found = json.loads((tmp_path / 'out.json').read_text(encoding='utf-8'))
    assert [(f['topology'], f['does'], f['rows']) for f in found] == [
        ('v5e:2x4', 'train', 16),
        ('v5e:2x4', 'evaluate', 16),
        ('v5p:2x2x1', 'train', 8),
        ('v5p:2x2x1', 'evaluate', 8),
    ]
    assert found[0]['estimated_seconds'] == pytest.approx(16 * 32 * CYCLES / 1.5e9)
    assert found[0]['ideal_seconds'] == pytest.approx(found[0]['flops'] / (8 * 197e12))
    assert [f['model']['config']['vocab_size'] for f in found[:2]] == [100, 2048]
    assert [f['model']['unroll'] for f in found] == [0] * 4
    assert found[0]['memory']['peak'] == 6.5 * 2**30 and found[0]['fits']
    kept = sorted(path.name for path in (tmp_path / 'text').iterdir())
    assert kept[0] == 'v5e-2x4-evaluate-pair-16-32.txt' and len(kept) == 4


def test_a_plan(tmp_path: Path, no_compiler: Callable[..., object], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ['estimate', f'--config={TINY}', '--topology=v6e:2x2', '--config.recipe.steps=12']
    assert main([*arguments, f'--json={tmp_path}/out.json']) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0].split()[:2] == ['phase', 'of'] and 'chip-hours (4 chips)' in lines[0]
    assert '4 × TPU v6e: bfloat16, mesh data=' in out and 'How to read it.' in out
    (found,) = json.loads((tmp_path / 'out.json').read_text(encoding='utf-8'))
    assert found['total']['steps'] == 36


def fresh(*command: str) -> subprocess.CompletedProcess[str]:
    """Runs Python where nothing has chosen jax's platform, as in a user's shell."""
    chosen = ('JAX_PLATFORMS', 'JAX_SKIP_CUDA_CONSTRAINTS_CHECK', 'CUDA_VISIBLE_DEVICES')
    environment = {name: value for name, value in os.environ.items() if name not in chosen}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)


def test_jax_looks_for_no_device() -> None:
    code = "main(['estimate', '--size=larg', '--topology=h100:1']); import jax; print(jax.config.jax_platforms)"
    assert fresh('-c', f'from xlmr_flax.cli.main import main; {code}').stdout.strip() == 'cpu'


@pytest.mark.slow
@pytest.mark.skipif(not has_cuda(), reason="no CUDA plugin (pip install -e '.[estimate-gpu]')")
def test_a_plan_for_a_gpu_without_a_driver(tmp_path: Path) -> None:
    """A plan makes jax load its plugins before the topology does."""
    plan = (f'--config={TINY}', "--config.targets=('world_pairs',)", "--config.intermediate=('none',)")
    done = fresh('-m', 'xlmr_flax', 'estimate', *plan, '--topology=h100:1', f'--json={tmp_path}/out.json')
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((tmp_path / 'out.json').read_text(encoding='utf-8'))
    assert {each['does'] for each in found['programs']} == {'train', 'evaluate'}
    assert found['total']['hours'] > 0 and not found['refused']


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['--size=tiny'], '--topology=SLICE is missing'),
        (['--topology=v5e:2x2'], 'either --config=FILE or --size=SIZE'),
        (['--topology=v5e:2x2', '--size=tiny', f'--config={TINY}'], 'either --config=FILE or --size=SIZE'),
        (['--topology=v5e:2x3', '--size=tiny'], "topology 'v5e:2x3': chips come in hosts"),
        (['--topology=v5e:2x2', '--size=larg'], "--size: 'larg' is not one of tiny.*did you mean 'large'"),
        (['--topology=v5e:2x2', '--size=tiny', '--head=tags'], "--head: 'tags' is not one of pair"),
        (['--topology=v5e:2x2', '--size=tiny', '--length=129'], '--length=129: expected 1 or more, at most 128'),
        (['--topology=v5e:2x2', '--size=tiny', '--rows=0'], '--rows=0: expected 1 or more$'),
        (['--topology=v5e:2x2', '--size=tiny', '--dtype=f32'], "compute dtype 'f32'"),
        (
            ['--topology=v5e:2x2', '--size=tiny', '--length=32'],
            r"libtpu, .* is not installed.*pip install -e '\.\[tpu\]' in the checkout",
        ),
    ],
)
def test_command_lines_that_cannot_be_carried_out(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(chips, 'has_libtpu', lambda: False)
    assert main(['estimate', *arguments]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith('error: ') and '\n' not in error
    assert re.search(said, error), error
