"""Presets: the sources' values by hand, and docs/presets.md against the code."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from xlmr_flax.cli.main import main
from xlmr_flax.config import Config, ConfigError, parse
from xlmr_flax.experiment.studies.preset_values import PRESETS
from xlmr_flax.experiment.studies.presets import changes, covered_by, from_argument, preset, remarks
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import TaskError

ROOT = Path(__file__).parents[3]
XTREME_TASKS = ('xnli', 'pawsx', 'udpos', 'panx', 'xquad', 'mlqa', 'tydiqa')
DOCS = (ROOT / 'docs' / 'presets.md').read_text(encoding='utf-8')


def config_of(name: str, *targets: str, **more: Any) -> Config:
    return parse(preset(name, targets, **more))


def recipe(name: str, target: str) -> tuple[float, int, int, float]:
    """(epochs, examples a step, tokens a row, learning rate), as the rows of docs/presets.md."""
    found = config_of(name, target).recipe_for(target)
    return found.epochs, found.batch_size, found.max_length, found.optimizer.learning_rate


# From the scripts: epochs, per-GPU batch x accumulation, length, learning rate.
BY_HAND = {
    ('jiant', 'xnli'): (2, 4 * 8, 256, 1e-5),
    ('jiant', 'panx'): (10, 4 * 8, 256, 1e-5),
    ('jiant', 'tydiqa'): (2, 4 * 4, 384, 1e-5),
    ('xtreme', 'xnli'): (5, 2 * 16, 128, 3e-5),
    ('xtreme', 'pawsx'): (5, 2 * 16, 128, 2e-5),
    ('xtreme', 'udpos'): (10, 2 * 16, 128, 2e-5),
    ('xtreme', 'xquad'): (3, 4 * 8, 384, 3e-5),
    ('xtreme', 'xcopa'): (5, 2 * 16, 128, 3e-5),
    ('xtune', 'xnli'): (10, 2 * 16, 256, 5e-6),
    ('xtune', 'panx'): (10, 1 * 32, 128, 7e-6),
    ('xtune', 'mlqa'): (4, 4 * 8, 384, 1.5e-5),
    ('xtune', 'tydiqa'): (10, 4 * 8, 384, 1.5e-5),
}


@pytest.mark.parametrize(('name', 'target'), BY_HAND)
def test_values_by_hand(name: str, target: str) -> None:
    assert recipe(name, target) == BY_HAND[name, target]


def test_optimizers_by_hand() -> None:
    jiant = config_of('jiant', 'xnli').recipe_for('xnli')
    assert (jiant.optimizer.warmup, jiant.optimizer.warmup_steps, jiant.optimizer.weight_decay) == (0.1, -1, 0.01)
    assert (jiant.optimizer.clip_per, jiant.optimizer.clip_norm, jiant.accumulation) == ('micro_batch', 1.0, 8)
    xtreme = config_of('xtreme', 'xnli', 'xquad')
    assert xtreme.recipe_for('xnli').optimizer.warmup_steps == 0
    assert xtreme.recipe_for('xnli').optimizer.weight_decay == 0.0
    qa = xtreme.recipe_for('xquad').optimizer
    assert (qa.warmup_steps, qa.weight_decay, qa.clip_per) == (500, 1e-4, 'step')
    for name in PRESETS:
        optimizer = config_of(name, 'xnli').recipe_for('xnli').optimizer
        assert (optimizer.beta1, optimizer.beta2, optimizer.epsilon) == (0.9, 0.999, 1e-8)
        assert optimizer.schedule == 'linear'


def test_selection_by_hand() -> None:
    found = {name: config_of(name, *XTREME_TASKS) for name in PRESETS}
    for target in XTREME_TASKS:
        rule = found['jiant'].recipe_for(target)
        assert (rule.eval_every, rule.eval_examples, rule.patience, rule.keep) == (1000, 500, 30, 'best')
        assert rule.dev_score == 'mean'
        assert {found[name].recipe_for(target).dev_score for name in ('xtreme', 'xtune')} == {'first'}
    every = {target: found['xtreme'].recipe_for(target).eval_every for target in XTREME_TASKS}
    assert every == {'xnli': 100, 'pawsx': 200, 'udpos': 500, 'panx': 1000, 'xquad': 0, 'mlqa': 0, 'tydiqa': 0}
    assert found['xtreme'].recipe_for('xquad').keep == 'last'
    assert found['xtreme'].recipe_for('pawsx').eval_examples == 0
    assert found['xtreme'].recipe_for('xnli').eval_examples == 2490
    assert found['xtune'].recipe_for('xnli').eval_every == 5000


def test_heads_seeds_and_layers_by_hand() -> None:
    assert [config_of(name, 'xnli').encoder.head for name in ('jiant', 'xtreme', 'xtune')] == ['jiant', 'hf', 'hf']
    assert config_of('xtreme', 'xnli').seeds == (42,)
    assert config_of('xtreme', 'udpos', 'panx').seeds == (1,)
    assert config_of('xtreme', 'xnli', 'panx').seeds == (42,)
    assert config_of('xtreme', 'xnli', seeds=(3, 4)).seeds == (3, 4)
    layers = {(n, t): config_of(n, t).evaluation.layer_of(t) for n in PRESETS for t in ('tatoeba', 'bucc2018')}
    assert layers.pop(('xtreme', 'bucc2018')) == 20
    assert set(layers.values()) == {-1}
    evaluation = config_of('jiant', 'tatoeba').evaluation
    assert (evaluation.pooling, evaluation.max_length) == ('mean', 512)


def test_rules_of_evaluation_by_hand() -> None:
    rules = {name: config_of(name, 'bucc2018').evaluation.repeated_sentences for name in PRESETS}
    assert rules == {'jiant': 'expanded', 'xtreme': 'dropped', 'xtune': 'expanded'}
    answers = {name: config_of(name, 'xquad').evaluation for name in PRESETS}
    assert {name: (each.qa_decoding, each.qa_unaligned) for name, each in answers.items()} == {
        'jiant': ('reference', ('zh',)), 'xtreme': ('reference', ()), 'xtune': ('reference', ('zh', 'ko')),
    }  # fmt: skip
    raw = preset('jiant', ('xquad', 'xnli'))
    raw['evaluation']['qa_decoding'] = 'offsets'
    assert changes(parse(raw)) == ['evaluation.qa_decoding offsets (preset: reference)']
    raw = preset('xtreme', ('bucc2018',))
    raw['evaluation']['repeated_sentences'] = 'kept'
    assert changes(parse(raw)) == ['evaluation.repeated_sentences kept (preset: dropped)']


def test_targets_of_one_plan_have_layers_of_their_own() -> None:
    both = config_of('xtreme', 'tatoeba', 'bucc2018').evaluation
    assert (both.layer_of('tatoeba'), both.layer_of('bucc2018')) == (-1, 20)
    assert dict(config_of('jiant', 'tatoeba', 'bucc2018').evaluation.retrieval_layers) == {}


def test_intermediate_tasks_get_the_simple_apis_defaults() -> None:
    config = config_of('jiant', 'xnli', intermediate=('none', 'hellaswag'))
    found = config.recipe_for('hellaswag')
    assert (found.epochs, found.batch_size, found.max_length, found.optimizer.learning_rate) == (3, 32, 256, 1e-5)
    assert config.intermediate == ('none', 'hellaswag')
    assert config_of('xtreme', 'xcopa', intermediate=('siqa',)).recipe_for('siqa').epochs == 5


def test_a_target_trained_on_the_same_data_takes_its_recipe() -> None:
    assert covered_by('xtreme', 'americasnli') == 'xnli'
    assert recipe('xtreme', 'americasnli') == recipe('xtreme', 'xnli')
    assert covered_by('jiant', 'mlqa_cross') in ('xquad', 'mlqa')
    assert covered_by('jiant', 'lareqa') == ''
    assert covered_by('xtune', 'xcopa') == ''
    assert recipe('xtune', 'xcopa') == (3, 32, 256, 1e-5)
    assert any(
        'americasnli is not in its source; as xnli' in line for line in remarks(config_of('jiant', 'americasnli'))
    )


def test_what_is_not_said_and_what_was_changed_is_listed() -> None:
    raw = preset('jiant', ('xnli', 'tatoeba'), encoder='hf:xlm-roberta-large')
    assert changes(parse(raw)) == []
    assert len(remarks(parse(raw))) == len(PRESETS['jiant'].not_said)
    raw['recipes']['xnli']['epochs'] = 1.0
    raw['recipe']['optimizer']['learning_rate'] = 2e-5
    raw['evaluation']['retrieval_layer'] = 7
    raw['recipe']['log_every'] = 3
    assert changes(parse(raw)) == [
        'recipes.xnli.epochs 1.0 (preset: 2.0)',
        'recipes.xnli.optimizer.learning_rate 2e-05 (preset: 1e-05)',
        'evaluation.retrieval_layer 7 (preset: -1)',
    ]
    assert remarks(Config(targets=('xnli',))) == []


def test_the_argument_of_the_config_file() -> None:
    get_config = runpy.run_path(str(ROOT / 'configs' / 'xtreme.py'))['get_config']
    argument = 'preset=xtune,targets=xnli+pawsx,intermediate=none+mnli,encoder=hf:xlm-roberta-large,seeds=1+2'
    config = parse(get_config(argument).to_dict())
    assert (config.preset, config.targets, config.intermediate) == ('xtune', ('xnli', 'pawsx'), ('none', 'mnli'))
    assert (config.encoder.source, config.seeds) == ('hf:xlm-roberta-large', (1, 2))
    assert parse(get_config().to_dict()).preset == 'small'
    assert parse(get_config('targets=xnli,encoder=embedded').to_dict()).preset == 'small'
    assert parse(get_config('targets=xnli,encoder=hf:xlm-roberta-large').to_dict()).preset == 'jiant'
    assert parse(from_argument('targets=pawsx')).encoder.source == 'embedded'


@pytest.mark.parametrize(
    ('argument', 'said'),
    [
        ('preset=xtrem,targets=xnli', r"unknown 'xtrem' \(did you mean 'xtreme'\?\)"),
        ('preset=jiant', 'targets: name one task or more'),
        ('target=xnli', r"'target=xnli': unknown key 'target' \(did you mean 'targets'\?\)"),
        ('bogus=1', r"unknown key 'bogus' \(known: encoder, intermediate, preset, seeds, targets\)"),
        ('xnli', r"'xnli': expected KEY=VALUE \(keys: preset, targets, "),
        ('targets=', "'targets=': expected KEY=VALUE"),
        ('targets=xnli,targets=pawsx', "'targets' is given twice"),
        ('targets=xnli,seeds=one', 'seeds=one: numbers'),
    ],
)
def test_a_wrong_argument(argument: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        from_argument(argument)


def test_an_unknown_task_names_the_closest() -> None:
    with pytest.raises(TaskError, match=r"'xnly' \(did you mean 'xnli'"):
        preset('jiant', ('xnly',))


def test_the_command_line_says_it_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = f'--config={ROOT}/configs/xtreme.py:preset=jant,targets=xnli'
    assert main(['run', config, f'--workdir={tmp_path}']) == 1
    assert "did you mean 'jiant'?" in capsys.readouterr().err


def cells(line: str) -> list[str]:
    return [cell.strip().strip('`') for cell in line.strip('|').split('|')]


def test_the_table_of_targets_is_the_code() -> None:
    lines = DOCS.split('## By target')[1].split('## By setting')[0].splitlines()
    rows = [cells(line) for line in lines if line.startswith('| `')]
    assert {row[0] for row in rows if row[0] != 'target'} == {t for p in PRESETS.values() for t in p.recipes} - {'siqa'}
    assert [len(row) for row in rows] == [5] * len(rows)
    for target, _, *values in rows:
        for name, value in zip(('jiant', 'xtreme', 'xtune'), values, strict=True):
            if value == '–':
                assert covered_by(name, target) == ''
            else:
                assert tuple(float(part) for part in value.split(' / ')) == recipe(name, target)
    [rest] = [cells(line) for line in lines if line.startswith('| anything else')]
    for name, value in zip(('jiant', 'xtreme', 'xtune'), rest[2:], strict=True):
        assert tuple(float(part) for part in value.split(' / ')) == recipe(name, 'cosmosqa')


def test_every_preset_is_described() -> None:
    for name, chosen in PRESETS.items():
        assert f'| `{name}` |' in DOCS
        [home] = re.findall(r'[\w-]+/[\w]+', chosen.source)[:1]
        assert home in DOCS
        assert all(get_task(task) for task in chosen.recipes)
