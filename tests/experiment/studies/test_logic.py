"""The logic study as a config: size-matched arms, controls, and what stands in for training rows."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from xlmr_flax.config import Config, ConfigError, parse
from xlmr_flax.data.readers.paths import DATA_ROOT_VARIABLE
from xlmr_flax.experiment.plan.arms import arm_of, datasets, shuffled_labels, training_examples
from xlmr_flax.experiment.studies import logic as logic_study
from xlmr_flax.experiment.studies.presets import preset
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import PairExample
from xlmr_flax.tasks.languages import get_language

ROWS = ''.join(
    f'{{"uid": "{i}", "premise": "p {i}", "hypothesis": "h", "label": "{"enc"[i % 3]}"}}\n' for i in range(9)
)


def _config(argument: str) -> Config:
    return parse(ConfigDict(logic_study.from_argument(argument)).to_dict())


@pytest.mark.parametrize('argument', ['size=small,where=core', 'size=small,where=full', 'size=large,where=full'])
def test_every_arm_has_the_same_steps_and_rows(argument: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA_ROOT_VARIABLE, raising=False)
    config = _config(argument)
    assert config.intermediate[0] == 'none' and len(config.seeds) >= 3
    steps, rows = set(), set()
    for name in config.intermediate[1:]:
        recipe = config.recipe_for(name)
        steps.add((recipe.steps, recipe.batch_size, recipe.keep, recipe.optimizer))
        spec = config.arms.get(name)
        rows.add(round(sum(m.max_train for m in spec.tasks.values()) if spec else recipe.max_train, -2))
        found = datasets(config, arm_of(config, name), config.recipe, 'x')
        assert {d.task.kind for d in found} <= {'pair', 'tag', 'choice'}
    assert len(steps) == 1 and len(rows) == 1
    assert rows == {4000 if 'small' in argument else 4500}
    assert set(config.targets) >= set(logic_study.CORE_TARGETS)
    assert [note.split(':')[0] for note in logic_study.notes(config)] == [f'arm {a}' for a in config.intermediate[1:]]


def test_the_full_grid_has_what_the_question_asks_for() -> None:
    config = _config('size=large,where=full')
    assert config.encoder.source == 'hf:xlm-roberta-large'
    found = {name: datasets(config, arm_of(config, name), config.recipe, 'x') for name in config.arms}
    trained = {name: {d.task.name for d in those} for name, those in found.items()}
    assert trained['logic'] == set(logic_study.MIXTURE) and len(trained['logic']) == 10
    assert trained['logic_mnli'] == trained['logic'] | {'mnli'}
    assert trained['logic_shuffled'] == trained['logic'] and trained['logiqa_mrc'] == {'logiqa2'}
    spoken = {code for name in config.targets for code in get_task(name).languages}
    assert {'sw', 'yo', 'ay', 'qu', 'my', 'bm', 'ht'} <= spoken
    assert all(m.shuffle_labels for m in config.arms['logic_shuffled'].tasks.values())


def test_the_core_is_the_preregistered_study() -> None:
    config = _config('size=small,where=core')
    assert config.intermediate == (
        'none', 'logic', 'logic_shuffled', 'mnli', 'pos_tags', 'proofwriter', 'logic_mnli'
    )  # fmt: skip
    assert config.targets[:2] == ('xnli_plus', 'sib200') and config.seeds == (11, 12, 13, 14, 15)
    assert {get_task(name).kind for name in config.targets} == {'pair', 'tag', 'retrieval'}
    low = {
        name: [code for code in codes if get_language(code).resource_level == 'low']
        for name, codes in config.evaluation.languages.items()
    }
    assert (len(low['xnli_plus']), len(low['sib200']), config.evaluation.max_examples) == (18, 25, 200)
    every = {
        name: sorted(code for code in get_task(name).languages if get_language(code).resource_level == 'low')
        for name in ('xnli_plus', 'sib200')
    }
    assert sorted({*low['xnli_plus']} - {'my'}) == every['xnli_plus'][1::2]
    assert low['sib200'] == every['sib200'][5::6]
    assert _config('intermediate=none+logic,targets=panx,rows=64').recipe_for('logic').steps == 4


def test_masked_language_modelling_is_an_arm_only_where_it_is_named() -> None:
    config = _config('intermediate=none+mlm+logic,targets=sib200_retrieval')
    assert config.intermediate == ('none', 'mlm', 'logic')
    assert config.recipe_for('mlm') == config.recipe_for('logic')
    assert 'udhr all' in logic_study.notes(config)[0]
    (text, *others) = datasets(config, arm_of(config, 'mlm'), config.recipe, 'x')
    assert {d.task.kind for d in (text, *others)} == {'mlm'} and len(others) > 100
    for where in logic_study.WHERE:
        config = _config(f'where={where}')
        assert 'mlm' not in config.intermediate and 'mlm' not in config.arms
    with pytest.raises(ConfigError, match="'mlm'"):
        _config('intermediate=none+mlmm')


def test_the_small_study_has_the_recipe_of_the_preset() -> None:
    config, small = _config('size=small,where=core'), parse(preset('small', ('xnli', 'sib200')))
    assert config.recipe_for('xnli_plus').optimizer == small.recipe_for('xnli').optimizer
    for name, other in (('xnli_plus', 'xnli'), ('sib200', 'sib200')):
        ours, theirs = config.recipe_for(name), small.recipe_for(other)
        for field in ('epochs', 'steps', 'batch_size', 'max_length', 'max_train'):
            assert getattr(ours, field) == getattr(theirs, field), (name, field)
    assert config.encoder.head == small.encoder.head
    for name in config.intermediate[1:]:
        want = dataclasses.replace(small.recipe_for('sib200').optimizer, learning_rate=logic_study.SMALL_ARM_RATE)
        assert config.recipe_for(name).optimizer == want, name


def test_dev_rows_stand_in_only_where_there_are_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(tmp_path))
    assert logic_study.training_rows('control') == '', 'nothing is there: the plan says which file is missing'
    folder = tmp_path / 'logic' / 'control'
    folder.mkdir(parents=True)
    (folder / 'dev.jsonl').write_text(ROWS, encoding='utf-8')
    assert logic_study.training_rows('control') == 'dev'
    config = _config('where=full,intermediate=none+control_nli,targets=panx,rows=6')
    (dataset,) = datasets(config, config.arms['control_nli'], config.recipe_for('control_nli'), 'x')
    assert dataset.split == 'dev' and not dataset.selects()
    assert [e.id for e in training_examples(dataset, 1)] == list('012345')
    assert '(its dev rows)' in logic_study.notes(config)[0]
    (folder / 'train.jsonl').write_text(ROWS, encoding='utf-8')
    assert logic_study.training_rows('control') == ''
    config = _config('where=full,intermediate=none+control_nli,targets=panx')
    (dataset,) = datasets(config, config.arms['control_nli'], config.recipe, 'x')
    assert dataset.split == 'train' and dataset.selects()


def test_labels_dealt_anew_keep_their_numbers_and_say_nothing() -> None:
    rows = [PairExample(str(i), f'text {i}', None, i % 3) for i in range(300)]
    dealt = shuffled_labels(rows, 1)
    assert Counter(e.label for e in dealt if isinstance(e, PairExample)) == Counter(e.label for e in rows)
    assert 70 < sum(a == b for a, b in zip(rows, dealt, strict=True)) < 130
    assert dealt == shuffled_labels(rows, 1) != shuffled_labels(rows, 2)


@pytest.mark.parametrize(
    ('argument', 'said'),
    [
        ('size=smal', "not one of large, base, small, tiny (did you mean 'small'?)"),
        ('where=small', 'not one of core, full'),
        ('rows=many', 'a number is expected'),
        ('intermediate=logik', "'logik' is not in the study (did you mean 'logic'?)"),
    ],
)
def test_unknown_values_are_refused_and_the_known_ones_named_once(argument: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        logic_study.from_argument(argument)
    assert str(caught.value) == f'config argument {argument}: {said}'
