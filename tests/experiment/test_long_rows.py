"""Rows of more than 512 tokens with an encoder of 8,192 positions, whole in training and evaluation; QA windows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tasks.tiny_files import squad

from xlmr_flax.cli.main import main
from xlmr_flax.config import Config, ConfigError
from xlmr_flax.encoders.modernbert_encoder import ModernBertConfig
from xlmr_flax.experiment.runner import Runner
from xlmr_flax.experiment.training import Training
from xlmr_flax.models import hf
from xlmr_flax.models.model import Model

Configs = Callable[..., Config]
SHAPE = ModernBertConfig(
    vocab_size=2048, hidden_size=16, num_layers=2, num_heads=2, ffn_size=24, max_positions=8192, window=16,
    pad_id=1, bos_id=0, eos_id=2, initializer_range=0.2,
)  # fmt: skip
WORDS = {'bread': 'positive', 'water': 'negative'}
FILLER = 'the garden is near the house and the river . '
RECIPE: dict[str, Any] = {
    'recipe__steps': 2, 'recipe__batch_size': 2, 'recipe__max_length': 8192, 'recipe__lengths': (),
    'recipe__eval_examples': 2, 'evaluation__max_examples': 2,
}  # fmt: skip


@pytest.fixture(scope='module')
def encoder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> str:
    out = tmp_path_factory.mktemp('long') / 'modernbert'
    hf.save(out, SHAPE, jax.device_get(Model(SHAPE).init(jax.random.key(0), {})), tiny_tokenizer)
    return f'hf:{out}'


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts of some 900 tokens whose last word alone differs, and contexts of some 1,400 with the answer at the end."""
    out = tmp_path_factory.mktemp('data')
    rows = [f'{i},{35 * FILLER}{word},{label}' for i, (word, label) in enumerate(WORDS.items())]
    text = '\n'.join(['id,text,label', *rows, ''])
    context = 60 * FILLER + 'Maria has the bread .'
    asked = [{'id': f'q{i}', 'question': 'Who has it ?', 'answers': [
        {'text': 'Maria', 'answer_start': context.index('Maria')}]} for i in range(2)]  # fmt: skip
    files = {f'low_resource/nusax/sentiment/english/{name}.csv': text for name in ('train', 'valid', 'test')}
    questions = squad({'context': context, 'qas': asked})
    files |= {f'intermediate/squad_v1.1/{name}-v1.1.json': questions for name in ('train', 'dev')}
    for name, content in (files | {'xtreme/xquad/xquad.en.json': questions}).items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(content, 'utf-8')
    return out


def opened(config_of: Configs, encoder: str, root: Path, workdir: Path, target: str, **more: Any) -> Runner:
    changes = RECIPE | {'evaluation__languages': {target: ('en',)}} | more
    config = config_of(
        encoder__source=encoder, intermediate=('none',), targets=(target,), data_root=str(root), **changes
    )
    return Runner.open(config, workdir, 'x')


def test_a_text_is_read_to_its_end(config_of: Configs, encoder: str, root: Path, tmp_path: Path) -> None:
    runner = opened(config_of, encoder, root, tmp_path / 'w', 'nusax')
    (run,) = runner.plan
    training = Training(runner.setting, run)
    (data,) = training.data
    first, second = (data.tokens[i] for i in range(2))
    assert 512 < len(first) < 1024 and not np.array_equal(first, second), 'the last word is in the row'
    assert np.array_equal(first[:800], second[:800])
    packing = training.packing(training.datasets[0], data)
    assert packing is not None and packing.length == 1024, 'no longer than is needed'
    rows = runner.run()
    assert {row['n'] for row in rows} == {2}
    command = ['evaluate', f'--encoder=ckpt:{runner.workdir.run_dir(run)}', '--task=nusax', '--languages=en']
    command += [f'--data_root={root}', '--split=test', f'--out={tmp_path}/e']
    assert main(command) == 0  # with the length of the fine-tuning
    again = [json.loads(line) for line in (tmp_path / 'e' / 'results.jsonl').read_text('utf-8').splitlines()]
    assert {row['metric']: row['value'] for row in again} == {row['metric']: row['value'] for row in rows}
    evaluator = runner._evaluator(run)
    assert evaluator.max_length == 8192
    (logits,) = evaluator.outputs(run.datasets[0].task, [data.tokens])
    assert not np.allclose(logits[0], logits[1], atol=1e-6), 'the last word counts'


@pytest.mark.parametrize(('length', 'windows'), [(8192, 1), (1024, 3)])
def test_a_context_has_the_windows_that_it_needs(
    length: int, windows: int, config_of: Configs, encoder: str, root: Path, tmp_path: Path
) -> None:
    runner = opened(config_of, encoder, root, tmp_path / 'w', 'xquad', recipe__max_length=length)
    (run,) = runner.plan
    (data,) = Training(runner.setting, run).data
    assert len(data.tokens) == 2 * windows
    assert data.tokens.lengths.max() <= length
    assert (data.tokens.lengths.max() > 1024) == (windows == 1)
    if windows == 1:
        rows = runner.run()
        assert {row['metric'] for row in rows} == {'f1', 'exact_match'} and {row['n'] for row in rows} == {2}


def test_the_limit_is_the_encoders(
    config_of: Configs, encoder: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused before anything is trained, also where only a later run has such rows."""
    for source, limit in ((encoder, 8192), ('random:tiny', 128), ('random:deberta-v2-tiny', 256)):
        with pytest.raises(
            ConfigError, match=rf'^recipe.max_length {limit + 1}: {source} has positions for {limit} tokens'
        ):
            opened(config_of, source, root, tmp_path / 'w', 'nusax', recipe__max_length=limit + 1)
    longer = {'nusax': {'tasks': {'nusax': {'max_length': 129}}}}
    with pytest.raises(ConfigError, match=r'^training\.nusax\.tasks\.nusax\.max_length 129: random:tiny'):
        opened(config_of, 'random:tiny', root, tmp_path / 'w', 'nusax', recipe__max_length=64, training=longer)
    own = {'nusax': {'max_length': 129, 'lengths': ()}}
    with pytest.raises(ConfigError, match=r'^recipes\.nusax\.max_length 129: random:tiny'):
        opened(config_of, 'random:tiny', root, tmp_path / 'w', 'nusax', recipe__max_length=64, recipes=own)
    assert not list((tmp_path / 'w' / 'runs').glob('*'))
    command = ['evaluate', '--task=world_retrieval', '--languages=de', f'--out={tmp_path}/e']
    assert main([*command, '--encoder=random:tiny', '--max_length=129']) == 1
    assert 'max_length 129: the encoder has positions for 128 tokens' in capsys.readouterr().err
