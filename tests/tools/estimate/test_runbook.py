"""The runbook's command lines (launch/README.md): `estimate` and `run --dry_run` take them and print the mesh."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from xlmr_flax.cli.main import main

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / 'launch' / 'README.md').read_text(encoding='utf-8')
LANGUAGES = ('ar', 'bg', 'de', 'el', 'en', 'es', 'fr', 'hi', 'ru', 'sw', 'th', 'tr', 'ur', 'vi', 'zh')


def config_of(line: str) -> str:
    """The config of a command line of the runbook; the hub's encoder is replaced by a random one of the package."""
    name, _, argument = line.partition(':')
    argument = argument.replace('encoder=hf:xlm-roberta-large', 'encoder=random:base')
    assert 'hf:' not in argument
    return f'{ROOT / name}{":" * bool(argument)}{argument}'


def runbook_configs() -> list[str]:
    """Every config that a command of the runbook names."""
    blocks = '\n'.join(re.findall(r'```bash\n(.*?)```', TEXT.partition('## Runbook')[2], re.DOTALL))
    found = re.findall(r'(?:^CONFIG=|--config=)(configs/\S+)', blocks, re.MULTILINE)
    return [config_of(line) for line in dict.fromkeys(found)]


def slice_of_the_runbook() -> str:
    (found,) = set(re.findall(r'--topology=(\S+?)`', TEXT))
    assert 'TYPE=v5litepod-8' in TEXT and found == 'v5e:2x4'
    return found


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """XNLI and MNLI with a few rows, in the layout of the official files."""
    root, pair = tmp_path / 'data', 'this is a sentence\tand this is another'
    labels = ('neutral', 'entailment', 'contradiction')
    mnli = ['index\tsentence1\tsentence2\tgold_label', *(f'{i}\t{pair}\t{labels[i % 3]}' for i in range(64))]
    for name in ('train', 'dev_matched'):
        path = root / 'intermediate' / 'mnli' / f'{name}.tsv'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('\n'.join(mnli) + '\n')
    for language in LANGUAGES:
        path = root / 'xtreme' / 'xnli' / f'test-{language}.tsv'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(''.join(f'{pair}\t{label}\n' for label in labels))
    return root


def test_the_runbook_has_a_small_and_a_real_config() -> None:
    assert [Path(config.partition(':')[0]).name for config in runbook_configs()] == ['xtreme.py', 'quickstart.py']


@pytest.mark.parametrize('config', runbook_configs(), ids=lambda config: Path(config.partition(':')[0]).stem)
def test_estimate_prints_the_mesh(
    config: str, data: Path, tmp_path: Path, no_compiler: Callable[..., object], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'estimate.json'
    arguments = [f'--config={config}', f'--topology={slice_of_the_runbook()}', f'--data_root={data}', f'--json={out}']
    assert main(['estimate', *arguments]) == 0
    assert re.search(r'8 × TPU v5e: bfloat16, mesh data=\d fsdp=\d model=\d, ', capsys.readouterr().out)
    (found,) = json.loads(out.read_text())
    mesh = found['defaults']['mesh']
    assert mesh['data'] * mesh['fsdp'] * mesh['model'] == 8
    assert all(program['head'] == 'tag' or 'cut over' not in program['error'] for program in found['programs'])


@pytest.mark.parametrize('config', runbook_configs(), ids=lambda config: Path(config.partition(':')[0]).stem)
def test_a_dry_run_prints_the_mesh(config: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [f'--config={config}', f'--workdir={tmp_path}/w', f'--data_root={data}', '--dry_run']
    assert main(['run', *arguments]) == 0
    out = capsys.readouterr().out
    assert re.search(r'^\d+ × cpu: float32, mesh data=\d+ fsdp=1 model=1, layers scanned', out, re.MULTILINE)
    assert not (tmp_path / 'w').exists()
