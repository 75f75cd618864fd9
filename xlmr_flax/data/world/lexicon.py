"""The words of the embedded world: one table of whole phrases and sentence patterns for each language.

A table (lexicon/CODE.tsv) has a key and its forms in each line. A form is words as TEXT/UPOS. `~` before a word, or
behind its tag, means no space there; [...] encloses an activity's object (in German all that stands behind place and
time); {P} {L} {T} are a clause's person, place and time, {A} its activity, {V} and {O} the activity without its object
and the object alone. Activities and clause patterns have the forms affirmative, negated and, where the verb agrees with
its subject, both again for feminine subjects; questions have one form or two. A contraction ('im', 'du') is one word
with the tag of its first part.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import NamedTuple

from xlmr_flax.data.world.facts import BE, HYPERNYMS, PERSONS, PLACES, TIMES, VERBS, Clause, Question, Statement
from xlmr_flax.tasks.labels import UPOS

KEYS = (
    *('meta.join', 'meta.sep', 's.act', 's.act.front', 's.be', 's.be.front', 's.and', 's.end'),
    *('q.where', 'q.who', 'q.when', 'q.read', 'q.eat', 'q.drink'),
    *(f'p.{person}' for person in PERSONS),
    *(f'v.{verb}' for verb in VERBS),
    *(f'l.{place}' for place in PLACES),
    *(f't.{time}' for time in TIMES),
)
_WORD = re.compile(r'(?P<open>\[?)(?P<before>~?)(?P<text>[^\s/]+)/(?P<upos>[A-Z]+)(?P<after>~?)(?P<close>\]?)')
_SLOT = re.compile(r'\{([PLTAVO])\}')


class Word(NamedTuple):
    """A word of a sentence. slot: its clause's number and its part of the clause ('0L'), '' outside of P, L, T, V, O.

    before, after: whether the language's space may stand there.
    """

    text: str
    upos: str
    before: bool = True
    after: bool = True
    slot: str = ''


@dataclass(frozen=True)
class Sentence:
    """Words in order; `join` is what stands between two of them."""

    words: tuple[Word, ...]
    join: str

    def starts(self) -> list[int]:
        """The first character of every word in `text`."""
        starts, end = [], 0
        for i, word in enumerate(self.words):
            if i and word.before and self.words[i - 1].after:
                end += len(self.join)
            starts.append(end)
            end += len(word.text)
        return starts

    @property
    def text(self) -> str:
        text = ''
        for start, word in zip(self.starts(), self.words, strict=True):
            text = text.ljust(start) + word.text
        return text

    def span(self, slot: str) -> tuple[int, int]:
        """First character and the one behind the last of a slot's words, which stand together."""
        places = [i for i, word in enumerate(self.words) if word.slot == slot]
        starts = self.starts()
        return starts[places[0]], starts[places[-1]] + len(self.words[places[-1]].text)

    def entities(self) -> list[str]:
        """BIO tags: the proper names in a person (PER) or in a place (LOC)."""
        tags: list[str] = []
        previous = ''
        for word in self.words:
            kind = {'P': 'PER', 'L': 'LOC'}.get(word.slot[-1:], '') if word.upos == 'PROPN' else ''
            tags.append(f'{"I" if word.slot == previous else "B"}-{kind}' if kind else 'O')
            previous = word.slot if kind else ''
        return tags


@dataclass(frozen=True)
class Lexicon:
    """One language. forms: key -> its forms, each a sequence of words (Word) and slots ('P')."""

    language: str
    forms: dict[str, tuple[tuple[Word | str, ...], ...]]
    join: str
    sep: str

    def statement(self, statement: Statement) -> Sentence:
        """A statement as one sentence with its full stop."""
        words: list[Word] = []
        # In 'At noon A sings and B sleeps' the time could be taken to belong to both clauses.
        timed = statement.front and all(clause.time for clause in statement.clauses)
        for number, clause in enumerate(statement.clauses):
            if number:
                words += self._fill(self._form('s.and'), {}, '')
            pattern = ('s.be' if clause.verb == BE else 's.act') + ('.front' if timed else '')
            words += self._fill(self._polar(pattern, clause), self._phrases(clause), str(number))
        return self._sentence(words + self._fill(self._form('s.end'), {}, ''))

    def question(self, question: Question) -> Sentence:
        clause = question.clause
        key = HYPERNYMS[clause.verb] if question.kind == 'what' else question.kind
        forms = self.forms[f'q.{key}']
        form = forms[len(forms) - 1 if PERSONS[clause.person] else 0]
        return self._sentence(self._fill(form, self._phrases(clause), '0'))

    def _phrases(self, clause: Clause) -> dict[str, list[Word]]:
        phrases: dict[str, list[Word]] = {'P': self._form(f'p.{clause.person}')}
        phrases['L'] = self._form(f'l.{clause.place}') if clause.place else []
        phrases['T'] = self._form(f't.{clause.time}') if clause.time else []
        activity = [] if clause.verb == BE else self._polar(f'v.{clause.verb}', clause)
        phrases['A'] = activity
        phrases['V'] = [word for word in activity if word.slot != 'O']
        phrases['O'] = [word for word in activity if word.slot == 'O']
        return phrases

    def _form(self, key: str) -> list:
        return list(self.forms[key][0])

    def _polar(self, key: str, clause: Clause) -> list:
        forms = self.forms[key]
        feminine = PERSONS[clause.person] and len(forms) == 4
        return list(forms[clause.negated + 2 * feminine])

    def _fill(self, form, phrases: dict[str, list[Word]], number: str) -> list[Word]:
        words: list[Word] = []
        for part in form:
            if isinstance(part, Word):
                words.append(part)
                continue
            for word in phrases[part]:
                words.append(word._replace(slot=number + (word.slot or part)))
        return words

    def _sentence(self, words: list[Word]) -> Sentence:
        first = words[0]
        words = [first._replace(text=first.text[0].upper() + first.text[1:]), *words[1:]]
        return Sentence(tuple(words), self.join)


def _parse(form: str) -> tuple[Word | str, ...]:
    parts: list[Word | str] = []
    inside = False
    for text in form.split():
        if slot := _SLOT.fullmatch(text):
            parts.append(slot[1])
            continue
        match = _WORD.fullmatch(text)
        if match is None or match['upos'] not in UPOS:
            raise ValueError(f'{text!r} is not WORD/UPOS')
        inside = inside or bool(match['open'])
        parts.append(Word(match['text'], match['upos'], not match['before'], not match['after'], 'O' if inside else ''))
        inside = inside and not match['close']
    return tuple(parts)


def parse_table(language: str, text: str) -> Lexicon:
    """A language's table. Raises ValueError with the table's name and line, or the keys that are missing."""
    name = f'lexicon/{language}.tsv'
    cells: dict[str, list[str]] = {}
    forms: dict[str, tuple[tuple[Word | str, ...], ...]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        key, *values = line.split('\t')
        if key not in KEYS or key in cells:
            raise ValueError(f'{name}, line {number}: the key {key!r} is unknown or stands twice')
        cells[key] = values
        polar = key.startswith(('v.', 's.act', 's.be'))
        if len(values) not in ((2, 4) if polar else (1, 2) if key.startswith('q.') else (1,)):
            raise ValueError(f'{name}, line {number}: {key!r} has {len(values)} forms')
        if not key.startswith('meta.'):
            try:
                forms[key] = tuple(_parse(value) for value in values)
            except ValueError as error:
                raise ValueError(f'{name}, line {number}: {error}') from None
    if missing := [key for key in KEYS if key not in cells]:
        raise ValueError(f'{name}: no line for {", ".join(missing)}')
    join, sep = (' ' if cells[key][0] == 'space' else '' for key in ('meta.join', 'meta.sep'))
    return Lexicon(language, forms, join, sep)


@cache
def lexicon(language: str) -> Lexicon:
    """The lexicon of a language, from the package's own table."""
    path = resources.files('xlmr_flax.data.world') / 'lexicon' / f'{language}.tsv'
    return parse_table(language, path.read_text(encoding='utf-8'))
