"""evaluate on a task's data: rows that are left out, and where the scored rows came from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jax
import pytest
from pawsx_files import BAD, HEADER, ROWS, write_pawsx
from tasks import tiny_files

from xlmr_flax.cli.main import main
from xlmr_flax.encoders.config import SIZES
from xlmr_flax.experiment.workdir.bad_rows import FILE
from xlmr_flax.kinds import HeadSpec
from xlmr_flax.models.model import Model
from xlmr_flax.models.source import save_checkpoint
from xlmr_flax.tasks import get_task

Fails = Callable[..., str]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_pawsx(tmp_path / 'data')


@pytest.fixture(scope='module')
def model(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Path:
    """A tiny checkpoint with a head of two classes and one of three."""
    heads, out = {'pawsx': HeadSpec('pair', 2), 'xnli': HeadSpec('pair', 3)}, tmp_path_factory.mktemp('ckpt') / 'model'
    params = jax.device_get(Model(SIZES['tiny']).init(jax.random.key(0), heads))
    save_checkpoint(
        out, SIZES['tiny'], params, tiny_tokenizer, style='jiant', heads=heads,
        labels={'pawsx': ('0', '1'), 'xnli': get_task('xnli').labels}, max_length=32, extra={},
    )  # fmt: skip
    return out


def test_an_evaluation_that_skips(
    model: Path, root: Path, tmp_path: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.delenv('XLMR_DATA_ROOT', raising=False)  # --data_root is enough
    command = ['evaluate', f'--encoder=ckpt:{model}', '--task=pawsx', '--languages=en,de', f'--data_root={root}',
               f'--out={tmp_path}/o']  # fmt: skip
    path = root / 'xtreme' / 'pawsx' / 'x-final' / 'de' / 'test_2k.tsv'
    assert f"{path}, line 3, column 'label': unknown label 'yes'" in fails(*command)
    capsys.readouterr()
    assert main([*command, '--skip_bad_rows']) == 0
    out = capsys.readouterr().out
    assert f"left out: {path}, line 3, column 'label': unknown label 'yes'" in out
    assert '2 rows left out, listed in' in out
    english, german = (json.loads(line) for line in (tmp_path / 'o' / 'results.jsonl').read_text('utf-8').splitlines())
    assert (english['n'], german['n']) == (6, 6)
    assert 'left_out' not in english
    assert german['left_out'] == 2
    assert english['source'] == german['source'] == 'file'
    assert len((tmp_path / 'o' / 'predictions' / 'pawsx' / 'test-de.tsv').read_text().splitlines()) == 6
    assert len((tmp_path / 'o' / FILE).read_text('utf-8').splitlines()) == 3


def test_a_bad_first_row_is_left_out_too(model: Path, root: Path, tmp_path: Path, fails: Fails) -> None:
    path = root / 'xtreme' / 'pawsx' / 'x-final' / 'de' / 'test_2k.tsv'
    path.write_text(HEADER + BAD + ROWS, 'utf-8')
    command = ['evaluate', f'--encoder=ckpt:{model}', '--task=pawsx', '--languages=de', f'--data_root={root}',
               f'--out={tmp_path}/o']  # fmt: skip
    assert f'{path}, line 2' in fails(*command)
    assert main([*command, '--skip_bad_rows']) == 0
    row = json.loads((tmp_path / 'o' / 'results.jsonl').read_text('utf-8'))
    assert (row['split'], row['n'], row['left_out']) == ('test', 6, 2)


def test_a_translated_split_has_languages_of_its_own(model: Path, tmp_path: Path) -> None:
    """Without --languages: those of the split, which English is not one of."""
    task, root = get_task('xnli'), tmp_path / 'data'
    for code in task.split_languages('translate_test'):
        [path] = [source.path.replace('{language}', code) for source in task.sources('translate_test')]  # type: ignore[union-attr]
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        example = next(text for name, text in tiny_files.FILES.items() if name.startswith(path.rsplit('test-', 1)[0]))
        (root / path).write_text(example, 'utf-8')
    command = ['evaluate', f'--encoder=ckpt:{model}', '--task=xnli', '--split=translate_test', f'--data_root={root}']
    assert main([*command, f'--out={tmp_path}/o']) == 0
    rows = [json.loads(line) for line in (tmp_path / 'o' / 'results.jsonl').read_text('utf-8').splitlines()]
    assert [row['language'] for row in rows] == list(task.split_languages('translate_test'))
    assert 'en' not in {row['language'] for row in rows}
