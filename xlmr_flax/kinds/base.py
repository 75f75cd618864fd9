"""The interface of a task kind: what distinguishes classification, tagging, span extraction and the other kinds.

A kind encodes examples, makes the head, computes logits and the loss, writes and reads the official prediction file,
and scores it. Training, evaluation and experiments get the kind of a task or a head from `kinds.kind_of` and never
compare its name. docs/adding_a_kind.md shows a complete example.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
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
from xlmr_flax.data.labels import IGNORED
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.encoders import family_of
from xlmr_flax.encoders.config import EncoderConfig
from xlmr_flax.encoders.dropout import Key, fold_in
from xlmr_flax.encoders.family import FIRST, MEAN, POOLER, HeadForm
from xlmr_flax.encoders.logical_axes import Constrain
from xlmr_flax.kinds.gold import GoldSet, NoExampleScores, Sums, read_gold_set
from xlmr_flax.scoring.spans import Decoder
from xlmr_flax.tasks.base import Example, Task, TaskError
from xlmr_flax.util.errors import quote

Batch = Mapping[str, jax.Array]
LossSums = tuple[jax.Array, jax.Array, jax.Array]  # float32 scalars: loss sum, count, number of correct predictions
Output = np.ndarray | list[np.ndarray]  # logits by row; with by_token: one array per row, without padding
Scores = dict[str, float]  # metric -> percent
Record = dict[str, Any]
HEAD = 'head'  # the name of the head inside compiled programs, whatever its name in the params


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """The shape of a head. kind: name of its kind. outputs: number of classes or tags, 1 where the kind fixes it."""

    kind: str
    outputs: int = 1


class Rows(NamedTuple):
    """The token rows of a batch: int32 ids and segments [B, T] ([B, N, T] for a stacked kind).

    starts: int32 [B, S] ([B, N, S]), the first token of each segment of packed rows, None = not packed. positions:
    int32 [B, M], the tokens whose logits are computed (masked language modelling), None = all.
    """

    ids: jax.Array
    segments: jax.Array
    starts: jax.Array | None = None
    positions: jax.Array | None = None


class ModelLike(Protocol):
    """What a kind's `logits` uses of models.model.Model. A protocol, because kinds may not import models."""

    @property
    def config(self) -> EncoderConfig: ...
    @property
    def style(self) -> str: ...
    @property
    def place(self) -> Constrain: ...
    def encode(
        self, params: dict[str, Any], ids: jax.Array, segments: jax.Array, key: Key | None = None
    ) -> jax.Array: ...
    def text_vectors(
        self, params: dict[str, Any], hidden: jax.Array, segments: jax.Array, starts: jax.Array | None, source: str
    ) -> jax.Array: ...


class Kind(ABC):
    """Base class of task kinds. One instance of each subclass is registered in `kinds.KINDS`.

    name: the value of Task.kind and HeadSpec.kind. input: format of a user's own rows, None = not supported.
    suffix: file suffix of the prediction file, '' = no predictions. by_token: the head has outputs for each token.
    best_only: evaluation keeps only the best output of each token instead of the logits. classes: the head's outputs
    are the task's labels, which have names. stacked: an example has several rows, and batches are [B, N, T].
    shuffles: gold labels can be shuffled among examples. cuts: a long example becomes several rows.
    pretraining: the head is a language model's, tied to the word table; it is loaded with the encoder. settings: fields
    of the config's Evaluation that the scores depend on. typical_outputs: number of outputs for estimates without a
    task. metric_pair: two metrics by whose mean XTREME and jiant rank, () = one metric decides. architecture: suffix of
    the head's class in transformers (without the model's name), '' = none.
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

    @abstractmethod
    def encode(self, task: Task, examples: Sequence[Any], tokenizer: Tokenizer, max_length: int) -> Encoded:
        """Encodes examples of this kind as tokens and targets. Raises TaskError."""

    def encoding_group(self, example: Any) -> int:
        """The group of an example: those of one group can be encoded together. For example, the number of choices."""
        return 0

    def batch_shapes(self, rows: int, length: int, choices: int, predicted: int) -> dict[str, tuple[int, ...]]:
        """The shapes of the int32 arrays of a padded training batch. predicted: masked-LM positions per row."""
        raise TaskError(f'kind {self.name!r} has no head')

    # Head and loss

    def make_head(self, config: EncoderConfig, outputs: int, style: str, rngs: nnx.Rngs) -> nnx.Module:
        """Makes a newly initialised head of a style of encoders/heads.py. Raises TaskError if the kind has no head."""
        raise TaskError(f'kind {self.name!r} has no head')

    def logits(self, model: ModelLike, params: dict[str, Any], head: Any, rows: Rows, key: Key | None) -> jax.Array:
        """Computes the float32 logits of a head. key: for the dropout of encoder and head, None = no dropout."""
        raise TaskError(f'kind {self.name!r} has no head')

    def loss_sums(self, logits: jax.Array, batch: Batch) -> LossSums:
        """Loss sum, count and number of correct predictions over the valid examples of a batch.

        Sums, not means: so the mean over the global batch does not depend on how the batch is divided. The default is
        the cross-entropy of one label per example: logits [B, C], label, valid [B]; packed: [B, S, C] and [B, S].
        """
        return cross_entropy(logits, batch['label'], batch['valid'].astype(jnp.float32))

    def count(self, batch: Batch) -> jax.Array:
        """The count of `loss_sums`, computed from the batch alone."""
        return batch['valid'].sum().astype(jnp.float32)

    # The head by family. A kind defines XLM-R's head: `make_head`, `tensor_names`, `reads_pooler`. The four methods
    # after these are for callers: they use the head of the encoder's family, if it has its own (`Family.head_form`).

    def tensor_names(self, style: str) -> dict[tuple[str, ...], str]:
        """Returns {our parameter path: tensor name} of XLM-R's head, or {} if transformers has no such head."""
        return {}

    def reads_pooler(self, style: str) -> bool:
        """Whether XLM-R's head reads the pooler's output."""
        return False

    def head_form(self, config: EncoderConfig, style: str) -> HeadForm | None:
        """Returns the head of the encoder's family; None = the family has XLM-R's head.

        A style without a class in transformers ('jiant' and 'mean' for classification) has XLM-R's head in every
        family.
        """
        if not self.architecture or self.tensor_names(style) != self.tensor_names('hf'):
            return None
        return family_of(config).head_form(self.architecture, config)

    def new_head(self, config: EncoderConfig, outputs: int, style: str, rngs: nnx.Rngs) -> nnx.Module:
        """Makes a newly initialised head. Raises TaskError as `make_head`."""
        form = self.head_form(config, style)
        return self.make_head(config, outputs, style, rngs) if form is None else form.make(outputs, rngs)

    def head_tensor_names(self, config: EncoderConfig, style: str) -> Mapping[tuple[str, ...], str]:
        """Returns {our parameter path: transformers' tensor name}, or {} if transformers has no such head."""
        form = self.head_form(config, style)
        return self.tensor_names(style) if form is None else form.tensor_names

    def head_input(self, config: EncoderConfig, style: str) -> str:
        """Which vector of a text the head takes: FIRST, POOLER or MEAN of encoders/family.py."""
        form = self.head_form(config, style)
        if form is not None:
            return form.input
        if style == 'mean':
            return MEAN
        return POOLER if self.reads_pooler(style) else FIRST

    # Predictions

    def predictions(
        self, task: Task, examples: Sequence[Any], data: Encoded, out: Output, order: Sequence[int], decode: Decoder
    ) -> Any:
        """Converts model outputs to the contents of the prediction file.

        order: for each label of the task, the index of its output in the head, () = the same order. decode: the span
        decoder, for extractive question answering. Raises TaskError if the kind has no prediction file.
        """
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
        """Writes model outputs as the official prediction file. Takes the arguments of `predictions`."""
        self.write(path, self.predictions(task, examples, data, out, order, decode))

    def write(self, path: Path, predictions: Any) -> None:
        """Writes a prediction file. Raises TaskError if the kind has none."""
        raise TaskError(f'kind {self.name!r} has no prediction file')

    def read(self, path: Path) -> Any:
        """Reads the predictions of a file. Raises DataError, which names the file and the line."""
        raise TaskError(f'kind {self.name!r} has no prediction file')

    def score(self, task: Task, language: str, path: Path, examples: Sequence[Any]) -> Scores:
        """Computes the official metrics of a prediction file, in percent. language: that of the answers.

        Raises DataError.
        """
        raise TaskError(f'kind {self.name!r} has no prediction file')

    def classified(self, task: Task, path: Path, examples: Sequence[Any]) -> tuple[list[str], list[str]] | None:
        """The gold and the predicted class of each example, for tags the distinct tags of a sentence; None for a kind
        that does not predict classes of the task. Raises DataError."""
        return None

    # Scores by example, for resampling

    def gold(self, task: Task, language: str, split: str, data_root: str, limit: int, skip_bad_rows: bool) -> GoldSet:
        """Reads the gold labels of the first `limit` rows (0 = all) of a split.

        skip_bad_rows: leave out rows that cannot be read. Raises DataError.
        """
        return read_gold_set(task, language, split, data_root, limit, skip_bad_rows)

    def example_sums(self, gold: GoldSet, path: Path, metric: str) -> Sums:
        """Scores a prediction file by example: (numerator, denominator); the metric is the ratio of their sums.

        Raises DataError, and NoExampleScores for a metric that is not such a ratio.
        """
        raise NoExampleScores(f'{gold.task.name}: {metric} is no ratio of sums over examples')

    def predicted(self, gold: GoldSet, path: Path) -> list[bool]:
        """For each gold id, whether the file has a prediction. A file without ids has one line per example."""
        return [True] * len(gold.ids)

    # A user's own rows

    def records(self, examples: Sequence[Any], data: Encoded, out: Any, labels: Sequence[str]) -> list[Record]:
        """Converts head outputs on a user's rows to one JSON object per row. labels: names of the head's outputs."""
        raise TaskError(f'kind {self.name!r} predicts nothing for a row')

    def summary(self, example: Any, record: Record) -> tuple[str, str]:
        """Returns (prediction, text) of a record, for one line on the screen."""
        raise TaskError(f'kind {self.name!r} predicts nothing for a row')


def name_problem(names: Sequence[object]) -> str:
    """Returns why a list is not the names of classes (another type, an empty name, a name twice), '' if it is.

    A result has one entry a name, so that of two equal names one would be lost.
    """
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            return f'class {number} has the name {quote(name)}; a text that is not empty is expected'
    seen: set[object] = set()
    twice = [name for name in names if name in seen or seen.add(name)]
    return f'two classes have the name {quote(twice[0])}' if twice else ''


def cross_entropy(logits: jax.Array, labels: jax.Array, weight: jax.Array) -> LossSums:
    """Weighted cross-entropy: (loss sum, weight sum, weight sum of correct argmax predictions), float32 scalars.

    logits: float32 [..., C]. labels: int32 [...]. weight: [...].
    """
    safe = jnp.maximum(labels, 0)
    losses = jax.nn.logsumexp(logits, axis=-1) - jnp.take_along_axis(logits, safe[..., None], axis=-1)[..., 0]
    right = (logits.argmax(-1) == labels).astype(jnp.float32)
    return (losses * weight).sum(), weight.sum(), (right * weight).sum()


class TokenLoss(Kind):
    """Base class of kinds with labels on some tokens: logits [B, T, C], labels [B, T], IGNORED = no label.

    The loss counts tokens, as torch's mean over tokens that are not ignored.
    """

    def loss_sums(self, logits: jax.Array, batch: Batch) -> LossSums:
        return cross_entropy(logits, batch['labels'], self._weight(batch))

    def count(self, batch: Batch) -> jax.Array:
        return self._weight(batch).sum().astype(jnp.float32)

    def _weight(self, batch: Batch) -> jax.Array:
        return (batch['labels'] != IGNORED) * batch['valid'].astype(jnp.float32)[:, None]


def head_dropout_key(key: Key | None) -> Key | None:
    """Derives the head's dropout key from the model's; None = no dropout."""
    return None if key is None else fold_in(key, 2)


def example_ids(examples: Sequence[Example]) -> tuple[str, ...]:
    """Returns the ids of the examples, in order."""
    return tuple(example.id for example in examples)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis: logits [n, C] -> probabilities float64 [n, C]."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def rounded(values: np.ndarray) -> list[float]:
    """Rounds numbers to 6 decimals, for JSON."""
    return [round(float(value), 6) for value in values]
