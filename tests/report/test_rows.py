"""Reading rows and averaging them, against cases worked by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xlmr_flax.report import rows as r


def write(path: Path, *lines: object) -> Path:
    path.write_text('\n'.join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding='utf-8')
    return path


def test_read_keeps_the_last_of_a_key_in_the_place_of_the_first(tmp_path, make_row):
    rows = [make_row('de', 50, step=10), make_row('sw', 40), '', make_row('de', 55, step=20)]
    found = r.read_rows(write(tmp_path / 'rows.jsonl', *rows))
    assert [(row['language'], row['value'], row['step']) for row in found] == [('de', 55, 20), ('sw', 40, 10)]


def test_another_seed_split_or_metric_is_another_row(tmp_path, make_row):
    others = [make_row(seed=1), make_row(split='dev'), make_row(metric='f1'), make_row(encoder='large')]
    assert len(r.read_rows(write(tmp_path / 'rows.jsonl', make_row(), *others))) == 5


def without(row, field):
    return {name: value for name, value in row.items() if name != field}


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (lambda row: without(row, 'seed'), "field 'seed' is missing"),
        (lambda row: without(row, 'metric') | {'metrics': 'f1'}, "'metric' is missing (there is 'metrics')"),
        (lambda row: row | {'value': '71'}, "field 'value' is '71', a str"),
        (lambda row: row | {'value': True}, "field 'value' is True"),
        (lambda row: row | {'value': float('nan')}, 'NaN is not a JSON value'),
        (lambda row: row | {'n': 2.5}, "field 'n' is 2.5, a float"),
        (lambda row: [row], 'a row is a JSON object, not list'),
        (lambda row: '{"encoder": ', 'not JSON'),
    ],
)
def test_a_bad_row_names_file_and_line(tmp_path, make_row, change, said):
    path = write(tmp_path / 'rows.jsonl', make_row(), change(make_row('sw')))
    with pytest.raises(r.RowsError) as error:
        r.read_rows(path)
    assert f'{path}:2' in str(error.value)
    assert said in str(error.value)


@pytest.mark.parametrize('field', [*r.OPTIONAL, 'value'])
def test_a_bad_optional_field_names_file_line_and_field(tmp_path, make_row, field):
    bad = [[], {}, ['x']] + ([5] if r.OPTIONAL.get(field) is str else ['x', 1e308, 10**399, True])
    bad += [-1] * (field in ('chance', 'cc100_gib', 'left_out')) + [1.5] * (field == 'left_out')
    for value in bad:
        if field in ('english', 'seen') and value is True:
            continue
        path = write(tmp_path / 'rows.jsonl', make_row(), make_row('sw', **{field: value}))
        with pytest.raises(r.RowsError) as error:
            r.read_rows(path)
        assert str(error.value).startswith(f'{path}:2: field {field!r} is ')
        assert len(str(error.value)) < 600
    if field != 'value':  # null stands for a missing field
        r.read_rows(write(tmp_path / 'rows.jsonl', make_row(**{field: None})))


def test_languages_come_by_resource_level_then_size(study):
    assert ' '.join(r.languages(r.scored(study, 'xnli'))) == 'en ru de zh ar hi th bg el ur te sw'
    assert 'en' not in r.languages(study, zero_shot=True)


def test_english_is_what_the_row_says_and_otherwise_the_code(make_row):
    rows = [make_row('en'), make_row('de', english=True), make_row('eng', english=False), make_row('sw')]
    assert r.languages(rows, zero_shot=True) == ['eng', 'sw']


def test_scored_takes_the_major_metric_and_the_test_split(make_row):
    rows = [make_row(split='dev', metric='f1'), make_row(split='test', metric='f1'), make_row(metric='exact_match')]
    assert [(row['metric'], row['split']) for row in r.scored(rows, 'xnli')] == [('f1', 'test')]
    assert r.scored(rows, 'xnli', split='dev')[0]['split'] == 'dev'
    with pytest.raises(r.RowsError, match=r"no rows of target 'xquad' \(there are: xnli\)"):
        r.scored(rows, 'xquad')
    with pytest.raises(r.RowsError, match="metric 'bleu'"):
        r.scored(rows, 'xnli', metric='bleu')


def test_means_within_a_seed_then_over_seeds():
    values = {'de': {0: 50.0, 1: 54.0}, 'sw': {0: 40.0, 1: 42.0}}
    assert r.seed_means(values, ['de', 'sw']) == {0: 45.0, 1: 48.0}
    score = r.language_mean(values, ['de', 'sw'])
    assert score == r.Score(46.5, pytest.approx(3 / 2**0.5), 2)  # sample deviation of 45 and 48


def test_a_missing_language_makes_the_mean_partial():
    score = r.language_mean({'de': {0: 50.0, 1: 54.0}, 'sw': {0: 40.0}}, ['de', 'sw'])
    assert score == r.Score(46.0, None, 2, partial=True)
    assert r.language_mean({'de': {0: 50.0}}, ['sw']) is None


def test_delta_pairs_seeds_and_languages():
    base = {'de': {0: 50.0, 1: 60.0}, 'sw': {0: 40.0, 1: 50.0}}
    ours = {'de': {0: 52.0, 1: 63.0}, 'sw': {0: 43.0, 1: 54.0}}
    # by seed: (2 + 3) / 2 and (3 + 4) / 2; their spread is small although the seeds themselves lie ten points apart
    assert r.delta(ours, base, ['de', 'sw']) == r.Score(3.0, pytest.approx(0.5**0.5), 2)
    assert r.delta(ours, {'de': {0: 50.0}}, ['de', 'sw']) == r.Score(2.0, None, 1, partial=True)
    assert r.delta(ours, {**base, 'sw': {0: 40.0, 2: 50.0}}, ['de', 'sw']) == r.Score(2.75, None, 2, partial=True)
    longer = {code: {**column, 2: 0.0} for code, column in base.items()}
    assert r.delta(ours, longer, ['de', 'sw']) == r.delta(ours, base, ['de', 'sw']), 'the third seed has no partner'
    assert r.delta(ours, {'de': {2: 50.0}}, ['de']) is None
    assert r.delta(ours, {}, ['de']) is None
