"""The bench of training: ours and the others train the same, blocks count what they did, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlmr_flax.cli.main import main
from xlmr_flax.tools.bench import train
from xlmr_flax.tools.bench.rows import read_rows
from xlmr_flax.tools.bench.subject import BenchError

Make = Callable[..., dict[str, Any]]
TINY = ['--encoder=random:tiny', '--rows=20', '--batch=4', '--max_length=48', '--threads=1']


@pytest.fixture(scope='module')
def made(tmp_path_factory: pytest.TempPathFactory, options_of: Make) -> tuple[dict[str, Any], Path]:
    """(options, folder of the inputs) of 32 rows."""
    options, folder = options_of('world_pairs', rows=32), tmp_path_factory.mktemp('train')
    train.inputs(options, folder)
    return options, folder


@pytest.mark.usefixtures('one_thread')
def test_all_train_the_same(made: tuple[dict[str, Any], Path]) -> None:
    (options, folder), outcomes, facts = made, {}, {}
    for name in ('ours', 'torch-grouped', 'torch-padded'):
        run: Any = train.IMPLEMENTATIONS[name].prepare(options, folder)
        outcomes[name] = dict(run())
        assert run() == {}, 'later blocks compare nothing'
        facts[name] = run.facts
        if name == 'ours':
            run.training.stop()
        else:
            rates = {m.p for m in run.model.modules() if type(m).__name__ == 'Dropout'}
            assert rates == {0.1} and run.model.training, 'dropout is on behind the check'
            assert run.model.encoder.config.attention_probs_dropout_prob == 0.1
    assert 'the first 3 steps on the same rows have the same losses' in train.check(options, folder, outcomes)
    assert len(outcomes['ours']['losses']) == train.CHECKED
    assert facts['ours']['units'] == facts['torch-grouped']['units'] == 32, 'one pass'
    assert facts['torch-padded']['units'] == 8, 'a part of a pass'
    assert facts['ours']['flops'] == pytest.approx(facts['torch-grouped']['flops'])
    outcomes['torch-grouped']['losses'] = outcomes['torch-grouped']['losses'] + [0, 0, 0.01]
    with pytest.raises(BenchError, match='torch-grouped computes other losses:'):
        train.check(options, folder, outcomes)


def test_orders_of_torch(made: tuple[dict[str, Any], Path]) -> None:
    """A pass has every row once; grouped, the rows of a batch are of about one length."""
    pytest.importorskip('torch')
    (options, folder), spreads = made, {}
    for name in ('torch-grouped', 'torch-dynamic'):
        run: Any = train.IMPLEMENTATIONS[name].prepare(options, folder)
        batches = [next(run.batches) for _ in range(8)]
        assert sorted(np.concatenate(batches)) == list(range(32))
        # The longest batch comes first and holds the longest row of all, whatever the others are.
        spreads[name] = np.mean([np.ptp(run.rows.lengths[units]) for units in batches[1:]])
    assert spreads['torch-grouped'] < spreads['torch-dynamic']


def test_text_is_refused(tmp_path: Path, options_of: Make) -> None:
    folder = tmp_path / 'raw_text' / 'mlm'
    folder.mkdir(parents=True)
    (folder / 'en.txt').write_text(''.join(f'line number {i} of a text\n' for i in range(40)), encoding='utf-8')
    with pytest.raises(BenchError, match="'mlm_text' is of kind 'mlm'; torch trains pair, choice, span, tag"):
        train.inputs(options_of('mlm_text', data_root=str(tmp_path)), tmp_path / 'bench')


def test_too_few_rows(tmp_path: Path, options_of: Make) -> None:
    with pytest.raises(BenchError, match=r'2 rows .* do not fill a batch of 4'):
        train.inputs(options_of('world_pairs', rows=2), tmp_path)


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['train', '--task=mnly'], "unknown task 'mnly'"),
        (['train', '--task=world_retrieval'], 'bench train trains'),
        (['eval', '--task=world_pairs', '--embed'], 'sentence vectors go with a retrieval task'),
        (['eval', '--task=world_retrieval'], 'what a retrieval task is measured by: --embed'),
        (['train', '--task=world_pairs', '--sides=torch-slow'], "no side 'torch-slow'; there are: ours, torch-grouped"),
        (['train', '--task=world_pairs', '--threads=1000'], '1000 threads: this process may use'),
        (['train', '--config=nothing.py'], 'nothing.py: no such file'),
    ],
)
def test_command_lines_that_cannot_be(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['bench', *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith('error: ') and said in error and 'Traceback' not in error


@pytest.mark.slow
@pytest.mark.parametrize('task', ['world_pairs', 'world_spans', 'world_choices', 'world_pos'])
def test_the_command(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip('torch')
    arguments = ['bench', 'train', f'--task={task}', *TINY, '--alternations=1', '--device=cpu', '--huge_pages']
    assert main([*arguments, '--sides=torch-grouped', f'--out={tmp_path}']) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f'# Training on {task}: random:tiny, 4 examples a step')
    assert 'the same losses' in captured.out and 'GLIBC_TUNABLES' in captured.out
    found = json.loads((tmp_path / 'train.json').read_text(encoding='utf-8'))
    assert list(found['measured']) == ['ours', 'torch-grouped'] and set(found['ratios']) == {'torch-grouped'}
    assert found['ratios']['torch-grouped']['median'] > 0 and found['left_out'] == {}


def test_full_rows(tmp_path: Path, options_of: Make) -> None:
    """MNLI's sentences joined: every row has max_length tokens, and its label."""
    lines = ['\t'.join(('index', 'sentence1', 'sentence2', 'gold_label'))]
    labels = ('entailment', 'neutral', 'contradiction')
    lines += [f'{i}\tA man number {i} walks .\tSomebody walks .\t{labels[i % 3]}' for i in range(9)]
    path = tmp_path / 'real' / 'intermediate' / 'mnli' / 'train.tsv'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    options = options_of('mnli', rows=8, data_root=str(tmp_path / 'real')) | {'full_rows': True}
    train.inputs(options, tmp_path)
    rows = read_rows(tmp_path / 'train.npz')
    assert rows.lengths.tolist() == [80] * 8
    assert sorted(rows.targets['label'].tolist()) == [0, 0, 1, 1, 1, 2, 2, 2]
    assert 'each of 80 tokens' in train.title(options)
    with pytest.raises(BenchError, match="full rows can be made only from 'mnli'"):
        train.inputs(options_of('world_pairs') | {'full_rows': True}, tmp_path)
