"""What is known of the languages that an encoder has read."""

from __future__ import annotations

import pytest

from xlmr_flax.experiment.result_rows import language_facts
from xlmr_flax.models.pretraining import has_read


@pytest.mark.parametrize(
    ('source', 'seen'),
    [
        ('hf:FacebookAI/xlm-roberta-base', (True, False)),
        ('hf:FacebookAI/xlm-roberta-large@main', (True, False)),
        ('hf:/data/models/XLM-Roberta-XL/', (True, False)),
        ('hf:facebook/xlm-v-base', (True, False)),
        ('hf:microsoft/mdeberta-v3-base', (True, False)),
        ('hf:Davlan/afro-xlmr-large-76L', (True, None)),
        ('hf:cis-lmu/glot500-base', (True, None)),
        ('hf:intfloat/multilingual-e5-large', (True, None)),
        ('hf:intfloat/multilingual-e5-small', (None, None)),
        ('hf:jhu-clsp/mmBERT-base', (None, None)),
        ('hf:sentence-transformers/LaBSE', (None, None)),
        ('hf:google-bert/bert-base-multilingual-cased', (None, None)),
        ('hf:somebody/xlm-roberta-base-xnli', (None, None)),
        ('ckpt:runs/xlm-roberta-base', (None, None)),
        ('random:xlm-roberta-xl-xl', (None, None)),
        ('embedded', (None, None)),
    ],
)
def test_languages_in_cc100_and_not_in_it(source: str, seen: tuple[bool | None, bool | None]) -> None:
    german, bambara = (language_facts(code, source) for code in ('de', 'bm'))
    assert (german['cc100_gib'] > 0, bambara['cc100_gib']) == (True, 0)
    assert (german.get('seen'), bambara.get('seen')) == seen
    assert has_read(source, None) is None
