"""The encoder config (shape and special ids) and XLM-R's sizes. A size is one line of `SIZES`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

from xlmr_flax.util.errors import UserError, quote


class ModelError(UserError, ValueError):
    """Raised for a model, weight file or tokenizer that cannot be used. The message names the file and the field."""


class FieldError(ModelError):
    """Raised for the value of one field of an EncoderConfig. field: its name. reason: the text after the name."""

    def __init__(self, field: str, reason: str):
        super().__init__(f'{field} {reason}')
        self.field, self.reason = field, reason


# Field -> the smallest and largest accepted value. A value outside comes from a damaged or malicious file.
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
    """The shape of an encoder. A family that needs more fields has a subclass with its own `family`.

    A subclass without a position table of XLM-R's form overrides `first_position` or `max_length`.

    max_positions: rows of the position table, including XLM-R's two offset rows (514 rows for 512 tokens, as positions
    start at pad_id + 1). dropout: rate for embeddings and block outputs. attention_dropout: rate for attention weights.
    """

    family: ClassVar[str] = 'xlm-roberta'  # key of encoders.FAMILIES: the family that computes and exports it
    token_types: ClassVar[int] = 1  # rows of the table of token types

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
                raise FieldError(name, f'is {quote(value)}; {kind} from {lowest} to {highest} is expected')
        if self.hidden_size % self.num_heads:
            raise FieldError(
                'num_heads', f'is {self.num_heads}; hidden_size {self.hidden_size} cannot be divided by it'
            )

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def first_position(self) -> int:
        """The row of the position table for the first token."""
        return self.pad_id + 1

    @property
    def max_length(self) -> int:
        """The longest row in tokens, including special tokens."""
        return self.max_positions - self.first_position

    def renumbered(self, number: Callable[[int], int]) -> dict[str, int]:
        """Returns the fields that change with the numbers of tokens, if the module reads ids. number: old to new."""
        del number
        return {}


SIZES: dict[str, EncoderConfig] = {
    'tiny': EncoderConfig(vocab_size=2048, hidden_size=64, num_layers=2, num_heads=4, ffn_size=128, max_positions=130),
    'small': EncoderConfig(vocab_size=250037, hidden_size=384, num_layers=12, num_heads=12, ffn_size=1536),
    'base': EncoderConfig(hidden_size=768, num_layers=12, num_heads=12, ffn_size=3072),
    'large': EncoderConfig(),
}
