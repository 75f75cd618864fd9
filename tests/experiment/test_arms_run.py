"""Runs of arms: several heads and text on one encoder, a target in two languages, joint training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from xlmr_flax.config import Config
from xlmr_flax.data.sources import read_split
from xlmr_flax.encoders.config import SIZES, ModelError
from xlmr_flax.experiment.runner import Runner
from xlmr_flax.experiment.training import initial_params, trained_facts
from xlmr_flax.kinds import HeadSpec, score_files
from xlmr_flax.models import hf
from xlmr_flax.models.model import Model
from xlmr_flax.tasks import get_task

Configs = Callable[..., Config]


def arm(**tasks: Any) -> dict[str, Any]:
    more = {k: tasks.pop(k) for k in ('sampler', 'block', 'joint') if k in tasks}
    return {'tasks': tasks, **more}


@pytest.fixture(scope='module')
def mixed(tmp_path_factory: pytest.TempPathFactory, config_of: Configs) -> Runner:
    """Three heads and text on one encoder, then a target from it, trained in two languages."""
    root = tmp_path_factory.mktemp('text')
    (root / 'raw_text' / 'mlm').mkdir(parents=True)
    for code, word in (('en', 'the cat sat on the mat number'), ('de', 'die Katze sass auf der Matte Nummer')):
        text = ''.join(f'{word} {i} und and so on {i * 7}\n' for i in range(60))
        (root / 'raw_text' / 'mlm' / f'{code}.txt').write_text(text, encoding='utf-8')
    config = config_of(
        intermediate=('mix',), targets=('world_pairs',), data_root=str(root),
        arms={'mix': arm(
            world_nli={'languages': ('en', 'de')}, world_pos={'max_length': 32}, world_spans={'max_length': 48},
            mlm={'task': 'mlm_text', 'languages': ('en', 'de'), 'max_length': 32}, sampler='uniform', block=6,
        )},
        recipes={'mix': {'steps': 18, 'log_every': 6, 'eval_every': 18, 'keep': 'best'}},
        training={'world_pairs': arm(world_pairs={'languages': ('en', 'de')})},
        evaluation__languages={'world_pairs': ('en', 'de')},
    )  # fmt: skip
    runner = Runner.open(config, tmp_path_factory.mktemp('mixed'), 'x')
    runner.run()
    return runner


def records_of(runner: Runner, phase: str) -> list[dict[str, Any]]:
    return [r for r in runner.workdir.metrics() if f'--{phase}--' in r['run']]


def test_a_mixture_trains_every_head_and_says_what_it_drew(mixed: Runner) -> None:
    records = records_of(mixed, 'intermediate')
    draws = {k: v for k, v in [r for r in records if 'loss' in r][-1].items() if k.startswith('draws/')}
    assert sum(draws.values()) == 18
    assert draws['draws/world_pos'] in (4, 5) and draws['draws/world_spans'] in (4, 5)
    for code in ('en', 'de'):
        assert abs(draws[f'draws/world_nli/{code}'] - 2.25) < 1
    model = json.loads((mixed.workdir.run_dir(mixed.plan[0]) / 'model' / 'model.json').read_text('utf-8'))
    assert set(model['heads']) == {'world_nli', 'world_pos', 'world_spans', 'mlm'}


def test_selection_is_the_mean_over_the_tasks_and_text_is_told_beside_it(mixed: Runner) -> None:
    (dev,) = [r for r in records_of(mixed, 'intermediate') if 'dev_metric' in r]
    scores = [dev[f'dev/{task}'] for task in ('world_nli', 'world_pos', 'world_spans')]
    assert dev['dev_metric'] == pytest.approx(np.mean(scores))
    assert dev['dev/mlm/en'] > 1 and dev['dev/mlm/de'] > 1, 'perplexities'


def test_a_target_is_trained_in_the_languages_asked_for(mixed: Runner) -> None:
    target = mixed.plan[1]
    assert target.tasks == ('world_pairs',)
    (last,) = [r for r in records_of(mixed, 'world_pairs') if r['step'] == 3 and 'loss' in r]
    assert last['draws/world_pairs/en'] + last['draws/world_pairs/de'] == 3
    rows = [json.loads(line) for line in mixed.workdir.results_path.read_text('utf-8').splitlines()]
    assert {r['language'] for r in rows} == {'en', 'de'}
    assert all(r['intermediate'] == 'mix' for r in rows)


def test_a_joint_arm_is_mixed_into_the_targets(config_of: Configs, tmp_path: Path) -> None:
    config = config_of(
        intermediate=('none', 'j'), targets=('world_pairs',), recipe__steps=4,
        arms={'j': arm(world_nli={}, joint=True, sampler='uniform')}, evaluation__languages={'world_pairs': ('en',)},
    )  # fmt: skip
    runner = Runner.open(config, tmp_path, 'x')
    assert [(r.intermediate, r.target, r.task) for r in runner.plan] == [
        ('none', 'world_pairs', 'world_pairs'), ('j', 'world_pairs', 'world_pairs+world_nli')
    ]  # fmt: skip
    runner.run()
    last = [r for r in runner.workdir.metrics() if r['intermediate'] == 'j' and 'loss' in r][-1]
    assert (last['draws/world_pairs'], last['draws/world_nli']) == (2, 2)
    rows = [json.loads(line) for line in runner.workdir.results_path.read_text('utf-8').splitlines()]
    assert {r['intermediate'] for r in rows} == {'none', 'j'}


@pytest.mark.parametrize(('rule', 'metrics'), [('first', ('f1',)), ('mean', ('f1', 'exact_match'))])
def test_the_dev_score_of_questions(rule: str, metrics: tuple[str, ...], config_of: Configs, tmp_path: Path) -> None:
    config = config_of(
        intermediate=('none',), targets=('world_spans',), evaluation__languages={'world_spans': ('en',)},
        recipe__steps=30, recipe__keep='best', recipe__dev_score=rule, recipe__optimizer__learning_rate=1e-3,
    )  # fmt: skip
    runner = Runner.open(config, tmp_path, 'x')
    [run] = runner.plan
    runner.run()
    task = get_task('world_spans')
    examples = read_split(task, 'en', 'dev', limit=config.recipe_for('world_spans').eval_examples)
    scores = score_files(task, 'en', runner.workdir.run_dir(run) / 'dev-predictions.json', examples)
    assert 0 < scores['exact_match'] < scores['f1'], 'the two rules differ here'
    facts = trained_facts(runner.setting, run)
    assert facts is not None
    assert facts['metric'] == pytest.approx(np.mean([scores[name] for name in metrics]))


def test_an_untied_language_model_starts_what_needs_no_head_of_it(
    config_of: Configs, tmp_path: Path, tiny_tokenizer: Path
) -> None:
    """Masked language modelling needs the head: it would go on from another one than the checkpoint's."""
    head, folder = HeadSpec('mlm'), tmp_path / 'm'
    params = jax.device_get(Model(SIZES['tiny']).init(jax.random.key(0), {'mlm': head}))
    hf.save(folder, SIZES['tiny'], params, tiny_tokenizer, head=('mlm', head))
    own = {'lm_head.decoder.weight': params['encoder']['embeddings']['word'] + 1}
    save_file(load_file(folder / 'model.safetensors') | own, folder / 'model.safetensors')
    (tmp_path / 'raw_text' / 'mlm').mkdir(parents=True)
    (tmp_path / 'raw_text' / 'mlm' / 'en.txt').write_text('one line\nand another one\n' * 30, encoding='utf-8')
    config = config_of(
        intermediate=('with_text', 'world_nli'), targets=('world_pairs',), data_root=str(tmp_path),
        encoder__source=f'hf:{folder}',
        arms={'with_text': arm(world_nli={}, text={'task': 'mlm_text', 'languages': ('en',), 'max_length': 32})},
    )  # fmt: skip
    runner = Runner.open(config, tmp_path / 'w', 'x')
    runs = {run.name.split('--')[0]: run for run in runner.plan if not run.target}
    start = initial_params(runner.setting, runs['world_nli'])
    np.testing.assert_array_equal(start['encoder']['embeddings']['word'], params['encoder']['embeddings']['word'])
    assert set(start['heads']) == {'world_nli'}
    with pytest.raises(ModelError, match=r'model\.safetensors: lm_head\.decoder\.weight'):
        initial_params(runner.setting, runs['with_text'])


def test_layer_decay_reaches_word_rows_outside_the_data(config_of: Configs, tmp_path: Path) -> None:
    """A saved row without gradient has decayed at the embeddings' rate: below two layers, 0.5 ** 3 of the peak."""
    optimizer = {'learning_rate': 0.1, 'weight_decay': 0.5, 'warmup': 0.0, 'schedule': 'constant', 'layer_decay': 0.5}
    config = config_of(
        intermediate=('world_pairs',), targets=('world_retrieval',), recipe__optimizer=optimizer, keep_models='all'
    )
    runner = Runner.open(config, tmp_path / 'w', 'x')
    runner.run()
    word = 'encoder/embeddings/word'
    (saved,) = (tmp_path / 'w').rglob('runs/*/model/*.safetensors')
    start = initial_params(runner.setting, runner.plan[0])['encoder']['embeddings']['word']
    ratio = np.median(load_file(saved)[word] / start)  # most rows are not in the data
    assert ratio == pytest.approx((1 - 0.1 * 0.125 * 0.5) ** 3, rel=1e-6)
