"""Extractive question answering: exact match and token F1 under three official scorers.

- squad_v1: SQuAD v1.1's rules, in English for every language (XQuAD, TyDiQA-GoldP; XTREME: evaluate_squad.py).
- mlqa: articles and tokens by language (XTREME: evaluate_mlqa.py).
- squad_v2: with unanswerable questions and the best threshold (SQuAD's evaluate-v2.0.py).
"""

from __future__ import annotations

import re
import string
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from xlmr_flax.scoring.metrics.sums import total

Normaliser = Callable[[str], str]
Measure = Callable[[str, str, Normaliser], float]

_ENGLISH_ARTICLES = re.compile(r'\b(a|an|the)\b')
_MLQA_ARTICLES = {
    'en': _ENGLISH_ARTICLES,
    'es': re.compile(r'\b(un|una|unos|unas|el|la|los|las)\b'),
    'de': re.compile(r'\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b'),
    'vi': re.compile(r'\b(của|là|cái|chiếc|những)\b'),
    # The reference's pattern is meant for a prefix, but matches these two letters anywhere, also inside words.
    'ar': re.compile('ال'),
    'hi': None,
    'zh': None,
}
_HAN = re.compile('([\u4e00-\u9fa5])')


def normalise_squad(text: str) -> str:
    """Normalises an answer as evaluate_squad.py: lower case, no ASCII punctuation, no English articles, single
    spaces."""
    text = ''.join(c for c in text.lower() if c not in string.punctuation)
    return ' '.join(_ENGLISH_ARTICLES.sub(' ', text).split())


@cache
def _punctuation() -> frozenset[str]:
    unicode = (chr(i) for i in range(sys.maxunicode))
    return frozenset(string.punctuation) | {c for c in unicode if unicodedata.category(c).startswith('P')}


def normalise_mlqa(text: str, language: str) -> str:
    """Normalises an answer as evaluate_mlqa.py: lower case, no punctuation (Unicode P* and ASCII), no articles of the
    language, single spaces; in Chinese every Han character is a separate token. Raises ValueError for a language that
    MLQA does not have."""
    if language not in _MLQA_ARTICLES:
        raise ValueError(f'MLQA has no language {language!r} (known: {", ".join(sorted(_MLQA_ARTICLES))})')
    marks = _punctuation()
    text = ''.join(c for c in text.lower() if c not in marks)
    articles = _MLQA_ARTICLES[language]
    if articles:
        text = articles.sub(' ', text)
    if language == 'zh':
        text = _HAN.sub(r' \1 ', text)
    return ' '.join(text.split())


def token_f1(gold: str, predicted: str, normalise: Normaliser) -> float:
    """F1 (0 to 1) between the bags of normalised tokens; 0 if they have no token in common."""
    gold_tokens, said_tokens = normalise(gold).split(), normalise(predicted).split()
    same = sum((Counter(gold_tokens) & Counter(said_tokens)).values())
    if not same:
        return 0.0
    precision, recall = same / len(said_tokens), same / len(gold_tokens)
    return 2 * precision * recall / (precision + recall)


def exact(gold: str, predicted: str, normalise: Normaliser) -> float:
    """Exact match: 1 if the normalised texts are equal, else 0."""
    return float(normalise(gold) == normalise(predicted))


MEASURES: dict[str, Measure] = {'f1': token_f1, 'exact_match': exact}  # of one answer, by the name of the metric


def best(answers: Sequence[str], predicted: str | None, measure: Measure, normalise: Normaliser) -> float:
    """The best value of a measure over the gold answers of a question; 0 without a prediction."""
    return 0.0 if predicted is None else max(measure(answer, predicted, normalise) for answer in answers)


def squad_v1(
    gold: Mapping[str, Sequence[str]], predicted: Mapping[str, str], normalise: Normaliser = normalise_squad
) -> dict[str, float]:
    """Computes {'f1', 'exact_match'} in percent: the best value over each question's answers, averaged over questions.

    A question without a prediction counts 0. gold: question id -> answer texts. Raises ValueError for a question
    without an answer, or if there are no questions.
    """
    if not gold:
        raise ValueError('nothing to score: no questions')
    totals = dict.fromkeys(MEASURES, 0.0)
    for id_, answers in gold.items():
        if not answers:
            raise ValueError(f'question {id_!r} has no gold answer')
        for name, measure in MEASURES.items():
            totals[name] += best(answers, predicted.get(id_), measure, normalise)
    return {name: 100 * total / len(gold) for name, total in totals.items()}


def mlqa(gold: Mapping[str, Sequence[str]], predicted: Mapping[str, str], language: str) -> dict[str, float]:
    """Same as `squad_v1` with MLQA's normalisation. language: that of the context and the answers."""
    return squad_v1(gold, predicted, lambda text: normalise_mlqa(text, language))


def squad_v2(
    gold: Mapping[str, Sequence[str]],
    predicted: Mapping[str, str],
    no_answer_scores: Mapping[str, float] | None = None,
    threshold: float = 1.0,
) -> dict[str, float]:
    """Computes SQuAD v2 scores as evaluate-v2.0.py; in percent, except the thresholds.

    gold: question id -> answer texts, none for an unanswerable question. predicted: '' means unanswerable.
    no_answer_scores: id -> confidence that the question is unanswerable, a probability or a score difference. For 'f1'
      and 'exact_match', a question above `threshold` counts as predicted unanswerable. Without these scores, the result
      has no best_* values.
    best_*: the value at the threshold that is best on these same questions. As in the official script, questions with
      equal scores are added one by one, so with many ties no threshold may reach the best value.
    Raises ValueError for a missing prediction (the official script would exclude the question from the mean).
    """
    if not gold:
        raise ValueError('nothing to score: no questions')
    missing = [id_ for id_ in gold if id_ not in predicted]
    if missing:
        raise ValueError(f'{len(missing)} of {len(gold)} questions have no prediction, the first is {missing[0]!r}')
    scores = no_answer_scores if no_answer_scores is not None else dict.fromkeys(gold, 0.0)
    missing = [id_ for id_ in gold if id_ not in scores]
    if missing:
        raise ValueError(f'{len(missing)} of {len(gold)} questions have no no-answer score, as {missing[0]!r}')
    result: dict[str, float] = {}
    for name, metric in (('f1', _token_f1_v2), ('exact_match', exact)):
        raw = {id_: _best_over_answers(answers, predicted[id_], metric) for id_, answers in gold.items()}
        at = {id_: raw[id_] if scores[id_] <= threshold else float(not gold[id_]) for id_ in gold}
        result[name] = 100 * total(at.values()) / len(gold)
        for part, ids in (
            ('has_answer', [id_ for id_ in gold if gold[id_]]),
            ('no_answer', [id_ for id_ in gold if not gold[id_]]),
        ):
            if ids:
                result[f'{part}_{name}'] = 100 * total(at[id_] for id_ in ids) / len(ids)
        if no_answer_scores is not None:
            result[f'best_{name}'], result[f'best_{name}_threshold'] = _best_threshold(gold, predicted, raw, scores)
    return result


def _best_over_answers(answers: Sequence[str], predicted_text: str, metric: Measure) -> float:
    # Ignore answers that are empty after normalisation ('the').
    usable = [answer for answer in answers if normalise_squad(answer)] or ['']
    return max(metric(answer, predicted_text, normalise_squad) for answer in usable)


def _token_f1_v2(gold: str, predicted: str, normalise: Normaliser) -> float:
    """Same as token_f1, but 1 for two texts that are empty after normalisation."""
    if not normalise(gold) or not normalise(predicted):
        return exact(gold, predicted, normalise)
    return token_f1(gold, predicted, normalise)


def _best_threshold(
    gold: Mapping[str, Sequence[str]],
    predicted: Mapping[str, str],
    raw: Mapping[str, float],
    no_answer_scores: Mapping[str, float],
) -> tuple[float, float]:
    """(best percentage, its threshold): starts with all questions predicted unanswerable, then adds the predicted
    answers one by one, in the order of their no-answer scores."""
    current = float(sum(not answers for answers in gold.values()))
    best, best_threshold = current, 0.0
    for id_ in sorted((id_ for id_ in no_answer_scores if id_ in gold), key=lambda id_: no_answer_scores[id_]):
        if gold[id_]:
            current += raw[id_]
        elif predicted[id_]:
            current -= 1
        if current > best:
            best, best_threshold = current, no_answer_scores[id_]
    return 100 * best / len(gold), best_threshold
