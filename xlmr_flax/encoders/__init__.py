"""The registry of encoder families. A family is one module here and one line of `FAMILIES`.

docs/adding_an_encoder.md shows how to add one.
"""

from __future__ import annotations

from typing import Any

from xlmr_flax.encoders.bert import Bert
from xlmr_flax.encoders.config import EncoderConfig, ModelError
from xlmr_flax.encoders.deberta_v2 import DebertaV2
from xlmr_flax.encoders.family import Family
from xlmr_flax.encoders.modernbert import ModernBert
from xlmr_flax.encoders.xlm_roberta import Roberta, XlmRoberta
from xlmr_flax.encoders.xlm_roberta_xl import XlmRobertaXl
from xlmr_flax.util.errors import quote

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        XlmRoberta(),
        Roberta(),
        Bert(),
        ModernBert(),
        XlmRobertaXl(),
        DebertaV2(),
    )
}
DEFAULT = XlmRoberta.model_type


def family_named(model_type: Any, where: str) -> Family:
    """Returns the family of a `model_type`. where: the file that names it, for the error message.

    Raises ModelError, which lists the known types, for an unknown one.
    """
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        raise ModelError(f'{where}: model_type is {quote(model_type)}; the known ones are {", ".join(FAMILIES)}')
    return family


def family_of(config: EncoderConfig) -> Family:
    """Returns the family that computes and exports an encoder of this config."""
    return FAMILIES[config.family]


def named_sizes() -> dict[str, EncoderConfig]:
    """Returns {name: config} for `random:NAME` sources: 'SIZE' for XLM-R ('tiny'), else 'FAMILY-SIZE' ('bert-tiny')."""
    return {
        size if family.model_type == DEFAULT else f'{family.model_type}-{size}': config
        for family in FAMILIES.values()
        for size, config in family.sizes.items()
    }
