"""The embedded world: parallel, reproducible, split without overlap, and with labels that follow from the facts."""

from __future__ import annotations

import unicodedata
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from xlmr_flax.data import world
from xlmr_flax.data.world.facts import (
    CITIES,
    HYPERNYMS,
    PERSONS,
    PLACES,
    POINTS,
    TIMES,
    VERBS,
    Clause,
    Question,
    Statement,
)
from xlmr_flax.data.world.items import content, facts
from xlmr_flax.data.world.lexicon import KEYS, lexicon, parse_table

SCRIPTS = {'ar': 'ARABIC', 'bg': 'CYRILLIC', 'el': 'GREEK', 'hi': 'DEVANAGARI', 'th': 'THAI', 'zh': 'CJK'}
SCRIPTS['ru'] = SCRIPTS['bg']
RETRIEVAL_TEST = [
    {'id': 'retrieval-test-0', 'sentence': 'Thomas eats an apple.'},
    {'id': 'retrieval-test-1', 'sentence': 'Laura is in Rome and Leila is not in the garden at midnight.'},
]
ENOUGH = {'train': 3000, 'dev': 400, 'test': 400}
SOME = 40


def clauses_of(item) -> list[Clause]:
    """The clauses a row states: not the hypothesis, not the choices."""
    if isinstance(item, Clause):
        return [item]
    if isinstance(item, Statement):
        return list(item.clauses)
    if isinstance(item, Question):
        return []
    name = type(item).__name__
    parts = {'Inference': item[:1], 'Pair': item[:2], 'Story': item[0], 'Choice': item[0]}[name]
    return [clause for part in parts for clause in clauses_of(part)]


@pytest.mark.parametrize('task', world.TASKS)
@pytest.mark.parametrize('split', world.SPLITS)
def test_parallel_in_ids_labels_and_structure(task, split):
    english = world.rows(task, 'en', split, SOME)
    for language in world.LANGUAGES:
        rows = world.rows(task, language, split, SOME)
        assert [row['id'] for row in rows] == [f'{task}-{split}-{i}' for i in range(SOME)]
        for row, row_en in zip(rows, english, strict=True):
            assert list(row) == list(row_en)
            assert row.get('label') == row_en.get('label')
            if task == 'ner':
                starts, starts_en = ([tag for tag in r['tags'] if tag.startswith('B-')] for r in (row, row_en))
                assert Counter(starts) == Counter(starts_en)
        if language != 'en':
            assert not any(row == row_en for row, row_en in zip(rows, english, strict=True))


def test_rows_do_not_depend_on_their_number():
    for task in world.TASKS:
        for split in world.SPLITS:
            facts.cache_clear()
            long = world.rows(task, 'de', split, 90)
            facts.cache_clear()
            assert world.rows(task, 'de', split, 37) == long[:37]
    assert world.rows('nli', 'de', 'train', 0) == []


def test_rows_are_the_same_forever():
    """Published numbers name these rows: a change here is a change of the data."""
    assert world.rows('retrieval', 'en', 'test', 2) == RETRIEVAL_TEST


@pytest.mark.parametrize('task', world.TASKS)
def test_no_clause_is_in_two_splits(task):
    stated = {
        split: {clause[:4] for name in {task, 'nli'} for item in facts(name, split, 300) for clause in clauses_of(item)}
        for split in world.SPLITS
    }
    assert min(map(len, stated.values())) > 300
    for one, other in (('train', 'dev'), ('train', 'test'), ('dev', 'test')):
        assert not stated[one] & stated[other]


@pytest.mark.parametrize('task', world.TASKS)
def test_limits_are_reached_with_distinct_facts(task):
    for split, limit in world.LIMITS[task].items():
        assert limit >= (ENOUGH[split] if task == 'nli' else {'train': 3000}.get(split, 300))
        items = facts(task, split, limit)
        assert len({content(item) for item in items}) == limit
        with pytest.raises(ValueError, match=f'{limit} rows of {task} {split}'):
            world.rows(task, 'en', split, limit + 1)
    questions = [{content(i) for i in facts(task, s, 600) if isinstance(i, Question)} for s in world.SPLITS]
    assert not questions[0] & questions[1] and not questions[0] & questions[2] and not questions[1] & questions[2]


@pytest.mark.parametrize('split', world.SPLITS)
def test_labels_are_balanced(split):
    for task, classes in (('nli', 3), ('pairs', 2), ('choices', 4)):
        labels = [row['label'] for row in world.rows(task, 'en', split, 60 * classes)]
        assert set(Counter(labels).values()) == {60}
        assert labels != labels[:classes] * 60, 'labels in a fixed cycle'
    kinds = Counter(item.question.kind for item in facts('spans', split, 100))
    assert set(kinds.values()) == {25}


def truth(premise: tuple[Clause, ...], hypothesis: Clause) -> str:
    """The label by brute force: what follows for the affirmed hypothesis, turned around when it is negated."""

    def covers(told: Clause, asked: Clause) -> bool:
        """Whether the affirmed `told` entails the affirmed `asked`."""
        deed = asked.verb in ('be', told.verb, HYPERNYMS.get(told.verb))
        return (
            told.person == asked.person
            and deed
            and asked.place in (None, told.place)
            and asked.time in (None, told.time)
        )

    def excludes(told: Clause) -> bool:
        if told.negated:
            return covers(hypothesis, told)
        same = told.person == hypothesis.person and told.time == hypothesis.time and told.time in POINTS
        both = told.place and hypothesis.place and told.place != hypothesis.place
        return bool(same and both and (told.place in CITIES) == (hypothesis.place in CITIES))

    true = any(covers(told, hypothesis) for told in premise if not told.negated)
    false = any(excludes(told) for told in premise)
    assert not (true and false)
    if not (true or false):
        return 'neutral'
    return 'entailment' if true != hypothesis.negated else 'contradiction'


@pytest.mark.parametrize('split', world.SPLITS)
def test_inference_labels_are_true(split):
    seen = Counter()
    for item in facts('nli', split, 1200):
        (hypothesis,) = item.hypothesis.clauses
        assert truth(item.premise.clauses, hypothesis) == item.label, item
        seen[item.label, hypothesis.negated] += 1
        seen[item.label, 'negated premise'] += any(clause.negated for clause in item.premise.clauses)
    assert len(seen) == 9
    assert min(seen.values()) > 120


def bags(texts: list[str], vocabulary: dict[str, int], grow: bool) -> np.ndarray:
    """[rows, words and pairs of words] counts."""
    rows = []
    for text in texts:
        words = text.lower().rstrip('.').split()
        rows.append([*words, *map(' '.join, pairwise(words))])
        if grow:
            for word in rows[-1]:
                vocabulary.setdefault(word, len(vocabulary))
    counts = np.zeros((len(rows), len(vocabulary)))
    for i, row in enumerate(rows):
        for word in row:
            if word in vocabulary:
                counts[i, vocabulary[word]] += 1
    return counts


def naive_bayes(train: tuple[list[str], list], test: tuple[list[str], list]) -> float:
    """Accuracy of multinomial naive Bayes (add-one) on words and pairs of words."""
    classes = sorted(set(train[1]))
    vocabulary: dict[str, int] = {}
    counts, labels = bags(train[0], vocabulary, True), np.array([classes.index(label) for label in train[1]])
    per_class = np.stack([counts[labels == c].sum(0) + 1 for c in range(len(classes))])
    scores = bags(test[0], vocabulary, False) @ np.log(per_class / per_class.sum(1, keepdims=True)).T
    return float(np.mean(scores.argmax(1) == [classes.index(label) for label in test[1]]))


@pytest.mark.parametrize('language', ['en', 'sw'])
def test_the_hypothesis_alone_tells_nothing(language):
    train, test = (world.rows('nli', language, split, n) for split, n in (('train', 3000), ('test', 1200)))
    sides = [([row['hypothesis'] for row in rows], [row['label'] for row in rows]) for rows in (train, test)]
    assert naive_bayes(*sides) < 0.40
    # The same baseline does find what is there to find.
    marked = [([text + f' because{label[:2]}' for text, label in zip(*side, strict=True)], side[1]) for side in sides]
    assert naive_bayes(*marked) > 0.9


def test_one_side_of_a_pair_or_one_choice_tells_nothing():
    train, test = (world.rows('pairs', 'en', split, n) for split, n in (('train', 3000), ('test', 600)))
    for side in ('sentence1', 'sentence2'):
        assert naive_bayes(*(([r[side] for r in rows], [r['label'] for r in rows]) for rows in (train, test))) < 0.57
    chosen = []
    for split in ('train', 'test'):
        rows = world.rows('choices', 'en', split, 600)
        chosen.append(([c for r in rows for c in r['choices']], [i == r['label'] for r in rows for i in range(4)]))
    truths, lies = (
        Counter(w for t, y in zip(*chosen[0], strict=True) if y == z for w in t.split()) for z in (True, False)
    )
    score = [sum(np.log((truths[w] + 1) / (lies[w] + 1)) for w in t.split()) for t in chosen[1][0]]
    guesses = np.argmax(np.reshape(score, (-1, 4)), 1)
    assert np.mean(guesses == [r['label'] for r in rows]) < 0.33


@pytest.mark.parametrize('language', world.LANGUAGES)
def test_pairs_have_the_same_words_whatever_the_label(language):
    words = lexicon(language)
    for item in facts('pairs', 'train', 200):
        first, second = (words.statement(side) for side in item[:2])
        assert first.text != second.text
        assert sorted(w.text.casefold() for w in first.words) == sorted(w.text.casefold() for w in second.words)
        assert (frozenset(item.first.clauses) == frozenset(item.second.clauses)) == bool(item.label)


@pytest.mark.parametrize('language', world.LANGUAGES)
def test_spans_are_exact_and_answer_the_question(language):
    for row, item in zip(world.rows('spans', language, 'dev', 200), facts('spans', 'dev', 200), strict=True):
        (answer,) = row['answers']
        start = answer['answer_start']
        assert row['context'][start : start + len(answer['text'])] == answer['text'] != ''
        assert 4 <= len(item.sentences) <= 6
        clause, words = item.question.clause, lexicon(language)
        key = {'where': f'l.{clause.place}', 'who': f'p.{clause.person}', 'when': f't.{clause.time}'}
        phrase = words.forms[key.get(item.question.kind, f'v.{clause.verb}')][0]
        expected = [word.text for word in phrase if item.question.kind != 'what' or word.slot == 'O']
        joined = words.join.join(expected).casefold().replace(' ', '')
        assert answer['text'].casefold().replace(' ', '') == joined


def test_one_sentence_of_a_context_answers_its_question():
    fields = {
        'where': ('person', 'time'),
        'who': ('place', 'time'),
        'when': ('person', 'place'),
        'what': ('person', 'time'),
    }
    near = Counter()
    for item in facts('spans', 'train', 1200):
        kind, asked = item.question
        told = [clause for statement in item.sentences for clause in statement.clauses if not clause.negated]
        if kind == 'what':
            group = HYPERNYMS[asked.verb]
            told = [clause for clause in told if group in (clause.verb, HYPERNYMS.get(clause.verb))]
        same = [[getattr(clause, name) == getattr(asked, name) for name in fields[kind]] for clause in told]
        assert [clause for clause, fit in zip(told, same, strict=True) if all(fit)] == [asked]
        near[kind] += any(any(fit) and not all(fit) for fit in same)
    assert min(near.values()) > 100, 'distractors share a word with the question'


def test_exactly_one_choice_follows():
    for item in facts('choices', 'test', 300):
        told = tuple(clause for statement in item.prompt for clause in statement.clauses)
        assert len(told) == 4
        labels = [truth(told, choice.clauses[0]) for choice in item.choices]
        assert labels.count('entailment') == 1 and labels[item.label] == 'entailment'
        assert len(set(item.choices)) == 4


@pytest.mark.parametrize('language', world.LANGUAGES)
def test_words_tags_and_text_agree(language):
    words = lexicon(language)
    shared = [world.rows(task, language, 'train', 300) for task in ('pos', 'ner', 'retrieval')]
    for rows, task in zip(shared, ('pos', 'ner', 'retrieval'), strict=True):
        for row, item in zip(rows, facts(task, 'train', 300), strict=True):
            said = words.question(item) if isinstance(item, Question) else words.statement(item)
            text, texts = said.text, [word.text for word in said.words]
            if task == 'retrieval':
                assert row['sentence'] == text
            else:
                assert row['words'] == texts and len(row['tags']) == len(texts)
            assert ''.join(texts) == text.replace(' ', '')
            assert [text[s : s + len(w)] for s, w in zip(said.starts(), texts, strict=True)] == texts
            assert text == text.strip() and '  ' not in text and not set(text) & set('~[]{}/_')
            assert text[0] == text[0].upper()


def test_entities_and_tags_of_known_sentences():
    told = Statement((Clause('maria', 'read_book', 'newyork', None), Clause('karim', 'be', 'school', 'noon', True)))
    english, french, arabic = (lexicon(code).statement(told) for code in ('en', 'fr', 'ar'))
    assert english.text == 'Maria reads a book in New York and Karim is not at school at noon.'
    assert [t for t in english.entities() if t != 'O'] == ['B-PER', 'B-LOC', 'I-LOC', 'B-PER']
    assert [w.upos for w in english.words][:4] == ['PROPN', 'VERB', 'DET', 'NOUN']
    assert french.text == "Marie lit un livre à New York et Karim n'est pas à l'école à midi."
    assert arabic.text == 'ماريا تقرأ كتابًا في نيويورك وكريم ليس في المدرسة عند الظهر.'
    assert (
        lexicon('de').statement(told._replace(clauses=told.clauses[::-1], front=True)).text.startswith('Karim ist am')
    )
    assert lexicon('zh').statement(told).text == '玛丽亚在纽约读书，卡里姆中午不在学校里。'


@pytest.mark.parametrize('language', world.LANGUAGES)
def test_retrieval_has_no_sentence_twice(language):
    sentences = [row['sentence'] for s in world.SPLITS for row in world.rows('retrieval', language, s, 1000)]
    assert len(set(sentences)) == len(sentences)


@pytest.mark.parametrize('language', world.LANGUAGES)
def test_tables_are_complete_distinct_and_in_their_script(language):
    forms = lexicon(language).forms
    assert set(forms) == {key for key in KEYS if not key.startswith('meta.')} == set(lexicon('en').forms)
    for kind, keys in (('p', PERSONS), ('l', PLACES), ('t', TIMES), ('v', VERBS)):
        columns = zip(*(forms[f'{kind}.{key}'] for key in keys), strict=True)  # strict: all agree or none does
        assert all(len(set(column)) == len(keys) for column in columns)
    for key, values in forms.items():
        for word in (word for value in values for word in value if not isinstance(word, str)):
            for letter in (c for c in word.text if c.isalpha()):
                assert unicodedata.name(letter).split()[0] == SCRIPTS.get(language, 'LATIN'), (key, word.text)
            assert unicodedata.normalize('NFC', word.text) == word.text
    objects = [f'v.{verb}' for verb in HYPERNYMS]
    assert all(any(w.slot == 'O' for w in form) for key in objects for form in forms[key])
    for pattern in ('s.act', 's.be'):  # a time in front only moves words, so pairs keep theirs
        for plain, fronted in zip(forms[pattern], forms[f'{pattern}.front'], strict=True):
            unfold = [[s for p in form for s in ('VO' if p == 'A' else [p])] for form in (plain, fronted)]
            assert Counter(unfold[0]) == Counter(unfold[1])


def test_a_fault_in_a_table_is_named():
    with pytest.raises(ValueError, match=r"lexicon/xx.tsv, line 2: the key 'p.nobody'"):
        parse_table('xx', 'meta.join\tspace\np.nobody\tNobody/PRON\n')
    with pytest.raises(ValueError, match=r"line 1: 'Maria/NAME' is not WORD/UPOS"):
        parse_table('xx', 'p.maria\tMaria/NAME\n')
    with pytest.raises(ValueError, match=r"line 1: 'v.sing' has 1 forms"):
        parse_table('xx', 'v.sing\tsings/VERB\n')
    with pytest.raises(ValueError, match=r'no line for meta.sep.*p\.maria'):
        parse_table('xx', 'meta.join\tspace\n')


def test_unknown_names_and_numbers_are_refused():
    for arguments, message in (
        (('qa', 'en', 'train', 1), "no task 'qa' .known: nli, pairs"),
        (('nli', 'xx', 'train', 1), "no language 'xx' .known: ar, bg"),
        (('nli', 'en', 'valid', 1), "no split 'valid' .known: train, dev, test"),
        (('nli', 'en', 'dev', -1), '0 to 1500 rows of nli dev, not -1'),
    ):
        with pytest.raises(ValueError, match=message):
            world.rows(*arguments)


def test_describe_counts():
    counts = world.describe()
    assert tuple(counts) == world.LANGUAGES
    clauses = [(v, p, t) for v in (*VERBS, 'be') for p in (None, *PLACES) for t in (None, *TIMES) if p or v != 'be']
    said = sum(2 * len(PERSONS) * (1 + bool(time)) for _, _, time in clauses)
    assert {entry['sentences'] for entry in counts.values()} == {said}
    assert counts['en']['phrases'] == 14 + 2 * 17 + 13 + 7 + 2 * 4 + 2 + 6 < counts['hi']['phrases']
