"""The interface of an encoder family: the base class of the families in this package."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from xlmr_flax.encoders.config import EncoderConfig, ModelError
from xlmr_flax.encoders.logical_axes import Dims

Params = dict[str, Any]
GetTensor = Callable[[str], np.ndarray]
# (regular expression for the path of a parameter, logical axes of its dimensions); see encoders/logical_axes.py.
AxisRule = tuple[str, Dims]


class Family(abc.ABC):
    """Base class of encoder families. Subclasses are stateless; the registry (`FAMILIES`) has one instance of each.

    model_type: the value in config.json. prefixes: prefixes of tensor names in transformers' checkpoints; the first is
    the one without a head. base_class: transformers' class without a head. word_table: name of the word embeddings'
    tensor. sizes: configs of `random:` sources. config_class: its fields are stored in model.json. module: the flax
    module, constructed as module(config, rngs=...) and called like encoders/encoder.py's `Encoder`; its word table must
    have the path 'embeddings/word', which the masked-LM head and the active vocabulary read. axes: logical axes of all
    parameters, except those of layer norms, whose paths end in 'norm/scale' and 'norm/bias'.
    """

    model_type: ClassVar[str]
    prefixes: ClassVar[tuple[str, ...]]
    base_class: ClassVar[str]
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
