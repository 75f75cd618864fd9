"""Computes fertility, the number of tokens per word, of the texts that a plan scores, per language.

As in Rust et al. 2021 (How Good is Your Tokenizer?, section 4) and Acs 2019: subword tokens divided by words, without
special tokens. White space separates words, so scripts without spaces between words have no value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from xlmr_flax.data.readers.text import DataError
from xlmr_flax.data.split import Split
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.experiment.plan.runs import Plan, evaluation_languages
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import ChoiceExample, Example, PairExample, SentenceExample, SpanExample, TagExample
from xlmr_flax.tasks.languages import get_language

UNSPACED = ('Hans', 'Hant', 'Jpan', 'Thai', 'Mymr', 'Khmr', 'Laoo', 'Tibt')
_MOST = 400  # largest number of rows per language; more rows change the ratio little


def fertility(plan: Plan, tokenizer: Tokenizer) -> dict[str, dict[str, float]]:
    """Returns {target: {language: tokens per word}} of the scored rows. Languages without files, or with a script
    without spaces between words, are left out."""
    result: dict[str, dict[str, float]] = {}
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
                result.setdefault(name, {})[language] = ratio
    return result


def tokens_per_word(tokenizer: Tokenizer, texts: Iterable[str]) -> float | None:
    """Returns the tokens of all texts, without special tokens, divided by their words; None without words."""
    texts = list(texts)
    words = sum(len(text.split()) for text in texts)
    return len(tokenizer.encode(texts).flat) / words if words else None


def _examples(split: Split, limit: int) -> Sequence[Example]:
    if split.task.embeds:  # use the side that is not English
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
