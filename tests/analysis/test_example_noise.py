"""The noise of test examples that languages share: from prediction files to intervals, and what is saved of it."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlmr_flax.analysis.crossed_effects import Examples
from xlmr_flax.analysis.example_noise import _units, example_noise, read_noise, to_json
from xlmr_flax.analysis.language_effects import comparisons, effects
from xlmr_flax.analysis.study_report import write_report_again
from xlmr_flax.config import parse, to_dict
from xlmr_flax.data.sources import read_split
from xlmr_flax.experiment.workdir.files import Workdir
from xlmr_flax.kinds import kind_of, prediction_path, read_gold_set, score_files
from xlmr_flax.report import write_effects
from xlmr_flax.tasks import get_task

N, LANGUAGES, SEEDS = 60, ('en', 'de', 'ru', 'sw'), (1, 2)
CONFIG = parse(
    {
        'intermediate': ('none', 'world_nli'),
        'targets': ('world_pairs',),
        'evaluation': {'max_examples': N},
        'seeds': SEEDS,
    }
)


def _workdir(root: Path, shared: bool) -> tuple[Workdir, list[dict[str, Any]]]:
    """`world_nli` is right where `none` is wrong, on some rows: on the same ones in all languages, or on others."""
    task, rows = get_task('world_pairs'), []
    for seed in SEEDS:
        for arm in ('none', 'world_nli'):
            for number, language in enumerate(LANGUAGES):
                examples: Any = read_split(task, language, 'test', None, N)
                rng = random.Random(5 if shared else 10 * number + seed)
                hard = [rng.random() < 0.4 for _ in examples]
                wrong = [bad and arm == 'none' for bad in hard]
                said = [task.labels[(e.label + bad) % len(task.labels)] for e, bad in zip(examples, wrong, strict=True)]
                path = prediction_path(root / 'predictions' / f'{arm}-seed{seed}', task, language)
                kind_of(task).write(path, said)
                scores = score_files(task, language, path, examples)
                rows.append(
                    {
                        'encoder': 'small', 'intermediate': arm, 'target': 'world_pairs', 'language': language,
                        'split': 'test', 'metric': 'accuracy', 'value': scores['accuracy'], 'n': len(examples),
                        'seed': seed, 'step': 1, 'run': f'{arm}{seed}',
                    }
                )  # fmt: skip
    found = Workdir(root)
    found.write_results(rows)
    return found, rows


def test_examples_that_are_hard_in_all_languages_are_the_variance_of_the_mean(tmp_path: Path) -> None:
    place, rows = _workdir(tmp_path, shared=True)
    [(key, found)] = example_noise(place, CONFIG, rows).items()
    assert key == ('small', 'world_pairs', 'accuracy', 'test', 'world_nli', 'none', 'all', 'de+ru+sw', '1+2')
    share = np.mean([row['value'] for row in rows if row['intermediate'] == 'none']) / 100
    assert found.units == N
    assert found.variance == pytest.approx(1e4 * share * (1 - share) / (N - 1))  # of a mean over N draws


def test_examples_of_each_language_alone_are_none_of_it(tmp_path: Path) -> None:
    place, rows = _workdir(tmp_path, shared=False)
    [found] = example_noise(place, CONFIG, rows).values()
    assert abs(float(found.variance)) < 10 < 1e4 * 0.24 / (N - 1)


def test_intervals_tables_and_power_include_it(tmp_path: Path) -> None:
    place, rows = _workdir(tmp_path, shared=True)
    noise = example_noise(place, CONFIG, rows)
    plain, wider = effects(rows), effects(rows, noise=noise)
    (before,), (after,) = plain['means'], wider['means']
    assert after['estimate'] == before['estimate'] and after['high'] > before['high']
    assert 'example_share' not in before and after['example_share'] == pytest.approx(1.0)
    assert wider['power'][0]['error_examples'] == pytest.approx(float(noise[next(iter(noise))].variance) ** 0.5)
    assert wider['power'][0]['smallest'] > plain['power'][0]['smallest']
    text = {}
    for name, found in (('plain', plain), ('wider', wider)):
        write_effects(tmp_path / name, found)
        text[name] = (tmp_path / name / 'effects.md').read_text(encoding='utf-8')
    assert 'Examples %' in text['wider'] and 'Examples %' not in text['plain']


def test_a_report_of_a_workdir_saves_it_and_keeps_what_is_known(tmp_path: Path) -> None:
    place, rows = _workdir(tmp_path, shared=True)
    saved = {'command': 'xlmr-flax run', 'config': to_dict(CONFIG)}
    (tmp_path / 'config.json').write_text(json.dumps(saved), encoding='utf-8')
    write_report_again(tmp_path, {})
    path = tmp_path / 'example_noise.json'
    assert read_noise(path) == example_noise(place, CONFIG, rows)
    assert 'Examples %' in (tmp_path / 'report' / 'effects.md').read_text(encoding='utf-8')
    before = path.read_bytes()
    shutil.rmtree(tmp_path / 'predictions')
    write_report_again(tmp_path, {})
    assert path.read_bytes() == before
    assert 'Examples %' in (tmp_path / 'report' / 'effects.md').read_text(encoding='utf-8')


def test_a_saved_number_belongs_to_its_languages_and_seeds(tmp_path: Path) -> None:
    place, rows = _workdir(tmp_path, shared=True)
    noise = example_noise(place, CONFIG, rows)
    more = [*rows, *({**row, 'seed': 3} for row in rows if row['seed'] == 1)]
    [record] = effects(more, noise=noise)['means']
    assert record['seeds'] == 3 and 'example_share' not in record
    assert [each.seeds for each in comparisons(more)] == [(1, 2, 3)]


def test_missing_predictions_and_other_scores_have_no_number(tmp_path: Path) -> None:
    place, rows = _workdir(tmp_path, shared=True)
    assert example_noise(place, CONFIG, [{**row, 'metric': 'macro_f1'} for row in rows]) == {}
    next(place.path.rglob('world_nli-seed2/**/*-ru.tsv')).unlink()
    assert example_noise(place, CONFIG, rows) == {}


def test_languages_share_the_examples_of_a_retrieval_with_the_same_queries() -> None:
    task = get_task('world_retrieval')
    german, swahili = (read_gold_set(task, code, 'test', '', 20, False) for code in ('de', 'sw'))
    assert len(german.queries) == len(german.ids) == 20
    [first, second] = _units([german, swahili])
    np.testing.assert_array_equal(first, second)
    [first, other] = _units([german, replace(swahili, queries=swahili.queries[::-1])])
    assert not set(first.tolist()) & set(other.tolist())


@pytest.mark.parametrize('target', ['ccg', 'no_such_task'])
def test_targets_without_labels_or_task_have_no_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    """CCG's labels come from its files."""
    place, rows = _workdir(tmp_path, shared=True)
    config = replace(CONFIG, data_root=str(tmp_path / 'nowhere'))
    assert example_noise(place, config, [{**row, 'target': target} for row in rows]) == {}
    assert target in capsys.readouterr().err


def test_it_is_saved_and_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = {('a', 'b'): Examples(0.25, 200), ('a', 'c'): Examples(-0.5, 200)}
    path = tmp_path / 'example_noise.json'
    path.write_text(json.dumps(to_json(noise)), encoding='utf-8')
    assert read_noise(path) == noise
    assert read_noise(tmp_path / 'none.json') == {}
    saved: list[Any] = [*to_json(noise), {'key': 'a', 'variance': 1, 'units': 2}, 3]
    path.write_text(json.dumps(saved), encoding='utf-8')
    assert read_noise(path) == noise
    assert capsys.readouterr().err.count('left out') == 2
    path.write_text('[', encoding='utf-8')
    assert read_noise(path) == {}
    assert str(path) in capsys.readouterr().err
