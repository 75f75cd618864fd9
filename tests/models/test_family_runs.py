"""Runs of each encoder family from the command line, and against PyTorch step by step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xlmr_flax.cli.main import main
from xlmr_flax.config import parse
from xlmr_flax.encoders import named_sizes
from xlmr_flax.experiment.runner import Runner

SOURCES = [f'random:{name}' for name in named_sizes() if name.endswith('-tiny')]
FAMILIES = ('random:modernbert-tiny', 'random:deberta-v2-tiny')  # with attention of their own
BY_DEFAULT = FAMILIES[1:]


@pytest.mark.parametrize(
    'source', [name if name in BY_DEFAULT else pytest.param(name, marks=pytest.mark.slow) for name in SOURCES]
)
def test_a_run(source: str, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    flags = [f'--config.encoder.source={source}', '--config.intermediate=("none",)']
    flags += ['--config.targets=("world_pairs",)', '--config.recipe.steps=2', '--config.recipe.packing=True']
    assert main(['run', f'--config={root}/configs/tiny.py', f'--workdir={tmp_path}/w', *flags]) == 0
    rows = (tmp_path / 'w' / 'results.jsonl').read_text('utf-8').splitlines()
    assert {json.loads(row)['encoder'] for row in rows} == {source}


@pytest.mark.slow
@pytest.mark.parametrize('head', ['hf', 'jiant', 'mean'])
@pytest.mark.parametrize('source', FAMILIES)
def test_the_run_in_pytorch_has_the_same_losses(source: str, head: str, tmp_path: Path) -> None:
    """The two sides of `compare`, step by step; `jiant` with the pooler that these families lack in transformers."""
    pytest.importorskip('torch', reason='losses are compared with torch')
    from xlmr_flax.tools.torch import agreement, torch_run

    config = parse({
        'seeds': (3,),
        'encoder': {'source': source, 'head': head, 'dropout': 0.0, 'attention_dropout': 0.0},
        'targets': ('world_pairs',),
        'recipe': {
            'steps': 8, 'batch_size': 8, 'max_length': 64, 'lengths': (64,), 'log_every': 1, 'eval_examples': 8,
            'max_train': 100, 'optimizer': {'learning_rate': 1e-3, 'epsilon': 1e-6},
        },
        'evaluation': {'max_examples': 16, 'languages': {'world_pairs': ('en', 'de')}},
        'tensorboard': False,
    })  # fmt: skip
    Runner.open(config, tmp_path / 'ours', 'ours').run()
    torch_run.run_baseline(config, tmp_path / 'theirs', 'theirs')
    theirs = agreement.read_side(tmp_path / 'theirs')
    differences = agreement.loss_differences(agreement.read_side(tmp_path / 'ours', theirs), theirs)
    assert list(differences) == list(range(1, 9))
    assert max(differences.values()) < 1e-4, differences
