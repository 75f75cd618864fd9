"""Language-independent facts of the embedded world: who does what, where and when.

A clause is the smallest fact. A hash of its content, without its polarity, assigns each clause to one split. So no fact
that a test row states is stated or denied in a train row of any task.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeVar

T = TypeVar('T')

SPLITS = ('train', 'dev', 'test')
# Person -> whether feminine: Arabic and Hindi verbs agree with it.
PERSONS = {
    **dict.fromkeys(('maria', 'sara', 'fatima', 'julia', 'laura', 'leila', 'nadia'), True),
    **dict.fromkeys(('peter', 'viktor', 'david', 'thomas', 'daniel', 'samir', 'karim'), False),
}
# Activity -> its hypernym, the more general activity ('reads a book' -> 'reads something').
HYPERNYMS = {
    'read_book': 'read',
    'read_newspaper': 'read',
    'eat_apple': 'eat',
    'eat_bread': 'eat',
    'drink_water': 'drink',
    'drink_tea': 'drink',
    'drink_coffee': 'drink',
}
VAGUE = ('read', 'eat', 'drink')
ACTIVITIES = (*HYPERNYMS, 'sleep', 'sing', 'dance', 'work', 'write_letter', 'hear_music', 'watch_film')
VERBS = (*ACTIVITIES, *VAGUE)
BE = 'be'  # the verb of a clause that only says where somebody is
ROOMS = ('garden', 'kitchen', 'school', 'market', 'library', 'hospital', 'hotel', 'office')
CITIES = ('london', 'paris', 'rome', 'tokyo', 'newyork')
PLACES = ROOMS + CITIES
# At a point in time a person is in one place only; on a Monday possibly in several.
POINTS = ('noon', 'midnight', 'nine')
TIMES = (*POINTS, 'morning', 'evening', 'monday', 'sunday')
# Times that may overlap in some language ('το βράδυ' may last until midnight).
_OVERLAPS = ({'nine', 'morning'}, {'nine', 'evening'}, {'midnight', 'evening'})
QUESTIONS = ('where', 'who', 'when', 'what')
_TRIES = 4000


class Clause(NamedTuple):
    """A fact: `person` does (or does not do) `verb` in `place` at `time`. place and time may be None; place is required
    with BE."""

    person: str
    verb: str
    place: str | None
    time: str | None
    negated: bool = False


class Statement(NamedTuple):
    """A sentence of one or two clauses. front: the time is first in each clause, if all clauses have a time."""

    clauses: tuple[Clause, ...]
    front: bool = False


class Question(NamedTuple):
    """A question that an affirmative clause answers. kind: one of QUESTIONS.

    'where' and 'who' need a clause with a time. 'what' asks for the object of an activity in HYPERNYMS.
    """

    kind: str
    clause: Clause

    @property
    def content(self) -> tuple[str | None, ...]:
        """The content of the question: the kind and the fields of the clause that the question mentions."""
        person, verb, place, time, _ = self.clause
        given = {
            'where': (person, time),
            'who': (place, time),
            'when': (person, place),
            'what': (person, HYPERNYMS.get(verb), time),
        }
        return (self.kind, *given[self.kind])


@cache
def _split_of(content: tuple[str | None, ...]) -> str:
    digest = hashlib.sha256('|'.join(part or '-' for part in content).encode()).digest()
    return ('test', 'dev')[digest[0] % 10] if digest[0] % 10 < 2 else 'train'


def split_of(fact: Clause | Question) -> str:
    """The split of a clause (the same for both polarities) or a question: one tenth each in dev and test."""
    return _split_of(fact.content if isinstance(fact, Question) else fact[:4])


class Dice:
    """A random generator that depends only on the parts of the seed.

    It calls only `Random.random`, whose sequence for a seed is guaranteed to be the same in all versions of Python.
    """

    def __init__(self, *seed: object):
        self._random = random.Random('/'.join(map(str, seed)))

    def chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self._random.random() * len(options))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        keys = [self._random.random() for _ in items]
        return [items[i] for i in sorted(range(len(items)), key=keys.__getitem__)]

    def pick_other(self, options: Sequence[T], *taken: T) -> T:
        return self.pick([option for option in options if option not in taken])


def any_clause(dice: Dice, **fixed: Any) -> Clause:
    """Draws a random clause with some fields fixed; `place` and `time` are present in three of four clauses (place
    always with BE)."""
    verb = fixed['verb'] if 'verb' in fixed else BE if dice.chance(0.25) else dice.pick(VERBS)
    fields: dict[str, Any] = {
        'person': dice.pick(tuple(PERSONS)),
        'verb': verb,
        'place': dice.pick(PLACES) if verb == BE or dice.chance(0.75) else None,
        'time': dice.pick(TIMES) if dice.chance(0.75) else None,
        'negated': dice.chance(0.3),
    }
    return Clause(**(fields | fixed))


def clause_in(dice: Dice, split: str, accept: Callable[[Clause], bool] | None = None, **fixed: Any) -> Clause | None:
    """Draws a random clause of a split that `accept` accepts; None after 4,000 draws without success."""
    for _ in range(_TRIES):
        clause = any_clause(dice, **fixed)
        if split_of(clause) == split and (accept is None or accept(clause)):
            return clause
    return None


def overlap(one: str | None, other: str | None) -> bool:
    """Whether two times may overlap in some language. None (no time given) overlaps every time."""
    return one is None or other is None or one == other or {one, other} in _OVERLAPS


def same_kind(place: str) -> tuple[str, ...]:
    """The places that exclude `place`: the other cities for a city, the other rooms for a room (a garden may be in
    London)."""
    return tuple(other for other in (CITIES if place in CITIES else ROOMS) if other != place)
