"""Reads and writes transformers' model directories: config.json, safetensors (also sharded), tokenizer files.

Weights are read only from safetensors; nothing is unpickled. AutoModel or the head's own class opens what is written.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from xlmr_flax.encoders import family_named, family_of
from xlmr_flax.encoders.config import EncoderConfig, ModelError
from xlmr_flax.encoders.family import POOLER, HeadForm
from xlmr_flax.encoders.tensors import TensorFiles, leaf, read_json
from xlmr_flax.kinds import KINDS, HeadSpec, kind_of
from xlmr_flax.kinds.base import name_problem
from xlmr_flax.models.hf_tokenizer import save_tokenizer, special_tokens_of
from xlmr_flax.models.model import Model, Params
from xlmr_flax.models.weights import (
    export_head,
    export_pooler,
    import_head,
    import_pooler,
)
from xlmr_flax.util.errors import quote
from xlmr_flax.util.files import set_default_mode


class MissingWeights(ModelError):
    """Raised if a model directory does not exist and cannot be downloaded from the hub."""


def resolve(name: str) -> Path:
    """Returns a local model directory, or downloads the snapshot of a hub name.

    NAME@REVISION selects a branch, tag or commit. Only json, safetensors and tokenizer files are downloaded. Raises
    MissingWeights.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    hub_name, _, revision = name.partition('@')
    if path.is_absolute() or name.startswith('.') or hub_name.count('/') > 1:
        raise MissingWeights(f'hf:{name}: there is no such directory')
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                hub_name, revision=revision or None, allow_patterns=['*.json', '*.safetensors', '*.model']
            )
        )
    except Exception as e:
        raise MissingWeights(
            f'hf:{name}: no such directory, and the hub did not give it '
            f'({type(e).__name__}: {str(e).partition(chr(10))[0]}). '
            'Without a network, copy the model directory here and name its path'
        ) from None


def _class_names(mapping: Any, count: int, where: Path, field: str) -> tuple[str, ...]:
    """Returns the names of `count` classes from {number: name}, or () if there are only placeholders.

    Raises ModelError unless each class has its own name.
    """
    if not mapping:
        return ()
    by_number = {str(key): name for key, name in mapping.items()} if isinstance(mapping, dict) else {}
    labels = [name for i in range(count) if isinstance(name := by_number.get(str(i)), str)]
    if len(by_number) != count or len(labels) != count or name_problem(labels):
        raise ModelError(
            f'{where}: {field} must give each of the {count} classes of the head a name of its own, '
            f'{{"0": "A", "1": "B", ...}}; it is {quote(mapping)}'
        )
    return () if any(label.startswith('LABEL_') for label in labels) else tuple(labels)


class HfModel:
    """A model directory of transformers.

    tokenizer: returns its tokenizer.json, which the config of some families depends on; None = config.json decides.
    head: kind and outputs of its head, or None. head_name: the head's name in this package: the name of its kind for a
    language model's head, so that training continues with it; 'imported' for a fine-tuned head. labels: class names of
    a fine-tuned checkpoint in its own order, () if unknown. missing: why a fine-tuned model has no head although
    config.json names one, '' = otherwise.
    """

    def __init__(self, directory: Path, tokenizer: Callable[[], Path] | None = None):
        self.directory = directory
        self.raw = read_json(directory / 'config.json')
        where = str(directory / 'config.json')
        self.family = family_named(self.raw.get('model_type'), where)
        self.config = self.family.read_config(self.raw, where)
        if tokenizer is not None:
            self.config = self.family.with_tokenizer(self.config, lambda: special_tokens_of(tokenizer()))
        self.tensors = TensorFiles(directory)
        self.prefix = self._find_prefix()
        self.missing = ''
        self.head = self._find_head()
        pretrained = self.head is not None and kind_of(self.head).pretraining
        self.head_name = self.head.kind if self.head is not None and pretrained else 'imported'
        self.labels = self._labels()

    def _labels(self) -> tuple[str, ...]:
        """Returns the class names from config.json's id2label or, if it has none, from its label2id.

        Returns () if neither has names or if the head has no classes. transformers' placeholders LABEL_0, ... do not
        count as names.
        """
        if self.head is None or not kind_of(self.head).classes:
            return ()
        where, count = self.directory / 'config.json', self.head.outputs
        names, numbers = self.raw.get('id2label'), self.raw.get('label2id')
        if isinstance(names, list):
            names = dict(enumerate(names))
        by_name = _class_names(names, count, where, 'id2label')
        if isinstance(numbers, dict):
            numbers = {str(number): name for name, number in numbers.items()}
        try:
            by_number = _class_names(numbers, count, where, 'label2id')
        except ModelError:
            if not by_name:
                raise
            by_number = ()  # id2label is what transformers reads
        if by_name and by_number and by_name != by_number:
            raise ModelError(f'{where}: id2label gives the classes {quote(by_name)}, label2id {quote(by_number)}')
        return by_name or by_number

    def _find_prefix(self) -> str:
        for prefix in self.family.prefixes:
            if prefix + self.family.word_table in self.tensors.where:
                return prefix
        raise ModelError(f'{self.tensors.files[0]}: no tensor {self.family.word_table} under any known prefix')

    def _find_head(self) -> HeadSpec | None:
        named = self.raw.get('architectures') or ['']
        if not isinstance(named, list) or not isinstance(named[0], str):
            where = self.directory / 'config.json'
            raise ModelError(f'{where}: architectures is {quote(named)}; a list of names is expected')
        architecture = named[0]
        kind = next((k for k in KINDS.values() if k.architecture and architecture.endswith(k.architecture)), None)
        if kind is None:
            return None
        names = kind.head_tensor_names(self.config, 'hf')
        bias = names.get(('out', 'bias')) or next(iter(names.values()))
        if bias not in self.tensors.where:
            if not kind.pretraining:
                self.missing = f'{self.tensors.files[0]} has no {bias!r}, which {architecture} of config.json needs'
            return None
        shape = self.tensors.shapes[bias]
        if kind.classes and (len(shape) != 1 or not shape[0]):
            raise ModelError(
                f'{self.tensors.where[bias]}: {bias} is {list(shape)}; a number for each class is expected'
            )
        return HeadSpec(kind.name, shape[0] if kind.classes else 1)

    def _get(self, name: str) -> np.ndarray:
        return self.tensors.get(self.prefix + name)

    def check(self) -> None:
        """Checks the shape of every tensor against the config. Raises one ModelError with the differences."""
        shapes = {self.prefix + name: shape for name, shape in self.family.tensor_shapes(self.config).items()}
        self._check(shapes, 'config.json says')

    def _check_head(self, spec: HeadSpec) -> None:
        """Checks the shapes of the head's tensors and of the pooler that it reads. Raises ModelError."""
        tree = jax.eval_shape(lambda: Model(self.config, 'hf').init_head(jax.random.key(0), spec))
        shapes = self._pooler_shapes() if kind_of(spec).head_input(self.config, 'hf') == POOLER else {}
        for path, name in kind_of(spec).head_tensor_names(self.config, 'hf').items():
            if not (kind_of(spec).pretraining and path == ('bias',)):  # `_check_tied` checks that one
                shapes[name] = leaf(tree, path).shape[::-1]
        self._check(shapes, f'a {spec.kind} head with {spec.outputs} outputs has')

    def _pooler_shapes(self) -> dict[str, tuple[int, ...]]:
        size, name = self.config.hidden_size, f'{self.prefix}pooler.dense'
        return {f'{name}.weight': (size, size), f'{name}.bias': (size,)}

    def _check(self, shapes: Mapping[str, tuple[int, ...]], says: str) -> None:
        problems = []
        for name, shape in shapes.items():
            actual = self.tensors.shapes.get(name)
            if actual is None:
                problems.append(f'{name} is missing')
            elif len(actual) != len(shape) or any(n not in (m, -1) for m, n in zip(actual, shape, strict=True)):
                problems.append(f'{name} is {list(actual)}, {says} {list(shape)}')
        if problems:
            more = f' (and {len(problems) - 5} more)' if len(problems) > 5 else ''
            raise ModelError(f'{self.directory}: weights do not fit config.json: {"; ".join(problems[:5])}{more}')

    def load(self, heads: Collection[str] | None = None) -> Params:
        """Loads float32 parameters {'encoder', maybe 'pooler', maybe 'heads': {head_name: ...}}.

        heads: names of the heads to read, None = all. Raises ModelError for weights that do not fit config.json, and
        for a requested language model's head whose decoder is not tied to its word table.
        """
        self.check()
        params: Params = {'encoder': self.family.import_encoder(self._get, self.config)}
        if self.prefix + 'pooler.dense.weight' in self.tensors.where:
            self._check(self._pooler_shapes(), 'config.json says')
            params['pooler'] = import_pooler(self._get)
        if self.head is not None and (heads is None or self.head_name in heads):
            self._check_head(self.head)
            params['heads'] = {self.head_name: import_head(self._get_head, self.head, 'hf', self.config)}
            if kind_of(self.head).pretraining:
                self._check_tied(params['encoder']['embeddings']['word'], params['heads'][self.head_name]['bias'])
        return params

    def _decoder(self) -> tuple[str, str]:
        """Names in transformers: of a language model's decoder, and of the head's bias."""
        assert self.head is not None
        form = kind_of(self.head).head_form(self.config, 'hf')
        names = kind_of(self.head).head_tensor_names(self.config, 'hf')
        return HeadForm.decoder if form is None else form.decoder, names['bias',]

    def _get_head(self, name: str) -> np.ndarray:
        """Reads a tensor of the head. An LM head's bias has two names in transformers; a file may have either."""
        if self.head is not None and kind_of(self.head).pretraining and name not in self.tensors.where:
            decoder, bias = self._decoder()
            if name == bias and f'{decoder}.bias' in self.tensors.where:
                name = f'{decoder}.bias'
        return self.tensors.get(name)

    def _check_tied(self, word: np.ndarray, bias: np.ndarray) -> None:
        """Checks that a decoder in the file equals the word table, and its bias the head's. Raises ModelError."""
        decoder, bias_name = self._decoder()
        if bias.shape != word.shape[:1]:
            raise ModelError(f'{self.directory}: {bias_name} is {list(bias.shape)}, the word table {list(word.shape)}')
        for name, tied, value in (
            (f'{decoder}.weight', self.prefix + self.family.word_table, word),
            (f'{decoder}.bias', bias_name, bias),
        ):
            if name in self.tensors.where and not np.array_equal(self.tensors.get(name), value):
                raise ModelError(
                    f"{self.tensors.where[name]}: {name} is not {tied}; a language model's head is read only where its "
                    'decoder is the word table. The encoder alone can be used: without masked language modelling, or '
                    'by xlmr-flax convert --head=none'
                )


def save(
    out: Path,
    config: EncoderConfig,
    params: Params,
    tokenizer: Path,
    *,
    head: tuple[str, HeadSpec] | None = None,
    style: str = 'hf',
    labels: Sequence[str] = (),
) -> None:
    """Writes a directory that `transformers` can open. Atomic: written beside `out`, then renamed.

    head: (name in params['heads'], spec), written for the head's class; None = the bare encoder with its pooler
    (AutoModel). Raises ModelError if `out` exists and is not an empty directory, and for a head without a class in
    transformers.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelError(f'{out} exists and is not an empty directory; choose another --out')
    tensors: dict[str, np.ndarray] = {}
    family = family_of(config)
    prefix = '' if head is None else family.prefixes[1]
    for name, value in family.export_encoder(params['encoder'], config):
        tensors[prefix + name] = value
    pooled = family.has_pooler if head is None else kind_of(head[1]).head_input(config, 'hf') == POOLER
    if 'pooler' in params and pooled:
        tensors.update((prefix + name, value) for name, value in export_pooler(params['pooler']))
    raw = family.write_config(config) | {'architectures': [f'{family.class_name}Model'], 'torch_dtype': 'float32'}
    if head is not None:
        name, spec = head
        tensors.update(export_head(params['heads'][name], spec, style, config))
        raw['architectures'] = [f'{family.class_name}{kind_of(spec).architecture}']
        if kind_of(spec).classes:
            names = list(labels) or [f'LABEL_{i}' for i in range(spec.outputs)]
            raw |= {
                'id2label': {str(i): n for i, n in enumerate(names)},
                'label2id': {n: i for i, n in enumerate(names)},
            }
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=out.parent, prefix=f'.{out.name}.'))
    try:
        contiguous = {k: np.ascontiguousarray(v, np.float32) for k, v in tensors.items()}
        save_file(contiguous, scratch / 'model.safetensors', metadata={'format': 'pt'})
        set_default_mode(scratch / 'model.safetensors')
        (scratch / 'config.json').write_text(json.dumps(raw, indent=2, sort_keys=True) + '\n', encoding='utf-8')
        save_tokenizer(scratch, tokenizer, config)
        if out.exists():
            out.rmdir()
        os.chmod(scratch, 0o755)
        os.replace(scratch, out)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
