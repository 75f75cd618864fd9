"""The interface of a task kind: what distinguishes classification, tagging, span extraction and the other kinds.

A kind encodes examples, makes the head, computes logits and the loss, writes and reads the official prediction file,
and scores it. Training, evaluation and experiments ask the kind of a task or of a head (`kinds.kind_of`) and never
compare its name. docs/adding_a_kind.md shows a complete one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from xlmr_flax.data.encode import Encoded
from xlmr_flax.data.inputs import InputForm
from xlmr_flax.data.tagging import IGNORED
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.encoders.logical_axes import Place
from xlmr_flax.kinds.gold import GoldSet, NoExampleScores, Sums, read_gold_set
from xlmr_flax.scoring.spans import Decoder
from xlmr_flax.tasks.base import Example, Task, TaskError

Batch = Mapping[str, jax.Array]
LossSums = tuple[jax.Array, jax.Array, jax.Array]  # float32 scalars: loss sum, count, number of correct predictions
Output = np.ndarray | list[np.ndarray]  # logits by row, or by_token: one array per row, cut to its tokens
Scores = dict[str, float]  # metric -> percent
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """The shape of a head. kind: name of its kind. outputs: number of classes or tags, 1 where the kind fixes it."""

    kind: str
    outputs: int = 1


class Rows(NamedTuple):
    """The token rows of a batch: int32 ids and segments [B, T] ([B, N, T] where the kind is stacked). starts int32
    [B, S] ([B, N, S]): first token of each segment of packed rows, None if not packed. positions int32 [B, M]: the
    tokens whose logits are wanted (masked language modelling), None for all."""

    ids: jax.Array
    segments: jax.Array
    starts: jax.Array | None = None
    positions: jax.Array | None = None


class Encoding(Protocol):
    """What a kind's `logits` needs of models.model.Model."""

    @property
    def style(self) -> str: ...
    @property
    def place(self) -> Place: ...
    def encode(
        self, params: dict[str, Any], ids: jax.Array, segments: jax.Array, key: jax.Array | None = None
    ) -> jax.Array: ...
    def pool(self, params: dict[str, Any], hidden: jax.Array) -> jax.Array: ...
    def first_tokens(self, hidden: jax.Array, starts: jax.Array | None) -> jax.Array: ...


class Kind:
    """A task kind. One instance of each subclass is registered in `kinds.KINDS`.

    name: the value of Task.kind and HeadSpec.kind. input: how a user's own rows are read (None: they are not).
    suffix: ending of the prediction file ('' where nothing is predicted). by_token: the head has outputs for each
    token. best_only: evaluation keeps the best output of each token instead of the logits. classes: the head's outputs
    are the task's labels, which have names. stacked: an example has several rows, and batches are [B, N, T].
    shuffles: gold labels can be exchanged among examples. cuts: a long example becomes several rows.
    pretraining: the head is a language model's, tied to the word table, and comes with an encoder. settings: fields of
    the config's Evaluation that its scores depend on. typical_outputs: for estimates without a task. metric_pair:
    metrics whose mean XTREME and jiant rank by, () where one metric decides. architecture: its class in transformers,
    without the model's name, '' for none.
    """

    name = ''
    input: InputForm | None = None
    suffix = ''
    by_token = False
    best_only = False
    classes = False
    stacked = False
    shuffles = False
    cuts = False
    pretraining = False
    settings: tuple[str, ...] = ()
    metric_pair: tuple[str, ...] = ()
    architecture = ''
    typical_outputs = 1

    # Rows

    def encode(self, task: Task, examples: Sequence[Any], tokenizer: Tokenizer, max_length: int) -> Encoded:
        """Examples of this kind -> tokens and targets. Raises TaskError."""
        raise NotImplementedError

    def alike(self, example: Any) -> int:
        """Examples with one value can be encoded together (number of choices, whether there is a second text)."""
        return 0

    def batch_shapes(self, rows: int, length: int, choices: int, predicted: int) -> dict[str, tuple[int, ...]]:
        """The int32 arrays of a padded training batch. predicted: positions per row of masked language modelling."""
        raise NotImplementedError

    # Head and loss

    def make_head(self, config: EncoderConfig, outputs: int, style: str, rngs: nnx.Rngs) -> nnx.Module:
        """A freshly initialised head of style 'jiant' or 'hf'."""
        raise TaskError(f'kind {self.name!r} has no head')

    def logits(
        self, model: Encoding, params: dict[str, Any], head: Any, rows: Rows, key: jax.Array | None
    ) -> jax.Array:
        """float32 logits of a head. key: of the dropout of encoder and head, None = no dropout."""
        raise NotImplementedError

    def loss_sums(self, logits: jax.Array, batch: Batch) -> LossSums:
        """Sums over the valid examples of a batch, so that a mean over the global batch does not depend on how the
        batch was divided. By default the cross-entropy of one label per example: logits [B, C], label, valid [B] or,
        packed, [B, S, C] and [B, S]."""
        return cross_entropy(logits, batch['label'], batch['valid'].astype(jnp.float32))

    def count(self, batch: Batch) -> jax.Array:
        """The count of `loss_sums`, without the logits."""
        return batch['valid'].sum().astype(jnp.float32)

    # transformers

    def tensor_names(self, style: str) -> dict[tuple[str, ...], str]:
        """Our parameter path -> transformers' tensor name; {} where transformers has no such head."""
        return {}

    def reads_pooler(self, style: str) -> bool:
        """Whether the head reads the pooler's output."""
        return False

    # Predictions

    def predictions(
        self, task: Task, examples: Sequence[Any], data: Encoded, out: Output, order: Sequence[int], decode: Decoder
    ) -> Any:
        """Model outputs -> what the prediction file holds. order: of each label of the task, its place among the
        head's outputs, () = in order."""
        raise TaskError(f'task {task.name!r}: kind {self.name!r} has no prediction file')

    def write_outputs(
        self,
        task: Task,
        path: Path,
        examples: Sequence[Any],
        data: Encoded,
        out: Output,
        order: Sequence[int],
        decode: Decoder,
    ) -> None:
        """Model outputs -> the official prediction file; the arguments of `predictions`."""
        self.write(path, self.predictions(task, examples, data, out, order, decode))

    def write(self, path: Path, predictions: Any) -> None:
        """Writes a prediction file."""
        raise TaskError(f'kind {self.name!r} has no prediction file')

    def read(self, path: Path) -> Any:
        """The predictions of a file. Raises DataError with file and line."""
        raise TaskError(f'kind {self.name!r} has no prediction file')

    def score(self, task: Task, language: str, path: Path, examples: Sequence[Any]) -> Scores:
        """The official metrics of a prediction file, in percent. language: of the answers. Raises DataError."""
        raise TaskError(f'kind {self.name!r} has no prediction file')

    # Scores by example, for resampling

    def gold(self, task: Task, language: str, split: str, data_root: str, limit: int, skip_bad: bool) -> GoldSet:
        """The gold side of a split, its first `limit` rows (0 = all). skip_bad: rows that cannot be read are left out.
        Raises DataError."""
        return read_gold_set(task, language, split, data_root, limit, skip_bad)

    def example_sums(self, gold: GoldSet, path: Path, metric: str) -> Sums:
        """(numerator, denominator) of each example; the metric is the ratio of their sums. Raises DataError, and
        NoExampleScores where the metric is no such ratio."""
        raise NoExampleScores(f'{gold.task.name}: {metric} is no ratio of sums over examples')

    def predicted(self, gold: GoldSet, path: Path) -> list[bool]:
        """For each gold id whether the file has a prediction. Without ids in the file its lines are the examples."""
        return [True] * len(gold.ids)

    # A user's own rows

    def records(self, examples: Sequence[Any], data: Encoded, out: Any, labels: Sequence[str]) -> list[Record]:
        """Head outputs on a user's rows -> one JSON object for each. labels: names of the head's outputs."""
        raise TaskError(f'kind {self.name!r} predicts nothing for a row')

    def summary(self, example: Any, record: Record) -> tuple[str, str]:
        """(prediction, text) of a record, for a line on the screen."""
        raise NotImplementedError


def cross_entropy(logits: jax.Array, labels: jax.Array, weight: jax.Array) -> LossSums:
    """float32 logits [..., C], labels [...], weight [...] -> (loss sum, weight sum, sum of weight where argmax is
    right)."""
    safe = jnp.maximum(labels, 0)
    losses = jax.nn.logsumexp(logits, axis=-1) - jnp.take_along_axis(logits, safe[..., None], axis=-1)[..., 0]
    right = (logits.argmax(-1) == labels).astype(jnp.float32)
    return (losses * weight).sum(), weight.sum(), (right * weight).sum()


class TokenLoss(Kind):
    """Kinds with a label on some tokens: logits [B, T, C], labels [B, T], IGNORED where there is none; counted per
    token, as torch's mean over tokens that are not ignored."""

    def loss_sums(self, logits: jax.Array, batch: Batch) -> LossSums:
        return cross_entropy(logits, batch['labels'], self._weight(batch))

    def count(self, batch: Batch) -> jax.Array:
        return self._weight(batch).sum().astype(jnp.float32)

    def _weight(self, batch: Batch) -> jax.Array:
        return (batch['labels'] != IGNORED) * batch['valid'].astype(jnp.float32)[:, None]


def head_key(key: jax.Array | None) -> jax.Array | None:
    """The dropout key of a head."""
    return None if key is None else jax.random.fold_in(key, 2)


def example_ids(examples: Sequence[Example]) -> tuple[str, ...]:
    """The ids of examples in order."""
    return tuple(example.id for example in examples)


def softmax(logits: np.ndarray) -> np.ndarray:
    """float64 [n, C] probabilities."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def rounded(values: np.ndarray) -> list[float]:
    """Numbers for JSON, with 6 decimals."""
    return [round(float(value), 6) for value in values]
