"""The lexicon of the embedded world: a table of whole phrases and sentence patterns for each language.

Each line of a table (lexicon/CODE.tsv) has a key and its forms. A form is a sequence of words as TEXT/UPOS:
- `~` before a word or after its tag means no space at this position.
- [...] encloses the object of an activity (in German, everything after place and time).
- {P} {L} {T} are the person, place and time of a clause; {A} is its activity; {V} is the activity without its object,
  and {O} is the object alone.
Activities and clause patterns have an affirmative and a negated form. If the verb agrees with its subject, both forms
follow again for feminine subjects. Questions have one form or two. A contraction ('im', 'du') is one word with the tag
of its first part.
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
    """A word of a sentence. slot: the number of its clause and its part of the clause ('0L'), '' outside P, L, T, V, O.

    before, after: whether the language's space is allowed before and after the word.
    """

    text: str
    upos: str
    before: bool = True
    after: bool = True
    slot: str = ''


@dataclass(frozen=True)
class Sentence:
    """The words of a sentence in order. join: the separator between two words (a space or '')."""

    words: tuple[Word, ...]
    join: str

    def starts(self) -> list[int]:
        """The character offset of every word in `text`."""
        starts, end = [], 0
        for i, word in enumerate(self.words):
            if i and word.before and self.words[i - 1].after:
                end += len(self.join)
            starts.append(end)
            end += len(word.text)
        return starts

    @property
    def text(self) -> str:
        parts: list[str] = []
        for i, word in enumerate(self.words):
            if i and word.before and self.words[i - 1].after:
                parts.append(self.join)
            parts.append(word.text)
        return ''.join(parts)

    def span(self, slot: str) -> tuple[int, int]:
        """The character range [start, end) of the words of a slot, which are consecutive."""
        places = [i for i, word in enumerate(self.words) if word.slot == slot]
        starts = self.starts()
        return starts[places[0]], starts[places[-1]] + len(self.words[places[-1]].text)

    def entities(self) -> list[str]:
        """BIO tags of the proper names: PER in a person, LOC in a place."""
        tags: list[str] = []
        previous = ''
        for word in self.words:
            kind = {'P': 'PER', 'L': 'LOC'}.get(word.slot[-1:], '') if word.upos == 'PROPN' else ''
            tags.append(f'{"I" if word.slot == previous else "B"}-{kind}' if kind else 'O')
            previous = word.slot if kind else ''
        return tags


@dataclass(frozen=True)
class Lexicon:
    """The lexicon of one language. forms: key -> its forms, each a sequence of words (Word) and slots ('P'). join:
    separator of words. sep: separator of sentences."""

    language: str
    forms: dict[str, tuple[tuple[Word | str, ...], ...]]
    join: str
    sep: str

    def statement(self, statement: Statement) -> Sentence:
        """Converts a statement to a sentence with a full stop."""
        words: list[Word] = []
        # In 'At noon A sings and B sleeps' a reader could apply the time to both clauses.
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
                words.append(_in_slot(word, number + (word.slot or part)))
        return words

    def _sentence(self, words: list[Word]) -> Sentence:
        first = words[0]
        words = [first._replace(text=first.text[0].upper() + first.text[1:]), *words[1:]]
        return Sentence(tuple(words), self.join)


@cache
def _in_slot(word: Word, slot: str) -> Word:
    return word._replace(slot=slot)


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
    """Parses the table of a language. Raises ValueError that names the table and the line, or the missing keys."""
    name = f'lexicon/{language}.tsv'
    cells: dict[str, list[str]] = {}
    forms: dict[str, tuple[tuple[Word | str, ...], ...]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        key, *values = line.split('\t')
        if key not in KEYS or key in cells:
            raise ValueError(f'{name}, line {number}: the key {key!r} is unknown or occurs twice')
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
    """Loads the lexicon of a language from the package's own table."""
    path = resources.files('xlmr_flax.data.world') / 'lexicon' / f'{language}.tsv'
    return parse_table(language, path.read_text(encoding='utf-8'))
