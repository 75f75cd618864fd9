"""The strict JSON reader: one error, with a place, for everything that is not JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlmr_flax.util.errors import UserError, quote
from xlmr_flax.util.strict_json import JsonError, loads, read, read_object


@pytest.mark.parametrize(
    'text',
    [
        '',
        '[1',
        '{"a": 1} x',
        '[1] [2]',
        'NaN',
        '[Infinity]',
        '1e999',
        '1' * 5000,
        '[' * 200_000,
        '{"a": 1, "a": 2}',
        '["\\ud83d"]',
        '{"\\ude00": 1}',
    ],
)
def test_malformed_json_is_one_error(text: str) -> None:
    with pytest.raises(JsonError) as caught:
        loads(text)
    assert isinstance(caught.value, UserError)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ('text', 'value'),
    [(' {"a": [1, 2.5]}\n', {'a': [1, 2.5]}), ('"\\ud83d\\ude00"', '😀'), ('-12', -12), ('"\\\\ud83d"', '\\ud83d')],
)
def test_json_is_read(text: str, value: object) -> None:
    assert loads(text) == value


def test_surrogates_are_kept_where_the_caller_checks_strings() -> None:
    assert loads('["\\ud83d"]', surrogates=True) == ['\ud83d']


def test_a_file_names_line_and_path(tmp_path: Path) -> None:
    path = tmp_path / 'a.json'
    path.write_text('{\n "a": 1,\n "b": x}', encoding='utf-8')
    with pytest.raises(JsonError) as caught:
        read(path)
    assert caught.value.line == 3
    assert str(path) in str(caught.value)
    path.write_bytes(b'"\xff"')
    with pytest.raises(JsonError):
        read(path)
    path.write_text('[]', encoding='utf-8')
    with pytest.raises(JsonError):
        read_object(path)


def test_a_long_value_is_cut() -> None:
    assert len(quote('x' * 10**6)) < 200
    assert quote('x') == "'x'"
