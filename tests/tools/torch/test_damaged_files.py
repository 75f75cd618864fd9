"""Files of compared workdirs that were cut or overwritten: one error that names the file, or work done again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xlmr_flax.config import ConfigError
from xlmr_flax.tools.torch import agreement, comparison

FACTS = {'run': 'none--world_nli--1', 'intermediate': 'none', 'target': 'world_nli', 'seed': 1}
ROW = {
    'encoder': 'e', 'intermediate': 'none', 'target': 'world_nli', 'language': 'de', 'split': 'test',
    'metric': 'accuracy', 'value': 50.0, 'n': 10, 'seed': 1, 'step': 2, 'run': 'r',
}  # fmt: skip


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    losses = [{**FACTS, 'step': step, 'loss': loss} for step, loss in ((1, 1.5), (2, 1.25))]
    (tmp_path / 'metrics.jsonl').write_text('\n\n'.join(map(json.dumps, losses)) + '\n', encoding='utf-8')
    (tmp_path / 'results.jsonl').write_text(json.dumps(ROW) + '\n', encoding='utf-8')
    (tmp_path / 'config.json').write_text('{"config": {"name": "x"}}', encoding='utf-8')
    return tmp_path


def test_a_whole_workdir(workdir: Path) -> None:
    side = agreement.read_side(workdir)
    assert side.losses == {1: 1.5, 2: 1.25}
    assert side.config == {'name': 'x'}


@pytest.mark.parametrize('line', [b'5', b'{', b'\xff', b'{}', b'{"run": 1}', b'{"loss": NaN}', b'[' * 9999])
def test_damaged_records_name_file_and_line(line: bytes, workdir: Path) -> None:
    path = workdir / 'metrics.jsonl'
    path.write_bytes(path.read_bytes() + line + b'\n')
    with pytest.raises(ConfigError, match=r'metrics\.jsonl:4: '):
        agreement.read_side(workdir)


@pytest.mark.parametrize('content', [b'', b'[]', b'{}', b'\xff', b'{"config": 5}', b'[' * 9999])
def test_a_damaged_config_names_the_file(content: bytes, workdir: Path) -> None:
    (workdir / 'config.json').write_bytes(content)
    with pytest.raises(ConfigError, match=r'config\.json'):
        agreement.read_side(workdir)


@pytest.mark.parametrize('content', [b'', b'[]', b'{}', b'\xff', b'{"key": 5}', b'[' * 9999])
def test_a_torch_side_whose_mark_is_damaged_is_not_done(content: bytes, tmp_path: Path) -> None:
    (tmp_path / comparison.DONE).write_text('{"key": "k"}', encoding='utf-8')
    assert comparison._is_done(tmp_path, 'k')
    (tmp_path / comparison.DONE).write_bytes(content)
    assert not comparison._is_done(tmp_path, 'k')


@pytest.mark.parametrize('line', ['5', '{', '{"training": 1.0}', '{"training": "x", "evaluation": 1.0}'])
def test_damaged_times_name_file_and_line(line: str, tmp_path: Path) -> None:
    whole = '{"run": "r", "training": 2.0, "evaluation": 1.5}\n'
    path = tmp_path / 'seconds.jsonl'
    path.write_text(whole * 2, encoding='utf-8')
    assert comparison._torch_seconds(tmp_path) == 7.0
    path.write_text(whole + line + '\n', encoding='utf-8')
    with pytest.raises(ConfigError, match=r'seconds\.jsonl:2: '):
        comparison._torch_seconds(tmp_path)
