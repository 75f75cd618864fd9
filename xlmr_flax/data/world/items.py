"""Generates the language-independent rows of every task; the lexicons turn them into text.

`facts(task, split, n)` is the only entry point. Row i depends on (task, split, i) and on the rows before it, not on n.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache
from itertools import combinations
from typing import Any, NamedTuple

from xlmr_flax.data.world.facts import (
    BE,
    HYPERNYMS,
    PERSONS,
    PLACES,
    QUESTIONS,
    TIMES,
    VAGUE,
    Clause,
    Dice,
    Question,
    Statement,
    clause_in,
    overlap,
    split_of,
)
from xlmr_flax.data.world.inference import Inference, inference

LIMITS = {
    'nli': {'train': 12000, 'dev': 1500, 'test': 1500},
    **{task: {'train': 6000, 'dev': 600, 'test': 600} for task in ('pairs', 'spans', 'choices', 'pos', 'ner')},
    'retrieval': {'train': 6000, 'dev': 1000, 'test': 1000},
}
_ATTEMPTS = 1000
# Verbs that cannot be a wrong choice for an activity: 'reads something' follows from 'reads a book'.
_NO_CHOICE = (BE, *VAGUE)


class Pair(NamedTuple):
    first: Statement
    second: Statement
    label: int


class Story(NamedTuple):
    """A context and a question. Exactly one of the sentences has the clause that answers the question."""

    sentences: tuple[Statement, ...]
    question: Question


class Choice(NamedTuple):
    prompt: tuple[Statement, ...]
    choices: tuple[Statement, ...]
    label: int


Item = Inference | Pair | Story | Choice | Statement | Question


def pair(dice: Dice, split: str, label: int) -> Pair | None:
    """Draws a paraphrase pair: the same two clauses, reordered or with the time in front (label 1), or also with the
    persons exchanged (label 0).

    Both sentences have the same words for either label. The two persons have the same gender, because verbs may agree
    with it.
    """
    one, other = dice.pick([p for p in combinations(PERSONS, 2) if PERSONS[p[0]] == PERSONS[p[1]]])

    def exchangeable(clause: Clause) -> bool:
        swapped = clause._replace(person=other if clause.person == one else one)
        return clause.time is not None and split_of(swapped) == split

    first = clause_in(dice, split, exchangeable, person=one)
    if first is None:
        return None

    def distinct(clause: Clause) -> bool:
        return exchangeable(clause) and clause.time != first.time and clause.place != first.place

    second = clause_in(dice, split, distinct, person=other)
    if second is None or (first.verb == second.verb != BE):
        return None
    clauses = tuple(dice.shuffled((first, second)))
    front = dice.chance(0.5)
    reorder, move = dice.pick(((True, False), (False, True), (True, True), (False, False))[: 3 + (label == 0)])
    again = clauses if label else _exchanged(clauses)
    return Pair(Statement(clauses, front), Statement(again[::-1] if reorder else again, front != move), label)


def _exchanged(clauses: tuple[Clause, ...]) -> tuple[Clause, ...]:
    first, second = clauses
    return first._replace(person=second.person), second._replace(person=first.person)


def _answers(question: Question, clause: Clause) -> bool:
    """Whether a clause answers a question or could be understood as an answer."""
    asked = question.clause
    if question.kind == 'when':
        return clause.person == asked.person and clause.place == asked.place
    if not overlap(clause.time, asked.time):
        return False
    if question.kind == 'who':
        return clause.place == asked.place and not clause.negated
    if question.kind == 'where':
        return clause.person == asked.person
    group = HYPERNYMS.get(asked.verb)
    return clause.person == asked.person and group in (clause.verb, HYPERNYMS.get(clause.verb))


def story(dice: Dice, split: str, label: int) -> Story | None:
    """Draws a context of four to six sentences and a question. Sentences differ in person or time, and two of them are
    similar to the answer."""
    kind = QUESTIONS[label]
    verb = dice.pick(tuple(HYPERNYMS)) if kind == 'what' else BE
    target = clause_in(dice, split, lambda c: c.time is not None, verb=verb, negated=False)
    if target is None:
        return None
    question = Question(kind, target)
    clauses = [target]

    def fits(clause: Clause) -> bool:
        apart = all(clause.person != c.person or not overlap(clause.time, c.time) for c in clauses)
        return apart and not _answers(question, clause)

    if kind == 'what':
        likes = [v for v in HYPERNYMS if HYPERNYMS[v] == HYPERNYMS[verb] and v != verb]
        near = [{'person': target.person, 'verb': dice.pick(likes)}, {'time': target.time, 'verb': dice.pick(likes)}]
    else:
        near = [{'person': target.person}, {'time': target.time}, {'place': target.place, 'verb': BE}]
    for fixed in [*dice.shuffled(near)[:2], *[{}] * dice.pick((1, 2, 3))]:
        clause = clause_in(dice, split, fits, **fixed)
        if clause is None:
            return None
        clauses.append(clause)
    return Story(tuple(Statement((c,), dice.chance(0.3)) for c in dice.shuffled(clauses)), question)


def choice(dice: Dice, split: str, label: int) -> Choice | None:
    """Draws a prompt of four clauses and four choices that differ in one field; exactly one follows from the prompt.

    All four values of the field occur in the prompt, the wrong ones with another person or time.
    """
    field = dice.pick(('place', 'person', 'verb'))
    target = clause_in(
        dice,
        split,
        lambda c: c.time is not None and c.place is not None and not (c.verb in _NO_CHOICE and field == 'verb'),
        negated=False,
    )
    if target is None:
        return None
    clauses = [target]

    def fits(clause: Clause) -> bool:
        if clause.time is None or clause.place is None or (clause.verb in _NO_CHOICE and field == 'verb'):
            return False
        apart = all(clause.person != c.person or not overlap(clause.time, c.time) for c in clauses)
        fresh = all(getattr(clause, field) != getattr(c, field) for c in clauses)
        return apart and fresh and (field != 'person' or clause.place != target.place or clause.time != target.time)

    while len(clauses) < 4:
        keep = dice.pick([name for name in ('person', 'place', 'time') if name != field])
        clause = clause_in(dice, split, fits, negated=False, **{keep: getattr(target, keep)})
        if clause is None:
            return None
        clauses.append(clause)
    asked = target._replace(place=None) if field == 'verb' else target._replace(verb=BE)
    wrong = dice.shuffled([asked._replace(**{field: getattr(c, field)}) for c in clauses[1:]])
    options = tuple(Statement((c,)) for c in (*wrong[:label], asked, *wrong[label:]))
    told, front = dice.shuffled(clauses), dice.chance(0.3)
    size = dice.pick((1, 2))
    prompt = tuple(Statement(tuple(told[i : i + size]), front) for i in range(0, 4, size))
    return Choice(prompt, options, label)


def sentence(dice: Dice, split: str, label: int) -> Statement | Question | None:
    """Draws a statement of one or two clauses, or (about one in eight) a question."""
    if dice.chance(0.125):
        return _question(dice, split)
    one = clause_in(dice, split)
    other = clause_in(dice, split, lambda c: one is not None and c.person != one.person)
    if one is None or other is None:
        return None
    return Statement((one, other)[: dice.pick((1, 2))], dice.chance(0.3))


def _question(dice: Dice, split: str) -> Question | None:
    kind = dice.pick(QUESTIONS)
    for _ in range(_ATTEMPTS):
        verb = dice.pick(tuple(HYPERNYMS)) if kind == 'what' else BE
        asked = Question(kind, Clause(dice.pick(tuple(PERSONS)), verb, dice.pick(PLACES), dice.pick(TIMES)))
        if split_of(asked) == split:
            return asked
    return None


# Task -> (function that makes a row, number of labels, which alternate in shuffled blocks).
_MAKERS: dict[str, tuple[Callable[[Dice, str, int], Item | None], int]] = {
    'nli': (inference, 3),
    'pairs': (pair, 2),
    'spans': (story, 4),
    'choices': (choice, 4),
    'pos': (sentence, 1),
    'ner': (sentence, 1),
    'retrieval': (sentence, 1),
}
TASKS = tuple(_MAKERS)


def content(item: Any) -> Hashable:
    """The content of an item without the order of clauses and words: items of equal content have the same meaning."""
    if isinstance(item, Statement):
        return frozenset(item.clauses)
    if isinstance(item, Question):
        return item.content
    if isinstance(item, tuple):
        return tuple(content(part) for part in item)
    return item


@lru_cache(maxsize=64)
def facts(task: str, split: str, n: int) -> tuple[Item, ...]:
    """The first n items, all with different content. Each block of rows has every label once, in shuffled order. n
    must not exceed the limit in LIMITS."""
    make, labels = _MAKERS[task]
    items: list[Item] = []
    seen: set[Hashable] = set()
    order: list[int] = []
    for row in range(n):
        if row % labels == 0:
            order = Dice(task, split, 'labels', row // labels).shuffled(range(labels))
        dice = Dice(task, split, row)
        for _ in range(_ATTEMPTS):
            item = make(dice, split, order[row % labels])
            if item is not None and content(item) not in seen:
                break
        else:
            raise RuntimeError(f'{task} {split}: no new fact for row {row}; the limit in LIMITS is too high')
        seen.add(content(item))
        items.append(item)
    return tuple(items)
