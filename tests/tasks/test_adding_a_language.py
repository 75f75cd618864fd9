"""docs/adding_a_language.md: its files are written and its commands run, as they stand there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from xlmr_flax.cli.main import main
from xlmr_flax.data.world.lexicon import KEYS
from xlmr_flax.tasks import languages

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'docs' / 'adding_a_language.md').read_text(encoding='utf-8')
FILES = dict(re.findall(r'```\w+ file=(\S+)\n(.*?)```', PAGE, re.DOTALL))
COMMANDS = [line for block in re.findall(r'```bash\n(.*?)```', PAGE, re.DOTALL) for line in block.splitlines()]


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a reader of the page has written its files."""
    for name, content in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding='utf-8')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_do_what_the_page_says(reader: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(FILES) == 3
    check, evaluate = COMMANDS
    assert main(shlex.split(check)[1:]) == 0
    said = re.search(r'`(\d of \d splits are there and readable)`', PAGE)
    assert said
    assert said.group(1) in capsys.readouterr().out
    assert main(shlex.split(evaluate)[1:]) == 0
    rows = [json.loads(line) for line in (reader / 'runs/klingon/results.jsonl').read_text().splitlines()]
    assert {(row['language'], row['target'], row['n']) for row in rows} == {('tlh', 'tatoeba', 2)}
    assert [row['metric'] for row in rows] == ['accuracy', 'accuracy_to_en']
    assert list(reader.glob('runs/klingon/**/test-tlh.tsv'))


def test_the_tokens_are_shown(reader: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [code] = re.findall(r'```python run\n(.*?)```', PAGE, re.DOTALL)
    exec(compile(code, 'adding_a_language.md', 'exec'), {})
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith('2 words: ')
    assert second.startswith('3 words: ')


def test_the_line_of_facts_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    [(head, line)] = re.findall(r'```text\n(code\t.*)\n(tlh\t.*)\n```', PAGE)
    table = (ROOT / 'xlmr_flax' / 'tasks' / 'languages.tsv').read_text(encoding='utf-8').splitlines()
    assert head == table[0]
    assert set(re.findall(r'^\| `(\w+)` \|', PAGE, re.MULTILINE)) >= set(head.split('\t'))
    language = languages._language(line.split('\t'))
    assert (language.code, language.name, language.script) == ('tlh', 'Klingon', 'Latn')
    assert (language.cc100_gib, language.joshi_class, language.resource_level) == (0.0, None, 'low')
    assert 'tlh' not in languages.all_languages()


def test_a_table_of_phrases_has_as_many_lines_as_the_page_says() -> None:
    assert f'{len(KEYS)} lines' in PAGE


def test_links_lead_somewhere() -> None:
    for page in ('adding_a_task.md', 'adding_a_language.md', 'adding_an_encoder.md'):
        text = (ROOT / 'docs' / page).read_text(encoding='utf-8')
        for target in re.findall(r'\]\(([^)#]+)', text):
            assert (ROOT / 'docs' / target).exists(), f'{page}: {target}'
