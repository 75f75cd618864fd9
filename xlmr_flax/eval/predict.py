"""Batched inference over a whole set: class logits, tags, span logits and sentence embeddings of every row, in file
order."""

from __future__ import annotations

import dataclasses
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from xlmr_flax.data.batches import Batch, eval_batch_size, eval_batches, packed_eval_batches
from xlmr_flax.data.packing import PackedBatch
from xlmr_flax.data.tokenize import Ragged
from xlmr_flax.kinds import HeadSpec, kind_of
from xlmr_flax.kinds.base import HEAD
from xlmr_flax.models.model import Model, Params
from xlmr_flax.parallel.mesh import batch_devices, own_rows, put_batch
from xlmr_flax.parallel.placement import placed
from xlmr_flax.util.files import is_remote, replacing
from xlmr_flax.util.stopping import check

# Sentence vectors stay in memory as long as their total size is below this number of bytes.
SMALL_VECTORS = 64 << 20

Tick = Callable[[int], None]  # called with the number of rows just done
Program = Callable[..., jax.Array]  # (params, ids, segments[, starts]) -> outputs by row [by slot]
Waiting = tuple[np.ndarray | PackedBatch, jax.Array]  # rows of a batch in flight, and its outputs


@dataclass(frozen=True)
class Forward:
    """Runs a model's forward passes over a set of rows.

    params: placed on the mesh. lengths: the allowed row lengths, ascending; no row is longer than the last.
    batch_tokens: number of tokens in one pass, padding included. pad: the tokenizer's padding id. packing: several rows
    of the set are packed in one row of a batch (data/packing.py); the outputs are equal up to float rounding.
    """

    model: Model
    params: Params
    mesh: Mesh
    lengths: tuple[int, ...]
    batch_tokens: int
    pad: int
    packing: bool = True

    def with_head(self, name: str) -> Forward:
        """A copy whose params have only the head `name`, renamed to HEAD. So compiled programs do not depend on the
        head's name or on other heads, and tasks of the same kind and size share them.
        """
        params = {**self.params, 'heads': {HEAD: self.params['heads'][name]}}
        return dataclasses.replace(self, params=params)

    def rows(
        self, program: Program, tokens: Ragged, tick: Tick | None = None, *, by_token: bool = False
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Runs a program over all rows; yields (row number, its output) in the order of the batches.

        by_token: the program has an output for each token, and those of a row are cut out; otherwise it has one output
        for each row of the set. Raises Stopped between two batches.
        """
        waiting: list[Waiting] = []
        sizes = tokens.lengths

        def collect() -> Iterator[tuple[int, np.ndarray]]:
            rows, values = waiting[0][0], np.asarray(waiting.pop(0)[1])
            if isinstance(rows, PackedBatch):
                yield from _unpacked(rows, values, sizes, by_token)
                done = len(rows.item)
            else:
                for row, value in zip(rows.tolist(), values, strict=False):  # padding rows come last
                    yield row, value[: sizes[row]].copy() if by_token else value
                done = len(rows)
            if tick:
                tick(done)

        for rows, size, batch in self._batches(tokens):
            check()
            arrays = put_batch(batch, self.mesh, size)
            # Heads with an output for each token do not need the starts, so their programs compile without them.
            inputs = [arrays[name] for name in ('ids', 'segments', *(['starts'] if 'starts' in arrays else []))]
            waiting.append((rows, program(self.params, *(inputs[:2] if by_token else inputs))))
            if len(waiting) > 2:  # read this batch while the device computes the next one
                yield from collect()
        while waiting:
            yield from collect()

    def _batches(self, tokens: Ragged) -> Iterator[tuple[np.ndarray | PackedBatch, int, Batch]]:
        """Yields (rows of the set in the batch, number of rows of the batch, this process's part of the batch)."""
        multiple = batch_devices(self.mesh)
        wanted = (tokens, self.lengths, self.batch_tokens, self.pad, multiple, lambda size: own_rows(size, self.mesh))
        if self.packing:
            for packed, batch in packed_eval_batches(*wanted):
                yield packed, packed.size, batch
            return
        for rows, batch in eval_batches(*wanted):
            yield rows, eval_batch_size(batch['ids'].shape[1], self.batch_tokens, multiple), batch


def _unpacked(
    rows: PackedBatch, values: np.ndarray, sizes: np.ndarray, by_token: bool
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (row number, its output) of a packed batch. values: [size, T, ...] if by_token, else [size, S, ...]."""
    for item, row, slot, start in zip(
        *(getattr(rows, n).tolist() for n in ('item', 'row', 'slot', 'start')), strict=True
    ):
        yield item, values[row, start : start + sizes[item]].copy() if by_token else values[row, slot]


@lru_cache(maxsize=32)
def logits_program(model: Model, head: HeadSpec, mesh: Mesh, scored_tags: bool = False) -> Program:
    """The compiled program for the outputs of a head. All tasks and languages of a process share it; it compiles once
    for each head shape and batch shape."""
    model, kind = placed(model, mesh), kind_of(head)

    def forward(params: Params, ids: jax.Array, segments: jax.Array, starts: jax.Array | None = None) -> jax.Array:
        if kind.stacked:  # a row of the set is one choice of an example: [B, T] -> [B, 1, T] -> [B, 1] or [B, S, 1]
            starts = None if starts is None else starts[:, None]
            return model.logits(params, HEAD, head, ids[:, None], segments[:, None], starts=starts)
        logits = model.logits(params, HEAD, head, ids, segments, starts=starts)
        if not kind.best_only:
            return logits
        best = logits.argmax(-1)  # on the device, which reduces the transfer to the host about a hundredfold
        if not scored_tags:
            return best.astype(jnp.int32)
        probability = jnp.exp(logits.max(-1) - jax.nn.logsumexp(logits, axis=-1))
        return jnp.stack([best.astype(jnp.float32), probability], -1)

    return jax.jit(forward, out_shardings=NamedSharding(mesh, PartitionSpec()))


@lru_cache(maxsize=32)
def embed_program(model: Model, layer: int | None, pooling: str, mesh: Mesh) -> Program:
    """The compiled program for sentence embeddings [B, D] of one layer; packed rows: [B, S, D]."""
    model = placed(model, mesh)

    def forward(params: Params, ids: jax.Array, segments: jax.Array, starts: jax.Array | None = None) -> jax.Array:
        return model.embed(params, ids, segments, starts, layer=layer, pooling=pooling)

    return jax.jit(forward, out_shardings=NamedSharding(mesh, PartitionSpec()))


@lru_cache(maxsize=32)
def layers_program(model: Model, pooling: str, mesh: Mesh) -> Program:
    """The compiled program for the sentence embeddings of all hidden states, `Model.embed_layers`."""
    model = placed(model, mesh)

    def forward(params: Params, ids: jax.Array, segments: jax.Array, starts: jax.Array | None = None) -> jax.Array:
        return model.embed_layers(params, ids, segments, starts, pooling=pooling)

    return jax.jit(forward, out_shardings=NamedSharding(mesh, PartitionSpec()))


def head_outputs(
    forward: Forward, name: str, head: HeadSpec, tokens: Ragged, *, scored_tags: bool = False, tick: Tick | None = None
) -> np.ndarray | list[np.ndarray]:
    """The outputs of the head `name` for token rows: `predict_tokens` or `predict_logits`, depending on its kind."""
    if kind_of(head).by_token:
        return predict_tokens(forward, name, head, tokens, scored_tags=scored_tags, tick=tick)
    return predict_logits(forward, name, head, tokens, tick=tick)


def predict_logits(
    forward: Forward, name: str, head: HeadSpec, tokens: Ragged, *, tick: Tick | None = None
) -> np.ndarray:
    """Logits in row order: float32 [rows, C] of a pair head, [rows, 1] of a choice head."""
    program = logits_program(forward.model, head, forward.mesh)
    out = np.empty((len(tokens), head.outputs), np.float32)
    return _filled(out, forward.with_head(name).rows(program, tokens, tick))


def predict_tokens(
    forward: Forward, name: str, head: HeadSpec, tokens: Ragged, *, scored_tags: bool = False, tick: Tick | None = None
) -> list[np.ndarray]:
    """Outputs for each token of each row, without padding: int32 [tokens] best tags of a tag head, float32 [tokens, 2]
    logits of a span head.

    scored_tags: a tag head returns float32 [tokens, 2] instead: the best tag (a whole number) and its probability.
    """
    program = logits_program(forward.model, head, forward.mesh, scored_tags)
    out: list[np.ndarray] = [np.zeros(0)] * len(tokens)
    for row, value in forward.with_head(name).rows(program, tokens, tick, by_token=True):
        out[row] = value
    return out


def embed_sentences(
    forward: Forward,
    tokens: Ragged,
    *,
    layer: int | None,
    pooling: str,
    out: Path | None = None,
    tick: Tick | None = None,
) -> np.ndarray:
    """Computes sentence embeddings float32 [n, D] from hidden_states[layer] (None = the last), in row order.

    out: a .npy file for the vectors; the result is then this file, memory-mapped and read-only. None = in memory. The
    file is written atomically, and its folder is created.
    """
    program = embed_program(forward.model, layer, pooling, forward.mesh)
    shape = (len(tokens), forward.model.config.hidden_size)
    if out is None:
        return _filled(np.empty(shape, np.float32), forward.rows(program, tokens, tick))
    with replacing(out) as part:
        vectors = np.lib.format.open_memmap(part, mode='w+', dtype=np.float32, shape=shape)
        _filled(vectors, forward.rows(program, tokens, tick))
        vectors.flush()
        del vectors
    return np.load(out, mmap_mode='r', allow_pickle=False)


def embed_layers(forward: Forward, tokens: Ragged, *, pooling: str, tick: Tick | None = None) -> np.ndarray:
    """Computes the sentence embeddings of all hidden states in one pass over the rows: float32 [L + 1, n, D]."""
    program, config = layers_program(forward.model, pooling, forward.mesh), forward.model.config
    vectors = np.empty((config.num_layers + 1, len(tokens), config.hidden_size), np.float32)
    for row, value in forward.rows(program, tokens, tick):
        vectors[:, row] = value
    return vectors


class VectorFiles:
    """Temporary files for the sentence vectors of one evaluation, deleted at its end. Small sets of vectors stay in
    memory.

    with VectorFiles(folder, hidden_size) as files:
        embed_sentences(..., out=files.place('first.npy', len(sentences)))
    """

    def __init__(self, folder: Path, width: int):
        """folder: the folder of the files; it is created when needed and removed at the end if it is empty then. If it
        lies on a network file system or a mounted bucket, where a memory-mapped file is slow, the files are in the
        machine's folder for temporary files instead. width: the dimension of the vectors."""
        self._folder, self._width = folder, width
        if is_remote(folder):
            self._folder = Path(tempfile.gettempdir()) / f'xlmr-flax-{uuid.uuid4().hex}'
        self._given: set[Path] = set()
        self._held = 0  # bytes of vectors that were left in memory

    def place(self, file: str | Path | None, rows: int) -> Path | None:
        """The path for float32 [rows, width] vectors. None = keep them in memory, because `file` is None or because all
        vectors in memory, these included, are less than 64 MiB. A relative `file` is relative to the folder.
        """
        size = rows * self._width * np.dtype(np.float32).itemsize
        if file is None or self._held + size < SMALL_VECTORS:
            self._held += size
            return None
        path = self._folder / file
        self._given.add(path)
        return path

    def __enter__(self) -> VectorFiles:
        return self

    def __exit__(self, *error: object) -> None:
        for path in self._given:
            path.unlink(missing_ok=True)
        if self._given and self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()


def _filled(out: np.ndarray, outputs: Iterator[tuple[int, np.ndarray]]) -> np.ndarray:
    for row, value in outputs:
        out[row] = value
    return out
