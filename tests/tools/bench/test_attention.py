"""bench attention: the implementations that a CPU has, with their errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xlmr_flax.cli.main import main


def test_attention_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ['bench', 'attention', '--rows=1', '--max_length=16', '--alternations=1', f'--out={tmp_path}']
    assert main(arguments) == 0
    found = json.loads((tmp_path / 'attention.json').read_text(encoding='utf-8'))
    assert (found['platform'], found['dtype'], found['rate'], found['length']) == ('cpu', 'float32', 0.1, 16)
    assert [each['implementation'] for each in found['found']] == ['xla_cpu', 'xla']
    for each in found['found']:
        assert min(each['forward_ms'], each['gradients_ms']) > 0 and max(each['errors']) < 1e-5
    out = capsys.readouterr().out
    assert out.count('\n| xla') == 2 and (tmp_path / 'attention.md').read_text(encoding='utf-8') in out
