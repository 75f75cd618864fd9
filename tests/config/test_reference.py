"""The reference of the configuration: every field is documented, printed and in docs/config.md."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from xlmr_flax.cli.main import main
from xlmr_flax.config import HEAD_STYLES, QA_DECODINGS, REPEATED, Config, Recipe
from xlmr_flax.config.reference import as_markdown, field_docs, fields
from xlmr_flax.data.mixture import SAMPLERS, TIME_DEPENDENT

pytestmark = pytest.mark.fast

PAGE = Path(__file__).parents[2] / 'docs' / 'config.md'
FIELDS = {field.path: field for field in fields()}


def test_every_field_is_documented() -> None:
    assert [path for path, field in FIELDS.items() if not field.doc.endswith('.')] == []
    assert {path for path in FIELDS if '.' not in path} == {field.name for field in dataclasses.fields(Config)}


def test_a_field_has_its_path_type_and_default() -> None:
    assert (FIELDS['recipe.lengths'].type, FIELDS['recipe.lengths'].default) == ('tuple[int, ...]', '()')
    assert FIELDS['recipe.optimizer.schedule'].default == "'linear'"
    assert FIELDS['arms.NAME.tasks.NAME.fraction'].default == '1.0'
    assert FIELDS['arms'].default == '{}'
    assert FIELDS['recipe'].default == ''
    assert FIELDS['encoder.source'].section == 'encoder'
    assert len({field.name for field in dataclasses.fields(Recipe)}) == sum(
        f.section == 'recipe' for f in FIELDS.values()
    )


def test_a_field_without_documentation_is_noticed() -> None:
    @dataclasses.dataclass(frozen=True)
    class Example:
        """An example."""

        first: int = 1
        """The first,
        in two lines."""
        second: int = 2

    assert field_docs(Example) == {'first': 'The first, in two lines.'}


@pytest.mark.parametrize(
    ('path', 'values'),
    [
        ('arms.NAME.sampler', (*SAMPLERS, TIME_DEPENDENT)),
        ('encoder.head', HEAD_STYLES),
        ('evaluation.qa_decoding', QA_DECODINGS),
        ('evaluation.repeated_sentences', REPEATED),
    ],
)
def test_the_documentation_names_every_value(path: str, values: tuple[str, ...]) -> None:
    assert [value for value in values if f'`{value}`' not in FIELDS[path].doc] == []


def test_the_page_is_generated() -> None:
    said = 'run python -m xlmr_flax.config.reference > docs/config.md'
    assert PAGE.read_text(encoding='utf-8') == as_markdown(), said


@pytest.mark.parametrize('command', ['run', 'estimate', 'prepare'])
def test_a_command_prints_every_field(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, '--help_config']) == 0
    printed = capsys.readouterr().out
    assert [path for path in FIELDS if f'  {path}: ' not in printed] == []
