"""Effects by language: what is compared with what, in which languages, and what reaches tables, files and figures."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from logic_rows import logic_rows

from xlmr_flax.analysis.language_effects import JOINT, PROPERTIES, effects
from xlmr_flax.analysis.study_report import study_effects, write_results_report
from xlmr_flax.experiment.studies.logic import contrasts
from xlmr_flax.report import write_effects
from xlmr_flax.report.effects import effect_sentences, effect_tables

EFFECT, SLOPE = {'mnli': 4.0, 'logic': 2.0}, {'logic': -2.0}


@pytest.fixture(scope='module')
def rows() -> list[dict[str, Any]]:
    return logic_rows(EFFECT, SLOPE, sds=(0.5, 0.2, 0.8))


@pytest.fixture(scope='module')
def found(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    tokens = {'small': {'xnli_plus': {row['language']: 1.5 + len(row['language']) for row in rows}}}
    return effects(rows, contrasts({row['intermediate'] for row in rows}), tokens)


def _mean(found: dict[str, list[dict[str, Any]]], arm: str, group: str = 'all', against: str = 'none') -> Any:
    wanted = ('xnli_plus', arm, group, against)
    for record in found['means']:
        if (record['target'], record['intermediate'], record['group'], record['against']) == wanted:
            return record
    raise AssertionError(wanted)


def test_means_are_those_of_the_rows(found: Any, rows: list[dict[str, Any]]) -> None:
    def score(arm: str, code: str, seed: int) -> float:
        wanted = ('xnli_plus', arm, code, seed)
        return next(r['value'] for r in rows if (r['target'], r['intermediate'], r['language'], r['seed']) == wanted)

    codes = {row['language'] for row in rows if row['target'] == 'xnli_plus'} - {'en'}
    every = [score('mnli', code, seed) - score('none', code, seed) for code in codes for seed in (1, 2, 3)]
    record = _mean(found, 'mnli')
    assert record['estimate'] == pytest.approx(sum(every) / len(every))
    assert (record['languages'], record['seeds'], record['family']) == (19, 3, 5)
    assert record['low'] < 4.0 < record['high'] and record['p_holm'] < 0.05
    assert _mean(found, 'logic_shuffled')['p_holm'] > 0.05
    assert _mean(found, 'mnli', 'not in CC-100')['languages'] == 10
    assert _mean(found, 'logic', against='logic_shuffled')['estimate'] == pytest.approx(
        _mean(found, 'logic')['estimate'] - _mean(found, 'logic_shuffled')['estimate']
    )


def test_lines_find_the_slope_that_was_put_in(found: Any) -> None:
    lines = {(r['target'], r['intermediate'], r['property']): r for r in found['lines']}
    with_slope = lines['xnli_plus', 'logic', 'log10 CC-100 GiB']
    assert with_slope['low'] < -2.0 < with_slope['high'] < 0
    assert (
        lines['xnli_plus', 'mnli', 'log10 CC-100 GiB']['low']
        < 0
        < lines['xnli_plus', 'mnli', 'log10 CC-100 GiB']['high']
    )
    known = set(PROPERTIES) - {'in pretraining'}
    assert {name for _, _, name in lines} == known
    assert with_slope['family'] == 5 * len(known)
    assert len(with_slope['points']) == 19
    (first, *_, last) = with_slope['at']
    assert (last[1] - first[1]) / (last[0] - first[0]) == pytest.approx(with_slope['slope'])
    assert all(low <= middle <= high for _, middle, low, high in with_slope['at'])


def _groups(found: Any) -> dict[str, int]:
    wanted = [r for r in found['means'] if (r['target'], r['intermediate'], r['against']) == ('panx', 'mnli', 'none')]
    return {r['group']: r['languages'] for r in wanted}


def test_what_an_encoder_has_read_is_not_xlmrs_list(rows: list[dict[str, Any]]) -> None:
    """By `seen` alone, and only where it differs from CC-100."""
    panx = [row for row in rows if row['target'] == 'panx']
    plain = _groups(effects(panx))
    assert not any('pretraining' in group for group in plain) and 'in CC-100' in plain
    same = effects([row | {'seen': row['cc100_gib'] > 0} for row in panx if row['cc100_gib'] is not None])
    assert not any('pretraining' in group for group in _groups(same))
    assert 'in pretraining' not in {r['property'] for r in same['lines']}
    last = sorted({row['language'] for row in panx})[-3:]
    other = effects([row | {'seen': row['language'] not in last} for row in panx])
    assert _groups(other)['not in pretraining'] == 3
    assert 'in pretraining' in {r['property'] for r in other['lines']}
    assert {r['seen'] for r in other['languages'] if r['language'] in last} == {False}


def test_tokens_per_word_are_those_of_their_encoder(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    panx = [row for row in rows if row['target'] == 'panx' and row['intermediate'] in ('none', 'mnli')]
    values = {row['language']: 1.5 for row in panx}
    (tmp_path / 'tokens_per_word.json').write_text(json.dumps({'panx': values}), 'utf-8')
    both = panx + [row | {'encoder': 'large'} for row in panx]
    for encoder, expected in (('small', {'small'}), ('large', {'large'}), ('', set())):
        found = study_effects(tmp_path, both, encoder)['languages']
        assert {r['encoder'] for r in found if r['tokens_per_word']} == expected
    assert all(r['tokens_per_word'] for r in study_effects(tmp_path, panx)['languages'])


def test_properties_together(found: Any) -> None:
    joint = {(r['target'], r['intermediate'], r['property']): r for r in found['joint']}
    assert {name for _, _, name in joint} == set(JOINT)
    assert {target for target, _, _ in joint} == {'xnli_plus'}, 'the others have no tokens per word'
    size = joint['xnli_plus', 'logic', 'log10 CC-100 GiB']
    assert size['low'] < -2.0 < size['high'] < 0
    codes = {r['language'] for r in found['languages'] if r['target'] == 'xnli_plus' and r['tokens_per_word']}
    assert size['languages'] == len(codes) and size['family'] == 20


def test_power_and_sentences(found: Any) -> None:
    power = {(r['target'], r['group']): r for r in found['power']}
    assert 0 < power['xnli_plus', 'all']['smallest'] < 3
    said = effect_sentences(found)
    assert len(said) == 3 and said[0].startswith('xnli_plus (small), 12 low-resource languages: ')
    assert 'mnli +' in said[0] and 'smallest detectable difference is' in said[0]


def test_a_language_without_all_seeds_and_an_arm_with_one_are_left_out(rows: list[dict[str, Any]]) -> None:
    kept = [r for r in rows if (r['intermediate'], r['language'], r['seed']) != ('mnli', 'sw', 2)]
    kept = [r for r in kept if r['intermediate'] != 'conjnli' or r['seed'] == 1]
    found = effects([r for r in kept if r['target'] == 'xnli_plus'])
    assert _mean(found, 'mnli')['languages'] == 18
    assert 'conjnli' not in {r['intermediate'] for r in found['means']}
    assert effects([r for r in rows if r['seed'] == 1])['means'] == []
    assert effects([r for r in rows if r['intermediate'] != 'none'])['means'] == []


def test_files_come_from_a_folder_of_results_alone(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / 'results.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows), encoding='utf-8')
    said = write_results_report(tmp_path)
    assert 'tables.md' in said and 'effects.md' in said
    text = (tmp_path / 'effects.md').read_text(encoding='utf-8')
    assert '**Power: smallest detectable differences**' in text and '**Arms against controls**' in text
    with open(tmp_path / 'effects-means.csv', encoding='utf-8') as file:
        assert {'estimate', 'low', 'high', 'p_holm', 'group'} <= set(next(csv.reader(file)))
    assert (tmp_path / 'effects.tex').read_text(encoding='utf-8').startswith(r'\documentclass')
    names = {path.name for path in (tmp_path / 'figures').iterdir()}
    assert {'effects-forest.svg', 'effects-size-xnli_plus.svg'} <= names
    drawing = (tmp_path / 'figures' / 'effects-size-xnli_plus.svg').read_text(encoding='utf-8')
    assert '>bzd<' in drawing and '>logic_shuffled: ' in drawing
    before = {path: path.read_bytes() for path in tmp_path.rglob('effects*')}
    write_effects(tmp_path, study_effects(tmp_path, rows))
    assert before == {path: path.read_bytes() for path in tmp_path.rglob('effects*')}, 'the same again'


def test_nothing_to_show_writes_nothing(tmp_path: Path) -> None:
    assert write_effects(tmp_path, effects([])) == []
    assert list(tmp_path.iterdir()) == []


def test_collapsed_runs_are_left_out_and_named(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    wanted = {('mnli', 'xnli_plus', 2): 'mnli dev: neutral in 99 of 100 rows'}
    marked = [
        {**row, 'collapsed': wanted.get((row['intermediate'], row['target'], row['seed']), ''), 'value': row['value']}
        for row in rows
    ]
    for row in marked:
        if row['collapsed']:
            row['value'] = 33.3
    found = effects(marked)
    assert found['excluded'] == [
        {'encoder': 'small', 'target': 'xnli_plus', 'intermediate': 'mnli', 'seed': 2, 'of': 18,
         'collapsed': 'mnli dev: neutral in 99 of 100 rows'},
    ]  # fmt: skip
    without = effects([row for row in rows if (row['intermediate'], row['target'], row['seed']) not in wanted])
    assert {key: value for key, value in found.items() if key != 'excluded'} == {
        key: value for key, value in without.items() if key != 'excluded'
    }
    assert _mean(found, 'mnli')['seeds'] == 2 and _mean(found, 'logic')['seeds'] == 3
    power = [r for r in found['power'] if (r['target'], r['group']) == ('xnli_plus', 'all')]
    assert [(r['seeds'], 'mnli' in r['arms'].split('+')) for r in power] == [(3, False), (2, True)]
    assert power[1]['arms'] == 'mnli'
    [lines] = [table.lines for table in effect_tables(found) if table.name == 'effects-power']
    assert [line.cells[2] for line in lines if line.cells[:2] == ('xnli_plus', 'all')][1] == 'mnli'
    assert {line.cells[2] for line in lines if line.cells[0] != 'xnli_plus'} == {'all'}
    said = effect_sentences(found)
    assert 'points with 3 seeds and ' in said[0] and 'points with 2 seeds (80 % power)' in said[0]
    assert said[-1].startswith('xnli_plus (small): 1 of 18 runs are collapsed') and 'mnli seed 2' in said[-1]
    write_effects(tmp_path, found)
    with open(tmp_path / 'effects-excluded.csv', encoding='utf-8') as file:
        assert [row['seed'] for row in csv.DictReader(file)] == ['2']
    assert effects(rows)['excluded'] == []
