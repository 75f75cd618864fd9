"""The registry of encoder families: what each has, and a family of another module from config.json to a saved model."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from xlmr_flax.encoders import FAMILIES, family_named, family_of, named_sizes
from xlmr_flax.encoders.config import SIZES, EncoderConfig, ModelError
from xlmr_flax.encoders.encoder import Encoder
from xlmr_flax.encoders.tensors import at
from xlmr_flax.encoders.xlm_roberta import XlmRoberta
from xlmr_flax.experiment.plan.cost import forward_flops
from xlmr_flax.kinds import HeadSpec
from xlmr_flax.models import hf
from xlmr_flax.models.model import Model
from xlmr_flax.models.source import open_source, save_checkpoint
from xlmr_flax.parallel.mesh import AXES, path_name, spec_for

SMALL = dataclasses.replace(SIZES['tiny'], hidden_size=24, ffn_size=40, max_positions=34)
PAIR = HeadSpec('pair', 3)


@dataclasses.dataclass(frozen=True)
class OtherConfig(EncoderConfig):
    family: ClassVar[str] = 'other'

    factor: float = 1.0


class OtherEncoder(Encoder):
    """XLM-R's hidden states times a factor of the config."""

    def __init__(self, cfg: EncoderConfig, **given: Any):
        super().__init__(cfg, **given)
        assert isinstance(cfg, OtherConfig)
        self.factor = cfg.factor

    def __call__(self, *arrays: Any, **options: Any) -> jax.Array:
        return super().__call__(*arrays, **options) * self.factor


class Other(XlmRoberta):
    model_type = 'other'
    prefixes = ('', 'other.')
    sizes: ClassVar[Mapping[str, EncoderConfig]] = {'tiny': OtherConfig(**dataclasses.asdict(SMALL), factor=3.0)}
    config_class = OtherConfig
    module = OtherEncoder

    def read_config(self, raw: Mapping[str, Any], where: str) -> EncoderConfig:
        return OtherConfig(**dataclasses.asdict(super().read_config(raw, where)), factor=raw['factor'])

    def write_config(self, config: EncoderConfig) -> dict[str, Any]:
        assert isinstance(config, OtherConfig)
        return super().write_config(config) | {'factor': config.factor}


def _config(name: str) -> EncoderConfig:
    """A small config of a family: one that reads other checkpoints into XLM-R's module has XLM-R's."""
    sizes = FAMILIES[name].sizes
    return dataclasses.replace(sizes['tiny'], hidden_size=24, ffn_size=40) if 'tiny' in sizes else SMALL


@pytest.mark.parametrize('name', FAMILIES)
def test_what_a_family_has(name: str) -> None:
    """Its tensors are those that it reads, both ways; every parameter has one rule or is a layer norm's."""
    family, config = family_named(name, 'config.json'), _config(name)
    assert family.model_type == name
    params = jax.device_get(jax.jit(lambda key: Model(config).init(key, {}))(jax.random.key(0)))['encoder']
    tensors = dict(family.export_encoder(params, config))
    shapes = family.tensor_shapes(config)
    assert tensors.keys() == shapes.keys() and family.word_table in shapes
    positions = 'embeddings.position_embeddings.weight'
    offset = config.max_positions - shapes[positions][0] if positions in shapes else 0
    if offset:
        tensors[positions] = tensors[positions][offset:]
    back = family.import_encoder(tensors.__getitem__, config)
    used = set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        keys = tuple(str(k.key) for k in path)
        rows = slice(offset, None) if keys[-1] == 'position' else slice(None)
        np.testing.assert_array_equal(at(back, keys)[rows], leaf[rows])
        rules = [rule for rule in family.axes if re.search(rule[0], '/'.join(keys))]
        assert len(rules) == (0 if keys[-2].endswith('norm') else 1), keys
        assert all(len(axes) in (0, leaf.ndim) for _, axes in rules)
        used |= set(rules)
    assert used == set(family.axes)


HEADS = {
    'x': PAIR, 'tags': HeadSpec('tag', 5), 'spans': HeadSpec('span'), 'choices': HeadSpec('choice'),
    'mlm': HeadSpec('mlm'),
}  # fmt: skip


@pytest.mark.parametrize('name', [name for name, family in FAMILIES.items() if family.sizes])
def test_every_head_comes_back_bit_by_bit(name: str, tmp_path: Path, tiny_tokenizer: Path) -> None:
    """Exported for transformers' class of the head, and read again; and the encoder without a head."""
    config = _config(name)
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda x: random.normal(size=x.shape).astype('f'), Model(config, 'hf').shapes(HEADS))
    for head, spec in (*HEADS.items(), ('', None)):
        out = tmp_path / (head or 'bare')
        hf.save(out, config, params, tiny_tokenizer, head=(head, spec) if spec else None)
        model = hf.HfModel(out)
        found = model.load()
        positions = found['encoder']['embeddings'].get('position')
        assert positions is None or len(positions) == config.max_positions
        jax.tree.map(np.testing.assert_array_equal, found['encoder'], params['encoder'])
        assert model.head == spec
        if spec:
            jax.tree.map(np.testing.assert_array_equal, found['heads'][model.head_name], params['heads'][head])
        if 'pooler' in found:
            jax.tree.map(np.testing.assert_array_equal, found['pooler'], params['pooler'])


@pytest.mark.parametrize('name', FAMILIES)
def test_every_parameter_has_one_sharding(name: str) -> None:
    """Rules of all families together; the large arrays are sharded by fsdp and model."""
    config = _config(name)
    shapes = Model(config, style='hf').shapes({'x': PAIR, 'mlm': HeadSpec('mlm')})
    mesh = AbstractMesh((1, 2, 2), AXES)
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        spec = spec_for(path_name(path), leaf.shape, mesh)  # type: ignore[arg-type]
        if 'encoder/layers' in path_name(path) and leaf.ndim > 2 and 'bias' not in path_name(path):
            assert {'fsdp', 'model'} <= set(spec), path_name(path)


def test_operations_are_those_of_the_parameters() -> None:
    layers = Model(SIZES['base']).shapes({})['encoder']['layers']
    kernels = [
        leaf for leaf in jax.tree.leaves(layers) if leaf.ndim > 3 or leaf.shape[1:] in ((768, 3072), (3072, 768))
    ]
    weights = sum(int(np.prod(leaf.shape)) for leaf in kernels if leaf.shape[1:] != (3, 12, 64))
    assert weights == family_of(SIZES['base']).layer_weights(SIZES['base'])
    assert forward_flops(SIZES['base'], 10, 0) == 20 * weights


@pytest.mark.parametrize('found', ['gpt2', ['bert'], None, 5])
def test_an_unknown_model_type(found: Any) -> None:
    with pytest.raises(ModelError) as e:
        family_named(found, 'there/config.json')
    assert all(word in str(e.value) for word in ('there/config.json', 'model_type', *FAMILIES))


def test_random_sources_name_a_size_of_a_family() -> None:
    assert {'tiny', 'small', 'base', 'large', 'bert-tiny'} <= named_sizes().keys()
    source = open_source('random:bert-tiny')
    assert source.config == dataclasses.replace(SIZES['tiny'], layer_norm_eps=1e-12)
    ids = jnp.full((1, 8), 7, jnp.int32)
    hidden = Model(source.config).encode(source.load(), ids, jnp.ones_like(ids))
    assert hidden.shape == (1, 8, 64)
    assert np.isfinite(hidden).all()


def test_one_line_registers_a_family(tmp_path: Path, tiny_tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Computed with its own module and config from a `random:`, an `hf:` and a `ckpt:` source."""
    monkeypatch.setitem(FAMILIES, 'other', Other())
    source = open_source('random:other-tiny')
    params = source.load()
    hf.save(tmp_path / 'hf', source.config, params, tiny_tokenizer)
    raw = json.loads((tmp_path / 'hf' / 'config.json').read_text('utf-8'))
    assert (raw['model_type'], raw['factor']) == ('other', 3.0)
    params = open_source(f'hf:{tmp_path}/hf').load()
    config = open_source(f'hf:{tmp_path}/hf').config
    assert isinstance(config, OtherConfig) and config.factor == 3.0
    save_checkpoint(
        tmp_path / 'ckpt', config, params, tiny_tokenizer, style='jiant', heads={}, labels={}, max_length=32, extra={}
    )
    again = open_source(f'ckpt:{tmp_path}/ckpt')
    assert again.config == config
    ids, segments = jnp.full((1, 8), 7, jnp.int32), jnp.ones((1, 8), jnp.int32)
    plain = EncoderConfig(**{k: v for k, v in dataclasses.asdict(config).items() if k != 'factor'})
    want = 3.0 * np.asarray(Model(plain).encode(params, ids, segments))
    np.testing.assert_allclose(Model(again.config).encode(again.load(), ids, segments), want, rtol=1e-6)
