"""Generates inference rows: first a hypothesis, independently of the label, then a premise that gives the label.

So the words of the hypothesis do not reveal the label, and negation occurs in premises and hypotheses of all three
labels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from xlmr_flax.data.world.facts import (
    BE,
    HYPERNYMS,
    PERSONS,
    PLACES,
    POINTS,
    TIMES,
    VERBS,
    Clause,
    Dice,
    Statement,
    any_clause,
    clause_in,
    overlap,
    same_kind,
    split_of,
)

LABELS = ('entailment', 'neutral', 'contradiction')


class Inference(NamedTuple):
    premise: Statement
    hypothesis: Statement
    label: str


class _Shape(NamedTuple):
    """Properties of the hypothesis, drawn once per row independently of the label: if retries drew them again, they
    would favour shapes that suit the label."""

    state: bool
    place: bool
    time: bool
    negated: bool


def inference(dice: Dice, split: str, label: int) -> Inference | None:
    """Draws a premise with clauses of the split and a hypothesis, with the label LABELS[label]; None if no premise was
    found."""
    state = dice.chance(0.25)
    place, time = (True, True) if state else dice.pick(((True, True), (True, False), (False, True)))
    shape = _Shape(state, place, time, dice.chance(0.5))
    for _ in range(1000):
        hypothesis = _hypothesis(dice, shape)
        main = dice.pick(_reasons(hypothesis, LABELS[label]))(dice, hypothesis)
        if split_of(main) == split:
            break
    else:
        return None
    clauses = (main,)
    # A premise that is equal to the hypothesis always gets a second clause.
    if main == hypothesis or dice.chance(0.5):
        strangers = [person for person in PERSONS if person not in (main.person, hypothesis.person)]
        other = clause_in(dice, split, person=dice.pick(strangers), negated=dice.chance(0.5))
        if other is None:
            return None
        clauses = tuple(dice.shuffled((main, other)))
    premise = Statement(clauses, front=dice.chance(0.3))
    return Inference(premise, Statement((hypothesis,), front=dice.chance(0.3)), LABELS[label])


def _hypothesis(dice: Dice, shape: _Shape) -> Clause:
    times = POINTS if shape.state else TIMES
    return any_clause(
        dice,
        verb=BE if shape.state else dice.pick(VERBS),
        place=dice.pick(PLACES) if shape.place else None,
        time=dice.pick(times) if shape.time else None,
        negated=shape.negated,
    )


_Reason = Callable[[Dice, Clause], Clause]


def _reasons(clause: Clause, label: str) -> list[_Reason]:
    """Functions that make a premise clause with this label for a hypothesis; at least one for every hypothesis."""
    if label == 'neutral':
        reasons: list[_Reason] = [_of_somebody_else]
        if clause.time:
            reasons += [_at_another_time, _something_else]
        if clause.place:
            reasons.append(_place_unsaid)
        if clause.time and clause.place:
            reasons.append(_time_unsaid)
        if clause.verb in HYPERNYMS or clause.verb in HYPERNYMS.values():
            reasons.append(_vaguer)
        return reasons
    if (label == 'entailment') != clause.negated:
        return [_affirms]
    return [_denies, _elsewhere] if clause.place and clause.time in POINTS else [_denies]


def _affirms(dice: Dice, clause: Clause) -> Clause:
    """An affirmative clause that entails the affirmative hypothesis: equally or more specific."""
    if clause.verb == BE:
        verb = dice.pick((BE, dice.pick(VERBS)))
    else:
        verb = dice.pick([v for v in VERBS if v == clause.verb or HYPERNYMS.get(v) == clause.verb])
    place = clause.place or dice.pick((None, dice.pick(PLACES)))
    time = clause.time or dice.pick((None, dice.pick(TIMES)))
    return Clause(clause.person, verb, place, time)


def _denies(dice: Dice, clause: Clause) -> Clause:
    """A negated clause that entails the negated hypothesis: equally or more general."""
    if clause.verb == BE:
        return clause._replace(negated=True)
    verb = dice.pick((clause.verb, HYPERNYMS.get(clause.verb, clause.verb)))
    return Clause(clause.person, verb, dice.pick((None, clause.place)), clause.time, negated=True)


def _elsewhere(dice: Dice, clause: Clause) -> Clause:
    """A clause that places the person elsewhere at the same point in time, so not in the hypothesis's place."""
    assert clause.place
    return Clause(clause.person, dice.pick((BE, dice.pick(VERBS))), dice.pick(same_kind(clause.place)), clause.time)


def _about(dice: Dice, clause: Clause) -> Clause:
    return dice.pick((_affirms, _denies))(dice, clause)


def _of_somebody_else(dice: Dice, clause: Clause) -> Clause:
    return _about(dice, clause)._replace(person=dice.pick_other(tuple(PERSONS), clause.person))


def _at_another_time(dice: Dice, clause: Clause) -> Clause:
    times = [time for time in TIMES if not overlap(time, clause.time)]
    return _about(dice, clause)._replace(time=dice.pick(times))


def _something_else(dice: Dice, clause: Clause) -> Clause:
    """A clause with another activity at another time, in the same place or without a place."""
    related = (clause.verb, HYPERNYMS.get(clause.verb))
    verbs = [v for v in VERBS if v not in related and HYPERNYMS.get(v) not in related]
    return _at_another_time(dice, clause)._replace(verb=dice.pick(verbs))


def _place_unsaid(dice: Dice, clause: Clause) -> Clause:
    return _affirms(dice, clause._replace(verb=dice.pick(VERBS) if clause.verb == BE else clause.verb))._replace(
        place=None
    )


def _time_unsaid(dice: Dice, clause: Clause) -> Clause:
    return _affirms(dice, clause)._replace(time=None)


def _vaguer(dice: Dice, clause: Clause) -> Clause:
    """A neutral premise through hypernyms: 'reads something' for 'reads a book', 'does not read a book' for '(does not)
    read anything'."""
    if clause.verb in HYPERNYMS:
        return _affirms(dice, clause)._replace(verb=HYPERNYMS[clause.verb])
    cases = [verb for verb, hypernym in HYPERNYMS.items() if hypernym == clause.verb]
    return clause._replace(verb=dice.pick(cases), negated=True)
