"""Which languages an encoder has read in pretraining, as far as a source says so.

XLM-R's pretraining data is CC-100, whose languages and sizes are in tasks/languages.tsv. Two other encoders have the
same data: XLM-V (Liang et al. 2023, model card) and mDeBERTa-v3 (He et al. 2021, model card). Encoders that continue
from XLM-R's weights have read at least CC-100: AfroXLMR (Alabi et al. 2022), Glot500-m (Imani et al. 2023) and
multilingual-e5 base and large (Wang et al. 2024). For all others, there is no list of languages here.

Nothing in a checkpoint tells AfroXLMR from XLM-R: shapes and vocabulary are the same. So an encoder is known by the
name of its repository on the hub, or of its folder.
"""

from __future__ import annotations

import re

_CC100 = re.compile(r'xlm-roberta-(base|large|xl|xxl)|xlm-v-base|mdeberta-v3-base')
_CC100_AND_MORE = re.compile(r'afro-?xlmr-.+|glot500(-base|-m)?|multilingual-e5-(base|large)(-instruct)?')


def has_read(source: str, cc100_gib: float | None) -> bool | None:
    """Whether an encoder has read a language in pretraining; None = unknown.

    source: the encoder source as the user gives it ('hf:FacebookAI/xlm-roberta-base', 'hf:DIR/xlm-roberta-base').
    cc100_gib: GiB of the language in CC-100, 0 = not in it, None = not recorded.
    """
    kind, _, rest = source.partition(':')
    if kind != 'hf' or cc100_gib is None:
        return None
    name = rest.rstrip('/').rpartition('/')[2].partition('@')[0].lower()
    if _CC100.fullmatch(name):
        return cc100_gib > 0
    return True if cc100_gib > 0 and _CC100_AND_MORE.fullmatch(name) else None
