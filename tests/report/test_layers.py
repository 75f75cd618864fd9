"""Retrieval by layer in tables and the figure: means by group, seeds of one name, bad files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlmr_flax.report.layers import layer_tables, means, read_layer_rows, write_layer_rows
from xlmr_flax.report.plots.layer_figure import layer_figure
from xlmr_flax.report.rows import RowsError, select

LEVELS = {'de': 'high', 'sw': 'low', 'ay': 'low', 'en_GB': 'high'}


def rows(name: str = 'a', encoder: str = 'x', shift: float = 0.0, **changes: Any) -> list[dict[str, Any]]:
    """Two layers of four languages, the last an English one."""
    return [
        {
            'name': name, 'encoder': encoder, 'target': 't', 'language': code, 'split': 'test', 'layer': layer,
            'accuracy': 10.0 * number + layer + shift, 'accuracy_to_en': 20.0 * number + layer + shift,
            'many_to_many': 5.0 * number + layer + shift, 'n': 7, 'resource_level': level,
            'language_name': code.upper(), 'english': code.startswith('en'), **changes,
        }
        for number, (code, level) in enumerate(LEVELS.items(), 1)
        for layer in (0, 1)
    ]  # fmt: skip


def test_means_are_over_languages_other_than_english() -> None:
    found = means(rows())
    assert [(r['layer'], r['group'], r['languages']) for r in found] == [
        (0, 'all', 3), (0, 'low-resource', 2), (1, 'all', 3), (1, 'low-resource', 2),
    ]  # fmt: skip
    assert [r['accuracy'] for r in found] == [20.0, 25.0, 21.0, 26.0]
    assert [r['accuracy_to_en'] for r in found] == [40.0, 50.0, 41.0, 51.0]
    assert [r['many_to_many'] for r in found] == [10.0, 12.5, 11.0, 13.5]


def test_a_mean_needs_all_of_its_values() -> None:
    """Rows of a set that is no parallel one, or not yet compared."""
    part = rows()
    del part[0]['many_to_many']
    all_, low, *_ = means(part)
    assert all_['many_to_many'] is None and low['many_to_many'] == 12.5


def test_tables_have_the_layers() -> None:
    by_layer, by_language = layer_tables(rows())
    assert [line.cells[:4] for line in by_layer.lines] == [(0, 20.0, 40.0, 10.0), (1, 21.0, 41.0, 11.0)]
    assert {line.cells[0]: line.cells[-2:] for line in by_language.lines} == {
        'de': (15.0, 16.0), 'sw': (30.0, 31.0), 'ay': (45.0, 46.0), 'en_GB': (60.0, 61.0),
    }  # fmt: skip
    assert by_layer.marked() and '3 all, 2 low-resource' in by_layer.notes[0]


def test_the_figure_has_a_line_for_each_name_and_bands() -> None:
    seeds = rows('b', 'y', 30.0) + rows('b', 'z', 40.0)
    first, second = layer_figure(rows() + seeds).axes
    for axes, want in ((first, [30.0, 31.0]), (second, [10.0, 11.0])):
        lines = {str(line.get_label()): np.asarray(line.get_ydata()).tolist() for line in axes.lines}
        assert lines == {'a (3 languages)': want, 'b (3 languages)': [value + 35 for value in want]}
        assert len(axes.collections) == 2
        assert axes.get_ylim() == (0, 100)
    (only,) = layer_figure(rows(many_to_many=None)).axes
    assert 'many' not in only.get_title('left')


def test_many_names_share_one_band() -> None:
    found = layer_figure([row for name in 'abcd' for row in rows(name, name)])
    assert [len(axes.collections) for axes in found.axes] == [1, 1]


def test_rows_are_read_back(tmp_path: Path) -> None:
    path = write_layer_rows(tmp_path, rows() + rows(accuracy=99.0))
    found = read_layer_rows(path)
    assert found == rows(accuracy=99.0), 'of two rows with one key the later'
    assert select(found, language='sw', layer=1)[0]['accuracy_to_en'] == 41.0


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'layer': '3'}, "field 'layer' is '3'"),
        ({'accuracy': True}, "field 'accuracy' is True"),
        ({'accuracy': 101.0}, "field 'accuracy' is 101.0, not a percentage"),
        ({'accuracy_to_en': None}, "field 'accuracy_to_en' is None"),
        ({'resource_level': 3}, "field 'resource_level' is 3"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = tmp_path / 'retrieval.jsonl'
    path.write_text(json.dumps(rows()[0]) + '\n' + json.dumps(rows()[0] | change) + '\n', 'utf-8')
    with pytest.raises(RowsError) as error:
        read_layer_rows(path)
    assert f'{path}:2: {said}' in str(error.value)


@pytest.mark.parametrize('text', ['', '[]\n', '{"a": \n', '\xff'])
def test_a_file_of_no_rows_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / 'retrieval.jsonl'
    path.write_bytes(text.encode('latin-1'))
    with pytest.raises(RowsError, match=r'retrieval\.jsonl'):
        read_layer_rows(path)
