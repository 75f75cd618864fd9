"""Scores of folders: XTREME's own mock submission to the last digit, and small folders written here."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from absl import flags

from xlmr_flax.cli.score import define_flags
from xlmr_flax.data.readers.text import DataError
from xlmr_flax.kinds import score_files
from xlmr_flax.scoring import files
from xlmr_flax.scoring.benchmarks import BENCHMARKS, XTREME, XTREME_R, Benchmark
from xlmr_flax.scoring.score import score_folder, to_json, to_markdown, warnings
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import ChoiceExample, PairExample, SentenceExample, SpanExample, TagExample


@pytest.fixture(scope='module')
def golden(data_root: Path) -> Path:
    return data_root.parent / 'golden'


def score_golden(golden: Path, benchmark: str, tasks: list[str] | None = None) -> dict[str, Any]:
    mock = golden / 'xtreme_mock'
    return score_folder(mock / 'predictions', mock / 'labels', benchmark, tasks)


@pytest.mark.parametrize('task', [*XTREME.parts, 'mewslix'])
def test_the_mock_submission_is_scored_exactly(task: str, golden: Path) -> None:
    want = json.loads((golden / 'xtreme_mock_scores.json').read_text('utf-8'))[task]
    result = score_golden(golden, 'xtreme' if task in XTREME.parts else 'xtreme-r', [task])
    assert {name: result['tasks'][task]['mean'][name] for name in want} == want


def test_the_mock_submission_as_a_whole(golden: Path) -> None:
    scores = score_golden(golden, 'xtreme')
    assert scores['missing_tasks'] == []
    assert scores['unknown_folders'] == ['mewslix']
    # The nine task scores by hand: (EM+F1)/2 for QA, F1 or accuracy otherwise.
    qa = [(77.27272727272727 + 79.9586776859504) / 2, (57.142857142857146 + 81.76870748299321) / 2]
    qa.append((88.88888888888889 + 97.22222222222223) / 2)
    pair = [30.666666666666668, 51.42857142857143]
    structured, retrieval = [70.21746048354693, 57.50793650793652], [55.0, 53.611111111111114]
    assert scores['overall'] == pytest.approx(sum(qa + pair + structured + retrieval) / 9)
    assert scores['groups'] == pytest.approx(
        {
            'sentence-pair': sum(pair) / 2,
            'structured': sum(structured) / 2,
            'qa': sum(qa) / 3,
            'retrieval': sum(retrieval) / 2,
        }
    )
    text = to_markdown(scores)
    assert '| overall | 62.' in text
    assert '| bucc2018 | 55.00 | f1 55.00, precision 55.00, recall 55.00 |' in text
    assert 'Folders that belong to no task: mewslix.' in text
    assert json.loads(to_json(scores)) == scores


def test_the_benchmarks() -> None:
    assert {name: len(part.languages) for name, part in XTREME.parts.items()} == {
        'xnli': 15, 'pawsx': 7, 'udpos': 33, 'panx': 40, 'xquad': 11, 'mlqa': 7, 'tydiqa': 9, 'bucc2018': 4,
        'tatoeba': 36,
    }  # fmt: skip
    counts = {name: len(part.languages) for name, part in XTREME_R.parts.items()}
    assert (len(counts), counts['udpos'], counts['panx'], counts['tatoeba'], counts['xcopa']) == (10, 38, 48, 41, 11)
    for benchmark in BENCHMARKS.values():
        for part in benchmark.parts.values():
            assert len(set(part.languages)) == len(part.languages)
    assert set(get_task('tatoeba').languages) == set(XTREME.parts['tatoeba'].languages)
    for name in ('xnli', 'pawsx'):
        assert set(get_task(name).languages) == set(XTREME.parts[name].languages)


def test_the_groups_for_low_resource_languages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    low = BENCHMARKS['low-resource']
    assert {name: len(part.languages) for name, part in low.parts.items()} == {
        'afrixnli': 18, 'americasnli': 10, 'indicxnli': 11, 'sib200': 205, 'masakhanews': 16, 'nusax': 12, 'uner': 9,
        'belebele': 122, 'sib200_retrieval': 204, 'flores200': 203, 'ntrex': 126,
    }  # fmt: skip
    assert list(BENCHMARKS['sib200'].parts) == ['sib200', 'sib200_retrieval']
    assert list(BENCHMARKS['irokobench'].parts) == ['afrixnli']
    for name, part in low.parts.items():
        assert (part.main or 'accuracy') in (*get_task(name).metrics, 'accuracy')
        assert not part.main or part.main == get_task(name).metrics[0]
    names = ('nusax', 'masakhanews', 'belebele', 'sib200')
    parts = {name: dataclasses.replace(low.parts[name], languages=('ha',)) for name in names}
    monkeypatch.setitem(BENCHMARKS, 'small', Benchmark('small', parts))
    # a: p 2/3, r 1, f 4/5; b: 0 of 1. Macro 40, weighted 2/3 of 80.
    for side, labels in (('labels', 'aab'), ('predictions', 'aaa')):
        for name in ('nusax', 'masakhanews', 'sib200'):
            names_ = get_task(name).labels
            files.write_labels(tmp_path / side / name / 'test-ha.tsv', [names_['ab'.index(each)] for each in labels])
        files.write_choices(tmp_path / side / 'belebele' / 'test-ha.jsonl', [0, 0, int(side == 'labels')])
    scores = score_folder(tmp_path / 'predictions', tmp_path / 'labels', 'small')
    assert {name: result['score'] for name, result in scores['tasks'].items()} == pytest.approx(
        {'nusax': 40.0, 'masakhanews': 160 / 3, 'belebele': 200 / 3, 'sib200': 200 / 3}
    )
    assert scores['tasks']['nusax']['mean'] == pytest.approx(
        {'accuracy': 200 / 3, 'macro_f1': 40.0, 'weighted_f1': 160 / 3}
    )
    assert scores['groups'] == pytest.approx({'topic': 60.0, 'sentiment': 40.0, 'qa': 200 / 3})


def test_the_flag_knows_every_benchmark() -> None:
    values = flags.FlagValues()
    define_flags(values)
    assert values['benchmark'].parser.enum_values == list(BENCHMARKS)  # type: ignore[attr-defined]


def test_the_groups_of_xtreme_r_are_those_of_its_script() -> None:
    assert XTREME_R.groups['retrieval'] == ('tatoeba', 'mewslix')
    in_groups = [task for tasks in XTREME_R.groups.values() for task in tasks]
    assert set(XTREME_R.parts) - set(in_groups) == {'lareqa'}
    assert sorted(XTREME.parts) == sorted(task for tasks in XTREME.groups.values() for task in tasks)


def test_lareqa_counts_in_the_average_and_in_no_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {name: dataclasses.replace(XTREME_R.parts[name], languages=('de',)) for name in ('tatoeba', 'lareqa')}
    monkeypatch.setitem(BENCHMARKS, 'small', Benchmark('small', parts))
    for side, index in (('labels', 0), ('predictions', 1)):
        files.write_labels(tmp_path / side / 'tatoeba' / 'test-de.tsv', [0, index])
        files.write_answers(tmp_path / side / 'lareqa' / 'test-de.json', {'q': ['a']})
    scores = score_folder(tmp_path / 'predictions', tmp_path / 'labels', 'small')
    assert scores['groups'] == {'retrieval': 50.0}
    assert scores['overall'] == 75.0


def test_a_task_without_a_folder_of_labels_is_named_and_the_others_are_scored(tmp_path: Path) -> None:
    languages = XTREME.parts['pawsx'].languages
    folders = submission(tmp_path, 'pawsx', languages, '0\n1\n')
    submission(tmp_path, 'xnli', ('de',), 'neutral\n')
    shutil.rmtree(tmp_path / 'labels/xnli')
    scores = score_folder(*folders)
    assert list(scores['tasks']) == ['pawsx'] and scores['tasks']['pawsx']['score'] == 100.0
    assert scores['unlabelled_tasks'] == ['xnli'] and 'xnli' in scores['missing_tasks']
    assert scores['groups']['sentence-pair'] is None
    [line] = warnings(scores)
    assert line.startswith('xnli: ') and f'- {line}' in to_markdown(scores).splitlines()
    with pytest.raises(DataError, match=r'labels/xnli/test-ar\.tsv|predictions/xnli/test-ar\.tsv'):
        score_folder(*folders, tasks=['xnli'])
    (tmp_path / 'labels/xnli').mkdir()  # a folder that is there must be whole
    with pytest.raises(DataError, match=r'xnli/test-ar\.tsv: no such file'):
        score_folder(*folders)
    shutil.rmtree(tmp_path / 'labels/xnli')
    shutil.rmtree(tmp_path / 'labels/pawsx')
    with pytest.raises(DataError, match=r'labels: no folder of labels for any of the predicted tasks \(xnli, pawsx\)'):
        score_folder(*folders)


def submission(root: Path, task: str, languages: tuple[str, ...], content: str) -> tuple[Path, Path]:
    """The same content as predictions and as gold labels."""
    for side in ('predictions', 'labels'):
        folder = root / side / task
        folder.mkdir(parents=True, exist_ok=True)
        for language in languages:
            (folder / f'test-{language}.tsv').write_text(content)
    return root / 'predictions', root / 'labels'


def test_a_part_of_the_benchmark_names_what_is_missing(tmp_path: Path) -> None:
    folders = submission(tmp_path, 'pawsx', XTREME.parts['pawsx'].languages, '0\n1\n')
    (tmp_path / 'predictions/pawsx/test-de.tsv').write_text('1\n1\n')
    scores = score_folder(*folders)
    assert scores['tasks']['pawsx']['languages']['de'] == {'accuracy': 50.0}
    assert scores['tasks']['pawsx']['score'] == pytest.approx(650 / 7)
    assert scores['overall'] is None
    assert set(scores['groups'].values()) == {None}
    assert scores['missing_tasks'] == [task for task in XTREME.parts if task != 'pawsx']
    assert 'Missing tasks: xnli, udpos' in to_markdown(scores)
    submission(tmp_path, 'xnli', XTREME.parts['xnli'].languages, 'neutral\n')
    assert score_folder(*folders)['groups']['sentence-pair'] == pytest.approx((650 / 7 + 100) / 2)


def test_a_missing_language_is_an_error_unless_allowed(tmp_path: Path) -> None:
    folders = submission(tmp_path, 'pawsx', ('de', 'en'), '0\n1\n')
    with pytest.raises(DataError, match=r"predictions/pawsx/test-es\.tsv: no such file, needed for 'pawsx' in 'es'"):
        score_folder(*folders)
    scores = score_folder(*folders, allow_missing=True)
    assert scores['tasks']['pawsx']['score'] == 100.0
    assert scores['tasks']['pawsx']['missing_languages'] == ['es', 'fr', 'ja', 'ko', 'zh']
    assert scores['groups']['sentence-pair'] is None
    assert 'Missing languages: es, fr, ja, ko, zh.' in to_markdown(scores)
    submission(tmp_path / 'more', 'xnli', ('de',), 'neutral\n')
    folders_ = submission(tmp_path / 'more', 'pawsx', XTREME.parts['pawsx'].languages, '0\n')
    assert score_folder(*folders_, allow_missing=True)['groups']['sentence-pair'] is None
    with pytest.raises(DataError, match=r'predictions/xnli/test-ar\.tsv: no such file'):
        score_folder(*folders, tasks=['xnli'])
    assert score_folder(*folders, tasks=['xnli'], allow_missing=True)['missing_tasks'] == list(XTREME.parts)
    (tmp_path / 'labels/pawsx/test-de.tsv').unlink()
    with pytest.raises(DataError, match=r'labels/pawsx/test-de\.tsv: no such file'):
        score_folder(*folders)


def test_the_score_of_a_qa_task_is_the_mean_of_both_metrics(tmp_path: Path) -> None:
    for language in XTREME.parts['tydiqa'].languages:
        question = {'id': 'q', 'question': '?', 'answers': [{'text': 'red house', 'answer_start': 0}]}
        gold = {'data': [{'paragraphs': [{'context': 'red house', 'qas': [question]}]}]}
        files.write_answers(tmp_path / f'labels/tydiqa/test-{language}.json', gold)
        files.write_answers(tmp_path / f'predictions/tydiqa/test-{language}.json', {'q': 'house'})
    result = score_folder(tmp_path / 'predictions', tmp_path / 'labels')['tasks']['tydiqa']
    assert result['mean'] == pytest.approx({'f1': 200 / 3, 'exact_match': 0.0})
    assert result['score'] == pytest.approx(100 / 3)


@pytest.mark.parametrize(
    ('task', 'said'),
    [('pawsx', '1 predictions for 2'), ('udpos', '1 sentences predicted'), ('tatoeba', '1 predictions')],
)
def test_a_file_of_another_length_is_an_error(tmp_path: Path, task: str, said: str) -> None:
    first, second, gap = ('X', 'SYM', '\n') if task == 'udpos' else ('0', '1', '')
    languages = XTREME.parts[task].languages
    folders = submission(tmp_path, task, languages, f'{first}\n{gap}{second}\n')
    (tmp_path / 'predictions' / task / f'test-{languages[0]}.tsv').write_text(f'{first}\n')
    with pytest.raises(DataError, match=rf'predictions/{task}/test-{languages[0]}\.tsv: {said}'):
        score_folder(*folders)


def test_names_that_do_not_exist(tmp_path: Path) -> None:
    folders = submission(tmp_path, 'paws', ('de',), '0\n')
    assert score_folder(*folders)['unknown_folders'] == ['paws']
    with pytest.raises(DataError, match=r"no task 'pawx' \(did you mean 'pawsx'\?\)"):
        score_folder(*folders, tasks=['pawx'])
    with pytest.raises(DataError, match=r"unknown benchmark 'xtrem' \(did you mean 'xtreme'\?\)"):
        score_folder(*folders, 'xtrem')
    with pytest.raises(DataError, match='no such folder of labels'):
        score_folder(folders[0], tmp_path / 'gone')


def test_one_file_against_examples(tmp_path: Path) -> None:
    path = tmp_path / 'x'
    pairs = [PairExample('a', '', '', 0), PairExample('b', '', '', 2)]
    files.write_labels(path, ['contradiction', 'entailment'])
    assert score_files(get_task('xnli'), 'sw', path, pairs) == {'accuracy': 50.0}
    files.write_choices(path, [3, 1])
    choices = [ChoiceExample('a', '', ('',) * 4, 3), ChoiceExample('b', '', ('',) * 4, 0)]
    assert score_files(get_task('world_choices'), 'en', path, choices) == {'accuracy': 50.0}
    files.write_tags(path, [['B-PER', 'O']])
    tags = [TagExample('a', ('Ada', 'sat'), (2, 6))]
    assert score_files(get_task('world_ner'), 'en', path, tags)['f1'] == 100.0
    files.write_answers(path, {'a': 'Ada'})
    spans = [SpanExample('a', '', 'Ada sat', (('Ada', 0),)), SpanExample('b', '', 'Ada sat', (('sat', 4),))]
    assert score_files(get_task('world_spans'), 'en', path, spans) == {'f1': 50.0, 'exact_match': 50.0}
    files.write_labels(path, [0, 0])
    sentences = [SentenceExample('a', ''), SentenceExample('b', '')]
    assert score_files(get_task('tatoeba'), 'de', path, sentences) == {'accuracy': 50.0}
    for name in ('xnli', 'world_choices', 'world_ner', 'world_spans', 'tatoeba'):
        assert get_task(name).metrics[0] in ('accuracy', 'f1')


def test_the_scorer_of_a_task_is_followed(tmp_path: Path) -> None:
    path = tmp_path / 'dev-en.json'
    base = get_task('world_spans')
    files.write_answers(path, {'a': 'Haus', 'b': 'x'})
    spans = [SpanExample('a', '', 'das Haus', (('das Haus', 0),)), SpanExample('b', '', 'Haus', (), True)]
    assert score_files(dataclasses.replace(base, scorer='mlqa'), 'de', path, spans[:1])['exact_match'] == 100.0
    assert score_files(base, 'de', path, spans[:1])['exact_match'] == 0.0
    second = dataclasses.replace(base, scorer='squad_v2')
    with pytest.raises(DataError, match=r'dev-en\.no_answer\.json: no such file'):
        score_files(second, 'de', path, spans)
    files.write_answers(files.no_answer_path(path), {'a': 0.1, 'b': 0.9})
    assert score_files(second, 'de', path, spans)['best_f1'] == pytest.approx(100 * (2 / 3 + 1) / 2)
    files.write_labels(path, ['1', '1', '0'])
    qqp = dataclasses.replace(get_task('pawsx'), scorer='f1')
    gold = [PairExample(str(i), '', '', label) for i, label in enumerate((1, 0, 1))]
    assert score_files(qqp, 'en', path, gold)['f1'] == 50.0


def test_files_that_do_not_fit_the_examples(tmp_path: Path) -> None:
    path = tmp_path / 'x'
    pairs = [PairExample('a', '', '', 0), PairExample('b', '', '', 2)]
    files.write_labels(path, ['neutral', 'entailmnt'])
    with pytest.raises(DataError, match=r"x, line 2: 'entailmnt' is no label of 'xnli' \(did you mean 'entailment'"):
        score_files(get_task('xnli'), 'sw', path, pairs)
    files.write_labels(path, ['neutral'])
    with pytest.raises(DataError, match='x: 1 predictions for 2 gold labels'):
        score_files(get_task('xnli'), 'sw', path, pairs)
    with pytest.raises(DataError, match="'c' has no gold label"):
        score_files(get_task('xnli'), 'sw', path, [PairExample('a', '', '', 0), PairExample('c', '', '', None)])
    with pytest.raises(DataError, match='no such file'):
        score_files(get_task('xnli'), 'sw', tmp_path / 'gone', pairs)
    files.write_tags(path, [['O'], ['O', 'B-PRE']])
    tags = [TagExample('a', ('w',), (6,)), TagExample('b', ('w', 'w'), (6, 6))]
    with pytest.raises(DataError, match=r"line 4: 'B-PRE' is no label"):
        score_files(get_task('world_ner'), 'en', path, tags)
    with pytest.raises(DataError, match="'c' has no gold tags"):
        score_files(get_task('world_ner'), 'en', path, [tags[0], TagExample('c', ('w',), None)])
