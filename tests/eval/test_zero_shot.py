"""One task in one language: the file that is written, the score that is read from it, label orders."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tasks import tiny_files

from xlmr_flax.config import Evaluation
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.sources import BadRow, read_split
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.eval import predict, zero_shot
from xlmr_flax.eval.zero_shot import Evaluator, label_order
from xlmr_flax.kinds import HeadSpec
from xlmr_flax.models.model import Model
from xlmr_flax.parallel.mesh import make_mesh, put_tree
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import TaskError

CONFIG = EncoderConfig(
    vocab_size=2048, hidden_size=16, num_layers=1, num_heads=2, ffn_size=16, max_positions=66, initializer_range=0.5
)
NLI = HeadSpec('pair', 3)


@pytest.fixture(scope='module')
def evaluator(tiny_tokenizer: Path) -> Evaluator:
    model, mesh = Model(CONFIG, 'hf'), make_mesh()
    params = jax.device_get(model.init(jax.random.key(0), {'x': NLI}))
    head = params['heads']['x']['out']
    head['kernel'] = head['kernel'] * 20  # away from ties
    return Evaluator(
        model, put_tree(params, mesh), Tokenizer(tiny_tokenizer, 2048), mesh,
        Evaluation(max_examples=40, max_length=64), '', 64, ('x', NLI),
    )  # fmt: skip


def permuted(evaluator: Evaluator, order: list[int]) -> Evaluator:
    """The same model as somebody else would have saved it: output j stands for our label order[j]."""
    params = jax.device_get(evaluator.params)
    out = params['heads']['x']['out']
    head = {**params['heads']['x'], 'out': {k: v[..., order] for k, v in out.items()}}
    return dataclasses.replace(evaluator, params=put_tree({**params, 'heads': {'x': head}}, evaluator.mesh))


def test_labels_are_written_and_scored(evaluator: Evaluator, tmp_path: Path) -> None:
    task, ticks = get_task('world_nli'), []
    scores, n = evaluator.run(task, 'de', 'test', tmp_path, lambda done, total: ticks.append((done, total)))
    lines = (tmp_path / 'world_nli' / 'test-de.tsv').read_text().splitlines()
    gold = [task.labels[e.label] for e in read_split(task, 'de', 'test', limit=40)]
    assert n == len(lines) == 40
    assert len(set(lines)) > 1
    assert scores == {'accuracy': pytest.approx(100 * np.mean([a == b for a, b in zip(lines, gold, strict=True)]))}
    assert ticks[-1] == (40, 40)


def test_another_order_of_the_outputs_gives_the_same_predictions(evaluator: Evaluator, tmp_path: Path) -> None:
    """A checkpoint with entailment first: its order is found by name; without that the labels would be wrong."""
    task = get_task('world_nli')
    want, _ = evaluator.run(task, 'en', 'test', tmp_path / 'a')
    foreign = permuted(evaluator, [1, 2, 0])
    order = label_order(task, ['entailment', 'neutral', 'contradiction'])
    found, _ = dataclasses.replace(foreign, label_order=order).run(task, 'en', 'test', tmp_path / 'b')
    files = [(tmp_path / name / 'world_nli' / 'test-en.tsv').read_text() for name in 'ab']
    assert files[0] == files[1]
    assert found == want
    foreign.run(task, 'en', 'test', tmp_path / 'c')
    assert (tmp_path / 'c' / 'world_nli' / 'test-en.tsv').read_text() != files[0]


def test_languages_in_one_stream_score_as_each_alone(
    evaluator: Evaluator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are computed together; predictions are the same bytes."""
    task, languages = get_task('world_nli'), ['de', 'en', 'es', 'sw']
    padded = dataclasses.replace(evaluator, evaluation=dataclasses.replace(evaluator.evaluation, packing=False))
    want = {lang: padded.run(task, lang, 'test', tmp_path / 'want') for lang in languages}
    passes: list[int] = []
    real = zero_shot.head_outputs
    monkeypatch.setattr(zero_shot, 'head_outputs', lambda *a, **k: (passes.append(len(a[3])), real(*a, **k))[1])
    for together, sets in ((1000, [160]), (0, [40] * 4)):
        monkeypatch.setattr(zero_shot, '_PASSES', together)
        passes.clear()
        found = list(evaluator.run_all(task, languages, 'test', tmp_path / str(together)))
        assert passes == sets
        assert {lang: (scores, n) for lang, scores, n in found} == want and [f[0] for f in found] == languages
        for lang in languages:
            a, b = (tmp_path / name / 'world_nli' / f'test-{lang}.tsv' for name in (str(together), 'want'))
            assert a.read_bytes() == b.read_bytes()


def test_a_language_that_cannot_be_read_loses_none_before_it(evaluator: Evaluator, tmp_path: Path) -> None:
    found = []
    with pytest.raises(TaskError, match='xx'):
        for language, *_ in evaluator.run_all(get_task('world_nli'), ['de', 'en', 'xx', 'es'], 'test', tmp_path):
            found.append(language)
    assert found == ['de', 'en']


@pytest.mark.parametrize(
    ('labels', 'want'),
    [
        ((), ()),
        (('contradiction', 'entailment', 'neutral'), ()),
        (('entailment', 'neutral', 'contradiction'), (2, 0, 1)),
        (('Neutral', 'Contradiction', 'Entailment'), (1, 2, 0)),
    ],
)
def test_label_order(labels: tuple[str, ...], want: tuple[int, ...]) -> None:
    assert label_order(get_task('world_nli'), labels) == want


@pytest.mark.parametrize('labels', [('yes', 'no', 'maybe'), ('entailment', 'neutral'), ('entailment',) * 3])
def test_labels_of_another_task_are_refused(labels: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=r"the checkpoint's labels are .*; task 'world_nli' has contradiction, "):
        label_order(get_task('world_nli'), labels)


def test_retrieval_writes_the_foreign_index_of_each_english_line(evaluator: Evaluator, tmp_path: Path) -> None:
    task = get_task('world_retrieval')
    scores, n = evaluator.run(task, 'es', 'test', tmp_path)
    found = [int(line) for line in (tmp_path / 'world_retrieval' / 'test-es.tsv').read_text().splitlines()]
    assert n == len(found) == 40
    assert scores['accuracy'] == pytest.approx(100 * np.mean(np.array(found) == np.arange(40)))
    assert set(scores) == {'accuracy', 'accuracy_to_en'}
    assert len(set(found)) > 5


def test_vectors_of_mining_lie_in_files_that_are_deleted(
    evaluator: Evaluator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BUCC and LAReQA: the same scores and files whether the vectors are held or lie beside the predictions."""
    root = tiny_files.write(tmp_path / 'data')
    ours, seen = dataclasses.replace(evaluator, data_root=str(root)), []
    real = zero_shot.embed_sentences

    def watched(*arguments: Any, out: Path | None = None, **more: Any) -> np.ndarray:
        found = real(*arguments, out=out, **more)
        seen.append((out, isinstance(found, np.memmap)))
        return found

    monkeypatch.setattr(zero_shot, 'embed_sentences', watched)
    for name, split in (('bucc2018', 'dev'), ('lareqa', 'test')):
        found = []
        for limit in (1 << 20, 0):
            monkeypatch.setattr(predict, 'SMALL_VECTORS', limit)
            seen.clear()
            out = tmp_path / f'{name}-{limit}'
            found.append(ours.run(get_task(name), 'de', split, out))
            assert [(path is not None, mapped) for path, mapped in seen] == [(not limit, not limit)] * 2
            assert len({path for path, _ in seen}) == (1 if limit else 2), 'each side has a file of its own'
            [file] = [path for path in out.rglob('*') if path.is_file()]
            found.append(file.read_bytes())
            assert not list(out.rglob('*.embeddings'))
        assert found[:2] == found[2:]


def test_bad_rows_are_left_out_of_what_is_scored(evaluator: Evaluator, tmp_path: Path) -> None:
    task, path = get_task('xnli'), tmp_path / 'data/xtreme/xnli/test-de.tsv'
    path.parent.mkdir(parents=True)
    path.write_text('a\tb\tneutral\na\tb\tperhaps\na\tb\tentailment\n')
    strict = dataclasses.replace(evaluator, data_root=str(tmp_path / 'data'))
    with pytest.raises(DataError, match="line 2, column 'label': unknown label 'perhaps'"):
        strict.run(task, 'de', 'test', tmp_path / 'a')
    bad: list[BadRow] = []
    _, n = dataclasses.replace(strict, bad_rows=bad).run(task, 'de', 'test', tmp_path / 'b')
    assert (n, [row.line for row in bad]) == (2, [2])
    assert len((tmp_path / 'b' / 'xnli' / 'test-de.tsv').read_text().splitlines()) == 2


def test_the_first_rows_are_the_first_rows_of_all(evaluator: Evaluator, tmp_path: Path) -> None:
    """max_examples cuts the file and changes no prediction of what is left."""
    task = get_task('world_nli')
    fewer = dataclasses.replace(evaluator, evaluation=dataclasses.replace(evaluator.evaluation, max_examples=7))
    evaluator.run(task, 'ru', 'test', tmp_path / 'a')
    _, n = fewer.run(task, 'ru', 'test', tmp_path / 'b')
    files = [(tmp_path / name / 'world_nli' / 'test-ru.tsv').read_text().splitlines() for name in 'ab']
    assert n == 7
    assert files[1] == files[0][:7]


def test_a_task_without_its_head(evaluator: Evaluator, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="'world_nli' needs a fine-tuned head"):
        dataclasses.replace(evaluator, head=None).run(get_task('world_nli'), 'en', 'test', tmp_path)
