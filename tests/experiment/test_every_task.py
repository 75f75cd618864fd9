"""Every task of the registry through a whole plan: it learns a few rows by heart, and its file gives its score.

The tasks of DEFAULT run always, one of each kind of batch, head, scorer and prediction file; the others are slow.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlmr_flax.config import Config, ConfigError
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.sources import read_gold, read_pairs, read_split
from xlmr_flax.data.split import Split
from xlmr_flax.experiment.plan.arms import task_of
from xlmr_flax.experiment.plan.runs import default_split
from xlmr_flax.experiment.runner import Runner
from xlmr_flax.kinds import prediction_path, score_files
from xlmr_flax.scoring import files
from xlmr_flax.scoring.metrics.retrieval import map_at_k, pair_f1
from xlmr_flax.tasks import all_tasks, get_task
from xlmr_flax.tasks.base import ChoiceExample, Example, PairExample, TagExample, Task

Configs = Callable[..., Config]

ROWS, STEPS = 16, 20
DEFAULT = (
    'world_nli', 'world_spans', 'world_choices', 'world_pos', 'world_retrieval',
    'qqp', 'squad_v2', 'mlqa', 'ccg', 'bucc2018', 'lareqa', 'nusax', 'sib200',
)  # fmt: skip
# Tasks whose files are not in the data that the tests were written on, and those that have train rows alone.
MISSING = ('logiqa2', 'logiqa2_nli', 'control', 'logicnli', 'siqa', 'reclor', 'mewslix', 'belebele', 'flores200')
TRAIN_ONLY = ('help',)
HAND_MADE = ('belebele', 'flores200')  # run on rows of this module, with Cosmos QA's as belebele's training rows
LEFT_OUT = {*MISSING, *TRAIN_ONLY} - {*HAND_MADE}
SCORED = sorted(name for name, task in all_tasks().items() if not task.is_text and name not in LEFT_OUT)


def _languages(task: Task, root: str) -> tuple[str, ...]:
    """Two languages that can be scored, English first: where any has a test file those, else of the dev files."""
    for split in ('test', 'dev'):
        here = [code for code in task.languages if default_split(task, [code], root) == split]
        here = [code for code in here if split in task.splits and Split(task, code, split, root).is_there()]
        if here:
            return tuple(sorted(here, key=lambda code: code != 'en')[:2])
    raise AssertionError(f'no file of {task.name} can be scored')


def _config(config_of: Configs, root: str, target: str, languages: Sequence[str], arm: str = 'none') -> Config:
    return config_of(
        targets=(target,),
        intermediate=(arm,),
        data_root=root,
        encoder__dropout=0.0,
        encoder__attention_dropout=0.0,
        recipe__steps=STEPS,
        recipe__log_every=1,
        recipe__max_train=ROWS,
        recipe__batch_size=ROWS,
        recipe__eval_examples=ROWS,
        recipe__optimizer__learning_rate=5e-3,
        evaluation__max_examples=ROWS,
        evaluation__languages={target: tuple(languages)},
    )


def _root(name: str, request: pytest.FixtureRequest) -> str:
    if name in HAND_MADE:
        return str(hand_made(request.getfixturevalue('tmp_path') / 'data'))
    return '' if name.startswith('world_') else str(request.getfixturevalue('data_root'))


def hand_made(root: Path) -> Path:
    """Writes a data root of the HAND_MADE tasks in their official layout, ROWS rows a file."""
    cosmos, belebele, lines = ['id,context,question,answer0,answer1,answer2,answer3,label'], [], []
    for row in range(ROWS):
        right, words = row % 4, ['no'] * 4
        words[right] = 'yes'
        cosmos.append(f'c{row},"Text, {row}.",What?,{",".join(words)},{right}')
        answers = {f'mc_answer{number}': word for number, word in enumerate(words, 1)}
        passage = {'link': 'l', 'question_number': 1, 'flores_passage': f'Text {row}.', 'question': 'What?'}
        belebele.append(json.dumps(passage | answers | {'correct_answer_num': str(right + 1), 'dialect': 'd'}))
        lines.append(f'Text {row}.')
    files_ = {f'intermediate/cosmosqa/{split}.csv': cosmos for split in ('train', 'valid')}
    for code in ('eng_Latn', 'swh_Latn'):
        files_[f'low_resource/belebele/{code}.jsonl'] = belebele
        files_[f'low_resource/flores200_dataset/devtest/{code}.devtest'] = lines
    for path, rows in files_.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text('\n'.join(rows) + '\n', encoding='utf-8')
    return root


@pytest.mark.parametrize(
    'name', [name if name in DEFAULT else pytest.param(name, marks=pytest.mark.slow) for name in SCORED]
)
def test_a_task_learns_and_is_scored_by_its_file(
    name: str, config_of: Configs, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    root = _root(name, request)
    languages = _languages(get_task(name), root)
    runner = Runner.open(_config(config_of, root, name, languages), tmp_path / 'w', 'x')
    rows, (run,) = runner.run(), runner.plan
    assert rows == [json.loads(line) for line in (tmp_path / 'w' / 'results.jsonl').read_text('utf-8').splitlines()]
    task, split = task_of(runner.config, name), runner.split(name)
    if task.kind != 'retrieval':
        check_loss(runner, run.name)
    assert list(dict.fromkeys(row['language'] for row in rows)) == list(languages)
    for language in languages:
        found = {row['metric']: row for row in rows if row['language'] == language}
        assert set(task.metrics) <= found.keys()
        path = prediction_path(runner.workdir.predictions(run), task, language, split)
        if task.kind == 'retrieval':
            n, scores = check_retrieval(task, language, split, root, path)
        else:
            examples = read_split(task, language, split, root, ROWS)
            n, scores = len(examples), score_files(task, language, path, examples)
            check_rows(task, examples, path, scores)
            if language == languages[0]:
                check_order(runner, run, task, examples, path, tmp_path)
        assert {row['n'] for row in found.values()} == {n}
        assert {row['split'] for row in found.values()} == {split}
        assert {metric: row['value'] for metric, row in found.items() if metric != 'accuracy_to_en'} == pytest.approx(
            scores
        )


def check_loss(runner: Runner, run: str) -> None:
    losses = [m['loss'] for m in runner.workdir.metrics() if 'loss' in m and m['run'] == run]
    assert len(losses) == STEPS
    assert np.mean(losses[-4:]) < 0.9 * losses[0], losses


def check_rows(task: Task, examples: Sequence[Example], path: Path, scores: dict[str, float]) -> None:
    """The file has one entry for each row; accuracies are counted again here, by hand."""
    text = path.read_text('utf-8')
    hits: list[bool] = []
    if task.kind == 'span':
        said = json.loads(text)
        assert list(said) == [e.id for e in examples]
        assert all(answer in e.context for e, answer in zip(examples, said.values(), strict=True))  # type: ignore[union-attr]
        return
    if task.kind == 'tag':
        blocks = [block.split('\n') for block in text.rstrip('\n').split('\n\n')]
        for example, tags in zip(examples, blocks, strict=True):
            assert isinstance(example, TagExample) and example.tags is not None
            hits += [task.labels[gold] == tag for gold, tag in zip(example.tags, tags, strict=True)]
    else:
        for example, line in zip(examples, text.splitlines(), strict=True):
            assert isinstance(example, PairExample | ChoiceExample) and example.label is not None
            said = json.loads(line)['label'] if task.kind == 'choice' else task.labels.index(line)
            hits.append(said == example.label)
    assert scores['accuracy'] == pytest.approx(100 * np.mean(hits))


def check_order(runner: Runner, run: Any, task: Task, examples: Sequence[Example], path: Path, folder: Path) -> None:
    """The same rows the other way round get the same predictions the other way round."""
    back = folder / f'back{path.suffix}'
    runner._evaluator(run).predict(task, examples[::-1], back)
    if task.kind == 'span':
        assert list(files.read_answers(back).items()) == list(files.read_answers(path).items())[::-1]
    else:
        read = files.read_tags if task.kind == 'tag' else files.read_labels
        assert read(back) == read(path)[::-1]


def check_retrieval(task: Task, language: str, split: str, root: str, path: Path) -> tuple[int, dict[str, float]]:
    """(what was asked, metrics of the file): for the three kinds of retrieval file."""
    if split not in task.gold:
        asks, pool = read_pairs(task, language, split, root, ROWS)
        said = files.read_indices(path)
        assert len(said) == len(asks) and max(said) < len(pool)
        gold = list(range(len(asks)))
        if task.name == 'tatoeba':  # as XTREME's preprocessing has the English lines
            gold.sort(key=lambda row: asks[row].text.strip())
        hits = sum(map(int.__eq__, gold, said))
        return len(asks), {'accuracy': 100 * hits / len(asks)}
    asks, pool = read_pairs(task, language, split, root)
    gold, known = read_gold(task, language, split, root), {candidate.id for candidate in pool}
    if 'f1' in task.metrics:
        found = files.read_pairs(path)
        assert found and {right for _, right in found} <= known
        return len(gold), pair_f1(gold, found)
    ranked = files.read_rankings(path.with_suffix('.json'))
    assert list(ranked) == [query.id for query in asks]
    assert all(len(set(ids)) == len(ids) == 20 and set(ids) <= known for ids in ranked.values())
    right = {query.id: [answer for asked, answer in gold if asked == query.id] for query in asks}
    return len(asks), map_at_k(right, ranked)


@pytest.mark.slow
@pytest.mark.parametrize('name', TRAIN_ONLY)
def test_a_task_without_rows_to_score_is_an_arm(name: str, config_of: Configs, tmp_path: Path, data_root: Path) -> None:
    runner = Runner.open(_config(config_of, str(data_root), 'world_pairs', ['en'], name), tmp_path / 'w', 'x')
    runner.run()
    check_loss(runner, runner.plan[0].name)
    with pytest.raises(ConfigError, match=f'targets: task {name!r} has no split'):
        Runner.open(_config(config_of, str(data_root), name, ['en']), tmp_path / 'v', 'x')


@pytest.mark.parametrize('name', MISSING)
def test_missing_files_are_named_before_anything_is_trained(
    name: str, config_of: Configs, tmp_path: Path, data_root: Path
) -> None:
    language = 'sw' if name == 'flores200' else 'en'  # its queries are English
    with pytest.raises(DataError) as error:
        Runner.open(_config(config_of, str(data_root), name, [language]), tmp_path / 'w', 'x')
    said = str(error.value)
    assert f"no such file, needed for task '{name}' in {language!r}" in said
    assert 'Where to get it: https://' in said
    assert not list(tmp_path.rglob('runs'))


def test_a_split_without_labels_is_not_the_default(config_of: Configs, tmp_path: Path, data_root: Path) -> None:
    """COPA's test labels are not public."""
    config = _config(config_of, str(data_root), 'copa', ['en'])
    assert Runner.open(config, tmp_path / 'w', 'x').split('copa') == 'dev'
    asked = config_of(targets=('copa',), evaluation__split={'copa': 'test'}, evaluation__languages={},
                      data_root=str(data_root))  # fmt: skip
    assert Runner.open(asked, tmp_path / 'v', 'x').split('copa') == 'test'  # predictions are written, not scored


def test_every_kind_and_scorer_is_among_the_defaults() -> None:
    def kinds(names: Sequence[str]) -> set[tuple[str, str]]:
        return {(get_task(name).kind, get_task(name).scorer) for name in names}

    assert kinds(DEFAULT) == kinds(SCORED)
