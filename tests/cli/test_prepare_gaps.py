"""`xlmr-flax prepare --check --config`: training sets that are missing while the config's runs would do without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tasks.tiny_files import FILES

from xlmr_flax.cli.main import main

Check = Callable[..., tuple[int, str]]
CONTROL = '{"uid": "1", "premise": "p", "hypothesis": "h", "label": "e"}\n'
XCOPA = ["config.targets = ('xcopa',)", "config.intermediate = ('none',)"]
LANGUAGES = "config.evaluation.languages = {'xcopa': ('it',)}"


@pytest.fixture
def check(tmp_path: Path, config_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> Check:
    """Checks configs/tiny.py with these lines and files; (exit code, what it printed)."""

    def run(lines: list[str], files: list[str] | dict[str, str]) -> tuple[int, str]:
        for name in files:
            path = tmp_path / 'data' / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[name] if isinstance(files, dict) else FILES[name], encoding='utf-8')
        capsys.readouterr()
        code = main(['prepare', '--check', f'--config={config_file(*lines)}', f'--data_root={tmp_path / "data"}'])
        return code, capsys.readouterr().out

    return run


def rows(text: str, task: str, split: str) -> list[list[str]]:
    return [line.split()[2:] for line in text.splitlines() if line.split()[:2] == [task, split]]


def test_dev_rows_in_place_of_a_training_file_are_no_training_file(check: Check, tmp_path: Path) -> None:
    dealt = "{'split': 'dev', 'shuffle_labels': True}"
    arms = f"{{'logic': {{'tasks': {{'control': {{'split': 'dev'}}}}}}, 'other': {{'tasks': {{'control': {dealt}}}}}}}"
    lines = [f'config.arms = {arms}', "config.intermediate = ('none', 'logic', 'other')"]
    code, text = check(lines, {'logic/control/dev.jsonl': CONTROL})
    assert code == 0
    assert rows(text, 'control', 'train') == [['0/1', '0', 'missing']]
    assert rows(text, 'control', 'dev') == [
        ['1/1', '1', 'part', '(1', 'of', '799),', 'in', 'place', 'of', 'train', 'files']
    ]
    assert 'train: missing: arms logic, other train on dev rows (§ in tables)' in text
    assert f'put there: {tmp_path}/data/logic/control/train.jsonl\n' in text
    assert 'Where to get it: https://github.com/csitfun/ConTRoL-dataset' in text
    assert '1 of them in place of training rows that are missing' in text.splitlines()[-2]

    code, text = check(lines, {'logic/control/train.jsonl': CONTROL})  # it is there now, and the config is as it was
    assert 'train: there, and not used: arms logic, other train on dev rows (§ in tables)' in text
    assert 'in place of' not in text


def test_a_task_without_a_training_set_is_trained_on_what_it_is_tested_on(check: Check) -> None:
    lines = ["config.arms = {'m': {'tasks': {'med': {'split': 'test'}}}}", "config.intermediate = ('none', 'm')"]
    _, text = check(lines, {'logic/med/MED.tsv': FILES['logic/med/MED.tsv']})
    assert rows(text, 'med', 'train') == [['0/0', '0', 'none']]
    assert 'train: the task has none: arm m trains on test rows (§ in tables)' in text
    assert '1 of them in place of' in text


def test_a_first_training_that_the_recipe_leaves_out_is_named(check: Check, tmp_path: Path) -> None:
    files = [name for name in FILES if 'copa' in name.lower()]
    _, text = check([*XCOPA, LANGUAGES], files)
    assert rows(text, 'siqa', 'train') == [['0/1', '0', 'missing']]
    assert 'train: missing: target xcopa is trained without it, though the recipe trains on it first' in text
    assert f'put there: {tmp_path}/data/intermediate/siqa/train-labels.lst' in text
    assert 'missing, and left out by a run: siqa train' in text.splitlines()
    assert 'left out' not in check([*XCOPA, LANGUAGES], [name for name in FILES if 'siqa/' in name])[1]


def test_a_task_whose_labels_are_in_its_missing_files_is_listed(check: Check, tmp_path: Path) -> None:
    lines = ["config.targets = ('world_pairs',)", "config.intermediate = ('none', 'ccg')"]
    code, text = check(lines, {'README': ''})
    assert (code, rows(text, 'ccg', 'train')) == (1, [['0/1', '0', 'missing']])
    assert f'{tmp_path}/data/intermediate/ccg/' in text


def test_a_stand_in_for_a_dataset_is_counted_apart(check: Check) -> None:
    lines = ["config.targets = ('qqp',)", "config.intermediate = ('none',)"]
    _, text = check(lines, [name for name in FILES if 'standins/QQP' in name])
    assert '1 of 2 splits are there and readable, 1 of them a stand-in for a dataset' in text
    assert 'readable' not in {word for _, *words in rows(text, 'qqp', 'dev') for word in words}


def test_a_plan_with_all_its_training_files_says_nothing_of_this(check: Check) -> None:
    code, text = check([], [])
    assert code == 0
    assert 'in place of' not in text and 'left out' not in text and 'stand-in' not in text
