"""Masked language modelling against transformers' XLMRobertaForMaskedLM: loss, gradients, import and export."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='parity is measured against torch')

from safetensors.numpy import load_file, save_file  # noqa: E402
from torch_reference import batch, random_params, tiny_config, torch_model  # noqa: E402

from xlmr_flax.cli.main import main  # noqa: E402
from xlmr_flax.data.labels import IGNORED  # noqa: E402
from xlmr_flax.data.masking import Masking, gather, mask_batch, mask_tokens  # noqa: E402
from xlmr_flax.encoders import FAMILIES, family_of  # noqa: E402
from xlmr_flax.encoders.config import ModelError  # noqa: E402
from xlmr_flax.kinds import KINDS, HeadSpec  # noqa: E402
from xlmr_flax.models import hf  # noqa: E402
from xlmr_flax.models.model import (  # noqa: E402
    Model,
    Params,
)
from xlmr_flax.models.source import open_source, save_checkpoint  # noqa: E402
from xlmr_flax.models.weights import export_head  # noqa: E402

MLM = HeadSpec('mlm')
CONFIG = tiny_config()
MODEL = Model(CONFIG)
MASKING = Masking(mask_id=100, special_ids=(0, 1, 2, 3, 100), vocab_size=101, rate=0.3)
IDS, SEGMENTS = batch(CONFIG, rows=6, length=24)


@pytest.fixture(scope='module')
def params() -> Params:
    return random_params(MODEL, {'mlm': MLM})


def mean_loss(params: Params, rows: dict[str, np.ndarray]) -> jax.Array:
    logits = MODEL.logits(
        params, 'mlm', MLM, jnp.asarray(rows['ids']), jnp.asarray(SEGMENTS), positions=rows.get('positions')
    )
    total, count, _ = KINDS['mlm'].loss_sums(logits, {'labels': rows['labels'], 'valid': jnp.ones(len(IDS))})
    return total / count


def named(params: Params) -> dict[str, np.ndarray]:
    """Our tree under transformers' names."""
    found = {f'roberta.{k}': v for k, v in family_of(CONFIG).export_encoder(params['encoder'], CONFIG)}
    return found | dict(export_head(params['heads']['mlm'], MLM, 'hf', CONFIG))


@pytest.mark.parametrize('form', ['whole', 'gathered'])
def test_loss_and_gradients(form: str, params: Params, tmp_path: Path, tiny_tokenizer: Path) -> None:
    module = torch_model(CONFIG, params, tiny_tokenizer, tmp_path / 'm', ('mlm', MLM))
    ids, labels = mask_tokens(IDS, SEGMENTS, (0, 1), MASKING)
    theirs = np.where(labels == IGNORED, -100, labels)
    out = module(
        input_ids=torch.tensor(ids).long(),
        attention_mask=torch.tensor(SEGMENTS).long(),
        labels=torch.tensor(theirs).long(),
    )
    out.loss.backward()
    rows = {'ids': ids, 'labels': labels} if form == 'whole' else mask_batch(IDS, SEGMENTS, (0, 1), MASKING)
    assert rows['labels'].shape[1] == (24 if form == 'whole' else MASKING.most(24))
    loss, grads = jax.jit(jax.value_and_grad(mean_loss))(params, rows)
    assert abs(float(loss) - float(out.loss.detach())) < 1e-5
    # Under both names of a tied tensor; the gradient of the word table is the sum over its two uses.
    want = {name: p.grad.numpy() for name, p in module.named_parameters(remove_duplicate=False)}
    found = named(jax.device_get(grads))
    assert set(want) == set(found) | {'lm_head.decoder.weight', 'lm_head.decoder.bias'}
    found['lm_head.decoder.weight'] = found['roberta.embeddings.word_embeddings.weight']
    found['lm_head.decoder.bias'] = found['lm_head.bias']
    for name, theirs in want.items():
        scale = np.abs(theirs).max()
        if name.endswith('self.key.bias'):  # its true gradient is 0: softmax does not see a shift of all scores
            assert np.abs(found[name]).max() < 1e-6 and scale < 1e-6, name
            continue
        assert scale > 0, name
        np.testing.assert_allclose(found[name], theirs, atol=1e-4 * scale, rtol=0, err_msg=name)


def test_only_the_gathered_logits_are_the_same(params: Params) -> None:
    _, labels = mask_tokens(IDS, SEGMENTS, (0, 2), MASKING)
    positions, _ = gather(labels, MASKING.most(24))
    whole = np.asarray(MODEL.logits(params, 'mlm', MLM, IDS, SEGMENTS))
    some = MODEL.logits(params, 'mlm', MLM, IDS, SEGMENTS, positions=jnp.asarray(positions))
    assert some.shape == (6, MASKING.most(24), CONFIG.vocab_size)
    assert some.dtype == jnp.float32
    np.testing.assert_allclose(some, np.take_along_axis(whole, positions[..., None], 1), atol=1e-5)


def test_logits_of_bfloat16_are_not_rounded_to_it(params: Params) -> None:
    model = dataclasses.replace(MODEL, dtype='bfloat16')
    logits = model.logits(params, 'mlm', MLM, IDS, SEGMENTS)
    assert logits.dtype == jnp.float32
    assert (np.asarray(logits) != np.asarray(logits.astype(jnp.bfloat16).astype(jnp.float32))).mean() > 0.9
    whole = np.asarray(MODEL.logits(params, 'mlm', MLM, IDS, SEGMENTS))
    assert np.abs(np.asarray(logits) - whole).max() < 0.1 * np.abs(whole).max()


def save(out: Path, params: Params, tokenizer: Path) -> Path:
    hf.save(out, CONFIG, params, tokenizer, head=('mlm', MLM))
    return out


def change(directory: Path, **tensors: np.ndarray | None) -> None:
    path = directory / 'model.safetensors'
    found: dict[str, Any] = load_file(path) | {k.replace('__', '.'): v for k, v in tensors.items()}
    save_file({k: v for k, v in found.items() if v is not None}, path)


def assert_same(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_the_head_comes_with_the_checkpoint_and_goes_on_with_it(
    params: Params, tmp_path: Path, tiny_tokenizer: Path
) -> None:
    source = open_source(f'hf:{save(tmp_path / "hf", params, tiny_tokenizer)}')
    assert source.heads == {'mlm': MLM}
    loaded = source.load()
    assert_same(loaded['heads'], params['heads'])
    save_checkpoint(
        tmp_path / 'run', CONFIG, loaded | {'pooler': params['pooler']}, tiny_tokenizer, style='jiant',
        heads=source.heads, labels={}, max_length=16, extra={},
    )  # fmt: skip
    again = open_source(f'ckpt:{tmp_path}/run')
    assert again.heads == {'mlm': MLM}
    assert_same(again.load(), params)
    save(tmp_path / 'out', again.load(), tiny_tokenizer)
    assert_same(load_file(tmp_path / 'out' / 'model.safetensors'), load_file(tmp_path / 'hf' / 'model.safetensors'))


def test_a_decoder_that_is_written_out(params: Params, tmp_path: Path, tiny_tokenizer: Path) -> None:
    """As in an old pytorch_model.bin, where tied tensors stand under both names."""
    word, bias = params['encoder']['embeddings']['word'], params['heads']['mlm']['bias']
    change(save(tmp_path / 'm', params, tiny_tokenizer), lm_head__decoder__weight=word, lm_head__decoder__bias=bias)
    assert_same(open_source(f'hf:{tmp_path}/m').load()['heads'], params['heads'])


@pytest.mark.parametrize(('name', 'tied'), [('weight', 'word_embeddings'), ('bias', 'lm_head.bias')])
def test_a_decoder_of_its_own(name: str, tied: str, params: Params, tmp_path: Path, tiny_tokenizer: Path) -> None:
    """The encoder is read; the head is refused where it is asked for."""
    own = {'weight': params['encoder']['embeddings']['word'] + 1, 'bias': params['heads']['mlm']['bias'] + 1}[name]
    directory = save(tmp_path / 'm', params, tiny_tokenizer)
    change(directory, **{f'lm_head__decoder__{name}': own})
    source = open_source(f'hf:{directory}')
    encoder = source.load(())
    assert 'heads' not in encoder
    assert_same(encoder['encoder'], params['encoder'])
    for heads in (None, ('mlm',)):
        with pytest.raises(ModelError) as refused:
            source.load(heads)
        for part in (str(directory / 'model.safetensors'), f'lm_head.decoder.{name}', tied, '--head=none'):
            assert part in str(refused.value)
    # What the message says to do.
    convert = ['convert', f'--source=hf:{directory}', f'--out={tmp_path}/encoder']
    assert main(convert) == 1
    assert not (tmp_path / 'encoder').exists()
    assert main([*convert, '--head=none']) == 0
    assert_same(open_source(f'hf:{tmp_path}/encoder').load()['encoder'], params['encoder'])


@pytest.mark.parametrize('held', ['lm_head.bias', 'lm_head.decoder.bias'])
def test_either_name_of_the_bias_is_read(held: str, params: Params, tmp_path: Path, tiny_tokenizer: Path) -> None:
    directory = save(tmp_path / 'm', params, tiny_tokenizer)
    change(directory, lm_head__bias=None)
    change(directory, **{held.replace('.', '__'): params['heads']['mlm']['bias']})
    assert_same(open_source(f'hf:{directory}').load()['heads'], params['heads'])


def test_a_bias_of_another_vocabulary(params: Params, tmp_path: Path, tiny_tokenizer: Path) -> None:
    directory = save(tmp_path / 'm', params, tiny_tokenizer)
    change(directory, lm_head__bias=np.zeros(77, np.float32))
    with pytest.raises(ModelError, match=r'lm_head\.bias is \[77\], the word table \[101, 24\]'):
        open_source(f'hf:{directory}').load()


def test_a_masked_lm_without_its_head_is_an_encoder(params: Params, tmp_path: Path, tiny_tokenizer: Path) -> None:
    directory = save(tmp_path / 'm', params, tiny_tokenizer)
    change(directory, **{f'lm_head__{name}': None for name in ('dense.weight', 'dense.bias')})
    assert not open_source(f'hf:{directory}').heads


@pytest.mark.parametrize(
    ('field', 'value'), [('pad_token_id', 0), ('bos_token_id', 5), ('eos_token_id', 6), ('eos_token_id', [2, 3])]
)
def test_special_ids_that_are_not_xlmrs(field: str, value: object) -> None:
    raw = family_of(CONFIG).write_config(CONFIG)
    for kind in ('xlm-roberta', 'roberta'):
        assert FAMILIES[kind].read_config(
            raw | {'model_type': kind, field: None}, 'x/config.json'
        ) == dataclasses.replace(CONFIG, initializer_range=0.02)
        with pytest.raises(ModelError) as refused:
            FAMILIES[kind].read_config(raw | {'model_type': kind, field: value}, 'x/config.json')
        assert str(refused.value).startswith(f'x/config.json: {field} is {value!r}; only encoders with the special ids')
    bert = FAMILIES['bert'].read_config(raw | {'model_type': 'bert', field: value}, 'x/config.json')
    assert (bert.pad_id, bert.max_positions) == (1, CONFIG.max_positions + 2)
