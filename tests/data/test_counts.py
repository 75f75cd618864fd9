"""Every row of every file of real data is read, or the difference stands here with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlmr_flax.data.sources import read_gold, read_pairs, read_split, with_labels
from xlmr_flax.data.split import Split
from xlmr_flax.tasks import all_tasks, get_task
from xlmr_flax.tasks.base import ChoiceExample, PairExample, SpanExample, TagExample

# (task, language, split) -> (rows that are no examples, why)
NOT_EXAMPLES = {
    ('fracas', 'en', 'test'): (11, "problems whose answer is 'undef'"),
    ('squad_v1', 'it', 'translate_dev'): (
        2,
        'd250 has empty answers alone; both answers of 5726487b5951b619008f6edf are written with another capital',
    ),
    ('logiqa2_nli_new', 'en', 'train'): (68, 'rows whose premise is in test_new.txt'),
    ('logicbench', 'en', 'train'): (24, 'rows whose context is in the evaluation files'),
}
# Tasks whose scored answers need not stand in the context: every one counts, as in the script of SQuAD v1.1.
LOST_ANSWERS = ('squad_it',)
# Files beside the data.
NO_DATA = (
    'LICENSE', 'LICENSE.md', 'LICENSE.txt', 'README.md', 'LANGUAGES.tsv', 'DOCUMENT_IDS.tsv', 'labels.txt',
    'newstest2019-ref-2.spa.txt',  # a second reference for Spanish
)  # fmt: skip
# Labels that a task has and its files here do not: these ask for entailment or not.
UNUSED_LABELS = {'help': {'contradiction'}, 'med': {'contradiction'}, 'clutrr_nli': {'neutral'}}
FILE_TASKS = sorted(name for name in all_tasks() if not name.startswith('world_'))

Manifest = dict[str, int]


@pytest.fixture(scope='module')
def manifest(data_root: Path) -> Manifest:
    """path -> rows, as the data's own list states them."""
    lines = (data_root / 'MANIFEST.tsv').read_text(encoding='utf-8').splitlines()
    path, rows = (lines[0].split('\t').index(name) for name in ('path', 'rows'))
    return {cells[path]: int(cells[rows]) for cells in (line.split('\t') for line in lines[1:])}


def languages(name: str, manifest: Manifest) -> list[str]:
    """The languages of a task, and for one that takes others by their file names those of its files."""
    task = get_task(name)
    found = dict.fromkeys(task.languages + task.more_languages)
    stems = {
        'tatoeba': [path.rsplit('.', 1)[1] for path in manifest if '/tatoeba/v1/tatoeba.' in path],
        'udhr': [Path(path).stem for path in manifest if path.startswith('raw_text/udhr/')],
        'udpos': [Path(path).name.split('_')[0] for path in manifest if path.endswith('.conllu')]
        + [Path(path).stem.split('-')[1] for path in manifest if path.startswith('xtreme/udpos_tsv/')],
    }
    local = {task.local_code(code) for code in found}
    return [*found, *sorted({stem for stem in stems.get(name, ()) if stem not in found and stem not in local})]


def splits_here(name: str, manifest: Manifest, root: Path) -> list[tuple[str, str]]:
    task = get_task(name)
    return [
        (code, split)
        for split in task.splits
        for code in task.translated.get(split) or languages(name, manifest)
        if Split(task, code, split, root).is_there()
    ]


def test_every_file_is_read_by_some_task(manifest: Manifest, data_root: Path) -> None:
    read = {
        path.relative_to(data_root).as_posix()
        for name in FILE_TASKS
        for code, split in splits_here(name, manifest, data_root)
        for path in Split(get_task(name), code, split, data_root).files()
    }
    assert len(manifest) > 1600
    assert {path for path in manifest if Path(path).name not in NO_DATA} == read


@pytest.mark.parametrize('name', [name for name in FILE_TASKS if get_task(name).kind != 'retrieval'])
def test_every_row_is_an_example(name: str, manifest: Manifest, data_root: Path) -> None:
    task = with_labels(get_task(name), data_root)
    labels: set[int] = set()
    different = {}
    for code, split in splits_here(name, manifest, data_root):
        examples = read_split(task, code, split, data_root)
        rows = sum(
            manifest[path.relative_to(data_root).as_posix()] for path in Split(task, code, split, data_root).files()
        )
        if rows != len(examples):
            different[name, code, split] = rows - len(examples)
        assert len({example.id for example in examples}) == len(examples)
        for example in examples:
            if isinstance(example, PairExample | ChoiceExample):
                labels |= set() if example.label is None else {example.label}
            elif isinstance(example, TagExample):
                assert len(example.words) == len(example.tags or ())
                labels |= set(example.tags or ())
            elif isinstance(example, SpanExample):
                assert example.answers or example.is_impossible
                lost = [a for a in example.answers if not a[0] or not example.context.startswith(*a)]
                assert not lost or name in LOST_ANSWERS
                assert all(start == len(example.context) for _, start in lost)
    assert different == {key: count for key, (count, _) in NOT_EXAMPLES.items() if key[0] == name}
    if splits_here(name, manifest, data_root):
        assert {task.labels[number] for number in labels} == set(task.labels) - UNUSED_LABELS.get(name, set())


@pytest.mark.parametrize('name', ['tatoeba', 'bucc2018', 'sib200_retrieval', 'ntrex'])
def test_every_sentence_is_on_a_side(name: str, manifest: Manifest, data_root: Path) -> None:
    task = get_task(name)
    here = splits_here(name, manifest, data_root)
    assert len(here) == {'tatoeba': 112, 'bucc2018': 4, 'sib200_retrieval': 408, 'ntrex': 129}[name]
    for code, split in here:
        sides = read_pairs(task, code, split, data_root)
        rows = [
            manifest[path.relative_to(data_root).as_posix()] for path in Split(task, code, split, data_root).files()
        ]
        assert [len(side) for side in sides] == rows[:2]
        if task.gold:
            gold = read_gold(task, code, split, data_root)
            assert len(gold) == rows[2]
            assert {left for left, _ in gold} <= {example.id for example in sides[0]}
            assert {right for _, right in gold} <= {example.id for example in sides[1]}


def test_every_question_of_lareqa_has_an_answer_in_every_language(manifest: Manifest, data_root: Path) -> None:
    task = get_task('lareqa')
    for code in task.languages:
        asks, pool = read_pairs(task, code, 'test', data_root)
        assert len(asks) == manifest[f'xtremer/lareqa/xquad-r/{code}.json']
        if code in ('ar', 'th'):
            gold = read_gold(task, code, 'test', data_root)
            known = {candidate.id for candidate in pool}
            answered = {(question, right.split('_')[0]) for question, right in gold}
            assert answered == {(question.id, other) for question in asks for other in task.languages}
            assert {right for _, right in gold} <= known
            assert all(candidate.text in candidate.context for candidate in pool)


def test_what_the_readers_were_tried_on(manifest: Manifest, data_root: Path) -> None:
    """Task.checked_on says what is there: real rows, rows that stand in, or none."""
    for name in FILE_TASKS:
        task = get_task(name)
        here = splits_here(name, manifest, data_root)
        standing = {split: bool(Split(task, code, split, data_root).stand_in()) for code, split in here}
        first = task.checked_on.split(' rows')[0]
        if not here:
            assert first == 'hand-made', name
        else:
            assert first == ('stand-in' if all(standing.values()) else 'real'), name
            assert any(standing.values()) == ('stand-in' in task.checked_on), name


def test_the_english_rows_of_afrixnli_are_those_of_xnli(data_root: Path) -> None:
    """Of the 600 rows, those that the folder of data has of XNLI's test set; the sets that share them agree."""
    african, xnli = (read_split(get_task(name), 'en', 'test', data_root) for name in ('afrixnli', 'xnli'))
    assert len(african) == 600
    labels = {(e.text_a.strip(), e.text_b.strip()): e.label for e in xnli}  # type: ignore[union-attr]
    shared = [e for e in african if (e.text_a.strip(), e.text_b.strip()) in labels]  # type: ignore[union-attr]
    assert len(shared) == 120
    assert all(labels[e.text_a.strip(), e.text_b.strip()] == e.label for e in shared)  # type: ignore[union-attr]
    golds = [
        [example.label for example in read_split(get_task(name), code, 'test', data_root)]  # type: ignore[union-attr]
        for name in ('afrixnli', 'indicxnli')
        for code in get_task(name).languages
    ]
    assert len(golds) == 29
    assert all(gold == golds[0] for gold in golds)


def test_the_ids_of_sib200_are_the_same_in_every_language(data_root: Path) -> None:
    task = get_task('sib200')
    for split, count in (('dev', 99), ('test', 204)):
        english = [(e.id, e.label) for e in read_split(task, 'en', split, data_root)]  # type: ignore[union-attr]
        assert len(english) == count
        for code in task.languages:
            assert [(e.id, e.label) for e in read_split(task, code, split, data_root)] == english  # type: ignore[union-attr]
