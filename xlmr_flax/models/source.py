"""Encoder sources: opens `embedded`, `hf:NAME-OR-DIR`, `ckpt:DIR` or `random:SIZE` through one interface.

`save_checkpoint` writes `ckpt:` directories. They contain a description (model.json), the weights (safetensors with
this package's own names) and the tokenizer, so that a fine-tuned model can be opened without the training code. They
also contain a list of these files with their sha256 (util/manifest.py), which is checked on reading.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from xlmr_flax.encoders import DEFAULT, named_sizes
from xlmr_flax.encoders.config import SIZES, EncoderConfig, ModelError
from xlmr_flax.encoders.tensors import TensorFiles
from xlmr_flax.kinds import HeadSpec
from xlmr_flax.models import embedded, hf, sentencepiece
from xlmr_flax.models.description import read_description
from xlmr_flax.models.model import Model, Params
from xlmr_flax.util.files import set_default_mode
from xlmr_flax.util.manifest import MANIFEST, ManifestError, check_manifest, write_manifest

MODEL_FILE, WEIGHTS_FILE, TOKENIZER_FILE = 'model.json', 'model.safetensors', 'tokenizer.json'
_NAMED = 5  # most run directories that a message names
_KINDS = 'embedded, hf:NAME-OR-DIR, ckpt:DIR, random:SIZE'


class LoadParams(Protocol):
    """Reads the parameters of a source."""

    def __call__(self, heads: Collection[str] | None = None) -> Params:
        """Loads float32 parameters: 'encoder' and, if the source has them, 'pooler' and 'heads'.

        heads: names of the heads to read, None = all; a name that the source does not have is ignored. Raises
        ModelError.
        """
        ...


@dataclasses.dataclass(frozen=True)
class EncoderSource:
    """An opened encoder source. Its weights are read only when `load` is called.

    name: as given by the user. digest: identifies the weights (part of a run's hash). tokenizer: path of the
    tokenizer.json. load: see `LoadParams`. heads: the source's heads by name (a fine-tuned checkpoint's, or a language
    model's 'mlm'). labels: class names by head name, where known. style: style of these heads. note: a caveat for
    readers of its scores. max_length: tokens per row in its fine-tuning, 0 = not fine-tuned. missing: why it has no
    head although its config.json names one, '' = otherwise.
    """

    name: str
    config: EncoderConfig
    digest: str
    tokenizer: Path
    load: LoadParams
    heads: Mapping[str, HeadSpec] = dataclasses.field(default_factory=dict)
    labels: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    style: str = ''
    note: str = ''
    max_length: int = 0
    missing: str = ''


def open_source(name: str, seed: int = 0) -> EncoderSource:
    """Opens an encoder source by name. seed: for the weights of `random:SIZE`.

    Raises ModelError, which lists the valid forms, for an unknown source.
    """
    kind, _, rest = name.partition(':')
    if kind == 'embedded' and not rest:
        config = embedded.load_config()
        return EncoderSource(
            name,
            config,
            embedded.digest(),
            embedded.tokenizer_path(),
            lambda heads=None: {'encoder': embedded.load()[1]},
            note=embedded.NOTE,
        )
    if kind == 'hf' and rest:
        return _open_hf(name, hf.resolve(rest))
    if kind == 'ckpt' and rest:
        return _open_checkpoint(name, Path(rest).expanduser())
    if kind == 'random' and rest:
        sizes = named_sizes()
        if rest not in sizes:
            raise ModelError(f'{name}: size {rest!r} is not one of {", ".join(sizes)}')
        config = sizes[rest]

        def init(heads: Collection[str] | None = None) -> Params:
            params = _init_program(config)(jax.random.key(seed))
            return jax.tree.map(np.asarray, {'encoder': params['encoder'], 'pooler': params['pooler']})

        return EncoderSource(
            name, config, f'{name}:{seed}', _tokenizer_for(config), init, note='The encoder has random weights.'
        )
    raise ModelError(f'encoder source {name!r} is not one of {_KINDS}')


@lru_cache(maxsize=8)
def _init_program(config: EncoderConfig) -> Callable[[jax.Array], Params]:
    """The jitted random initialisation of an encoder and its pooler; traced once a process."""
    return jax.jit(lambda key: Model(config).init(key, {}))


def _tokenizer_for(config: EncoderConfig) -> Path:
    """The tokenizer of a random encoder: the tiny one of this package for the tiny vocabulary, else XLM-R's."""
    if config.vocab_size == SIZES['tiny'].vocab_size:
        return Path(str(importlib.resources.files('xlmr_flax.models') / 'tiny_tokenizer.json'))
    return embedded.tokenizer_path()


def _open_hf(name: str, directory: Path) -> EncoderSource:
    model = hf.HfModel(directory, lambda: _hf_tokenizer(directory))
    tokenizer = _hf_tokenizer(directory)
    heads = {model.head_name: model.head} if model.head else {}
    labels = {model.head_name: model.labels} if model.labels else {}
    return EncoderSource(
        name,
        model.config,
        model.tensors.digest(),
        tokenizer,
        model.load,
        heads,
        labels,
        'hf' if heads else '',
        missing=model.missing,
    )


def _hf_tokenizer(directory: Path) -> Path:
    tokenizer = directory / TOKENIZER_FILE
    if tokenizer.is_file():
        return tokenizer
    model = sentencepiece.model_file(directory)
    if model is None:
        known = ' or '.join((TOKENIZER_FILE, *sentencepiece.LAYOUTS))
        raise ModelError(f'{directory}: no {known}; copy the one of the model here')
    return sentencepiece.tokenizer_json(model)


def _open_checkpoint(name: str, directory: Path) -> EncoderSource:
    for path in (directory, directory / 'model'):
        if (path / MODEL_FILE).is_file():
            directory = path
            break
    else:
        message = f'{name}: no {MODEL_FILE} in {directory} or {directory / "model"}; name a run directory'
        raise ModelError(message + _runs_below(directory))
    _check_files(directory, MODEL_FILE, TOKENIZER_FILE)
    about = read_description(directory / MODEL_FILE)
    tensors = TensorFiles(directory)

    def load(heads: Collection[str] | None = None) -> Params:
        _check_files(directory)
        params: Params = {}
        for path in tensors.where:
            *parents, leaf = path.split('/')
            node = params
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = tensors.get(path)
        _check_tree(params, Model(about.config, about.style).shapes(about.heads), directory)
        if heads is not None and 'heads' in params:
            params['heads'] = {name: head for name, head in params['heads'].items() if name in heads}
        return params

    return EncoderSource(
        name,
        about.config,
        tensors.digest(),
        directory / TOKENIZER_FILE,
        load,
        about.heads,
        about.labels,
        about.style,
        about.note,
        about.max_length,
    )


def _runs_below(directory: Path) -> str:
    """Suggests run directories for an error message: ': A, B' for the first ones with weights below a folder.

    The folder may be a workdir or contain workdirs. Returns '' if there are none.
    """
    places = ('*/model', 'runs/*/model', '*/runs/*/model')
    runs = (path.parent.parent for place in places for path in sorted(directory.glob(f'{place}/{WEIGHTS_FILE}')))
    names = list(itertools.islice((f'ckpt:{path}' for path in runs), _NAMED + 1))
    more = ', ...' if len(names) > _NAMED else ''
    return f': {", ".join(names[:_NAMED])}{more}' if names else ''


def _check_files(directory: Path, *names: str) -> None:
    """Checks files (by default all) against the manifest. Raises ModelError for a file that has changed.

    A directory from an older version has no manifest and is not checked.
    """
    if not (directory / MANIFEST).is_file():
        return
    try:
        check_manifest(directory, names or None)
    except ManifestError as e:
        raise ModelError(
            f'{e}; copy the directory again, or delete it to train the run again '
            f'(if the change is yours, delete {MANIFEST} alone)'
        ) from None


def _check_tree(params: Params, shapes: Params, directory: Path) -> None:
    have = {jax.tree_util.keystr(p): v.shape for p, v in jax.tree_util.tree_leaves_with_path(params)}
    want = {jax.tree_util.keystr(p): v.shape for p, v in jax.tree_util.tree_leaves_with_path(shapes)}
    wrong = [k for k in sorted(have.keys() | want.keys()) if have.get(k) != want.get(k)]
    if wrong:
        k = wrong[0]
        raise ModelError(
            f'{directory / WEIGHTS_FILE}: {k} is {have.get(k)}, {MODEL_FILE} says {want.get(k)}'
            + (f' (and {len(wrong) - 1} more)' if len(wrong) > 1 else '')
        )


def _save_tensors(tensors: dict[str, np.ndarray], path: Path, out: Path) -> None:
    """Writes a safetensors file. Raises ModelError with the needed and the free space.

    safetensors' own errors are not OSErrors and do not give the size.
    """
    try:
        save_file(tensors, path)
        set_default_mode(path)
    except (SafetensorError, OSError) as e:
        need, free = sum(t.nbytes for t in tensors.values()), shutil.disk_usage(out.parent).free
        sizes = f'{need / 1e6:.1f} MB needed, {free / 1e6:.1f} MB free'
        raise ModelError(f'{out}: cannot be saved: {e} ({sizes})') from None


def save_checkpoint(
    out: Path,
    config: EncoderConfig,
    params: Params,
    tokenizer: Path,
    *,
    style: str,
    heads: Mapping[str, HeadSpec],
    labels: Mapping[str, tuple[str, ...]],
    max_length: int,
    note: str = '',
    extra: Mapping[str, Any],
) -> None:
    """Writes a directory that `ckpt:` opens. Atomic: written beside `out`, then renamed over it.

    extra: further JSON fields of model.json. Raises ModelError, and OSError, which names the directory or a file.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=out.parent, prefix=f'.{out.name}.'))
    try:
        tensors = {
            '/'.join(str(k.key) for k in path): np.ascontiguousarray(leaf, np.float32)
            for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        }
        _save_tensors(tensors, scratch / WEIGHTS_FILE, out)
        shutil.copyfile(tokenizer, scratch / TOKENIZER_FILE)
        raw = {
            'encoder': dataclasses.asdict(config),
            **({} if config.family == DEFAULT else {'family': config.family}),
            'style': style,
            'note': note,
            'max_length': max_length,
            'heads': {k: dataclasses.asdict(v) for k, v in heads.items()},
            'labels': {k: list(v) for k, v in labels.items()},
            **extra,
        }
        (scratch / MODEL_FILE).write_text(json.dumps(raw, indent=2, sort_keys=True) + '\n', encoding='utf-8')
        write_manifest(scratch)
        os.chmod(scratch, 0o755)
        old = out.with_name(f'.{out.name}.old')
        shutil.rmtree(old, ignore_errors=True)
        if out.exists():
            os.replace(out, old)
        os.replace(scratch, out)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException as e:
        shutil.rmtree(scratch, ignore_errors=True)
        if isinstance(e, OSError) and e.errno and e.filename is None:  # errors of write() and flush() name no file
            e.filename = str(out)
        raise
