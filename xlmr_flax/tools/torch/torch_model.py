"""Converts our parameters to PyTorch and back: the start weights for `torch_modules`, and the trained weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from xlmr_flax.encoders import family_of
from xlmr_flax.encoders.config import EncoderConfig, ModelError
from xlmr_flax.encoders.family import POOLER
from xlmr_flax.kinds import KINDS, HeadSpec, kind_of
from xlmr_flax.kinds.base import Kind
from xlmr_flax.models import hf
from xlmr_flax.models.model import Params
from xlmr_flax.models.weights import export_head, export_pooler, import_head, import_pooler

# Kinds of task that the PyTorch side trains: those with a class in transformers and a prediction for each example.
TRAINED = tuple(kind.name for kind in KINDS.values() if kind.architecture and not kind.pretraining)


def head_style(kind: Kind, style: str) -> str:
    """Style of a kind's head: `style` if its tensors differ from those of transformers' head, else 'hf'."""
    return style if kind.tensor_names(style) != kind.tensor_names('hf') else 'hf'


def export_start(
    folder: Path,
    config: EncoderConfig,
    params: Params,
    tokenizer: Path,
    heads: Mapping[str, HeadSpec],
    style: str,
) -> None:
    """Writes `params` as a start folder (see torch_modules); the folder must not exist.

    heads: the heads of params['heads'] to write. Raises ModelError for heads that the PyTorch side does not have.
    """
    for name, spec in heads.items():
        if spec.kind not in TRAINED:
            raise ModelError(f'head {name!r}: the PyTorch side has no head of kind {spec.kind!r}')
    family = family_of(config)
    hf.save(folder / 'encoder', config, params, tokenizer)
    if not family.has_pooler:
        pooler = {name: np.ascontiguousarray(value) for name, value in export_pooler(params['pooler'])}
        save_file(pooler, folder / 'pooler.safetensors')  # torch_modules.POOLER_FILE
    about = {}
    for i, (name, spec) in enumerate(heads.items()):
        kind = kind_of(spec)
        own, head = head_style(kind, style), params['heads'][name]
        tensors = dict(export_head(head, spec, own, config)) if own == 'hf' else _two_layer_tensors(head)
        file = f'head_{i}.safetensors'
        save_file({k: np.ascontiguousarray(v, np.float32) for k, v in tensors.items()}, folder / file)
        about[name] = {
            'class': f'{family.class_name}{kind.architecture}',
            'num_labels': spec.outputs if kind.classes else 2,
            'pooler': kind.head_input(config, own) == POOLER,
            'style': own,
            'dropout': config.dropout,
            'file': file,
        }
    # Written last. The name equals torch_modules.HEADS_FILE, which cannot be imported without torch.
    (folder / 'heads.json').write_text(json.dumps(about, indent=1) + '\n', encoding='utf-8')


def _two_layer_tensors(head: Params) -> dict[str, np.ndarray]:
    return {
        f'{layer}.{ours}': np.asarray(head[layer][theirs]).T if theirs == 'kernel' else np.asarray(head[layer][theirs])
        for layer in ('dense', 'out')
        for theirs, ours in (('kernel', 'weight'), ('bias', 'bias'))
    }


def import_trained(
    tensors: Mapping[str, np.ndarray],
    heads: Mapping[str, Mapping[str, np.ndarray]],
    specs: Mapping[str, HeadSpec],
    config: EncoderConfig,
    style: str,
) -> Params:
    """Converts weights that torch trained to our parameters.

    tensors: float32 tensors of the encoder and its pooler by name. heads: the tensors of each head by name.
    """
    params: Params = {
        'encoder': family_of(config).import_encoder(tensors.__getitem__, config),
        'pooler': import_pooler(tensors.__getitem__),
        'heads': {},
    }
    for name, spec in specs.items():
        own = heads[name]
        if head_style(kind_of(spec), style) != 'hf':
            params['heads'][name] = {
                layer: {'kernel': np.ascontiguousarray(own[f'{layer}.weight'].T), 'bias': own[f'{layer}.bias']}
                for layer in ('dense', 'out')
            }
        else:
            params['heads'][name] = import_head(own.__getitem__, spec, 'hf', config)
    return params
