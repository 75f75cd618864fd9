"""The fields of a configuration and their defaults, as frozen dataclasses.

The string below a field is its documentation, in Markdown: `xlmr-flax run --help_config` and docs/config.md show it
(config/reference.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from xlmr_flax.util.errors import UserError

NONE = 'none'  # the name of no intermediate training


class ConfigError(UserError, ValueError):
    """A config key or value that cannot be used; the message names the field and the closest known one."""


@dataclasses.dataclass(frozen=True)
class EncoderSpec:
    """The pretrained encoder and how its program is compiled."""

    source: str = 'embedded'
    """`embedded`, `hf:NAME-OR-DIR`, `ckpt:DIR` (a model that a run saved) or `random:SIZE`."""
    head: str = 'jiant'
    """`jiant` (the authors': a pooler and a two-layer head) or `hf` (the classes of transformers; can be exported)."""
    dtype: str = 'float32'
    """Compute type, `float32` or `bfloat16`. Parameters are always float32."""
    dropout: float = -1.0
    """Dropout rate of hidden states; below 0: the checkpoint's."""
    attention_dropout: float = -1.0
    """Dropout rate of attention weights; below 0: the checkpoint's."""
    remat: str = 'auto'
    """Rematerialisation, what the backward pass of a layer computes again: `none`, `dots` (all but matrix products and
    attention), `full` (the whole layer, from its input) or `auto` (`dots`)."""
    unroll: int = 1
    """Layers per step of the scan; 0 = all, without a scan."""
    attention: str = 'auto'
    """`auto` (by platform), `xla_cpu`, `xla`, `cudnn`, `tpu` or `interpret` (encoders/attention/choose.py)."""


@dataclasses.dataclass(frozen=True)
class OptimizerSpec:
    """AdamW with weight decay on everything but biases and layer norms. The defaults are jiant's
    (jiant/proj/simple/runscript.py)."""

    learning_rate: float = 1e-5
    """The peak learning rate."""
    beta1: float = 0.9
    """Decay rate of the first moment."""
    beta2: float = 0.999
    """Decay rate of the second moment."""
    epsilon: float = 1e-8
    """Added to the denominator of the update."""
    weight_decay: float = 0.01
    """Decoupled weight decay, multiplied by the learning rate."""
    warmup: float = 0.1
    """Share of all steps in which the learning rate rises linearly from 0."""
    warmup_steps: int = -1
    """Number of such steps; at 0 or above, it overrides `warmup`."""
    schedule: str = 'linear'
    """The learning rate after the warm-up: `linear` (to 0 at the last step) or `constant`."""
    clip_norm: float = 1.0
    """Largest global norm of the gradients; 0 = no clipping."""
    clip_per: str = 'step'
    """`step` (once per optimizer step) or `micro_batch` (after every micro-batch, on the running sum, as
    jiant/proj/main/runner.py)."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one phase trains."""

    epochs: float = 3.0
    """Passes over the training rows."""
    steps: int = 0
    """Optimizer steps; above 0, it overrides `epochs`."""
    batch_size: int = 32
    """Examples per optimizer step, over all devices and micro-batches."""
    accumulation: int = 1
    """Micro-batches per optimizer step (gradient accumulation)."""
    max_length: int = 128
    """Most tokens of a row, special tokens included; longer texts are cut or split into windows."""
    lengths: tuple[int, ...] = ()
    """Row lengths that may be compiled; a batch takes the shortest that holds it. () = chosen up to `max_length`."""
    packing: bool = True
    """Several examples share a row. The loss is the same; dropout masks differ."""
    eval_every: int = 0
    """Steps between dev evaluations; 0 = only at the end."""
    eval_examples: int = 500
    """Number of dev rows that are evaluated, from the first (jiant: 500); 0 = all."""
    dev_score: str = 'first'
    """The dev score: the task's `first` metric, or the `mean` of F1 and exact match (question answering) or of
    accuracy and F1 (QQP), as jiant."""
    keep: str = 'last'
    """Which weights are kept: the `best` by dev score or the `last`."""
    patience: int = 0
    """Dev evaluations without improvement after which training stops; 0 = it never stops early."""
    checkpoint_every: int = 0
    """Steps between saved states; 0 = only when the run is stopped."""
    keep_checkpoints: int = 1
    """How many of the latest saved states are kept (a damaged one is passed over)."""
    log_every: int = 10
    """Steps between records of the training log."""
    max_train: int = 0
    """Number of training rows, from the first; 0 = all."""
    optimizer: OptimizerSpec = OptimizerSpec()
    """The optimizer and its schedule."""


@dataclasses.dataclass(frozen=True)
class Member:
    """One dataset of an `Arm`."""

    task: str = ''
    """The task's name; '' = the name of the entry."""
    languages: tuple[str, ...] = ('en',)
    """Languages of the training rows: `en` is the train split, another language its translated one (or text in
    that language)."""
    head: str = ''
    """Members that name the same head share it; '' = a head of the task's own."""
    weight: float = 1.0
    """Rate of the member for the sampler `weights`."""
    rate: str = '1'
    """Rate of the member for the sampler `time_dependent`: an expression in the step `t`."""
    max_length: int = 0
    """As in the recipe; 0 = the recipe's."""
    lengths: tuple[int, ...] = ()
    """As in the recipe; () = the recipe's."""
    max_train: int = 0
    """As in the recipe; 0 = the recipe's."""
    fraction: float = 1.0
    """Share of the training rows: a random subset that the seed decides."""
    shuffle_labels: bool = False
    """Permute the labels among the rows (a control)."""
    select: float = 1.0
    """Weight of the member's dev score in the choice of the best checkpoint."""
    alpha: float = 1.0
    """Languages are drawn in proportion to size ** alpha."""
    split: str = ''
    """Train on this split in place of the training rows, where those are missing (`dev`). Result rows say so, and
    its own dev rows do not select checkpoints."""


@dataclasses.dataclass(frozen=True)
class Arm:
    """A mixture of datasets that trains one encoder. The samplers follow jiant
    (jiant/proj/main/components/task_sampler.py)."""

    tasks: Mapping[str, Member] = dataclasses.field(default_factory=dict)
    """The members by name."""
    sampler: str = 'proportional'
    """`uniform`, `proportional`, `capped` (`cap`), `temperature` (`temperature`, `cap`), `weights` (the members'
    `weight`) or `time_dependent` (the members' `rate`)."""
    cap: int = 0
    """Largest size that a member counts with; 0 = no cap."""
    temperature: float = 1.0
    """Members are drawn in proportion to size ** (1 / temperature)."""
    mix: str = 'step'
    """`step` (one task per optimizer step, as jiant) or `micro_batch` (one task per micro-batch; a step has
    `recipe.accumulation` of them)."""
    block: int = 0
    """Number of draws after which the counts are exact; 0 = 100."""
    joint: bool = False
    """The arm is no phase of its own: its members are mixed into the training of every target."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Zero-shot evaluation."""

    languages: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """Task -> evaluated languages; absent = all that the task has."""
    split: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Task -> evaluated split; absent = `test`."""
    max_examples: int = 0
    """Number of rows per language, from the first; 0 = all."""
    batch_tokens: int = 0
    """Tokens of a forward pass, padding included; 0 = by platform (`data.batches.pass_tokens`)."""
    packing: bool = True
    """Several examples share a row."""
    retrieval_layer: int = -1
    """Index into the hidden states for retrieval; -1 = layer 14 of 24, as jiant and XTREME, else the last."""
    retrieval_layers: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Task -> its own `retrieval_layer`."""
    pooling: str = 'mean'
    """Sentence vectors for retrieval: `mean` (special tokens included, as jiant and XTREME) or `cls`."""
    max_length: int = 512
    """Most tokens of a retrieval sentence (jiant and XTREME: 512)."""
    repeated_sentences: str = 'kept'
    """Mining (BUCC): what becomes of sentences whose text occurs more than once on one side. `kept`: every row is
    mined by itself. `expanded`: each text is mined once, and every pair of ids with the two texts is a candidate
    (jiant, tasks/lib/bucc2018.py). `dropped`: each text is mined once, and a pair with a repeated text is no
    candidate (XTREME, third_party/utils_retrieve.py)."""
    qa_decoding: str = 'offsets'
    """Answers: `offsets` (the characters of the predicted tokens, scoring/spans.py) or `reference` (cut out of
    white-space words, as the scripts of jiant, XTREME and xTune do, scoring/reference_spans.py)."""
    qa_unaligned: tuple[str, ...] = ()
    """With `reference`: languages whose answers are the text of the tokens, without a search in the words."""

    def layer_of(self, task: str) -> int:
        """The configured layer of a retrieval task."""
        return self.retrieval_layers.get(task, self.retrieval_layer)

    def qa_decides(self) -> dict[str, object]:
        """What decides how answers are decoded; {} for the default, which is older than its fields."""
        if self.qa_decoding == 'offsets':
            return {}
        return {'qa_decoding': self.qa_decoding, 'qa_unaligned': sorted(self.qa_unaligned)}


@dataclasses.dataclass(frozen=True)
class MeshSpec:
    """The number of devices along each axis of the mesh; -1, at most once, takes all that are left."""

    data: int = -1
    """Data parallelism: rows of a batch."""
    fsdp: int = 1
    """Rows of a batch, too; parameters and moments are sharded over it."""
    model: int = 1
    """Tensor parallelism: attention heads and feed-forward columns."""
    slices: int = 1
    """TPU slices joined by a data-centre network, which `data` then spans; -1 = as many as there are."""


@dataclasses.dataclass(frozen=True)
class Config:
    """One plan: every intermediate arm x every target x every seed."""

    name: str = 'run'
    """Name of the study."""
    title: str = ''
    """Title of its report."""
    preset: str = ''
    """Name of the published recipe that the config follows; written into result rows."""
    seeds: tuple[int, ...] = (1,)
    """Every run of the plan is made once per seed."""
    encoder: EncoderSpec = EncoderSpec()
    """The pretrained encoder."""
    intermediate: tuple[str, ...] = (NONE,)
    """Intermediate tasks or names of `arms`, or `none`. An arm's encoder is trained once per seed and used by all
    targets."""
    targets: tuple[str, ...] = ()
    """Target tasks. Retrieval targets are evaluated without training."""
    arms: Mapping[str, Arm] = dataclasses.field(default_factory=dict)
    """Mixtures by name."""
    training: Mapping[str, Arm] = dataclasses.field(default_factory=dict)
    """Target -> what it is fine-tuned on, where that is not its English train split alone (further languages,
    translated rows). Fields as in `arms.NAME`."""
    recipe: Recipe = Recipe()
    """The recipe of every phase."""
    recipes: Mapping[str, Recipe] = dataclasses.field(default_factory=dict)
    """Changes to `recipe` by name: an arm's or intermediate task's, or a target's for its fine-tuning.
    Fields as in `recipe`."""
    evaluation: Evaluation = Evaluation()
    """Zero-shot evaluation."""
    mesh: MeshSpec = MeshSpec()
    """Devices along each axis."""
    skip_bad_rows: bool = False
    """Leave out, count and list rows that cannot be read; without it, they are an error."""
    keep_models: str = 'all'
    """Whose trained models are kept when the plan is done: `all` runs' or those of the `intermediate` phases alone."""
    data_root: str = ''
    """Folder of the data files; '' = the environment variable XLMR_DATA_ROOT."""
    tensorboard: bool = True
    """Also write the training logs as TensorBoard events."""

    def recipe_for(self, task: str) -> Recipe:
        """The recipe of a task's phase: its own override, else the plan's."""
        return self.recipes.get(task, self.recipe)
