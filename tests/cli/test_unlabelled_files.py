"""A benchmark's public test files, which have no labels: predictions are written and not scored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from xlmr_flax.cli.main import main


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """PAWS-X with a labelled training set, and test files of which the German one alone has labels."""
    folder = tmp_path / 'data' / 'xtreme' / 'pawsx' / 'x-final'
    rows = [f'{i}\tthe cat {i}\ta dog {i}' for i in range(8)]
    for name, labelled in (('en/train', True), ('en/test_2k', False), ('fr/test_2k', False), ('de/test_2k', True)):
        path = folder / f'{name}.tsv'
        path.parent.mkdir(parents=True, exist_ok=True)
        head = 'id\tsentence1\tsentence2' + '\tlabel' * labelled
        lines = [head, *(f'{row}\t{i % 2}' if labelled else row for i, row in enumerate(rows))]
        path.write_text(''.join(f'{line}\n' for line in lines), encoding='utf-8')
    return tmp_path / 'data'


def test_a_run_writes_all_files_and_scores_what_has_labels(
    root: Path, tmp_path: Path, config_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_file(
        "config.intermediate, config.targets = ('none',), ('pawsx',)", 'config.recipe.steps = 2',
        "config.evaluation.languages = {'pawsx': ('en', 'de', 'fr')}", "config.evaluation.split = {'pawsx': 'test'}",
        f'config.data_root = {str(root)!r}', 'config.tensorboard = False',
    )  # fmt: skip
    command = ['run', f'--config={config}', f'--workdir={tmp_path}/w']
    assert main(command) == 0
    written = sorted(p.name for p in (tmp_path / 'w' / 'predictions' / 'none-seed1' / 'pawsx').iterdir())
    assert written == ['test-de.tsv', 'test-en.tsv', 'test-fr.tsv']
    rows = [json.loads(line) for line in (tmp_path / 'w' / 'results.jsonl').read_text('utf-8').splitlines()]
    assert {row['language'] for row in rows} == {'de'}
    said = capsys.readouterr()
    assert (said.out + said.err).count('no labels') == 2
    assert main(command) == 0, 'nothing is left to do'
    bare = "--config.evaluation.languages={'pawsx': ('en', 'fr')}"
    assert main(['run', f'--config={config}', f'--workdir={tmp_path}/v', bare]) == 0
    assert len(list((tmp_path / 'v' / 'predictions').rglob('test-*.tsv'))) == 2
    (run,) = (tmp_path / 'w' / 'runs').iterdir()
    out = tmp_path / 'o'
    command = ['evaluate', f'--encoder=ckpt:{run}', '--task=pawsx', '--languages=en,fr']
    assert main([*command, f'--data_root={root}', f'--out={out}']) == 0
    assert len(list(out.rglob('test-*.tsv'))) == 2
    main(['prepare', '--check', '--tasks=pawsx', '--splits=test', '--languages=en,de,fr', f'--data_root={root}'])
    assert 'no labels' in capsys.readouterr().out


def test_dev_rows_without_labels_select_nothing(
    root: Path, tmp_path: Path, config_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    dev = root / 'xtreme' / 'pawsx' / 'x-final' / 'en' / 'dev_2k.tsv'
    dev.write_text('id\tsentence1\tsentence2\n1\ta cat\ta dog\n', encoding='utf-8')
    config = config_file(
        "config.intermediate, config.targets = ('none',), ('pawsx',)", 'config.recipe.steps = 2',
        'config.recipe.eval_every = 1', "config.evaluation.languages = {'pawsx': ('de',)}",
        "config.evaluation.split = {'pawsx': 'test'}", f'config.data_root = {str(root)!r}',
        'config.tensorboard = False',
    )  # fmt: skip
    assert main(['run', f'--config={config}', f'--workdir={tmp_path}/w']) == 1
    assert str(dev) in capsys.readouterr().err
    assert not list((tmp_path / 'w').rglob('metrics.jsonl')), 'before the first step'


def test_xtremes_placeholder_is_no_answer(tmp_path: Path) -> None:
    from xlmr_flax.data.sources import read_split
    from xlmr_flax.tasks import get_task
    from xlmr_flax.tasks.base import has_label

    qas = [{'id': 'q', 'question': 'Who?', 'answers': [{'answer_start': 0, 'text': ''}]}]
    path = tmp_path / 'xtreme' / 'xquad' / 'xquad.de.json'
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({'data': [{'paragraphs': [{'context': 'Ada.', 'qas': qas}]}]}), encoding='utf-8')
    (example,) = read_split(get_task('xquad'), 'de', 'test', tmp_path)
    assert not has_label(example)
