"""The same run here and in PyTorch: losses step by step, predictions, the comparison's table, what is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip('torch', reason='the baseline is torch')

from xlmr_flax.config import Config, ConfigError, OptimizerSpec, parse  # noqa: E402
from xlmr_flax.experiment.runner import Runner  # noqa: E402
from xlmr_flax.tools.torch import agreement, torch_run  # noqa: E402
from xlmr_flax.tools.torch.torch_modules import TwoLayerHead, make_optimizer  # noqa: E402

STEPS, LANGUAGES, ROWS = 20, ('en', 'de', 'ru'), 64
Pair = tuple[agreement.Side, agreement.Side]


def make_config(head: str, steps: int = STEPS, dropout: float = 0.0, **changes: Any) -> Config:
    optimizer = {'learning_rate': 1e-3, 'epsilon': 1e-6, 'clip_norm': 0.5, **changes.pop('optimizer', {})}
    return parse({
        'seeds': (3,),
        'encoder': {'source': 'random:tiny', 'head': head, 'dropout': dropout, 'attention_dropout': 0.0},
        'targets': ('world_pairs',),
        'recipe': {
            'steps': steps, 'batch_size': 8, 'max_length': 64, 'lengths': (64,), 'log_every': 1, 'eval_examples': 8,
            'max_train': 100, 'optimizer': optimizer, **changes,
        },
        'evaluation': {'max_examples': ROWS, 'languages': {'world_pairs': LANGUAGES}},
        'tensorboard': False,
    })  # fmt: skip


MICRO_BATCHES = {'schedule': 'constant', 'warmup_steps': 4, 'clip_norm': 0.05, 'clip_per': 'micro_batch'}
CONFIGS = {
    'hf': make_config('hf'),
    'jiant': make_config('jiant', accumulation=2, optimizer=MICRO_BATCHES),
    'mean': make_config('mean'),
}


@pytest.fixture(scope='module', autouse=True)
def one_thread() -> Iterator[None]:
    """torch's threads wait for each other in a model this small, for long where other tests run beside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope='module', params=CONFIGS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """(ours, theirs) after the same run."""
    path, config = tmp_path_factory.mktemp(request.param), CONFIGS[request.param]
    Runner.open(config, path / 'ours', 'ours').run()
    torch_run.run_baseline(config, path / 'theirs', 'theirs')
    theirs = agreement.read_side(path / 'theirs')
    return agreement.read_side(path / 'ours', theirs), theirs


def test_losses_and_predictions_agree(pair: Pair) -> None:
    ours, theirs = pair
    differences = agreement.loss_differences(ours, theirs)
    assert list(differences) == list(range(1, STEPS + 1))
    assert max(differences.values()) < 1e-4, differences
    assert max(ours.losses.values()) - min(ours.losses.values()) > 1e-2  # it trains, else nothing is compared
    equal, total = agreement.equal_predictions(ours, theirs)
    assert total == len(LANGUAGES) * ROWS
    assert equal >= total - 1  # a difference of 1e-5 in a logit may turn a tie
    assert {row['encoder'] for row in theirs.rows} == {'random:tiny (torch)'}


def test_metrics_are_of_every_step(pair: Pair) -> None:
    """Loss, rate and gradient norm under the fields of our own metrics.jsonl."""
    files = [(side.workdir / 'metrics.jsonl').read_text().splitlines() for side in pair]
    ours, theirs = ([r for r in map(json.loads, lines) if 'loss' in r] for lines in files)
    assert [record['step'] for record in theirs] == list(range(1, STEPS + 1))
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() - {'packing_efficiency'} == b.keys()  # rows of their own are not packed
        assert a['learning_rate'] == pytest.approx(b['learning_rate'], rel=1e-5)
        assert a['grad_norm'] == pytest.approx(b['grad_norm'], rel=1e-2)
        assert a['accuracy'] == b['accuracy']


def test_the_table(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = pair
    assert agreement.main([f'--ours={ours.workdir}', f'--theirs={theirs.workdir}', '--steps=5']) == 0
    out = capsys.readouterr().out
    assert 'steps 1 to 5:' in out and f'steps 1 to {STEPS}:' in out and 'zero-shot mean of 2' in out
    assert all(f'| {code} ' in out for code in LANGUAGES) and 'configs differ' not in out


def test_agreement_refuses_means_over_steps_and_tells_other_configs(pair: Pair) -> None:
    ours, theirs = pair
    every_other = {step: loss for step, loss in ours.losses.items() if step % 2 == 0}
    with pytest.raises(ConfigError, match=r'recipe\.log_every=1'):
        agreement.loss_differences(dataclasses.replace(ours, losses=every_other), theirs)
    config = {**theirs.config, 'encoder': {**theirs.config['encoder'], 'dropout': 0.1, 'unroll': 1}}
    found = agreement.config_differences(ours, dataclasses.replace(theirs, config=config))
    assert found == ['encoder.dropout: 0.0, 0.1']
    with pytest.raises(ConfigError, match=r'expected none to xnli \(seed 3\)'):
        agreement.read_side(ours.workdir, dataclasses.replace(theirs, target='xnli'))
    with pytest.raises(ConfigError, match='not the same languages'):
        agreement.agreement(dataclasses.replace(ours, rows=ours.rows[1:]), theirs)


def test_a_folder_that_holds_a_run_is_refused(pair: Pair) -> None:
    for side in pair:
        with pytest.raises(ConfigError, match='holds a run already'):
            torch_run.run_baseline(CONFIGS['hf'], side.workdir)


def test_dropout_is_seeded_in_training_and_off_in_evaluation(tmp_path: Path) -> None:
    """With a learning rate of 0 the weights stay, and the predictions with them, whatever the dropout was."""
    still = {'steps': 2, 'optimizer': {'learning_rate': 0.0}}
    configs = {
        'first': make_config('jiant', dropout=0.5, **still),
        'again': make_config('jiant', dropout=0.5, **still),
        'without': make_config('jiant', **still),
    }
    for name, config in configs.items():
        torch_run.run_baseline(config, tmp_path / name)
    first, again, without = (agreement.read_side(tmp_path / name) for name in configs)
    assert first.losses == again.losses
    assert first.losses != without.losses
    equal, total = agreement.equal_predictions(first, without)
    assert equal == total > 0


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'intermediate': ('none', 'udhr')}, "intermediate: 'udhr' is of kind 'mlm'"),
        ({'arms': {'mix': {'tasks': {'text': {'task': 'mlm_text'}}}}}, r'arms\.mix\.tasks\.text'),
        ({'recipe': {'eval_every': 5, 'keep': 'best'}}, r'recipe\.eval_every'),
        ({'recipes': {'world_pairs': {'eval_every': 5, 'patience': 2}}}, r'recipes\.world_pairs\.eval_every'),
    ],
)
def test_what_the_baseline_does_not_do_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f'^{said}'):
        torch_run.check(parse({'targets': ('world_pairs',), **change}))


def test_the_decayed_group() -> None:
    """All but biases and layer norms, as our own mask; every parameter in one group."""
    encoder = torch.nn.ModuleDict({'LayerNorm': torch.nn.LayerNorm(2), 'word_embeddings': torch.nn.Embedding(3, 2)})
    weight, bias = torch.tensor([[0.0, 2.0], [1.0, 3.0]]), torch.tensor([4.0, 5.0])
    tensors = {f'{layer}.{name}': value for layer in ('dense', 'out') for name, value in
               (('weight', weight), ('bias', bias))}  # fmt: skip
    model = TwoLayerHead(encoder, tensors, 0.1, mean=False)
    assert model.dense(torch.tensor([1.0, 0.0])).tolist() == [4.0, 6.0]
    names = {id(p): name for name, p in model.named_parameters()}
    groups = {group['weight_decay']: group for group in make_optimizer(model, OptimizerSpec()).param_groups}
    decayed, free = ([names[id(p)] for p in groups[decay]['params']] for decay in (0.01, 0.0))
    assert sorted(decayed) == ['dense.weight', 'encoder.word_embeddings.weight', 'out.weight']
    assert sorted(free) == ['dense.bias', 'encoder.LayerNorm.bias', 'encoder.LayerNorm.weight', 'out.bias']


@pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')  # ml_collections reads config files with it
def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert torch_run.main([f'--workdir={tmp_path}']) == 1
    assert '--config=FILE is missing' in capsys.readouterr().err
    config = Path(__file__).parents[3] / 'configs' / 'tiny.py'
    changes = ['--config.recipe.eval_every=2', '--config.recipe.patience=1']
    assert torch_run.main([f'--config={config}', f'--workdir={tmp_path}', *changes]) == 1
    assert 'error: recipe.eval_every 2' in capsys.readouterr().err
    assert torch_run.main([f'--saved={tmp_path}', f'--workdir={tmp_path}']) == 1
    assert 'no workdir of xlmr-flax run' in capsys.readouterr().err
    override = '--config.recipe.stepz=1'
    assert torch_run.main([f'--config={config}', f'--workdir={tmp_path}', override]) == 1
    assert "'recipe.stepz' (did you mean 'steps'?)" in capsys.readouterr().err
    assert torch_run.main([f'--config={tmp_path / "none.py"}', f'--workdir={tmp_path}']) == 1
    assert 'none.py' in capsys.readouterr().err
    assert torch_run.main(['--help']) == 0
    assert 'usage: python -m xlmr_flax.tools.torch.torch_run' in capsys.readouterr().out
