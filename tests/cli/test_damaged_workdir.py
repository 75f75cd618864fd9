"""Files of a workdir that were cut or overwritten: one error that names the file, or the record passed over."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from xlmr_flax.cli.main import main
from xlmr_flax.experiment.workdir.files import Workdir, read_evaluation, write_evaluation

Fails = Callable[..., str]
ROW = {
    'encoder': 'e', 'intermediate': 'none', 'target': 'xnli', 'language': 'de', 'split': 'test', 'value': 50.0,
    'metric': 'accuracy', 'n': 10, 'seed': 1, 'step': 5, 'run': 'r',
}  # fmt: skip


@pytest.fixture(scope='module')
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('damaged')
    config = folder / 'config.py'
    config.write_text(
        'from ml_collections import ConfigDict\nfrom xlmr_flax.config import defaults\n\n'
        'def get_config():\n    c = ConfigDict(defaults())\n    c.encoder.source = "random:tiny"\n'
        '    c.intermediate, c.targets = ("none",), ("world_pairs",)\n    c.recipe.steps, c.tensorboard = 2, False\n'
        '    c.recipe.max_length, c.recipe.lengths, c.recipe.log_every = 64, (64,), 1\n'
        '    c.evaluation.max_examples, c.evaluation.max_length = 8, 64\n'
        '    c.evaluation.languages = {"world_pairs": ("en", "de")}\n    return c\n',
        encoding='utf-8',
    )
    assert main(['run', f'--config={config}', f'--workdir={folder / "w"}']) == 0
    return folder / 'w'


@pytest.mark.parametrize(
    'text',
    [
        '', '[]', '{}', '{"seconds": "x"}', '{"seconds": 1, "sources": 5}', '{"seco', '{"seconds": 1, "sources": [[]]}',
        '{"seconds": 1, "sources": [5]}', '{"seconds": -1}', '{"seconds": 1e300}', '{"seconds": true}',
    ],
)  # fmt: skip
def test_time(finished: Path, fails: Fails, text: str) -> None:
    path = finished / 'time.json'
    before = path.read_bytes()
    path.write_text(text, encoding='utf-8')
    try:
        assert 'time.json' in fails('report', f'--workdir={finished}')
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize(
    'content',
    [
        b'[]', b'{"config": 5, "command": 1}', b'{', b'\xff', b'{}', b'{"config": {"name": 5}, "command": "c"}',
        b'{"config": {"foo": 1}, "command": "c"}', b'{"config": {}, "command": 5}', b'{"config": [], "command": "c"}',
        b'{"config": {"targets": ["nothing"]}, "command": "c"}',
    ],
)  # fmt: skip
def test_config(tmp_path: Path, fails: Fails, content: bytes) -> None:
    path = tmp_path / 'config.json'
    path.write_bytes(content)
    (tmp_path / 'results.jsonl').write_text(json.dumps(ROW) + '\n', encoding='utf-8')
    assert str(path) in fails('report', f'--workdir={tmp_path}')
    assert str(path) in fails('report', f'--results={tmp_path}')
    if b'"command": 5' not in content and b'targets' not in content:
        assert str(path) in fails('report', f'--workdir={tmp_path}', f'--against={tmp_path}')


@pytest.mark.parametrize('changed', [{'split': 'dev'}, {'language': 'ru'}])
def test_f1_and_em_of_different_rows(tmp_path: Path, fails: Fails, changed: dict[str, str]) -> None:
    path, rows = tmp_path / 'results.jsonl', [ROW | {'metric': 'f1'}, ROW | {'metric': 'exact_match'} | changed]
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows), encoding='utf-8')
    assert str(path) in fails('report', f'--results={tmp_path}')


@pytest.mark.parametrize(
    ('content', 'named'),
    [
        (b'5\n', 'not int'), (b'\xff\xfe\n', 'UTF-8'), (b'{"loss": NaN}\n', 'NaN'), (b'[1]\n', 'not list'),
        (b'{"run"', ''), (b'{"run"\n', 'column'), (b'{"run": [], "step": 1}\n', "'run'"), (b'{"loss": 1.0}\n', "'run'"),
        (b'{}\n', "'run'"), (b'{"run": "r", "step": "x", "loss": 1.0}\n', "'step'"), (b'\n', ''),
        (b'{"run": "r", "step": 1, "dev_metric": {}}\n', "'dev_metric'"), (b'[' * 9999 + b'\n', 'nested'),
        (b'{"run": "r", "step": 1, "loss": null}\n', ''), (b'{"run": "r", "loss": 1.0}\n', "'step'"),
        (b'{"run": "r", "dev_metric": 1.0}\n', "'step'"),
    ],
)  # fmt: skip
def test_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, named: str) -> None:
    """A line that is no record is left out with a warning; one that a killed process left unfinished, without."""
    good = {'run': 'r', 'step': 1, 'loss': 1.0}
    whole = [json.dumps(good).encode() + b'\n', content]
    path = tmp_path / 'metrics.jsonl'
    path.write_bytes(b''.join(whole))
    assert Workdir(tmp_path, look_only=True).metrics() == [good]
    lines = capsys.readouterr().err.splitlines()
    if named:
        (line,) = lines
        assert line.startswith(f'warning: {path}, line 2: ')
        assert named in line
    else:
        assert lines == []


def test_a_report_names_a_bad_line_of_the_metrics(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = finished / 'metrics.jsonl'
    before = path.read_bytes()
    path.write_bytes(before + b'5\n')
    try:
        assert main(['report', f'--workdir={finished}']) == 0
    finally:
        path.write_bytes(before)
    assert f'warning: {path}, line {len(before.splitlines()) + 1}: ' in capsys.readouterr().err


@pytest.mark.parametrize('rows', [5, {}, [5], [{}], [{'value': 'x'}]])
def test_an_evaluation_whose_rows_are_damaged_is_made_again(rows: object, tmp_path: Path) -> None:
    path = tmp_path / 'evaluation.json'
    write_evaluation(path, 'k', [ROW])
    assert read_evaluation(path, 'k') == [ROW]
    assert read_evaluation(path, 'other') is None
    path.write_text(json.dumps({'key': 'k', 'rows': rows}), encoding='utf-8')
    assert read_evaluation(path, 'k') is None


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        *(('tokens_per_word.json', text) for text in (
            '[]', '{"xnli": 5}', '{"xnli": {"de": "x"}}', '{"xnli": {"de": true}}', '{"xnli": {"de": -1}}', '{',
        )),
        *(('significance.json', text) for text in (
            '[]', '{}', '{"format": 2, "targets": {}}', '{"format": 1, "targets": {"k": 5}}', '{',
            '{"format": 1, "targets": {"k": [{"p": 5}]}}',
        )),
    ],
)  # fmt: skip
def test_what_a_report_can_do_without_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str
) -> None:
    (tmp_path / 'results.jsonl').write_text(json.dumps(ROW) + '\n', encoding='utf-8')
    (tmp_path / name).write_text(content, encoding='utf-8')
    assert main(['report', f'--results={tmp_path}']) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'warning: {tmp_path / name}')
