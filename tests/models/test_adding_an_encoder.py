"""docs/adding_an_encoder.md: its commands run, as they stand there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from xlmr_flax.cli.main import main
from xlmr_flax.data.tokenize import Tokenizer, TokenizerError
from xlmr_flax.encoders import FAMILIES
from xlmr_flax.models.source import open_source

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'docs' / 'adding_an_encoder.md').read_text(encoding='utf-8')
COMMANDS = [line for block in re.findall(r'```bash\n(.*?)```', PAGE, re.DOTALL) for line in block.splitlines()]


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a reader who has made DIR with the page's first command."""
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    monkeypatch.chdir(tmp_path)
    assert len(COMMANDS) == 3
    assert main(shlex.split(COMMANDS[0])[1:]) == 0
    return tmp_path


def test_the_directory_is_opened_and_scored(reader: Path) -> None:
    assert {'config.json', 'model.safetensors', 'tokenizer.json'} <= {path.name for path in Path('DIR').iterdir()}
    assert open_source('hf:DIR').config == open_source('random:tiny').config
    assert main(shlex.split(COMMANDS[1])[1:]) == 0
    found = rows(reader / 'runs/retrieval/results.jsonl')
    assert {(row['encoder'], row['language']) for row in found} == {('hf:DIR', 'de'), ('hf:DIR', 'sw')}


@pytest.mark.slow
def test_it_trains(reader: Path) -> None:
    assert main(shlex.split(COMMANDS[2])[1:]) == 0
    assert {row['encoder'] for row in rows(reader / 'runs/mine/results.jsonl')} == {'hf:DIR'}


def test_a_tokenizer_without_a_special_token_is_refused(tmp_path: Path, tiny_tokenizer: Path) -> None:
    text = tiny_tokenizer.read_text(encoding='utf-8').replace('"<unk>"', '"[STRANGE]"')
    (tmp_path / 'tokenizer.json').write_text(text, encoding='utf-8')
    with pytest.raises(TokenizerError, match="no token '<unk>'"):
        Tokenizer(tmp_path / 'tokenizer.json', 2048)


@pytest.mark.parametrize('family', FAMILIES)
def test_the_page_has_a_row_for_every_family(family: str) -> None:
    assert re.search(rf'^\| `{family}`', PAGE, re.MULTILINE)
