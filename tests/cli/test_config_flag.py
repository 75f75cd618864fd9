"""--config=FILE and --config.KEY=VALUE: what reaches the run, and files that are no config."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from xlmr_flax.cli.main import main
from xlmr_flax.config import Config
from xlmr_flax.config.flag import config_arguments

TINY = Path(__file__).parents[2] / 'configs' / 'tiny.py'
Fails = Callable[..., str]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[Config, str]]:
    """(the Config that a run with these overrides would have, the command that its rows would keep)."""
    seen: list[tuple[Config, str]] = []

    class Runner:
        def __init__(self, config: Config, workdir: Path, command: str, *_: object, **__: object):
            seen.append((config, command))
            self.setting = SimpleNamespace(defaults=SimpleNamespace(line=lambda: 'defaults'))
            self.workdir = SimpleNamespace(results_path=TINY)  # any file that has something in it

        @classmethod
        def open(cls, *arguments: Any, **more: Any) -> Runner:
            return cls(*arguments, **more)

        def run(self) -> None: ...

    monkeypatch.setattr('xlmr_flax.experiment.runner.Runner', Runner)
    monkeypatch.setattr('xlmr_flax.analysis.study_report.write_run_report', lambda *_: 'done')

    def run(*overrides: str, config: str | Path = TINY) -> tuple[Config, str]:
        assert main(['run', f'--config={config}', f'--workdir={tmp_path}/w', *overrides]) == 0
        return seen.pop()

    return run


def test_overrides_change_what_they_name_and_nothing_else(parsed: Callable[..., Any]) -> None:
    plain, _ = parsed()
    found, command = parsed(
        '--config.seeds=(1,2)', '--config.recipe.optimizer.learning_rate=1e-3', '--config.recipe.steps=17',
        '--config.encoder.source=random:small', '--config.encoder.remat=full', "--config.targets=('world_pairs',)",
        '--config.recipe.lengths=(16,32)', "--config.evaluation.languages={'world_pairs': ('de',)}",
        "--config.recipes={'world_nli': {'steps': 5}}",
    )  # fmt: skip
    optimizer = dataclasses.replace(plain.recipe.optimizer, learning_rate=1e-3)
    recipe = dataclasses.replace(plain.recipe, steps=17, lengths=(16, 32), optimizer=optimizer)
    want = dataclasses.replace(
        plain, seeds=(1, 2), recipe=recipe, targets=('world_pairs',),
        encoder=dataclasses.replace(plain.encoder, source='random:small', remat='full'),
        evaluation=dataclasses.replace(plain.evaluation, languages={'world_pairs': ('de',)}),
        recipes={'world_nli': dataclasses.replace(recipe, steps=5)},
    )  # fmt: skip
    assert dataclasses.replace(found, evaluation=plain.evaluation) == dataclasses.replace(
        want, evaluation=plain.evaluation
    )
    assert found.evaluation.languages['world_pairs'] == ('de',)
    assert command.startswith('xlmr-flax run --config=')
    assert "'--config.seeds=(1,2)'" in command


def test_a_file_may_take_an_argument(parsed: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / 'with_argument.py'
    path.write_text("def get_config(name):\n    return {'name': name, 'targets': ('world_pairs',)}\n")
    assert parsed(config=f'{path}:fast')[0].name == 'fast'


@pytest.mark.parametrize(
    ('override', 'said'),
    [
        ('--config.recipe.stpes=3', "error: unknown config key 'recipe.stpes' (did you mean 'steps'?)"),
        (
            '--config.recipe.learning_rate=1e-4',
            "error: unknown config key 'recipe.learning_rate' (did you mean 'recipe.optimizer.learning_rate'?)",
        ),
        (
            '--config.recipe.learnig_rate=1e-4',
            "error: unknown config key 'recipe.learnig_rate' (did you mean 'recipe.optimizer.learning_rate'?)",
        ),
        (
            '--config.max_length=9',
            "error: unknown config key 'max_length' (did you mean 'recipe.max_length' or 'evaluation.max_length'?)",
        ),
        ('--config.optimizer.beta1=0', "error: unknown config key 'optimizer' (did you mean 'recipe.optimizer'?)"),
        ('--config.recipe.qqqqq=1', "error: unknown config key 'recipe.qqqqq' (known: epochs, steps, "),
        ('--config.sedes=(1,)', "error: unknown config key 'sedes' (did you mean 'seeds'?)"),
        ('--config.encodr.source=x', "error: unknown config key 'encodr' (did you mean 'encoder'?)"),
        ('--config.recipe.optimizer.lr=1', "error: unknown config key 'recipe.optimizer.lr' ("),
        ('--config.recipe.steps.x=1', "error: unknown config key 'recipe.steps.x': recipe.steps is 6"),
        ('--config.recipes.world_nli.steps=3', 'write'),
        ('--config.recipe.steps=abc', 'error: flag --config.recipe.steps=abc: '),
        ('--config.recipe.steps=2.5', 'error: flag --config.recipe.steps=2.5: '),
        ('--config.tensorboard=maybe', 'error: flag --config.tensorboard=maybe: '),
        ('--config.recipe.batch_size=0', 'error: recipe.batch_size 0 is not a positive multiple of accumulation 1'),
        ('--config.seeds=x', "error: seeds[0]: expected int, got 'x' (str)"),
        ('--config.encoder.source=foo', "error: encoder source 'foo' is not one of embedded, hf:NAME-OR-DIR, ckpt:DIR"),
        ('--config.encoder.source=random:tny', "error: random:tny: size 'tny' is not one of tiny, small, base, large"),
        ('--config.mesh.data=3', 'error: mesh data=3 fsdp=1 model=1 does not fit'),
        ("--config.targets=('world_pair',)", "error: targets: unknown task 'world_pair' (did you mean 'world_pairs'?)"),
        (
            "--config.intermediate=('mnly',)",
            "error: intermediate: 'mnly' is no arm or task (did you mean 'mnli'?)",
        ),
        (
            "--config.evaluation.languages.world_pairs=('dee',)",
            "error: evaluation.languages.world_pairs: task 'world_pairs' has no language 'dee' (did you mean 'de'?)",
        ),
    ],
)
def test_an_override_that_cannot_be(override: str, said: str, fails: Fails, tmp_path: Path) -> None:
    said = said.replace('write', 'a new entry must be given completely: --config.recipes="{\'world_nli\': ...}"')
    assert said in fails('run', f'--config={TINY}', f'--workdir={tmp_path}/w', override)
    assert not (tmp_path / 'w').exists()


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        (None, 'bad.py: no such file'),
        ('def get_config(:\n', ', line 1: '),
        ('def get_config():\n    x = 1\n    return undefined_name\n', ", line 3: NameError: name 'undefined_name'"),
        ("def get_config():\n    raise ValueError('two\\tthings')\n", ', line 2: ValueError: two'),
        ('import nosuchmodule\n', ", line 1: ModuleNotFoundError: No module named 'nosuchmodule'"),
        ('x = 1\n', 'has no function get_config() that returns a ConfigDict'),
        ('def get_config():\n    pass\n', 'has no function get_config() that returns a ConfigDict'),
        ('def get_config(name):\n    return {}\n', 'TypeError: get_config() missing 1 required positional argument'),
        (
            "def get_config():\n    return {'tragets': ('mnli',)}\n",
            "unknown config key 'tragets' (did you mean 'targets'?)",
        ),
        (
            "def get_config():\n    return {'targets': ('mnli',), 'recipes': {'mnli': {'learning_rate': 1.0}}}\n",
            "unknown config key 'recipes.mnli.learning_rate' (did you mean 'recipes.mnli.optimizer.learning_rate'?)",
        ),
    ],
)
def test_a_file_that_is_no_config(text: str | None, said: str, fails: Fails, tmp_path: Path) -> None:
    path = tmp_path / 'bad.py'
    if text is not None:
        path.write_text(text)
    for form in ([f'--config={path}'], ['--config', str(path)]):
        line = fails('run', *form, f'--workdir={tmp_path}/w')
        assert said in line
        if 'unknown config key' not in said:
            assert str(path) in line


@pytest.mark.parametrize('folder', ['', 'configs/'], ids=['here', 'in a folder'])
def test_a_config_file_that_is_not_there(
    folder: str, fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'configs').mkdir()
    for name in ('study.py', 'tiny.py', 'xnli.py', 'notes.txt'):
        (tmp_path / 'configs' / name).write_text('')
    for name in ('tiny', 'tny.py'):
        line = fails('run', f'--config={folder}{name}:x=1', '--workdir=w')
        said = f'--config={folder}{name}: no such file (did you mean configs/tiny.py?); configs has tiny.py, '
        assert line.startswith(f'error: {said}')
        assert 'notes' not in line
    line = fails('run', f'--config={folder}qqq.py', '--workdir=w')
    assert line == f'error: --config={folder}qqq.py: no such file; configs has study.py, tiny.py, xnli.py'
    assert fails('run', '--config=configs', '--workdir=w').startswith('error: --config=configs: a folder; configs has ')


def test_data_root_is_the_configs(parsed: Callable[..., Any], tmp_path: Path) -> None:
    config, _ = parsed('--data_root=/a/b', '--config.data_root=/c')
    assert config == dataclasses.replace(parsed()[0], data_root='/a/b')
    assert parsed('--config.data_root=/c')[0].data_root == '/c'


@pytest.mark.parametrize('before', [None, '/before'])
@pytest.mark.parametrize('arguments', [('--data_root=/a',), ('--config.data_root', '/a'), ('--data_root', '/a')])
def test_a_config_file_finds_the_data_root_in_the_environment(
    arguments: tuple[str, ...], before: str | None, parsed: Callable[..., Any], config_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """configs/paper_small.py and others look for files while they are loaded."""
    if before is None:
        monkeypatch.delenv('XLMR_DATA_ROOT', raising=False)
    else:
        monkeypatch.setenv('XLMR_DATA_ROOT', before)
    path = config_file('import os', "config.title = os.environ.get('XLMR_DATA_ROOT', '')")
    assert parsed(*arguments, config=path)[0].title == '/a'
    assert os.environ.get('XLMR_DATA_ROOT') == before
    assert parsed(config=path)[0].title == (before or '')


def test_values_of_their_own_are_in_the_commands_that_are_suggested() -> None:
    line = [
        'run',
        '--config',
        'f.py',
        '--config.recipe.max_length',
        '64',
        '-data_root',
        'd',
        '--workdir=w',
        '--dry_run',
    ]
    assert config_arguments(line) == ['--config=f.py', '--config.recipe.max_length=64', '--data_root=d']


def test_a_workdir_below_a_file(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    line = fails('run', f'--config={TINY}', f'--workdir={tmp_path}/file/w')
    assert line == f'error: {tmp_path}/file/w: cannot be written to (Not a directory)'
