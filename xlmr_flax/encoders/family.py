"""What an encoder family is to the rest of the package: the base class of the modules in this package."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from xlmr_flax.encoders.config import EncoderConfig, ModelError
from xlmr_flax.encoders.logical_axes import Dims

Params = dict[str, Any]
GetTensor = Callable[[str], np.ndarray]
# A regular expression over the path of a parameter, and the logical axes of its dimensions (encoders/logical_axes.py).
AxisRule = tuple[str, Dims]


class Family(abc.ABC):
    """One encoder family. Subclasses are stateless; the registry (`FAMILIES`) has one instance of each.

    model_type: of config.json. prefixes: of tensor names in transformers' checkpoints, without a head first.
    base_class: transformers' class without a head. word_table: the tensor of the word embeddings. sizes: the shapes of
    `random:` sources. config_class: has the fields that model.json keeps. module: the flax module, constructed as
    module(config, rngs=...) and called as encoders/encoder.py's `Encoder`; its word table has the path
    'embeddings/word', as the masked-LM head and the active vocabulary use it. axes: of every parameter but layer
    norms', whose paths end in 'norm/scale' and 'norm/bias'.
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
        """The config of a config.json. where: its path, for messages. Raises ModelError naming the field where the
        model is not an encoder that this package computes."""

    @abc.abstractmethod
    def write_config(self, config: EncoderConfig) -> dict[str, Any]:
        """The inverse of `read_config`, as transformers writes it (but for 'architectures')."""

    @abc.abstractmethod
    def import_encoder(self, get: GetTensor, config: EncoderConfig) -> Params:
        """The parameters of `module`, float32, from tensors in torch layout, [out, in]. get: a tensor by its name
        without prefix."""

    @abc.abstractmethod
    def export_encoder(self, encoder: Params, config: EncoderConfig) -> Iterator[tuple[str, np.ndarray]]:
        """The inverse of `import_encoder`: (name, tensor), one layer at a time."""

    @abc.abstractmethod
    def tensor_shapes(self, config: EncoderConfig) -> dict[str, tuple[int, ...]]:
        """{name: shape} of the tensors that `import_encoder` reads. -1: any size."""

    @abc.abstractmethod
    def layer_weights(self, config: EncoderConfig) -> int:
        """Weights of all layers' matrix products: a forward pass takes two operations for each and token."""

    @abc.abstractmethod
    def attention_flops(self, config: EncoderConfig, length: float) -> float:
        """Operations of attention's two products over tokens, for one token in rows of `length`, all layers."""


def field(raw: Mapping[str, Any], name: str, where: str) -> Any:
    """A field of a config.json. Raises ModelError where it is missing."""
    if name not in raw:
        raise ModelError(f'{where}: field {name!r} is missing')
    return raw[name]
