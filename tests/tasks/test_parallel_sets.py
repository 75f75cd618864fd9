"""The low-resource and logic sets of the second data pack: from hand-made rows in their layouts to examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tasks.parallel_files import CLUTRR, FILES, PROOF

from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.sources import read_pairs, read_split
from xlmr_flax.data.split import Split
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import ChoiceExample as Choice
from xlmr_flax.tasks.base import PairExample as Pair
from xlmr_flax.tasks.base import TagExample as Tag
from xlmr_flax.tasks.labels import IOB2
from xlmr_flax.tasks.rules import FEMALE, MALE

EXPECTED: dict[tuple[str, str, str], list[Any]] = {
    # The label is the place in the sorted list of topics.
    ('sib200', 'en', 'test'): [Pair('7', 'He said "go".', None, 5), Pair('9', 'Bye.', None, 6)],
    ('sib200', 'sw', 'test'): [Pair('7', 'Nenda.', None, 5), Pair('9', 'Kwaheri.', None, 6)],
    ('belebele', 'sw', 'test'): [Choice('belebele-test-sw-0', 'P. Q?', ('a', 'b', 'c', 'd'), 2)],
    ('afrixnli', 'sw', 'test'): [Pair('afrixnli-test-sw-0', 'A, b', 'c', 1)],
    ('afrixnli', 'ln', 'dev'): [Pair('afrixnli-dev-ln-0', 'a', 'b', 2)],
    ('indicxnli', 'ta', 'test'): [Pair('indicxnli-test-ta-0', 'அ', 'ஆ', 2)],
    ('xnli_plus', 'am', 'test'): [Pair('xnli_plus-test-am-0', 'ሀ', 'ለ', 0)],
    ('xnli_plus', 'ta', 'test'): [Pair('xnli_plus-test-ta-0', 'அ', 'ஆ', 2)],
    ('nusax', 'nij', 'dev'): [Pair('411', 'Iyuh, bujur', None, 2)],
    ('masakhanews', 'ha', 'test'): [Pair('masakhanews-test-ha-0', 'H1 Line 1\nline 2', None, 4)],
    # The text that is in the test file is not trained on.
    ('masakhanews', 'en', 'train'): [Pair('masakhanews-train-en-0', 'Goal A game.', None, 5)],
    ('uner', 'tl', 'test'): [
        Tag('uner-test-tl-0', ('Si', 'Ana'), (IOB2.index('O'), IOB2.index('B-PER'))),
        Tag('uner-test-tl-1', ('#',), (IOB2.index('O'),)),
    ],
    ('uner', 'nn', 'test'): [Tag('uner-test-nn-0', ('Norsk',), (IOB2.index('O'),))],
    ('proofwriter', 'en', 'train'): [
        Pair('ProofWriter_X_Q1', 'Bob is red.', 'Bob is big.', 2),
        Pair('x', 'Bob is red.', 'Bob is big.', 1),
    ],
    ('clutrr', 'en', 'test'): [
        Pair('i1', '[Ann] has a son [Bo].', '[Bo] is what to [Ann]?', 15),
        Pair('i2', '[Bo] has a mother [Ann].', '[Ann] is what to [Bo]?', 10),
    ],
    ('logicbench', 'en', 'test'): [
        Pair('logicbench-test-en-0', 'C.', 'Q?', 1),
        Pair('logicbench-test-en-1', 'C.', 'R?', 0),
    ],
    ('logicbench', 'en', 'train'): [
        Pair('logicbench-train-en-0', 'D.', 'Q?', 1),
        Pair('logicbench-train-en-1', 'D.', 'R?', 0),
    ],
    ('logiqa2_nli_new', 'en', 'train'): [
        Pair('logiqa2_nli_new-train-en-0', 'alone', 'H', 1),
        Pair('logiqa2_nli_new-train-en-1', 'alone', 'H', 1),
    ],
    ('logiqa2_nli_new', 'en', 'test'): [Pair('logiqa2_nli_new-test-en-0', 'in both', 'I', 0)],
    ('control_whole', 'en', 'train'): [Pair('id_0', 'P', 'H', 1)],
}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding='utf-8', newline='')
    return tmp_path


@pytest.mark.parametrize(('name', 'language', 'split'), EXPECTED)
def test_examples(name: str, language: str, split: str, root: Path) -> None:
    assert read_split(get_task(name), language, split, root) == EXPECTED[name, language, split]


@pytest.mark.parametrize(
    ('name', 'language', 'english', 'other'),
    [
        ('sib200_retrieval', 'sw', ['He said "go".', 'Bye.'], ['Nenda.', 'Kwaheri.']),
        ('flores200', 'sw', ['Go.', 'Bye.'], ['Nenda.', 'Kwaheri.']),
        ('ntrex', 'pt_BR', ['Go.'], ['Vá.']),
        ('ntrex', 'gsw_ZH', ['Go.'], ['Gang.']),
    ],
)
def test_both_sides(name: str, language: str, english: list[str], other: list[str], root: Path) -> None:
    sides = read_pairs(get_task(name), language, 'test', root)
    assert [[sentence.text for sentence in side] for side in sides] == [english, other]


def test_sides_with_other_ids_are_no_pairs(root: Path) -> None:
    with pytest.raises(
        DataError, match=r"sib200_retrieval in 'zh_Hant', row 0: the ids of the two sides are '7' and '9'"
    ):
        read_pairs(get_task('sib200_retrieval'), 'zh_Hant', 'test', root)


def test_a_wrong_relation_contradicts_and_has_the_same_gender(tmp_path: Path) -> None:
    rows = ''.join(f"{n},id{n},[A] and [B].,\"('A', 'B')\",,{'aunt' if n % 2 else 'uncle'}\n" for n in range(200))
    file = tmp_path / 'logic/clutrr/data_089907f8/1.2,1.3_train.csv'
    file.parent.mkdir(parents=True)
    file.write_text(CLUTRR + rows, encoding='utf-8')
    task = get_task('clutrr_nli')
    examples = read_split(task, 'en', 'train', tmp_path)
    said: dict[str, set[str]] = {'entailment': set(), 'contradiction': set()}
    for number, example in enumerate(examples):
        assert isinstance(example, Pair) and example.label is not None
        relation = str(example.text_b).removeprefix('[B] is the ').removesuffix(' of [A].')
        said[task.labels[example.label]].add(relation)
        assert relation in (FEMALE if number % 2 else MALE)
        assert (task.labels[example.label] == 'entailment') == (relation in ('aunt', 'uncle'))
    assert said == {'entailment': {'aunt', 'uncle'}, 'contradiction': {*MALE, *FEMALE} - {'aunt', 'uncle'}}
    assert 70 < sum(e.label == 1 for e in examples if isinstance(e, Pair)) < 130
    assert read_split(task, 'en', 'train', tmp_path) == examples


def test_the_left_out_file_is_part_of_the_digest(root: Path) -> None:
    split = Split(get_task('logiqa2_nli_new'), 'en', 'train', root)
    before, file = split.digest(), root / 'logic/logiqa2_nli_new/test_new.txt'
    assert split.stand_in() == 'dev_new rows of LogiQA 2.0'
    file.write_text(file.read_text('utf-8').replace('in both', 'alone'), encoding='utf-8')
    assert split.digest() != before
    assert [example.text_a for example in split.read()] == ['in both']  # type: ignore[union-attr]
    file.unlink()
    assert len(split.read()) == 3


def test_a_stand_in_for_training_is_none_for_scoring(root: Path) -> None:
    path = 'low_resource/sib200/eng_Latn/test.tsv'
    (root / 'low_resource/sib200/eng_Latn/train.tsv').write_text((root / path).read_text('utf-8'), encoding='utf-8')
    lines = [f'{each}\ta note: STAND-IN for training\n' for each in (path, path.replace('test', 'train'))]
    (root / 'MANIFEST.tsv').write_text('path\tnote\n' + ''.join(lines), encoding='utf-8')
    notes = {name: Split(get_task('sib200'), 'en', name, root).stand_in() for name in ('train', 'test')}
    assert notes == {'train': 'a note: STAND-IN for training', 'test': ''}


@pytest.mark.parametrize(
    ('path', 'text', 'name', 'said'),
    [
        (
            'low_resource/uner/UNER_Tagalog-TRG/tl_trg-ud-test.iob2',
            '1\tSi\tO\n2\tAna\n',
            'uner',
            'line 2: a number, a word',
        ),
        ('logic/logicbench/LogicBench(Eval)/BQA/nm_logic/x/data_instances.json', '[]', 'logicbench', '"samples" or'),
        (
            'logic/logicbench/LogicBench(Eval)/BQA/nm_logic/x/data_instances.json',
            '{"samples": [\n{"context": "C",\n"qa_pairs": [{"question": "Q"}]}]}',
            'logicbench',
            'line 3: a context with qa_pairs',
        ),
        (
            'logic/proofwriter/train.json',
            json.dumps([PROOF | {'answer': 'D'}]),
            'proofwriter',
            "A, B or C is expected, not 'D'",
        ),
        (
            'logic/proofwriter/train.json',
            json.dumps([PROOF | {'question': 'Q?'}]),
            'proofwriter',
            'does not begin with',
        ),
        ('logic/clutrr/data_089907f8/1.2_test.csv', CLUTRR + '0,i,s,"(A, B)",,son\n', 'clutrr', 'a pair of names'),
    ],
)
def test_bad_rows(path: str, text: str, name: str, said: str, root: Path) -> None:
    (root / path).write_text(text, encoding='utf-8')
    language, split = ('tl', 'test') if name == 'uner' else ('en', 'train' if 'train' in path else 'test')
    with pytest.raises(DataError) as error:
        read_split(get_task(name), language, split, root)
    assert said in str(error.value)
    assert path.rsplit('/', 1)[1] in str(error.value)
