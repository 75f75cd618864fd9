"""How many rows of the word table a training keeps, estimated from samples of its data."""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path

import numpy as np
import pytest

from xlmr_flax.config import parse
from xlmr_flax.experiment.plan.reads import TRAIN, training_reads
from xlmr_flax.kinds import encode
from xlmr_flax.tools.estimate import word_rows
from xlmr_flax.tools.estimate.plan import PlanWork
from xlmr_flax.tools.estimate.programs import EVALUATE

TINY = Path(__file__).parents[3] / 'configs' / 'tiny.py'


def work_of(target: str, root: str = '') -> PlanWork:
    config = parse(runpy.run_path(str(TINY))['get_config']().to_dict())
    languages = dataclasses.replace(config.evaluation, languages={target: ('en',)})
    recipe = dataclasses.replace(config.recipe, max_train=0)
    changes = {'targets': (target,), 'intermediate': ('none',), 'evaluation': languages, 'recipe': recipe}
    return PlanWork(dataclasses.replace(config, data_root=root, **changes))


def exact(work: PlanWork) -> int:
    """Distinct tokens of all training rows."""
    (read,) = [read for read in training_reads(work.plan[0]) if read.purpose == TRAIN]
    data = encode(read.split.task, read.split.read(read.limit or None, []), work.tokenizer, read.max_length)
    return len(np.unique(data.tokens.flat))


def test_data_that_are_read_whole_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_rows, '_STEP', 1)
    work = work_of('world_nli')
    assert word_rows.WordRows(work)(work.plan[0]) == exact(work)


def test_a_sample_of_mnli_gives_about_as_many(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_rows, '_STEP', 1)
    monkeypatch.setattr(word_rows, '_SAMPLE', 512)
    work = work_of('xnli', str(data_root))
    assert word_rows.WordRows(work)(work.plan[0]) == pytest.approx(exact(work), rel=0.25)


def test_heaps_law() -> None:
    assert word_rows.extrapolated(50, 100, 1.0) == 100
    assert word_rows.extrapolated(100, 200, 4.0) == 800
    assert word_rows.extrapolated(100, 100, 4.0) == 100
    found = word_rows.extrapolated(1000, round(1000 * 2**0.5), 16.0)
    assert found == pytest.approx(1000 * 32**0.5, rel=1e-3)


def test_training_has_them_and_evaluation_the_whole_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_rows, '_STEP', 256)
    work = work_of('world_nli')
    whole = work.model.config.vocab_size
    rows = {part.program.model.config.vocab_size for part in work.parts if part.load is not None}
    assert rows == {min(whole, -(-exact(work) // 256) * 256)} and rows != {whole}
    assert {p.program.model.config.vocab_size for p in work.parts if p.program.does == EVALUATE} == {whole}
