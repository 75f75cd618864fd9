"""Gold labels from a data root: the scores of a gold folder, on rows written by hand and on real ones."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from xlmr_flax.data.readers.text import DataError
from xlmr_flax.scoring.gold import GoldOfDataRoot
from xlmr_flax.scoring.score import score_folder, to_markdown, warnings

TOPIC, READING = 'index_id\tcategory\ttext\n', dict.fromkeys(('flores_passage', 'question'), 'Ndiyo .')
READING |= {f'mc_answer{number}': str(number) for number in (1, 2, 3, 4)}
DATA = {
    'afrixnli/swa/test.csv': 'premise,hypothesis,label\na,b,0\n"a, b",c,1\na,b,2\nc,d,contradiction\n',
    'uner/UNER_Tagalog-TRG/tl_trg-ud-test.iob2': (
        '1\tSi\tB-OTH\t-\t-\n2\tAna\tB-PER\t-\tx\n3\tReyes\tI-PER\t-\tx\n\n1\tOslo\tB-LOC\t-\tx\n'
    ),
    'sib200/eng_Latn/test.tsv': f'{TOPIC}9\ttravel\tz\n7\tsports\ta\n8\ttravel\tm\n3\thealth\tb\n',
    'sib200/swh_Latn/test.tsv': f'{TOPIC}9\ttravel\tp\n7\tsports\tq\n8\ttravel\tr\n3\thealth\ts\n',
    'ntrex128/NTREX-128/newstest2019-src.eng.txt': 'Go.\nBye.\n',
    'ntrex128/NTREX-128/newstest2019-ref.swa.txt': 'Nenda.\nKwaheri.\n',
    'flores200_dataset/devtest/eng_Latn.devtest': 'Go.\nBye.\nStay.\n',
    'flores200_dataset/devtest/swh_Latn.devtest': 'Nenda.\nKwaheri.\nKaa.\n',
    'belebele/swh_Latn.jsonl': ''.join(json.dumps(READING | {'correct_answer_num': n}) + '\n' for n in '31'),
    'nusax/sentiment/ngaju/test.csv': 'id,text,label\n3,a,positive\n1,"b, c",positive\n2,d,negative\n',
    'masakhanews/data/hau/test.tsv': 'category\theadline\ttext\nhealth\ta\t"b\nc"\nhealth\td\te\nsports\tf\tg\n',
}
# Task and language: what a gold file has, what is predicted, and the score worked by hand.
SCORES: dict[tuple[str, str], tuple[str, str, float]] = {
    ('afrixnli', 'sw'): (
        'entailment\nneutral\ncontradiction\ncontradiction\n', 'entailment\nneutral\nneutral\ncontradiction\n', 75.0
    ),
    # Two entities, two predicted, one of them right: OTH is no entity, and a part of a name is not the name.
    ('uner', 'tl'): ('O\nB-PER\nI-PER\n\nB-LOC\n', 'O\nB-PER\nO\n\nB-LOC\n', 50.0),
    ('sib200', 'sw'): ('travel\nsports\ntravel\nhealth\n', 'travel\ntravel\ntravel\nsports\n', 50.0),
    ('sib200_retrieval', 'sw'): ('0\n1\n2\n3\n', '0\n1\n1\n3\n', 75.0),
    ('ntrex', 'sw'): ('0\n1\n', '1\n1\n', 50.0),
    ('flores200', 'sw'): ('0\n1\n2\n', '2\n1\n0\n', 100 / 3),
    ('belebele', 'sw'): ('{"label": 2}\n{"label": 0}\n', '{"label": 2}\n{"label": 1}\n', 50.0),
    # The first class: precision 2/3, recall 1, F1 80 %; the second: 0. Their mean, and the mean by their rows.
    ('nusax', 'nij'): ('positive\npositive\nnegative\n', 'positive\npositive\npositive\n', 40.0),
    ('masakhanews', 'ha'): ('health\nhealth\nsports\n', 'health\nhealth\nhealth\n', 160 / 3),
}  # fmt: skip


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8', newline='')


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Folders of predictions and labels and a data root, all of the rows above."""
    for (task, language), (gold, said, _) in SCORES.items():
        name = f'{task}/test-{language}.{"jsonl" if task == "belebele" else "tsv"}'
        write(tmp_path / 'labels' / name, gold)
        write(tmp_path / 'predictions' / name, said)
    for name, text in DATA.items():
        write(tmp_path / 'data/low_resource' / name, text)
    return tmp_path / 'predictions', tmp_path / 'labels', tmp_path / 'data'


def score(predictions: Path, labels: Any, benchmark: str = 'low-resource', *tasks: str) -> dict[str, Any]:
    return score_folder(predictions, labels, benchmark, tasks or None, allow_missing=True)


def test_both_places_of_gold_give_the_scores_worked_by_hand(folders: tuple[Path, Path, Path]) -> None:
    predictions, labels, data = folders
    scores = score(predictions, labels)
    assert {task: each['score'] for task, each in scores['tasks'].items()} == pytest.approx(
        {task: value for (task, _), (*_, value) in SCORES.items()}
    )
    assert score(predictions, GoldOfDataRoot(data)) == scores
    assert scores['tasks']['uner']['languages']['tl']['f1'] == 50.0
    assert scores['missing_tasks'] == ['americasnli', 'indicxnli']
    for benchmark, tasks in (('sib200', ['sib200', 'sib200_retrieval']), ('irokobench', ['afrixnli'])):
        part = score(predictions, GoldOfDataRoot(data), benchmark)
        assert part['tasks'] == {task: scores['tasks'][task] for task in tasks}


def test_a_language_without_a_test_file_is_an_error_unless_allowed(folders: tuple[Path, Path, Path]) -> None:
    predictions, _, data = folders
    source = GoldOfDataRoot(data)
    for language in ('am', 'en'):
        write(predictions / f'afrixnli/test-{language}.tsv', 'neutral\n')
    with pytest.raises(DataError) as error:
        score_folder(predictions, source, 'irokobench')
    assert str(error.value).startswith(f'{data / "low_resource/afrixnli/amh/test.csv"}: no such file')
    result = score(predictions, source, 'irokobench')['tasks']['afrixnli']
    assert list(result['languages']) == ['sw'] and len(result['missing_languages']) == 17


def test_a_task_without_a_test_file_is_named_and_the_others_are_scored(folders: tuple[Path, Path, Path]) -> None:
    predictions, _, data = folders
    (data / 'low_resource/belebele/swh_Latn.jsonl').unlink()
    scores = score(predictions, GoldOfDataRoot(data))
    assert scores['unlabelled_tasks'] == ['belebele'] and 'belebele' not in scores['tasks']
    assert [line.split(':')[0] for line in warnings(scores)] == ['belebele']
    with pytest.raises(DataError, match='no test file in the data root') as error:
        score(predictions, GoldOfDataRoot(predictions))
    assert str(error.value).startswith(f'{predictions}: ')
    with pytest.raises(DataError, match='is not a folder'):
        GoldOfDataRoot(data / 'gone')


def test_rows_without_labels_are_not_scored_and_some_without_are_an_error(folders: tuple[Path, Path, Path]) -> None:
    predictions, _, data = folders
    file = data / 'low_resource/belebele/swh_Latn.jsonl'
    write(file, 2 * (json.dumps(READING) + '\n'))
    scores = score(predictions, GoldOfDataRoot(data), 'low-resource', 'belebele')
    assert scores['tasks'] == {} and 'belebele' in scores['missing_tasks']
    [line] = warnings(scores)
    assert line.startswith('belebele sw: ') and str(data) in line
    write(file, f'{json.dumps(READING | {"correct_answer_num": "1"})}\n{json.dumps(READING)}\n')
    with pytest.raises(DataError, match=rf'{file.name}, line 2'):
        score(predictions, GoldOfDataRoot(data), 'low-resource', 'belebele')


def test_predictions_of_another_length_name_both_sides(folders: tuple[Path, Path, Path]) -> None:
    predictions, _, data = folders
    write(predictions / 'afrixnli/test-sw.tsv', 'neutral\n')
    with pytest.raises(DataError, match='1 predictions for 4 gold labels') as error:
        score(predictions, GoldOfDataRoot(data), 'irokobench')
    assert str(predictions / 'afrixnli/test-sw.tsv') in str(error.value)
    assert f'afrixnli test sw of {data}' in str(error.value)


def test_gold_rows_that_stand_in_for_the_dataset_are_named(folders: tuple[Path, Path, Path]) -> None:
    predictions, _, data = folders
    write(data / 'MANIFEST.tsv', 'path\tnote\nlow_resource/afrixnli/swa/test.csv\tSTAND-IN: rows of XNLI\n')
    scores = score(predictions, GoldOfDataRoot(data))
    assert scores['tasks']['afrixnli']['stand_in'] == 'STAND-IN: rows of XNLI'
    assert scores['tasks']['sib200']['stand_in'] == ''
    [line] = warnings(scores)
    assert line.startswith('afrixnli: ') and line in to_markdown(scores)


def rows_of(path: Path, delimiter: str = ',') -> list[dict[str, str]]:
    with path.open(encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def real_gold(data: Path) -> dict[tuple[str, str], list[str]]:
    """The lines of gold files of real rows, read here without the tasks' readers."""
    names = {'0': 'entailment', '1': 'neutral', '2': 'contradiction'}
    xnli = [row['label'] for row in rows_of(data / 'afrixnli/swa/test.csv')]
    file = data / 'uner/UNER_Cebuano-GJA/ceb_gja-ud-test.iob2'
    words = [line for line in file.read_text(encoding='utf-8').strip().split('\n') if not line.startswith('#')]
    tags = [line.split('\t')[2] if line else '' for line in words]
    topics = [row['category'] for row in rows_of(data / 'sib200/swh_Latn/test.tsv', '\t')]
    news = (data / 'ntrex128/NTREX-128/newstest2019-ref.swa.txt').read_text(encoding='utf-8').strip().split('\n')
    return {
        ('afrixnli', 'sw'): [names.get(label, label) for label in xnli],
        ('uner', 'ceb'): ['O' if tag.endswith('-OTH') else tag for tag in tags],
        ('sib200', 'sw'): topics,
        ('sib200_retrieval', 'sw'): [str(row) for row in range(len(topics))],
        ('ntrex', 'sw'): [str(row) for row in range(len(news))],
    }


def test_real_rows_get_the_same_scores_from_a_folder_and_from_the_data_root(data_root: Path, tmp_path: Path) -> None:
    gold = real_gold(data_root / 'low_resource')
    for (task, language), lines in gold.items():
        said = ['O'] * len(lines) if task == 'uner' else [*lines[1:], lines[0]]
        said = [new if old else '' for new, old in zip(said, lines, strict=True)]
        for side, content in (('labels', lines), ('predictions', said)):
            write(tmp_path / side / task / f'test-{language}.tsv', ''.join(f'{line}\n' for line in content))
    scores = score(tmp_path / 'predictions', tmp_path / 'labels')
    assert score(tmp_path / 'predictions', GoldOfDataRoot(data_root))['tasks'] == scores['tasks']
    for task, language in (('afrixnli', 'sw'), ('sib200', 'sw'), ('sib200_retrieval', 'sw'), ('ntrex', 'sw')):
        lines = gold[task, language]
        hits = sum(map(str.__eq__, lines, [*lines[1:], lines[0]]))
        assert scores['tasks'][task]['score'] == pytest.approx(100 * hits / len(lines))
    assert scores['tasks']['uner']['score'] == 0.0
    perfect = score(tmp_path / 'labels', GoldOfDataRoot(data_root))
    assert {task: result['score'] for task, result in perfect['tasks'].items()} == dict.fromkeys(scores['tasks'], 100.0)
