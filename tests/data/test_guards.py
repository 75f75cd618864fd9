"""What is scored inside what is trained on: found by text, on examples made here and on the folder of real data."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path

import pytest

from xlmr_flax.data.sources import read_pairs, read_split
from xlmr_flax.experiment.data_check.overlap import check_overlap, known_warnings
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import ChoiceExample, PairExample, SentenceExample, SpanExample, Table, TagExample

CONTEXT = 'The lake froze in May.'


def test_nothing_in_common() -> None:
    report = check_overlap([PairExample('a', 'x', 'y', 0)], [PairExample('b', 'x', 'z', 0)])
    assert not report
    assert str(report) == 'no overlap'
    assert not check_overlap([], [PairExample('b', 'x', 'z', 0)])


@pytest.mark.parametrize(
    'example',
    [
        PairExample('i', 'Its\u00a0 TEXT', 'other', 0),
        ChoiceExample('i', 'a prompt', ('x', 'Y'), None),
        TagExample('i', ('Two', 'words'), (0, 0)),
        SentenceExample('i', 'One sentence'),
    ],
)
def test_the_same_example_written_differently(example: PairExample) -> None:
    texts = {'text_a': 'its text', 'prompt': 'A  prompt', 'text': 'one sentence ', 'words': ('two', 'words')}
    changed = {name: texts[name] for name in texts if hasattr(example, name)}
    other = type(example)(**{name: getattr(example, name) for name in example.__slots__} | {'id': 'j'} | changed)
    report = check_overlap([example], [other])
    assert [(o.kind, o.shared, o.total, o.pairs) for o in report.overlaps] == [('example', 1, 1, (('i', 'j'),))]
    assert str(report) == 'in the training data: 1 of 1 tested example (i = j)'


def test_a_pair_the_other_way_round_is_told_apart() -> None:
    train = [PairExample('a', 'x', 'y', 1), PairExample('b', 'p', 'p', 1)]
    report = check_overlap(train, [PairExample('c', 'y', 'x', 1), PairExample('d', 'p', 'p', 1)])
    assert [(o.kind, o.shared, o.pairs) for o in report.overlaps] == [
        ('example', 1, (('b', 'd'),)),
        ('reversed pair', 1, (('a', 'c'),)),
    ]


def test_paragraphs_and_question_ids_across_kinds_of_tasks() -> None:
    train = [SpanExample('5725bad5271a', 'When?', CONTEXT, (('May', 18),))]
    translated = SpanExample('5725bad5271a', 'Quando?', 'Il lago.', ())
    assert [o.kind for o in check_overlap(train, [translated]).overlaps] == ['question id']
    retrieval = [SentenceExample('5725bad5271a_de', 'Wann?'), SentenceExample('en_1_0', 'The lake', CONTEXT)]
    assert [o.kind for o in check_overlap(train, retrieval).overlaps] == ['paragraph', 'question id']
    assert not check_overlap([SpanExample('12', 'When?', CONTEXT, ())], [SpanExample('12', 'Who?', 'Else.', ())])


def test_no_more_than_three_pairs_are_shown() -> None:
    pairs = [PairExample(str(n), str(n), 'y', 0) for n in range(9)]
    (overlap,) = check_overlap(pairs, [*pairs, PairExample('z', 'z', 'z', 0)]).overlaps
    assert (overlap.shared, overlap.total, len(overlap.pairs)) == (9, 10, 3)


def test_known_warnings() -> None:
    said = known_warnings(get_task('qqp'))
    assert any('does not allow commercial use' in line for line in said)
    assert any('a stand-in: PAWS-X pairs' in line for line in said)
    for name in (
        'xnli',
        'anli',
        'masakhaner2',
        'masakhapos',
        'myxnli',
        'control',
        'logiqa2',
        'sick',
        'udpos',
        'reclor',
    ):
        assert any('commercial' in line for line in known_warnings(get_task(name))), name
    for name in ('mnli', 'squad_v1', 'tatoeba', 'mlqa', 'world_nli'):
        assert not any('commercial' in line for line in known_warnings(get_task(name))), name


def test_known_warnings_of_the_real_folder(data_root: Path) -> None:
    """What stands in there is said; what is real is not."""
    marked = {
        name: {line.split(':')[0] for line in known_warnings(get_task(name), data_root) if ': a stand-in: ' in line}
        for name in ('anli', 'qqp', 'squad_v2', 'hellaswag', 'cosmosqa', 'pawsx', 'ccg', 'bucc2018', 'mnli', 'xquad')
    }
    assert marked == {
        'anli': {'anli, train'}, 'qqp': {'qqp, train', 'qqp, dev'}, 'squad_v2': {'squad_v2, train'},
        'hellaswag': {'hellaswag, train'}, 'cosmosqa': {'cosmosqa, train'}, 'pawsx': {'pawsx, train'},
        'ccg': {'ccg, train', 'ccg, dev'}, 'bucc2018': {'bucc2018, dev'}, 'mnli': set(), 'xquad': set(),
    }  # fmt: skip


def test_leaks_that_the_real_folder_has(data_root: Path) -> None:
    squad_dev = read_split(get_task('squad_v1'), 'en', 'dev', data_root)
    xquad = read_split(get_task('xquad'), 'en', 'test', data_root)
    shared = {o.kind: o.shared for o in check_overlap(squad_dev, xquad).overlaps}
    assert shared['paragraph'] == 9
    squad_it = read_split(get_task('squad_it'), 'it', 'test', data_root)
    german = read_split(get_task('xquad'), 'de', 'test', data_root)
    assert [o.kind for o in check_overlap(squad_it, german).overlaps] == ['question id']
    asks, pool = read_pairs(get_task('lareqa'), 'en', 'test', data_root)
    same = {o.kind: (o.shared, o.total) for o in check_overlap(xquad, [*asks, *pool]).overlaps}
    assert same['question id'] == (225, 225)
    assert same['paragraph'][0] > 0
    pawsx = read_split(get_task('pawsx'), 'en', 'train', data_root)
    assert check_overlap(read_split(get_task('qqp'), 'en', 'train', data_root), pawsx).overlaps[0].shared == 600
    # PAWS-X itself has a pair twice.
    dev = check_overlap(pawsx, read_split(get_task('pawsx'), 'en', 'dev', data_root))
    assert [(o.kind, o.shared) for o in dev.overlaps] == [('example', 1)]


@pytest.mark.parametrize(
    ('train', 'test', 'language', 'split'),
    [
        ('squad_v1', 'xquad', 'en', 'test'),
        ('squad_v2', 'xquad', 'en', 'test'),
        ('squad_v1', 'lareqa', 'en', 'test'),
        ('squad_v1', 'mlqa', 'en', 'dev'),
        ('tydiqa', 'tydiqa', 'en', 'test'),
        ('mnli', 'xnli', 'en', 'test'),
        ('copa', 'xcopa_gmt', 'it', 'test'),
        ('anli', 'anli', 'en', 'dev'),
        ('mnli', 'afrixnli', 'en', 'test'),
        ('sib200', 'sib200', 'en', 'test'),
        ('masakhanews', 'masakhanews', 'en', 'test'),
        ('nusax', 'nusax', 'en', 'test'),
        ('panx', 'uner', 'en', 'test'),
        ('proofwriter', 'proofwriter', 'en', 'test'),
        ('clutrr', 'clutrr', 'en', 'test'),
        ('logicbench', 'logicbench', 'en', 'test'),
        ('logiqa2_nli_new', 'logiqa2_nli_new', 'en', 'test'),
        ('control_whole', 'control_whole', 'en', 'test'),
    ],
)
def test_what_is_trained_and_scored_shares_nothing(
    train: str, test: str, language: str, split: str, data_root: Path
) -> None:
    scored = get_task(test)
    sides = read_pairs(scored, language, split, data_root) if scored.embeds else None
    tested = [*sides[0], *sides[1]] if sides else read_split(scored, language, split, data_root)
    report = check_overlap(read_split(get_task(train), 'en', 'train', data_root), tested)
    assert not report, str(report)


def test_afrixnli_and_indicxnli_are_rows_of_the_test_set_of_xnli(data_root: Path) -> None:
    """So that a model that has seen those has seen these; the notes of both tasks say it."""
    xnli, african = (read_split(get_task(name), 'en', 'test', data_root) for name in ('xnli', 'afrixnli'))
    shared = {overlap.kind: overlap.shared for overlap in check_overlap(xnli, african).overlaps}
    assert shared['example'] == 120
    for name in ('afrixnli', 'indicxnli'):
        assert any('never train on that' in line for line in known_warnings(get_task(name)))


def test_the_lingala_rows_of_afrixnli_are_in_another_order_than_their_labels(data_root: Path) -> None:
    """The labels of all languages are those of English, row by row. Names and numbers of one English premise alone show
    whether the sentences have that order, too; a premise has three rows. The notes of both tasks say it.
    """

    def names(language: str) -> list[set[str]]:
        rows = read_split(get_task('afrixnli'), language, 'test', data_root)
        texts = [f'{row.text_a} {row.text_b}' for row in rows if isinstance(row, PairExample)]
        groups = [' '.join(texts[i : i + 3]) for i in range(0, len(texts), 3)]
        return [set(re.findall(r'\b(?:[A-Z][a-z]{3,}|\d{2,})\b', text)) for text in groups]

    english = names('en')
    counts = Counter(name for group in english for name in group)
    places = {name: i for i, group in enumerate(english) for name in group if counts[name] == 1}
    share = {}
    for language in get_task('afrixnli').languages:
        groups = names(language)
        shared = [name for name in places if any(name in group for group in groups)]
        share[language] = sum(name in groups[places[name]] for name in shared) / len(shared)
    assert share.pop('ln') == 0.0
    assert min(share.values()) > 0.95, share
    for name in ('afrixnli', 'xnli_plus'):
        assert any('Lingala' in line for line in known_warnings(get_task(name)))


@pytest.mark.parametrize(
    ('name', 'word', 'found', 'missing', 'right'),
    [
        ('proofwriter', 'not', 'contradiction', 'entailment', {'train': 63.8, 'dev': 65.3, 'test': 62.7}),
        ('help', 'and', 'neutral', 'entailment', {'train': 84.8}),
        ('clutrr_nli', 'law', 'contradiction', 'entailment', {'train': 58.0, 'test': 61.6}),
    ],
)
def test_one_word_gives_labels_away(
    data_root: Path, name: str, word: str, found: str, missing: str, right: dict[str, float]
) -> None:
    """docs/data.md has these percentages: of a rule that looks for one word in the second text."""
    task = get_task(name)
    for split, expected in right.items():
        rows = [row for row in read_split(task, 'en', split, data_root) if isinstance(row, PairExample)]
        golds = [task.labels[row.label] for row in rows if row.label is not None]
        said = [found if word in re.findall(r'\w+', row.text_b.lower()) else missing for row in rows]
        equal = sum(gold == label for gold, label in zip(golds, said, strict=True))
        assert round(100 * equal / len(golds), 1) == expected, split
        if name == 'proofwriter':  # the note of the task says so
            assert 0.94 <= equal / sum(gold != 'neutral' for gold in golds) <= 0.98, split


def test_premises_of_the_new_logiqa_files_are_trained_or_scored(data_root: Path) -> None:
    """The file that is trained on has premises of the test file, which are left out."""
    task = get_task('logiqa2_nli_new')
    trained, tested = ({e.text_a for e in read_split(task, 'en', split, data_root)} for split in ('train', 'test'))  # type: ignore[union-attr]
    assert not trained & tested
    (train,) = task.splits['train']
    assert isinstance(train, Table)
    whole = dataclasses.replace(train.alternatives[0], without={})
    task = dataclasses.replace(task, splits={'train': (whole,)})
    assert len({e.text_a for e in read_split(task, 'en', 'train', data_root)} & tested) == 25  # type: ignore[union-attr]
