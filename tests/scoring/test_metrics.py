"""Metrics against cases worked by hand, and tagging against the installed seqeval."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import sequence_labeling as seqeval

from xlmr_flax.scoring.metrics.classification import accuracy, binary_f1, class_f1
from xlmr_flax.scoring.metrics.qa import mlqa, normalise_mlqa, normalise_squad, squad_v1, squad_v2
from xlmr_flax.scoring.metrics.retrieval import average_precision, map_at_k, pair_f1
from xlmr_flax.scoring.metrics.sums import total
from xlmr_flax.scoring.metrics.tagging import chunk_counts, chunks, entity_scores
from xlmr_flax.tasks.labels import IOB2, UPOS


def test_accuracy() -> None:
    assert accuracy(['a', 'b', 'c', 'a'], ['a', 'b', 'b', 'c']) == {'accuracy': 50.0}
    with pytest.raises(ValueError, match='1 predictions for 2 gold labels'):
        accuracy(['a', 'b'], ['a'])
    with pytest.raises(ValueError, match='nothing to score'):
        accuracy([], [])


def test_binary_f1() -> None:
    # Two of three called positive are right, two of four positives are found: p 2/3, r 1/2, f 4/7.
    scores = binary_f1(['1', '1', '1', '1', '0'], ['1', '1', '0', '0', '1'])
    assert scores == pytest.approx({'accuracy': 40.0, 'f1': 400 / 7, 'precision': 200 / 3, 'recall': 50.0})
    assert binary_f1(['0', '0'], ['0', '1'])['f1'] == 0
    assert binary_f1(['1', '0'], ['0', '0']) == {'accuracy': 50.0, 'f1': 0.0, 'precision': 0.0, 'recall': 0.0}


def test_class_f1_by_hand() -> None:
    gold, said = ['a', 'a', 'a', 'b', 'c'], ['a', 'a', 'b', 'b', 'd']
    # a: p 1, r 2/3, f 4/5; b: p 1/2, r 1, f 2/3; c is never predicted and d never right: 0.
    scores = class_f1(gold, said)
    assert scores == pytest.approx({
        'accuracy': 60.0,
        'macro_f1': 100 * (4 / 5 + 2 / 3) / 4,
        'weighted_f1': 100 * (3 * 4 / 5 + 2 / 3) / 5,
    })  # fmt: skip
    assert class_f1(['x'], ['x']) == {'accuracy': 100.0, 'macro_f1': 100.0, 'weighted_f1': 100.0}


def test_entity_scores_by_hand() -> None:
    gold = [['B-PER', 'I-PER', 'O', 'B-LOC'], ['O', 'B-ORG']]
    said = [['B-PER', 'I-PER', 'O', 'B-ORG'], ['B-ORG', 'I-ORG']]
    # Gold 3, said 3, one in common.
    assert entity_scores(gold, said) == pytest.approx({'f1': 100 / 3, 'precision': 100 / 3, 'recall': 100 / 3})
    assert entity_scores([['O']], [['O']]) == {'f1': 0.0, 'precision': 0.0, 'recall': 0.0}
    assert chunks(['I-PER', 'I-LOC', 'B-LOC', 'O', 'I-LOC']) == [
        ('PER', 0, 0), ('LOC', 1, 1), ('LOC', 2, 2), ('LOC', 4, 4),
    ]  # fmt: skip


def test_tags_without_prefix() -> None:
    # Equal neighbours are one chunk, but a tag that begins with S stands alone.
    assert chunks(['NOUN', 'NOUN', 'SYM', 'SYM', 'VERB']) == [
        ('NOUN', 0, 1), ('SYM', 2, 2), ('SYM', 3, 3), ('VERB', 4, 4),
    ]  # fmt: skip
    # seqeval 1.2.2 takes the two conjunctions for one type, 0.0.12 does not.
    assert entity_scores([['CCONJ', 'NOUN']], [['SCONJ', 'NOUN']], '1.2.2')['f1'] == 100.0
    assert entity_scores([['CCONJ', 'NOUN']], [['SCONJ', 'NOUN']])['f1'] == 50.0


def test_chunks_are_counted_by_sentence() -> None:
    """Also where seqeval 1.2.2 reads a sentence's first tag by the tags before it; the sums are the score's counts."""
    gold = [['O'], ['X', 'B-A'], ['S-B', 'X'], ['I-A', 'I-A', 'I-B']]
    said = [['X'], ['X', 'B-A'], ['S-C', 'O'], ['I-A', 'B-A', 'I-B']]
    counts = chunk_counts(gold, said)
    assert counts.tolist() == [[0, 1, 0], [2, 2, 2], [0, 1, 2], [1, 3, 2]]
    for version in ('0.0.12', '1.2.2'):
        correct, guessed, wanted = chunk_counts(gold, said, version).sum(0)
        assert entity_scores(gold, said, version)['f1'] == pytest.approx(200 * correct / (guessed + wanted))


def test_tagging_refuses_other_lengths() -> None:
    with pytest.raises(ValueError, match='sentence 2: 1 tags predicted, 2 in the gold file'):
        entity_scores([['O'], ['O', 'O']], [['O'], ['O']])
    with pytest.raises(ValueError, match='1 sentences predicted, 2'):
        entity_scores([['O'], ['O']], [['O']])


TAG_SETS = [IOB2, UPOS, ('O', 'B-X', 'I-X', 'E-X', 'S-X', 'I-Y', 'B-Y-Z', 'I-Y-Z', 'B', 'I', '.', 'B-')]


@st.composite
def corpora(draw: Any) -> tuple[list[list[str]], list[list[str]]]:
    tag = st.sampled_from(draw(st.sampled_from(TAG_SETS)))
    gold = draw(st.lists(st.lists(tag, min_size=1, max_size=6), min_size=1, max_size=5))
    # Mostly right, so that chunks meet.
    said = [[draw(st.one_of(st.just(t), st.just(t), tag)) for t in sentence] for sentence in gold]
    return gold, said


@settings(max_examples=300, deadline=None)
@given(corpora())
def test_tagging_is_seqeval(corpus: tuple[list[list[str]], list[list[str]]]) -> None:
    gold, said = corpus
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        want = {
            'f1': seqeval.f1_score(gold, said) * 100,
            'precision': seqeval.precision_score(gold, said) * 100,
            'recall': seqeval.recall_score(gold, said) * 100,
        }
        assert seqeval.get_entities(gold[0]) == chunks(gold[0], '1.2.2')
    assert entity_scores(gold, said, '1.2.2') == pytest.approx(want, abs=1e-9)
    if all(tag in IOB2 for sentence in gold + said for tag in sentence):
        assert entity_scores(gold, said) == pytest.approx(want, abs=1e-9)


def test_squad_normalisation() -> None:
    assert normalise_squad('The  Cat, an animal!') == 'cat animal'
    assert normalise_squad('der Hund – groß') == 'der hund – groß'


def test_squad_v1() -> None:
    gold = {'q1': ['the red house', 'house'], 'q2': ['1914'], 'q3': ['x y']}
    scores = squad_v1(gold, {'q1': 'House.', 'q2': 'in 1914', 'more': 'ignored'})
    # q1 is exact, q2 has p 1/2, r 1, f 2/3, q3 is not answered.
    assert scores == pytest.approx({'exact_match': 100 / 3, 'f1': 100 * (1 + 2 / 3) / 3})
    with pytest.raises(ValueError, match="'q4' has no gold answer"):
        squad_v1({'q4': []}, {'q4': ''})
    with pytest.raises(ValueError, match='nothing to score'):
        squad_v1({}, {})


@pytest.mark.parametrize(
    ('language', 'text', 'normal'),
    [
        ('en', 'A house, an «idea» the End', 'house idea end'),
        ('de', 'Der Hund, dem Einen!', 'hund'),
        ('es', 'La casa de los reyes', 'casa de reyes'),
        ('vi', 'những con mèo của tôi', 'con mèo tôi'),
        ('hi', 'एक घर।', 'एक घर'),
        # The two letters of the article go inside words as well.
        ('ar', 'البيت سالم', 'بيت س م'),
        ('zh', '北京 1949年,ok', '北 京 1949 年 ok'),
    ],
)
def test_mlqa_normalisation(language: str, text: str, normal: str) -> None:
    assert normalise_mlqa(text, language) == normal


def test_mlqa() -> None:
    # Shared: 北, 京; said 2 of 3 tokens.
    assert mlqa({'q': ['北京市']}, {'q': '北京'}, 'zh') == pytest.approx({'exact_match': 0.0, 'f1': 80.0})
    assert mlqa({'q': ['das Haus']}, {'q': 'Haus'}, 'de')['exact_match'] == 100.0
    with pytest.raises(ValueError, match="MLQA has no language 'fr'"):
        mlqa({'q': ['a']}, {'q': 'a'}, 'fr')


def test_squad_v2() -> None:
    gold: dict[str, list[str]] = {'a': ['red house'], 'b': ['blue'], 'n': [], 'm': []}
    said = {'a': 'house', 'b': 'blue', 'n': 'wrong', 'm': ''}
    scores = squad_v2(gold, said)
    assert scores['exact_match'] == 50.0
    assert 'best_f1' not in scores
    assert scores['f1'] == pytest.approx(100 * (2 / 3 + 1 + 0 + 1) / 4)
    assert (scores['has_answer_exact_match'], scores['no_answer_exact_match']) == (50.0, 50.0)
    # Answering a and b but not n is best: a 2/3, b 1, n 1, m 1.
    scores = squad_v2(gold, said, {'b': 0.1, 'a': 0.2, 'n': 0.8, 'm': 0.9})
    assert scores['best_f1'] == pytest.approx(100 * (2 / 3 + 3) / 4)
    assert scores['best_f1_threshold'] == 0.2
    # For exact match nothing is gained behind b.
    assert (scores['best_exact_match'], scores['best_exact_match_threshold']) == (75.0, 0.1)
    # A wrong answer to n that comes before the others costs one: 2 - 1 + 1 + 2/3.
    scores = squad_v2(gold, said, {'n': 0.0, 'b': 0.1, 'a': 0.2, 'm': 0.9})
    assert scores['best_f1'] == pytest.approx(100 * (2 + 2 / 3) / 4)
    scores = squad_v2(gold, said, {'b': -3.0, 'a': 2.0, 'n': 5.0, 'm': 6.0}, threshold=0.0)
    assert (scores['exact_match'], scores['f1']) == (75.0, 75.0)


def test_squad_v2_edges() -> None:
    # An answer that is but an article counts as none given; saying nothing then agrees.
    assert squad_v2({'a': ['the']}, {'a': ''})['f1'] == 100.0
    assert squad_v2({'a': ['the', 'cat']}, {'a': ''})['f1'] == 0.0
    assert squad_v2({'a': []}, {'a': 'the'})['exact_match'] == 100.0
    with pytest.raises(ValueError, match="1 of 2 questions have no prediction, the first is 'b'"):
        squad_v2({'a': [], 'b': []}, {'a': ''})
    with pytest.raises(ValueError, match='no no-answer score'):
        squad_v2({'a': []}, {'a': ''}, {})


def test_retrieval() -> None:
    assert accuracy(range(4), [0, 1, 3, 2]) == {'accuracy': 50.0}
    gold = [('d1', 'e1'), ('d2', 'e2'), ('d3', 'e3'), ('d4', 'e4')]
    # A pair that occurs twice counts once: 1 of 2 right, 1 of 4 found.
    assert pair_f1(gold, [('d1', 'e1'), ('d1', 'e1'), ('d2', 'e9')]) == pytest.approx(
        {'f1': 100 / 3, 'precision': 50.0, 'recall': 25.0}
    )
    assert pair_f1(gold, [])['f1'] == 0.0


def test_mean_average_precision() -> None:
    assert average_precision(['x'], ['a', 'x', 'b']) == 0.5
    assert average_precision(['x', 'y'], ['x', 'a', 'y']) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(['x'], ['a'] * 20 + ['x']) == 0.0
    assert average_precision(['x'], ['x', 'x']) == 1.0
    assert map_at_k({'p': ['x'], 'q': ['y']}, {'p': ['a', 'x']}) == {'map@20': 25.0}
    with pytest.raises(ValueError, match="'p' has no gold item"):
        map_at_k({'p': []}, {})


def test_sums_have_the_same_digits_on_every_python() -> None:
    assert total([0.1] * 10) == 0.9999999999999999  # sum() gives 1.0 since Python 3.12
    assert total([]) == 0.0
