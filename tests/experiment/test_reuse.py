"""What decides whether an evaluation's rows are used again."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from xlmr_flax.config import NONE, Config, Evaluation
from xlmr_flax.experiment.plan.runs import Run
from xlmr_flax.experiment.reuse import evaluation_key


def key(target: str, **settings: Any) -> str:
    run = Run('0123456789ab', NONE, target, '', 1, None, None)
    return evaluation_key(Config(targets=(target,), evaluation=Evaluation(**settings)), run, 'data')


@pytest.mark.parametrize(
    ('target', 'settings', 'counts'),
    [
        ('bucc2018', {'repeated_sentences': 'dropped'}, True),
        ('tatoeba', {'repeated_sentences': 'dropped'}, False),
        ('xquad', {'qa_decoding': 'reference'}, True),
        ('xquad', {'qa_unaligned': ('zh',)}, False),
        ('xnli', {'qa_decoding': 'reference'}, False),
        ('bucc2018', {'pooling': 'cls'}, True),
        ('bucc2018', {'retrieval_layers': {'bucc2018': 3}}, True),
        ('bucc2018', {'retrieval_layers': {'tatoeba': 3}}, False),
    ],
)
def test_what_a_task_looks_at_counts(target: str, settings: dict[str, Any], counts: bool) -> None:
    assert (key(target, **settings) != key(target)) == counts


def test_evaluations_from_before_there_were_rules_keep_their_keys() -> None:
    """The digest of the same settings, made by the version before."""
    assert key('bucc2018') == '754cfcd0f974'
    assert key('bucc2018', repeated_sentences='expanded') != key('bucc2018', repeated_sentences='dropped')
    assert dataclasses.asdict(Evaluation())['repeated_sentences'] == 'kept'
    one, other = (key('xquad', qa_decoding='reference', qa_unaligned=codes) for codes in (('zh', 'ko'), ('ko', 'zh')))
    assert one == other != key('xquad', qa_decoding='reference')
