"""README.md: links lead somewhere, every command of the program is in it, and what it says to paste can be pasted."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from xlmr_flax.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / 'README.md').read_text(encoding='utf-8')
PASTED = [
    line
    for block in re.findall(r'```bash\n(.*?)```', PAGE, re.DOTALL)
    for line in block.replace('\\\n', ' ').splitlines()
]


def test_links_lead_somewhere() -> None:
    targets = set(re.findall(r'\]\(([^)#]+)\)', PAGE))
    assert len(targets) > 15
    assert not [t for t in sorted(targets) if not t.startswith('https://') and not (ROOT / t).exists()]


def test_every_page_and_notebook_is_linked() -> None:
    files = [*ROOT.glob('docs/*.md'), *ROOT.glob('notebooks/*.ipynb')]
    known = {'docs/gold_spans.md'}  # made by a test, for who works on the decoding
    names = {path.relative_to(ROOT).as_posix() for path in files} - known
    assert not [name for name in sorted(names) if f']({name})' not in PAGE]


def test_every_command_is_in_the_table() -> None:
    assert set(re.findall(r'^\| `xlmr-flax (\w+)', PAGE, re.MULTILINE)) == set(COMMANDS)


def test_configs_and_modules_are_there() -> None:
    for path in re.findall(r'--config=([\w/]+\.py)', PAGE):
        assert (ROOT / path).is_file(), path
    for module in re.findall(r'python -m (xlmr_flax[\w.]+)', PAGE):
        assert (ROOT / f'{module.replace(".", "/")}.py').is_file(), module


@pytest.mark.parametrize('script', ['tpu_vm', 'queued_resource'])
def test_the_tpu_recipe_is_printed_without_gcloud(script: str) -> None:
    [command] = [line for line in PASTED if line.startswith(f'bash launch/{script}.sh')]
    assert '--dry_run' in command
    path = {'PATH': '/usr/bin:/bin'}
    done = subprocess.run(shlex.split(command), cwd=ROOT, capture_output=True, text=True, check=False, env=path)
    assert done.returncode == 0, done.stderr
    assert 'gcloud compute tpus' in done.stdout
    assert 'xlmr-flax run --config=configs/quickstart.py --workdir=/mnt/my-bucket/runs/first' in done.stdout


def test_the_local_recipe_begins_with_its_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    monkeypatch.chdir(tmp_path)
    [command] = [line for line in PASTED if line.startswith('xlmr-flax run') and 'tiny' in line and 'dry_run' in line]
    assert main(shlex.split(command)[1:]) == 0
    assert f'5 runs in {tmp_path}/runs/tiny: 5 missing' in capsys.readouterr().out
    assert 'the five runs of the plan' in PAGE
    assert not (tmp_path / 'runs').exists()
