"""Collapsed trainings: the rule, what a run records, and what its result rows say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xlmr_flax.config import Config
from xlmr_flax.experiment import dev_selection
from xlmr_flax.experiment.collapse import describe, one_class, over_phases
from xlmr_flax.experiment.runner import Runner
from xlmr_flax.experiment.training import trained_facts
from xlmr_flax.kinds import kind_of
from xlmr_flax.report import read_rows
from xlmr_flax.scoring import files
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import TagExample

Configs = Callable[..., Config]


@pytest.mark.parametrize(
    ('predicted', 'gold', 'text'),
    [
        ('a' * 95 + 'b' * 5, 'a' * 40 + 'b' * 60, 'a in 95 of 100 rows'),
        ('a' * 94 + 'b' * 6, 'a' * 40 + 'b' * 60, ''),
        ('c' * 20, 'a' * 10 + 'b' * 10, 'c in 20 of 20 rows'),
        ('a' * 100, 'a' * 95 + 'b' * 5, ''),  # the gold labels are one class themselves
        ('b' * 100, 'a' * 94 + 'b' * 6, 'b in 100 of 100 rows'),
    ],
)
def test_one_class_for_nearly_all_rows_is_a_collapse(predicted: str, gold: str, text: str) -> None:
    assert one_class(list(gold), list(predicted)) == text


def test_a_mixture_collapses_as_a_whole() -> None:
    assert describe({}) is None
    assert describe({'a': 'x in 20 of 20 rows', 'b': ''}) == ''
    assert describe({'a': 'x in 20 of 20 rows', 'b': 'y in 30 of 30 rows'}) == (
        'a dev: x in 20 of 20 rows; b dev: y in 30 of 30 rows'
    )


def test_a_score_names_every_collapsed_training_behind_it() -> None:
    assert over_phases([None, {'step': 3}]) is None
    assert over_phases([{'collapsed': ''}, None]) == ''
    assert over_phases([{'collapsed': 'a'}, {'collapsed': ''}, {'collapsed': 'b'}]) == 'a; b'


@pytest.fixture
def config(config_of: Configs) -> Config:
    return config_of(
        intermediate=('none', 'world_nli'),
        targets=('world_pairs', 'world_retrieval', 'world_pos'),
        evaluation__languages={'world_pairs': ('de',), 'world_retrieval': ('de',), 'world_pos': ('de',)},
        recipe__eval_examples=40,
        recipe__steps=2,
    )


def classes_of(monkeypatch: pytest.MonkeyPatch, changed: dict[str, str]) -> None:
    """Makes every dev prediction of some tasks one class."""
    real = dev_selection.Evaluator.predict

    def predict(self: Any, task: Any, examples: Any, path: Path, *rest: Any) -> None:
        real(self, task, examples, path, *rest)
        if task.name in changed:
            files.write_labels(path, [changed[task.name]] * len(examples))

    monkeypatch.setattr(dev_selection.Evaluator, 'predict', predict)


def test_rows_say_which_training_collapsed(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classes_of(monkeypatch, {'world_nli': 'neutral'})
    runner = Runner.open(config, tmp_path / 'w', 'x')
    runner.run()
    rows = {(row['intermediate'], row['target']): row for row in read_rows(tmp_path / 'w' / 'results.jsonl')}
    arm = 'world_nli dev: neutral in 40 of 40 rows'
    assert 'collapsed' not in rows['none', 'world_retrieval']  # nothing is trained
    assert rows['world_nli', 'world_retrieval']['collapsed'] == arm
    for target in ('world_pairs', 'world_pos'):
        direct, after = [rows[name, target]['collapsed'] for name in ('none', 'world_nli')]
        assert after.removeprefix(arm).removeprefix('; ') == trained(runner, 'world_nli', target)['collapsed']
        assert direct == trained(runner, 'none', target)['collapsed']


def trained(runner: Runner, arm: str, target: str) -> dict[str, Any]:
    [run] = [run for run in runner.plan if (run.intermediate, run.target) == (arm, target)]
    facts = trained_facts(runner.setting, run)
    assert facts is not None
    return facts


NOUNS = 'NOUN NOUN NOUN|NOUN NOUN|NOUN'
VARIED = 'NOUN VERB NOUN|NOUN NOUN|PUNCT'


@pytest.mark.parametrize(
    ('predicted', 'gold', 'text'),
    [
        (NOUNS, VARIED, 'NOUN in 30 of 30 rows'),
        ('NOUN PUNCT NOUN|NOUN PUNCT|PUNCT NOUN', VARIED, 'NOUN PUNCT in 30 of 30 rows'),
        (VARIED, VARIED, ''),
        (NOUNS, NOUNS, ''),
    ],
)
def test_a_tagger_collapses_if_all_sentences_get_the_same_tags(
    predicted: str, gold: str, text: str, tmp_path: Path
) -> None:
    task = get_task('udpos')
    sentences, wanted = ([line.split() for line in side.split('|')] * 10 for side in (predicted, gold))
    files.write_tags(tmp_path / 'dev.tsv', sentences)
    examples = [
        TagExample(str(i), tuple('w' * len(tags)), tuple(task.labels.index(tag) for tag in tags))
        for i, tags in enumerate(wanted)
    ]
    classes = kind_of(task).classified(task, tmp_path / 'dev.tsv', examples)
    assert classes is not None
    assert one_class(*classes) == text


@pytest.mark.parametrize(('changes', 'tested'), [({}, True), ({'recipe__eval_examples': 19}, False)])
def test_few_dev_rows_are_not_tested(
    changes: dict[str, Any], tested: bool, config_of: Configs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes_of(monkeypatch, {'world_pairs': '1'})
    wanted: dict[str, Any] = {'recipe__eval_examples': 20, 'recipe__steps': 1, **changes}
    config = config_of(intermediate=('none',), targets=('world_pairs',), **wanted)
    runner = Runner.open(config, tmp_path / 'w', 'x')
    rows = runner.run()
    assert {row.get('collapsed') for row in rows} == ({'world_pairs dev: 1 in 20 of 20 rows'} if tested else {None})


def test_shuffled_labels_are_not_tested(config_of: Configs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They can teach nothing but the most frequent class."""
    classes_of(monkeypatch, {'world_nli': 'neutral'})
    arms = {'shuffled': {'tasks': {'world_nli': {'shuffle_labels': True}}}}
    config = config_of(
        intermediate=('shuffled',), arms=arms, targets=('world_retrieval',), recipe__eval_examples=40, recipe__steps=1
    )
    runner = Runner.open(config, tmp_path / 'w', 'x')
    assert all('collapsed' not in row for row in runner.run())


def test_the_kept_weights_are_tested(config_of: Configs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the best weights kept, those of an earlier step, not the last evaluation."""
    scores, predictions = iter([2.0, 1.0]), iter(['0', '1', '0'])
    real = dev_selection.Selection.evaluate

    def evaluate(self: Any, *rest: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            classes_of(patch, {'world_pairs': next(predictions)})
            found = dict(real(self, *rest))
        return {**found, 'dev_metric': next(scores, 2.0)}

    monkeypatch.setattr(dev_selection.Selection, 'evaluate', evaluate)
    config = config_of(
        intermediate=('none',), targets=('world_pairs',), recipe__eval_examples=20, recipe__steps=2,
        recipe__eval_every=1, recipe__keep='best',
    )  # fmt: skip
    runner = Runner.open(config, tmp_path / 'w', 'x')
    runner.run()
    facts = trained(runner, 'none', 'world_pairs')
    assert (facts['step'], facts['collapsed']) == (1, 'world_pairs dev: 0 in 20 of 20 rows')
    assert next(predictions, '') == ''
    text = json.dumps([row['collapsed'] for row in read_rows(tmp_path / 'w' / 'results.jsonl')])
    assert 'world_pairs dev: 0' in text
