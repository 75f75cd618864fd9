"""The embedded world: small synthetic parallel data in many languages, to try every kind of task without a download.

Fourteen persons do (or do not do) seventeen things in thirteen places at seven times. Each row is generated as an
abstract fact. A table of whole phrases and sentence patterns for each language (lexicon/CODE.tsv) turns the fact into
text. So row i of a task and split has the same meaning in every language, and labels, answers and tags follow from the
fact.

The text was written for this project and is released under its licence (Apache-2.0). Native speakers have not checked
the translations. The sentences are simple and the vocabulary is tiny: scores on them are only useful to compare
versions of this code.
"""

from __future__ import annotations

from typing import Any

from xlmr_flax.data.world.facts import PERSONS, PLACES, SPLITS, TIMES, VERBS, Question
from xlmr_flax.data.world.inference import LABELS, Inference
from xlmr_flax.data.world.items import LIMITS, TASKS, Choice, Item, Pair, Story, facts
from xlmr_flax.data.world.lexicon import Lexicon, lexicon

__all__ = ['LABELS', 'LANGUAGES', 'LIMITS', 'SPLITS', 'TASKS', 'describe', 'rows']

LANGUAGES = ('ar', 'bg', 'de', 'el', 'en', 'es', 'fr', 'hi', 'ht', 'id', 'ru', 'sw', 'th', 'tr', 'vi', 'zh')


def rows(task: str, language: str, split: str, n: int) -> list[dict[str, Any]]:
    """The first n rows of a task's split in a language. Row i is the same fact in every language and for every n.

    nli: id, premise, hypothesis, label ('entailment', 'neutral', 'contradiction'; in equal numbers).
    pairs: id, sentence1, sentence2, label ('1' = same meaning; half of the rows). Both sentences have the same words.
    spans: id, question, context (4 to 6 sentences), answers [{text, answer_start in characters}], exactly one answer.
    choices: id, prompt, choices (4), label (0 to 3): the choice that follows from the prompt.
    pos, ner: id, words, tags (UPOS; B-PER, I-PER, B-LOC, I-LOC, O), one tag a word.
    retrieval: id, sentence; sentences do not repeat.
    Facts belong to one split: no clause of a premise, context, prompt or sentence occurs in two splits, of any task.
    Hypotheses and wrong choices may occur in other splits, so that they have the same distribution for every label.
    Raises ValueError for an unknown name or for an n above LIMITS[task][split]; the message gives the known values.
    """
    for what, name, known in (('task', task, TASKS), ('language', language, LANGUAGES), ('split', split, SPLITS)):
        if name not in known:
            raise ValueError(f'the embedded world has no {what} {name!r} (known: {", ".join(known)})')
    limit = LIMITS[task][split]
    if not 0 <= n <= limit:
        raise ValueError(f'the embedded world makes 0 to {limit} rows of {task} {split}, not {n}')
    words = lexicon(language)
    return [{'id': f'{task}-{split}-{i}', **_row(task, words, item)} for i, item in enumerate(facts(task, split, n))]


def describe() -> dict[str, dict[str, int]]:
    """Size of the world: language -> {'phrases': number of phrases and patterns in its table, 'sentences': number of
    possible sentences with one clause}."""
    actions = len(PERSONS) * len(VERBS) * (len(PLACES) + 1) * (len(TIMES) + 1)
    states = len(PERSONS) * len(PLACES) * (len(TIMES) + 1)
    # Each clause is affirmative or negated; a clause with a time also occurs with the time in front.
    count = 2 * (actions + states) * (2 * len(TIMES) + 1) // (len(TIMES) + 1)
    return {code: {'phrases': sum(map(len, lexicon(code).forms.values())), 'sentences': count} for code in LANGUAGES}


def _row(task: str, words: Lexicon, item: Item) -> dict[str, Any]:
    if isinstance(item, Inference):
        premise, hypothesis = words.statement(item.premise).text, words.statement(item.hypothesis).text
        return {'premise': premise, 'hypothesis': hypothesis, 'label': item.label}
    if isinstance(item, Pair):
        first, second = words.statement(item.first).text, words.statement(item.second).text
        return {'sentence1': first, 'sentence2': second, 'label': str(item.label)}
    if isinstance(item, Story):
        return _span_row(words, item)
    if isinstance(item, Choice):
        prompt = words.sep.join(words.statement(part).text for part in item.prompt)
        return {'prompt': prompt, 'choices': [words.statement(c).text for c in item.choices], 'label': item.label}
    sentence = words.question(item) if isinstance(item, Question) else words.statement(item)
    if task == 'retrieval':
        return {'sentence': sentence.text}
    tags = [word.upos for word in sentence.words] if task == 'pos' else sentence.entities()
    return {'words': [word.text for word in sentence.words], 'tags': tags}


def _span_row(words: Lexicon, item: Story) -> dict[str, Any]:
    slot = {'where': '0L', 'who': '0P', 'when': '0T', 'what': '0O'}[item.question.kind]
    context, start, end = '', 0, 0
    for statement in item.sentences:
        sentence = words.statement(statement)
        context += words.sep if context else ''
        if statement.clauses == (item.question.clause,):
            start, end = (len(context) + offset for offset in sentence.span(slot))
        context += sentence.text
    answers = [{'text': context[start:end], 'answer_start': start}]
    return {'question': words.question(item.question).text, 'context': context, 'answers': answers}
