"""The interface of an encoder family: the base class of the families in this package."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from flax import nnx

from xlmr_flax.encoders.config import EncoderConfig, FieldError, ModelError
from xlmr_flax.encoders.logical_axes import Dims
from xlmr_flax.util.tokenizer_file import SpecialTokens

Params = dict[str, Any]
GetTensor = Callable[[str], np.ndarray]
# (regular expression for the path of a parameter, logical axes of its dimensions); see encoders/logical_axes.py.
AxisRule = tuple[str, Dims]

FIRST, POOLER, MEAN = 'first', 'pooler', 'mean'


@dataclasses.dataclass(frozen=True)
class HeadForm:
    """A task head that transformers builds differently for this family than for XLM-R (kinds/ has XLM-R's heads).

    make: (number of outputs, rngs) -> module; the kind calls it as it calls its own head. tensor_names: {our parameter
    path: transformers' tensor name}. input: what a head for a whole text reads: the FIRST token, the POOLER's output or
    the MEAN over its tokens. decoder: transformers' name of a language model's decoder; its weight is tied to the word
    table, its bias is the head's.
    """

    make: Callable[[int, nnx.Rngs], nnx.Module]
    tensor_names: Mapping[tuple[str, ...], str]
    input: str = FIRST
    decoder: str = 'lm_head.decoder'


class Family(abc.ABC):
    """Base class of encoder families. Subclasses are stateless; the registry (`FAMILIES`) has one instance of each.

    model_type: the value in config.json. prefixes: prefixes of tensor names in transformers' checkpoints. An export
    without a head has the first one, an export with a head the second. class_name: the start of the names of
    transformers' classes. has_pooler: whether transformers' class without a head has a pooler. model_inputs: the inputs
    that it takes from a tokenizer, () = transformers' default. word_table: name of the word embeddings' tensor. sizes:
    configs of `random:` sources. config_class: its fields are stored in model.json. module: the flax module,
    constructed as module(config, rngs=...) and called like encoders/encoder.py's `Encoder`; its word table must have
    the path 'embeddings/word', which the masked-LM head and the active vocabulary read. axes: logical axes of all
    parameters, except those of layer norms, whose paths end in 'norm/scale' and 'norm/bias'.
    """

    model_type: ClassVar[str]
    prefixes: ClassVar[tuple[str, ...]]
    class_name: ClassVar[str]
    has_pooler: ClassVar[bool] = True
    model_inputs: ClassVar[tuple[str, ...]] = ()
    word_table: ClassVar[str]
    sizes: ClassVar[Mapping[str, EncoderConfig]] = {}
    config_class: ClassVar[type[EncoderConfig]]
    module: ClassVar[type[Any]]
    axes: ClassVar[tuple[AxisRule, ...]]

    @abc.abstractmethod
    def read_config(self, raw: Mapping[str, Any], where: str) -> EncoderConfig:
        """Reads an EncoderConfig from the contents of a config.json. where: its path, for messages.

        Raises ModelError, which names the field, for a model that this package cannot compute.
        """

    def with_tokenizer(self, config: EncoderConfig, read: Callable[[], SpecialTokens]) -> EncoderConfig:
        """Returns the config of a directory, given its tokenizer. read: reads the special tokens from its file."""
        del read
        return config

    def head_form(self, architecture: str, config: EncoderConfig) -> HeadForm | None:
        """Returns this family's head for a class in transformers; None = XLM-R's head.

        architecture: the suffix of the class, as in `Kind.architecture`.
        """
        del architecture, config
        return None

    @abc.abstractmethod
    def write_config(self, config: EncoderConfig) -> dict[str, Any]:
        """Returns the contents of a config.json as transformers writes it, without 'architectures'."""

    @abc.abstractmethod
    def import_encoder(self, get: GetTensor, config: EncoderConfig) -> Params:
        """Reads the float32 parameters of `module` from tensors in torch's layout [out, in].

        get: returns a tensor by its name without the prefix.
        """

    @abc.abstractmethod
    def export_encoder(self, encoder: Params, config: EncoderConfig) -> Iterator[tuple[str, np.ndarray]]:
        """Yields (name, tensor) in torch's layout, one layer at a time: the inverse of `import_encoder`."""

    @abc.abstractmethod
    def tensor_shapes(self, config: EncoderConfig) -> dict[str, tuple[int, ...]]:
        """Returns {name: shape} of the tensors that `import_encoder` reads. -1 = any size."""

    @abc.abstractmethod
    def layer_weights(self, config: EncoderConfig) -> int:
        """The number of weights in the matrix products of all layers: 2 FLOPs each per token in a forward pass."""

    @abc.abstractmethod
    def attention_flops(self, config: EncoderConfig, length: float) -> float:
        """FLOPs per token of attention's two products over tokens, in rows of `length` tokens, for all layers."""


def field(raw: Mapping[str, Any], name: str, where: str) -> Any:
    """Returns a field of a config.json. Raises ModelError if it is missing."""
    if name not in raw:
        raise ModelError(f'{where}: field {name!r} is missing')
    return raw[name]


@contextlib.contextmanager
def field_names(where: str, names: Mapping[str, str]) -> Iterator[None]:
    """Context in which a ModelError names config.json and its field. where: the path of config.json. names: {field of
    the EncoderConfig: field of config.json}; fields with the same name in both can be left out.
    """
    try:
        yield
    except FieldError as e:
        raise ModelError(f'{where}: {names.get(e.field, e.field)} {e.reason}') from None
    except ModelError as e:
        raise ModelError(f'{where}: {e}') from None
