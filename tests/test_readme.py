"""README.md: links lead somewhere, every command of the program is in it, and what it says to paste can be pasted."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from xlmr_flax.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text(encoding='utf-8')
DOCS = {path: path.read_text(encoding='utf-8') for path in sorted(ROOT.glob('docs/*.md'))}
PAGE = '\n'.join([README, *DOCS.values()])
PASTED = [
    line
    for block in re.findall(r'```bash\n(.*?)```', PAGE, re.DOTALL)
    for line in block.replace('\\\n', ' ').splitlines()
]


def test_links_lead_somewhere() -> None:
    """Those of README.md; `mkdocs build --strict` checks those of docs/."""
    targets = set(re.findall(r'\]\(([^)#]+)\)', README))
    assert len(targets) > 15
    assert not [t for t in sorted(targets) if not t.startswith('https://') and not (ROOT / t).exists()]


def test_every_page_and_notebook_is_linked() -> None:
    files = [*ROOT.glob('docs/*.md'), *ROOT.glob('notebooks/*.ipynb')]
    names = {path.relative_to(ROOT).as_posix() for path in files} - {'docs/index.md'}
    assert not [name for name in sorted(names) if f']({name})' not in README]


def test_every_page_is_in_the_site() -> None:
    listed = re.findall(r'^\s+- (?:\w+: )?(\w+\.md)$', (ROOT / 'mkdocs.yml').read_text(encoding='utf-8'), re.MULTILINE)
    assert sorted(listed) == [path.name for path in DOCS]


def test_every_command_is_in_the_table() -> None:
    commands = DOCS[ROOT / 'docs' / 'commands.md']
    assert set(re.findall(r'^\| `xlmr-flax (\w+)', commands, re.MULTILINE)) == set(COMMANDS)


def test_the_study_of_the_readme_is_a_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [config] = re.findall(r'```python\n(.*?)```', README, re.DOTALL)
    (tmp_path / 'my_study.py').write_text(config, encoding='utf-8')
    command = ['run', f'--config={tmp_path}/my_study.py', f'--workdir={tmp_path}/w', '--dry_run']
    assert main([*command, '--config.encoder.source=random:tiny']) == 0
    assert '3 runs' in capsys.readouterr().out


def test_configs_and_modules_are_there() -> None:
    for path in re.findall(r'--config=([\w/]+\.py)', PAGE):
        assert path == 'my_study.py' or (ROOT / path).is_file(), path  # the first is the README's own listing
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
