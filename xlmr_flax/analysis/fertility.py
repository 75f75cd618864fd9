"""Tokens per word ("fertility") of the texts that a plan scores: how finely a tokenizer cuts a language.

Rust et al. 2021 (How Good is Your Tokenizer?, section 4) and Acs 2019: subword tokens over words, special tokens left
out. Words are what white space parts; of scripts that write no spaces between words there is no number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from xlmr_flax.data.sources import DataError
from xlmr_flax.data.split import Split
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.experiment.plan.runs import Plan, evaluation_languages
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import ChoiceExample, Example, PairExample, SentenceExample, SpanExample, TagExample
from xlmr_flax.tasks.languages import get_language

UNSPACED = ('Hans', 'Hant', 'Jpan', 'Thai', 'Mymr', 'Khmr', 'Laoo', 'Tibt')
_MOST = 400  # rows of a language: the ratio moves little beyond them


def fertility(plan: Plan, tokenizer: Tokenizer) -> dict[str, dict[str, float]]:
    """{target: {language: tokens per word}} of the rows that are scored. Languages whose files are not at hand, or
    whose script writes no spaces between words, are left out."""
    found: dict[str, dict[str, float]] = {}
    limit = min(plan.config.evaluation.max_examples or _MOST, _MOST)
    for name, (split,) in plan.splits.items():
        for language in evaluation_languages(plan.config, name):
            if get_language(language).script in UNSPACED:
                continue
            try:
                texts = list(_texts(_examples(Split(get_task(name), language, split, plan.config.data_root), limit)))
            except DataError:
                continue
            if ratio := tokens_per_word(tokenizer, texts):
                found.setdefault(name, {})[language] = ratio
    return found


def tokens_per_word(tokenizer: Tokenizer, texts: Iterable[str]) -> float | None:
    """Tokens of all texts over their words, without special tokens; None where there is no word."""
    texts = list(texts)
    words = sum(len(text.split()) for text in texts)
    return len(tokenizer.encode(texts).flat) / words if words else None


def _examples(split: Split, limit: int) -> Sequence[Example]:
    if split.task.embeds:  # the side that is not English
        return split.read_pairs(limit)[1]
    return split.read(limit, [])


def _texts(examples: Iterable[Example]) -> Iterable[str]:
    for example in examples:
        match example:
            case PairExample():
                yield from filter(None, (example.text_a, example.text_b))
            case ChoiceExample():
                yield from (example.prompt, *example.choices)
            case SpanExample():
                yield from (example.question, example.context)
            case TagExample():
                yield ' '.join(example.words)
            case SentenceExample():
                yield example.text
