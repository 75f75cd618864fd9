"""Tatoeba from LASER's files and from the folder that XTREME's preprocessing makes of them: the same predictions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xlmr_flax.cli.main import main
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.kinds import read_gold_set
from xlmr_flax.tasks import get_task

ENGLISH = ['Zebras run.', 'A dog barks.', 'The sun rises.', 'Bread is warm.']
AFRIKAANS = ['Sebras hardloop.', 'Die hond blaf.', 'Die son kom op.', 'Brood is warm.']


def write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(f'{line}\n' for line in lines), encoding='utf-8')


def test_both_folders_give_the_same_predictions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    laser, xtreme = tmp_path / 'laser' / 'xtreme' / 'tatoeba', tmp_path / 'xtreme' / 'xtreme' / 'tatoeba'
    write(laser / 'v1' / 'tatoeba.afr-eng.eng', ENGLISH)
    write(laser / 'v1' / 'tatoeba.afr-eng.afr', AFRIKAANS)
    write(xtreme / 'af-en.en', sorted(ENGLISH))
    write(xtreme / 'af-en.af', AFRIKAANS)
    written, rows = [], []
    for name in ('laser', 'xtreme'):
        out = tmp_path / f'{name}.out'
        command = ['evaluate', '--encoder=random:tiny', '--task=tatoeba', '--languages=af', f'--out={out}']
        assert main([*command, f'--data_root={tmp_path / name}']) == 0
        written.append((out / 'predictions' / 'tatoeba' / 'test-af.tsv').read_text('utf-8'))
        rows.append([json.loads(line) for line in (out / 'results.jsonl').read_text('utf-8').splitlines()])
    assert written[0] == written[1]
    assert {row['metric'] for row in rows[0]} == {'accuracy', 'accuracy_to_en'}
    assert rows[1] == []
    with pytest.raises(DataError, match='tatoeba test af'):
        read_gold_set(get_task('tatoeba'), 'af', 'test', str(tmp_path / 'xtreme'), 0)
    capsys.readouterr()
    assert main(['prepare', '--check', '--tasks=tatoeba', '--languages=af', f'--data_root={tmp_path / "xtreme"}']) == 0
    assert 'no labels' in capsys.readouterr().out
