"""Encoder shapes. A model size is one line of `SIZES`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from xlmr_flax.util.errors import UserError, quote


class ModelError(UserError, ValueError):
    """A model, weight file or tokenizer that cannot be used; the message names file and field."""


# Field -> the smallest and largest value that is computed with; beyond them a file is damaged or made to do harm.
_BOUNDS: dict[str, tuple[float, float]] = {
    'vocab_size': (1, 10_000_000),
    'hidden_size': (1, 65_536),
    'num_layers': (1, 1_000),
    'num_heads': (1, 1_024),
    'ffn_size': (1, 1_048_576),
    'max_positions': (3, 1_048_576),
    'layer_norm_eps': (0.0, 1.0),
    'dropout': (0.0, 1.0),
    'attention_dropout': (0.0, 1.0),
    'pad_id': (0, 10_000_000),
    'bos_id': (0, 10_000_000),
    'eos_id': (0, 10_000_000),
    'initializer_range': (0.0, 100.0),
}


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Shape of an XLM-R encoder, in the field names of `transformers`' XLMRobertaConfig where they mean the same.

    max_positions counts table rows: XLM-R's two offset rows are in it (514 rows serve 512 tokens, positions start
    at pad_id + 1). dropout is applied to embeddings and block outputs, attention_dropout to attention weights.
    """

    vocab_size: int = 250002
    hidden_size: int = 1024
    num_layers: int = 24
    num_heads: int = 16
    ffn_size: int = 4096
    max_positions: int = 514
    layer_norm_eps: float = 1e-5
    dropout: float = 0.1
    attention_dropout: float = 0.1
    pad_id: int = 1
    bos_id: int = 0
    eos_id: int = 2
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        for name, (lowest, highest) in _BOUNDS.items():
            value = getattr(self, name)
            kinds = (int,) if isinstance(highest, int) else (int, float)
            if not isinstance(value, kinds) or isinstance(value, bool) or not lowest <= value <= highest:
                kind = 'an integer' if isinstance(highest, int) else 'a number'
                raise ModelError(f'{name} is {quote(value)}; {kind} from {lowest} to {highest} is expected')
        if self.hidden_size % self.num_heads:
            raise ModelError(f'hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}')

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def max_length(self) -> int:
        """Longest row in tokens, special tokens included."""
        return self.max_positions - self.pad_id - 1

    def to_hf(self) -> dict[str, Any]:
        """The config.json of this encoder as `transformers` writes it for XLM-R (architectures left to the caller)."""
        return {
            'model_type': 'xlm-roberta',
            'vocab_size': self.vocab_size,
            'hidden_size': self.hidden_size,
            'num_hidden_layers': self.num_layers,
            'num_attention_heads': self.num_heads,
            'intermediate_size': self.ffn_size,
            'max_position_embeddings': self.max_positions,
            'type_vocab_size': 1,
            'layer_norm_eps': self.layer_norm_eps,
            'hidden_act': 'gelu',
            'hidden_dropout_prob': self.dropout,
            'attention_probs_dropout_prob': self.attention_dropout,
            'initializer_range': self.initializer_range,
            'pad_token_id': self.pad_id,
            'bos_token_id': self.bos_id,
            'eos_token_id': self.eos_id,
            'position_embedding_type': 'absolute',
        }

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], where: str) -> EncoderConfig:
        """Reads a config.json of model_type xlm-roberta, roberta or bert (the last: two offset rows are added).

        A bert's special ids are not looked at: its positions do not depend on them, and the tokenizer has them. Raises
        ModelError naming the field where the model is not an encoder that this code computes.
        """
        kind = config.get('model_type')
        if kind not in ('xlm-roberta', 'roberta', 'bert'):
            raise ModelError(f'{where}: model_type is {kind!r}; xlm-roberta, roberta and bert encoders can be read')
        if config.get('hidden_act', 'gelu') != 'gelu':
            raise ModelError(f'{where}: hidden_act is {config["hidden_act"]!r}; only gelu (erf) is implemented')
        if config.get('position_embedding_type', 'absolute') != 'absolute':
            raise ModelError(f'{where}: position_embedding_type {config["position_embedding_type"]!r} is not absolute')
        _check_special_ids(config, kind, where)
        try:
            positions = config['max_position_embeddings']
            if kind == 'bert' and isinstance(positions, int):
                positions += 2
            return cls(
                vocab_size=config['vocab_size'],
                hidden_size=config['hidden_size'],
                num_layers=config['num_hidden_layers'],
                num_heads=config['num_attention_heads'],
                ffn_size=config['intermediate_size'],
                max_positions=positions,
                layer_norm_eps=config.get('layer_norm_eps', 1e-12 if kind == 'bert' else 1e-5),
                dropout=config.get('hidden_dropout_prob', 0.1),
                attention_dropout=config.get('attention_probs_dropout_prob', 0.1),
            )
        except KeyError as e:
            raise ModelError(f'{where}: field {e.args[0]!r} is missing') from None
        except ModelError as e:
            raise ModelError(f'{where}: {e}') from None


def _check_special_ids(config: Mapping[str, Any], kind: str, where: str) -> None:
    """Raises ModelError for a roberta whose special ids are not XLM-R's. Its positions start behind the padding id, and
    the lowest ids keep their numbers when the word table is cut to the rows in use.
    """
    for field, own in (('pad_token_id', 'pad_id'), ('bos_token_id', 'bos_id'), ('eos_token_id', 'eos_id')):
        found, expected = config.get(field), EncoderConfig.__dataclass_fields__[own].default
        if kind != 'bert' and found is not None and found != expected:
            raise ModelError(
                f'{where}: {field} is {found!r}; only encoders with the special ids of XLM-R can be read '
                f'(padding 1, <s> 0, </s> 2: positions start behind the padding id)'
            )


SIZES: dict[str, EncoderConfig] = {
    'tiny': EncoderConfig(vocab_size=2048, hidden_size=64, num_layers=2, num_heads=4, ffn_size=128, max_positions=130),
    'small': EncoderConfig(vocab_size=250037, hidden_size=384, num_layers=12, num_heads=12, ffn_size=1536),
    'base': EncoderConfig(hidden_size=768, num_layers=12, num_heads=12, ffn_size=3072),
    'large': EncoderConfig(),
}
