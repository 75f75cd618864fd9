"""A whole plan in PyTorch: an intermediate mixture of every kind of head, targets from it, retrieval."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the baseline is torch')

from xlmr_flax.config import Config, parse  # noqa: E402
from xlmr_flax.eval.zero_shot import Evaluator  # noqa: E402
from xlmr_flax.experiment.runner import Runner  # noqa: E402
from xlmr_flax.report.rows import read_rows  # noqa: E402
from xlmr_flax.tools.torch import agreement, torch_run  # noqa: E402
from xlmr_flax.tools.torch.torch_evaluate import TorchEvaluator  # noqa: E402

TARGETS = ('world_spans', 'world_pos', 'world_choices', 'world_retrieval')


def make_config() -> Config:
    return parse({
        'seeds': (3,),
        'encoder': {'source': 'random:tiny', 'head': 'jiant', 'dropout': 0.0, 'attention_dropout': 0.0},
        'intermediate': ('mix',),
        'arms': {'mix': {'tasks': {'world_nli': {}, 'world_spans': {}}, 'sampler': 'uniform', 'mix': 'micro_batch'}},
        'targets': TARGETS,
        'recipe': {
            'steps': 6, 'batch_size': 8, 'accumulation': 2, 'max_length': 64, 'lengths': (64,), 'log_every': 1,
            'eval_examples': 8, 'max_train': 60, 'optimizer': {'learning_rate': 1e-3, 'epsilon': 1e-6},
        },
        'evaluation': {
            'max_examples': 24, 'max_length': 64,
            'languages': {name: ('de',) if name == 'world_retrieval' else ('en', 'de') for name in TARGETS},
        },
        'tensorboard': False,
    })  # fmt: skip


def test_the_evaluator_overrides_methods_with_their_parameters() -> None:
    own = [name for name, value in vars(TorchEvaluator).items() if callable(value) and not name.startswith('__')]
    overridden = [name for name in own if hasattr(Evaluator, name)]
    assert set(overridden) >= {'_head_outputs', '_embed'}
    for name in overridden:
        ours, theirs = (list(inspect.signature(getattr(each, name)).parameters) for each in (Evaluator, TorchEvaluator))
        assert ours == theirs, name


@pytest.mark.slow
def test_the_plan_agrees(tmp_path: Path) -> None:
    config, threads = make_config(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        Runner.open(config, tmp_path / 'ours', 'ours').run()
        torch_run.run_baseline(config, tmp_path / 'theirs', 'theirs')
    finally:
        torch.set_num_threads(threads)
    for target in TARGETS[:3]:
        sides = [agreement.read_side(tmp_path / side, where=('mix', target, 3)) for side in ('ours', 'theirs')]
        differences = agreement.loss_differences(*sides)
        assert len(differences) == 6
        assert max(differences.values()) < 1e-3, (target, differences)
    rows = [
        {(r['target'], r['language'], r['metric']): r['value'] for r in read_rows(tmp_path / side / 'results.jsonl')}
        for side in ('ours', 'theirs')
    ]
    assert rows[0].keys() == rows[1].keys() and {key[0] for key in rows[0]} == set(TARGETS)
    apart = [abs(rows[0][key] - rows[1][key]) for key in rows[0]]
    assert max(apart) <= 100 / 24 + 1e-6 and np.mean(apart) < 1, rows
