"""Two systems on the same rows: the bootstrap's numbers, `report --against`, what is missing or does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xlmr_flax.analysis import paired
from xlmr_flax.cli.main import main
from xlmr_flax.config import parse, to_dict
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.sources import read_split
from xlmr_flax.kinds import gold, prediction_path, score_files
from xlmr_flax.kinds.gold import NoGold
from xlmr_flax.scoring import files
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import Task

LANGUAGES = ('en', 'de', 'ru')
ROWS = 40
Write = Callable[..., Path]
TARGETS = ('world_pairs', 'world_pos', 'world_spans')


def raw_config() -> dict[str, Any]:
    return {
        'seeds': (1, 2), 'encoder': {'source': 'random:tiny'}, 'targets': TARGETS,
        'evaluation': {'max_examples': ROWS, 'languages': dict.fromkeys(TARGETS, LANGUAGES)},
    }  # fmt: skip


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """(name, wrong, rows) -> a folder of predictions that are right but for the first `wrong` rows."""

    def make(name: str, wrong: int, rows: int = ROWS, languages: tuple[str, ...] = LANGUAGES) -> Path:
        root = tmp_path / name
        for target in TARGETS:
            task = get_task(target)
            for code in languages:
                examples: list[Any] = read_split(task, code, 'test', '', rows)
                path = prediction_path(root, task, code)
                if task.kind == 'pair':
                    labels = [e.label if i >= wrong else 1 - e.label for i, e in enumerate(examples)]
                    files.write_labels(path, [task.labels[i] for i in labels])
                elif task.kind == 'tag':
                    tags = [[task.labels[t] for t in e.tags] for e in examples]
                    files.write_tags(path, [['X'] * len(t) if i < wrong else t for i, t in enumerate(tags)])
                else:
                    said = {e.id: 'nothing' if i < wrong else e.answers[0][0] for i, e in enumerate(examples)}
                    files.write_answers(path, said)
        return root

    return make


@pytest.fixture
def workdir(tmp_path: Path, write: Write) -> Path:
    """A workdir of two seeds, 4 and 6 rows wrong."""
    work = tmp_path / 'work'
    work.mkdir()
    (work / 'config.json').write_text(json.dumps({'command': 'x', 'config': to_dict(parse(raw_config()))}))
    for seed, wrong in ((1, 4), (2, 6)):
        write(f'work/predictions/none-seed{seed}', wrong)
    return work


def test_scores_and_differences(write: Write) -> None:
    config, roots = parse(raw_config()), [write('a', 4), write('b', 6)]
    theirs = write('theirs', 20)
    (found,) = paired.pair_systems(config, 'world_pairs', roots, [theirs])
    assert [each.name for each in found.languages] == ['en', 'ru', 'de']  # as in the report: Russian has more text
    assert [each.name for each in found.means] == ['mean of 3', 'zero-shot mean of 2']
    task = get_task('world_pairs')
    for each in found.languages:
        assert (each.n, each.first, each.second) == (ROWS, 87.5, 50.0)
        assert each.change.difference == pytest.approx(0.375)
        assert 0 < each.change.low < 0.375 < each.change.high and each.change.p < 0.01
        assert each.p_holm is not None and each.p_holm >= each.change.p
        path = prediction_path(theirs, task, each.name)
        assert score_files(task, each.name, path, read_split(task, each.name, 'test', '', ROWS))['accuracy'] == 50
    # The same rows are wrong in every language, and an example is drawn in all of them at once: the mean is no surer.
    one, mean = found.languages[0].change, found.means[0].change
    assert (mean.low, mean.high) == pytest.approx((one.low, one.high))
    text = found.table('ours', 'theirs').markdown()
    assert '| en                    |       40 | 87.50 |  50.00 |     +37.50 |' in text


def test_the_same_system_does_not_differ(write: Write) -> None:
    root = write('a', 5)
    for target in TARGETS:
        for found in paired.pair_systems(parse(raw_config()), target, [root], [root]):
            assert {each.change.p for each in (*found.languages, *found.means)} == {1.0}


def test_metrics_by_kind(write: Write) -> None:
    a, b = write('a', 0), write('b', 10)
    names = {}
    for target in TARGETS:
        found = paired.pair_systems(parse(raw_config()), target, [a], [b])
        names[target] = [each.metric for each in found]
        assert all(each.first == 100 > each.second for pairing in found for each in pairing.languages)
    assert names == {'world_pairs': ['accuracy'], 'world_pos': ['f1'], 'world_spans': ['f1', 'exact_match']}


def test_report_against(workdir: Path, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    foreign = write('other system', 8)
    assert main(['report', f'--workdir={workdir}', f'--against={foreign}']) == 0
    out = capsys.readouterr().out
    assert 'none, mean of 2 seeds against other system' in out
    kept = workdir / 'report' / 'against-other_system'
    assert kept.with_suffix('.md').read_text(encoding='utf-8').strip() == out.strip()
    found = json.loads(kept.with_suffix('.json').read_text(encoding='utf-8'))
    assert [each['target'] for each in found] == ['world_pairs', 'world_pos', 'world_spans', 'world_spans']
    assert found[0]['languages'][0]['difference'] == pytest.approx(100 * 3 / ROWS)


def test_questions_that_a_system_left_out(write: Write) -> None:
    """Only questions that both systems answered are compared; a note gives their number. None: an error."""
    ours, theirs = write('ours', 0), write('theirs', 20)
    path = prediction_path(theirs, get_task('world_spans'), 'de')
    said = files.read_answers(path)
    files.write_answers(path, dict(list(said.items())[20:]))
    f1, exact = paired.pair_systems(parse(raw_config()), 'world_spans', [ours], [theirs])
    by_name = {each.name: (each.n, each.first, each.second) for each in exact.languages}
    assert by_name == {'de': (20, 100, 100), 'en': (40, 100, 50), 'ru': (40, 100, 50)}
    (note,) = f1.unpredicted
    assert note.startswith('de: theirs ')
    assert '20 of 40' in note
    assert note in f1.table('ours', 'theirs').notes
    files.write_answers(path, {'other': 'x'})
    for first, second in (([ours], [theirs]), ([theirs], [ours]), ([ours, theirs], [ours])):
        with pytest.raises(DataError, match=f'^{path}: '):
            paired.pair_systems(parse(raw_config()), 'world_spans', first, second)
    half = prediction_path(ours, get_task('world_spans'), 'de')
    files.write_answers(half, dict(list(said.items())[:20]))
    files.write_answers(path, dict(list(said.items())[20:]))
    with pytest.raises(DataError, match=f'^{path}: .* other files'):
        paired.pair_systems(parse(raw_config()), 'world_spans', [ours], [theirs])


def test_languages_without_gold_labels(
    workdir: Path, write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One is left out, in the table and the JSON. A target without any is a note; the others are compared."""
    real, lacking = paired.read_gold_set, {('world_pairs', 'ru'), *(('world_pos', code) for code in LANGUAGES)}

    def read(task: Task, language: str, *rest: Any) -> Any:
        if (task.name, language) in lacking:
            raise NoGold(f'{task.name} {language}')
        return real(task, language, *rest)

    monkeypatch.setattr(paired, 'read_gold_set', read)
    foreign = write('other', 8)
    (found,) = paired.pair_systems(parse(raw_config()), 'world_pairs', [foreign], [foreign])
    assert ([each.name for each in found.languages], found.unlabelled, found.left_out) == (['en', 'de'], ('ru',), ())
    assert any(note.endswith('ru.') for note in found.table('ours', 'theirs').notes)
    assert main(['report', f'--workdir={workdir}', f'--against={foreign}']) == 0
    assert '- world_pos: no test' in capsys.readouterr().out
    records = json.loads((workdir / 'report' / 'against-other.json').read_text(encoding='utf-8'))
    assert [each['target'] for each in records] == ['world_pairs', 'world_spans', 'world_spans']
    assert records[0]['unlabelled'] == ['ru']


@pytest.mark.parametrize(
    ('labels', 'error', 'said'),
    [((None, None), NoGold, 'xcopa test et'), ((0, None), DataError, r'test\.et\.jsonl, line 2: no gold label')],
)
@pytest.mark.parametrize('is_null', [True, False])
def test_a_gold_set_needs_labels(
    tmp_path: Path, labels: tuple[int | None, ...], error: type, said: str, is_null: bool
) -> None:
    """A label that is null is the same as no such field."""
    path = tmp_path / 'xtremer/xcopa/data/et/test.et.jsonl'
    path.parent.mkdir(parents=True)
    row = {'premise': 'p', 'choice1': 'a', 'choice2': 'b', 'question': 'cause'}
    rows = [row if label is None and not is_null else row | {'label': label} for label in labels]
    path.write_text(''.join(json.dumps(each) + '\n' for each in rows), encoding='utf-8')
    with pytest.raises(DataError, match=said) as caught:
        gold.read_gold_set(get_task('xcopa'), 'et', 'test', str(tmp_path), 0, False)
    assert type(caught.value) is error


def test_choices_of_the_whole_split_are_cut(tmp_path: Path) -> None:
    config = parse({**raw_config(), 'targets': ('world_choices',), 'evaluation': {
        'max_examples': 5, 'languages': {'world_choices': ('de',)}}})  # fmt: skip
    task = get_task('world_choices')
    examples: list[Any] = read_split(task, 'de', 'test', '', 20)
    roots = [tmp_path / name for name in ('cut', 'whole')]
    for root, rows in zip(roots, (5, 20), strict=True):
        files.write_choices(prediction_path(root, task, 'de'), [e.label for e in examples[:rows]])
    (found,) = paired.pair_systems(config, 'world_choices', roots[:1], roots[1:])
    assert [(each.n, each.first, each.second) for each in found.languages] == [(5, 100, 100)]


def test_predictions_of_the_whole_split_are_cut(workdir: Path, write: Write) -> None:
    """The workdir scored the first rows; a foreign file has all of them."""
    config = parse(raw_config())
    whole = write('whole', 8, rows=ROWS + 20)
    cut = write('cut', 8)
    for target in TARGETS:
        assert paired.pair_systems(config, target, [cut], [whole]) == paired.pair_systems(config, target, [cut], [cut])
    raw = raw_config()
    raw['evaluation']['max_examples'] = 0
    with pytest.raises(DataError, match=f'{ROWS} predictions for'):
        paired.pair_systems(parse(raw), 'world_pairs', [cut], [cut])


def test_what_is_missing(workdir: Path, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*more: str, against: Path) -> str:
        assert main(['report', f'--workdir={workdir}', f'--against={against}', *more]) == 1
        error = capsys.readouterr().err
        assert error.startswith('error: ') and 'Traceback' not in error
        return error

    assert 'no such folder of predictions' in said(against=tmp_path / 'nowhere')
    empty = tmp_path / 'empty'
    (empty / 'xnly').mkdir(parents=True)
    assert 'there: xnly' in said(against=empty) and 'world_pairs' in said(against=empty)
    some = write('some', 3, languages=('en', 'de'))
    path = some / 'world_pairs' / 'test-ru.tsv'
    assert f"{path}: no such file, needed for 'world_pairs' in 'ru'" in said(against=some)
    assert main(['report', f'--workdir={workdir}', f'--against={some}', '--allow_missing']) == 0
    assert 'a file is missing: ru.' in capsys.readouterr().out
    files.write_labels(some / 'world_pairs' / 'test-ru.tsv', ['0'] * 3)
    assert f'{path}: 3 predictions for {ROWS} ' in said(against=some)
    assert main(['report', f'--workdir={tmp_path}', f'--against={some}']) == 1
    assert 'no workdir of xlmr-flax run' in capsys.readouterr().err
    assert main(['report', f'--workdir={workdir}', '--allow_missing']) == 1
    assert '--allow_missing goes with --against=DIR' in capsys.readouterr().err
