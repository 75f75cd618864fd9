"""Trains the tiny tokenizer of the package: XLM-R's special tokens, a unigram model of the embedded world's sentences.

python -m xlmr_flax.data.world.tokenizer OUT.json   (run by hand when the world's languages change)
"""

from __future__ import annotations

import sys

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from xlmr_flax.data import world

SPECIAL = ('<s>', '<pad>', '</s>', '<unk>')  # ids 0 to 3, as XLM-R's
SIZE = 2048


def build() -> Tokenizer:
    """Trains the tokenizer on train rows only. It is deterministic for a version of the library. <mask> has the last
    id, as in XLM-R."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=SIZE - 1, special_tokens=list(SPECIAL), unk_token='<unk>', show_progress=False
    )
    texts = [row['sentence'] for code in world.LANGUAGES for row in world.rows('retrieval', code, 'train', 600)]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(['<mask>'])
    tokenizer.post_processor = processors.TemplateProcessing(
        single='<s> $A </s>', pair='<s> $A </s> </s> $B </s>', special_tokens=[('<s>', 0), ('</s>', 2)]
    )
    return tokenizer


if __name__ == '__main__':
    build().save(sys.argv[1], pretty=False)
