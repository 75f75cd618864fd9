"""A whole plan with what is decided for eight TPU chips, on eight simulated devices."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from simulated_devices import environment

ROOT = Path(__file__).parents[2]
CODE = """
import sys
from xlmr_flax.cli.main import main
from xlmr_flax.parallel import machine
machine.machine_of = lambda devices: machine.Machine('tpu', 'TPU v5e', len(devices))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_plan_with_the_defaults_of_a_slice(tmp_path: Path) -> None:
    command = ['run', f'--config={ROOT}/configs/tiny.py', f'--workdir={tmp_path}', '--config.recipe.accumulation=2']
    done = subprocess.run([sys.executable, '-c', CODE, *command], capture_output=True, text=True, env=environment(8))
    out = done.stdout + done.stderr
    assert done.returncode == 0, out
    assert '8 × TPU v5e: bfloat16, mesh data=' in out
    assert 'micro-batches a step: 1 instead of 2' in out
    config = json.loads((tmp_path / 'config.json').read_text())['config']
    assert config['encoder']['dtype'] == 'bfloat16', 'the ids of the runs hold what was decided'
    rows = [json.loads(line) for line in (tmp_path / 'results.jsonl').read_text().splitlines()]
    assert {row['target'] for row in rows} == {'world_pairs', 'world_retrieval'}
