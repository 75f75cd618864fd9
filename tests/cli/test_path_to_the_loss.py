"""How many functions and classes of the package stand between a command and the loss of a training step."""

from __future__ import annotations

import ast
import re
import traceback
from pathlib import Path
from typing import Any

import pytest

import xlmr_flax
from xlmr_flax.cli.main import main
from xlmr_flax.kinds.base import Kind

PATH = [
    'cli/main.py main', 'cli/run.py run', 'experiment/runner.py run', 'experiment/training.py train_run',
    'train/loop.py train', 'train/step.py step', 'train/step.py step', 'train/step.py loss',
]  # fmt: skip


def test_the_path_from_a_command_to_the_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/architecture.md lists these functions. The second `step` is the one that is compiled."""
    package, real, paths = Path(xlmr_flax.__file__).parent, Kind.loss_sums, []

    def loss_sums(self: Kind, *arguments: Any) -> Any:
        calls = [(Path(frame.filename), frame.name) for frame in traceback.extract_stack()]
        paths.append([f'{file.relative_to(package)} {name}' for file, name in calls if file.is_relative_to(package)])
        return real(self, *arguments)

    monkeypatch.setattr(Kind, 'loss_sums', loss_sums)
    plan = ["--config.targets=('world_nli',)", "--config.intermediate=('none',)", '--config.recipe.steps=1']
    limits = ['--config.evaluation.max_examples=2', '--config.encoder.dropout=0.3']  # a program of its own
    config = f'--config={package.parent}/configs/tiny.py'
    assert main(['run', config, f'--workdir={tmp_path}', *plan, *limits]) == 0
    assert paths and all(path == PATH for path in paths)
    page = (package.parent / 'docs' / 'architecture.md').read_text(encoding='utf-8')
    assert all(f'`{each.split()[0]}`' in page for each in PATH)


def test_the_classes_on_the_path() -> None:
    """The table of docs/architecture.md has every class of the functions' signatures, and at most 15 in all."""
    package = Path(xlmr_flax.__file__).parent
    trees = {path.relative_to(package).as_posix(): ast.parse(path.read_text('utf-8')) for path in package.rglob('*.py')}
    defined = {n.name for tree in trees.values() for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}
    page = (package.parent / 'docs' / 'architecture.md').read_text(encoding='utf-8')
    rows = [line.split('|') for line in page.splitlines() if line.startswith('| `') and line.count('|') == 4]
    on_path = [cells[3] for cells in rows if ' '.join(re.findall(r'`(\S+?)`', cells[1])[:2]) in PATH]
    listed = {name for cell in on_path for name in re.findall(r'`(\w+)`', cell)}
    assert len(on_path) == len(PATH) and len(listed) <= 15
    assert listed - {'FlagValues'} <= defined
    for place in PATH:
        file, name = place.split()
        functions = [n for n in ast.walk(trees[file]) if isinstance(n, ast.FunctionDef) and n.name == name]
        assert functions, place
        for function in functions:
            arguments = function.args
            given = [a.annotation for a in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]]
            named = [ast.unparse(a) for a in [*given, function.returns] if a]
            own = {word for text in named for word in re.findall(r'(?<!jax\.)\b\w+', text)} & defined
            assert own - {'State'} <= listed, (
                place
            )  # train/step.py's State is an alias; another module has a class of this name
