"""How many functions of the package stand between a command and the loss of a training step."""

from __future__ import annotations

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
