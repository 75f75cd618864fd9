"""Tokens per word ("fertility") of the texts that a plan scores: how finely a tokenizer cuts a language.

Rust et al. 2021 (How Good is Your Tokenizer?, section 4) and Acs 2019: subword tokens over words, special tokens left
out. Words are what white space parts; of scripts that write no spaces between words there is no number.
"""

from __future__ import annotations

from collections.abc import Iterable

from xlmr_flax.config import Config
from xlmr_flax.data.sources import DataError, read_pairs, read_split
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.experiment.plan import evaluation_languages, evaluation_split, task_of
from xlmr_flax.tasks.base import ChoiceExample, Example, PairExample, SentenceExample, SpanExample, TagExample, Task
from xlmr_flax.tasks.languages import get_language

UNSPACED = ('Hans', 'Hant', 'Jpan', 'Thai', 'Mymr', 'Khmr', 'Laoo', 'Tibt')
_MOST = 400  # rows of a language: the ratio moves little beyond them


def fertility(config: Config, tokenizer: Tokenizer) -> dict[str, dict[str, float]]:
    """{target: {language: tokens per word}} of the rows that are scored. Languages whose files are not at hand, or
    whose script writes no spaces between words, are left out."""
    found: dict[str, dict[str, float]] = {}
    for name in config.targets:
        task, split = task_of(config, name), evaluation_split(config, name)
        for language in evaluation_languages(config, name):
            if get_language(language).script in UNSPACED:
                continue
            try:
                texts = list(_texts(_examples(config, task, language, split)))
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


def _examples(config: Config, task: Task, language: str, split: str) -> list[Example]:
    limit = min(config.evaluation.max_examples or _MOST, _MOST)
    if task.embeds:  # the side that is not English
        return list(read_pairs(task, language, split, config.data_root, limit)[1])
    return read_split(task, language, split, config.data_root, limit, [])


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
