"""The fields of a configuration and their defaults, as frozen dataclasses.

The string below a field is its documentation in Markdown. `xlmr-flax run --help_config` and docs/config.md show it
(config/reference.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from xlmr_flax.util.errors import UserError

NONE = 'none'  # the name of the arm without intermediate training


class ConfigError(UserError, ValueError):
    """An invalid config key or value; the message names the field and, for an unknown key, the closest known one."""


@dataclasses.dataclass(frozen=True)
class EncoderSpec:
    """The pretrained encoder, and options for its numerics and compilation."""

    source: str = 'embedded'
    """`embedded`, `hf:NAME-OR-DIR`, `ckpt:DIR` (a model that a run saved) or `random:SIZE`."""
    head: str = 'jiant'
    """`jiant` (the head of the authors' code: a pooler and a two-layer head), `hf` (the heads of Hugging Face
    transformers; such models can be exported) or `mean` (the two-layer head on the mean over the tokens)."""
    dtype: str = 'auto'
    """Compute type: `float32`, `bfloat16` or `auto` (`bfloat16` on TPUs and on GPUs with fast products in
    it, else `float32`). Parameters and the optimizer's moments are always float32."""
    dropout: float = -1.0
    """Dropout rate of hidden states; below 0: the rate of the checkpoint."""
    attention_dropout: float = -1.0
    """Dropout rate of attention weights; below 0: the rate of the checkpoint."""
    remat: str = 'auto'
    """Rematerialisation: which activations the backward pass of a layer recomputes. `none`, `dots` (all except the
    results of matrix products and attention), `full` (the whole layer, from its input) or `auto` (`dots`)."""
    unroll: int = -1
    """Number of layers per step of the scan over layers; 0 = all layers, without a scan. -1 = by platform and length
    of the training: 0 on TPUs if the saved time exceeds the longer compilation, else 1."""
    attention: str = 'auto'
    """Attention implementation: `auto` (by platform), `xla_cpu`, `xla`, `cudnn`, `triton`, `tpu`, `interpret`
    or `interpret_triton` (encoders/attention/choose.py)."""


@dataclasses.dataclass(frozen=True)
class OptimizerSpec:
    """The optimizer, with weight decay on all parameters except biases and layer norms. The defaults are those of jiant
    (jiant/proj/simple/runscript.py)."""

    name: str = 'adamw'
    """`adamw` or `lion` (Chen et al. 2023), which stores one moment instead of two; its paper has `beta2` 0.99, a
    learning rate 3 to 10 times lower than AdamW's and a weight decay higher by the same factor."""
    learning_rate: float = 1e-5
    """The peak learning rate."""
    beta1: float = 0.9
    """Decay rate of the first moment."""
    beta2: float = 0.999
    """Decay rate of the second moment."""
    epsilon: float = 1e-8
    """Added to the denominator of the update (AdamW)."""
    weight_decay: float = 0.01
    """Decoupled weight decay, multiplied by the learning rate."""
    warmup: float = 0.1
    """Length of the LR warm-up, a linear rise from 0, as a share of all steps."""
    warmup_steps: int = -1
    """Length of the LR warm-up in steps; at 0 or above, it overrides `warmup`."""
    schedule: str = 'linear'
    """The learning rate after the warm-up: `linear` (to 0 at the last step) or `constant`."""
    clip_norm: float = 1.0
    """Largest global norm of the gradients; 0 = no clipping."""
    clip_per: str = 'step'
    """When gradients are clipped: `step` (once per optimizer step) or `micro_batch` (after every micro-batch, on the
    running sum, as in jiant/proj/main/runner.py)."""
    layer_decay: float = 1.0
    """Layer-wise learning-rate decay: the rate of each layer, as a share of that of the layer above. Heads and the
    pooler have the full rate, the last layer this share of it, the embeddings the lowest rate. 1 = one rate."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings of one training phase: its length, batches, dev evaluations and checkpoints."""

    epochs: float = 3.0
    """Number of passes over the training rows."""
    steps: int = 0
    """Number of optimizer steps; above 0, it overrides `epochs`."""
    batch_size: int = 32
    """Examples per optimizer step, over all devices and micro-batches."""
    accumulation: int = 1
    """Micro-batches per optimizer step (gradient accumulation). Where gradients are clipped once per step, any number
    gives the same dropout masks, and the same gradients up to rounding; accelerators merge them if memory allows."""
    max_length: int = 128
    """Largest number of tokens of a row, special tokens included. Longer texts are truncated or split into windows."""
    lengths: tuple[int, ...] = ()
    """Allowed row lengths (bucketing). With packing, all training rows of a dataset have the shortest one that holds
    its longest example. Without packing, each batch is padded to the shortest that holds it. () = lengths up to
    `max_length`, chosen automatically."""
    packing: bool = True
    """Pack several examples into one row. The loss is the same; dropout masks differ."""
    eval_every: int = 0
    """Number of steps between dev evaluations; 0 = only at the end."""
    eval_examples: int = 500
    """Number of dev rows that are evaluated, from the first row on (jiant: 500); 0 = all."""
    dev_score: str = 'first'
    """The dev score: the `first` metric of the task, or the `mean` of F1 and exact match (question answering) or of
    accuracy and F1 (QQP), as in jiant."""
    keep: str = 'last'
    """Which weights are kept: those with the `best` dev score, or the `last`."""
    patience: int = 0
    """Early stopping: training stops after this number of dev evaluations without improvement; 0 = never."""
    checkpoint_every: int = 0
    """Number of steps between checkpoints; 0 = only when the run is stopped."""
    keep_checkpoints: int = 1
    """Number of latest checkpoints that are kept. If the latest is damaged, a resumed run uses an earlier one."""
    log_every: int = 10
    """Number of steps between records of the training log."""
    max_train: int = 0
    """Number of training rows, from the first row on; 0 = all."""
    optimizer: OptimizerSpec = OptimizerSpec()
    """The optimizer and its schedule."""


@dataclasses.dataclass(frozen=True)
class Member:
    """One dataset of an `Arm`."""

    task: str = ''
    """Name of the task; '' = the name of the entry."""
    languages: tuple[str, ...] = ('en',)
    """Languages of the training rows. `en` is the train split; another language is its translation (or text in that
    language)."""
    head: str = ''
    """Name of the head; members with the same name share one head. '' = a separate head for the task."""
    weight: float = 1.0
    """Sampling weight of the member with the sampler `weights`."""
    rate: str = '1'
    """Sampling weight of the member with the sampler `time_dependent`: an expression in the step `t`."""
    max_length: int = 0
    """As in the recipe; 0 = the value of the recipe."""
    lengths: tuple[int, ...] = ()
    """As in the recipe; () = the value of the recipe."""
    max_train: int = 0
    """As in the recipe; 0 = the value of the recipe."""
    fraction: float = 1.0
    """Share of the training rows that is used: a random subset that depends on the seed."""
    shuffle_labels: bool = False
    """Shuffle the labels among the rows (a control)."""
    select: float = 1.0
    """Weight of the member's dev score when the best checkpoint is selected."""
    alpha: float = 1.0
    """Languages are sampled in proportion to size ** alpha."""
    split: str = ''
    """Train on this split (`dev`) if the data has no train split. Result rows record it, and the dev rows of this
    member do not select checkpoints."""


@dataclasses.dataclass(frozen=True)
class Arm:
    """A mixture of datasets on which one encoder is trained. The samplers follow jiant
    (jiant/proj/main/components/task_sampler.py)."""

    tasks: Mapping[str, Member] = dataclasses.field(default_factory=dict)
    """The members by name."""
    sampler: str = 'proportional'
    """How members are sampled: `uniform`, `proportional`, `capped` (with `cap`), `temperature` (with `temperature` and
    `cap`), `weights` (with each member's `weight`) or `time_dependent` (with each member's `rate`)."""
    cap: int = 0
    """Upper limit for the size of a member in the sampling weights; 0 = no limit."""
    temperature: float = 1.0
    """Members are sampled in proportion to size ** (1 / temperature)."""
    mix: str = 'step'
    """`step` (one task per optimizer step, as in jiant) or `micro_batch` (one task per micro-batch; a step has
    `recipe.accumulation` of them)."""
    block: int = 0
    """Number of draws in a block; at the end of each block, every member's count is within one draw of its rate times
    the number of draws. 0 = 100."""
    joint: bool = False
    """The arm is not a separate phase: its members are mixed into the training of every target."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Zero-shot evaluation."""

    languages: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """Task -> evaluated languages; absent = all languages of the task."""
    split: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Task -> evaluated split; absent = `test` if its files are there with gold labels in every language, else
    `dev` if its files are, else `test`."""
    max_examples: int = 0
    """Number of rows per language, from the first row on; 0 = all. Tasks with gold pairs by id (`bucc2018`, `lareqa`,
    `mewslix`) are scored on all of their rows."""
    batch_tokens: int = 0
    """Number of tokens in a forward pass over all devices, padding included; 0 = by platform and number of devices
    (`data.batches.pass_tokens`)."""
    packing: bool = True
    """Pack several examples into one row."""
    retrieval_layer: int = -1
    """Index into the hidden states for retrieval; -1 = by depth: layer 14 of 24, as in jiant and XTREME; the last of
    12; the same share, 14/24, of any other depth, rounded; always the last with `pooling` `e5` or `labse`."""
    retrieval_layers: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Task -> its own `retrieval_layer`."""
    pooling: str = 'mean'
    """Sentence vectors for retrieval: `mean` (of all tokens, special tokens included, as in jiant and XTREME); `cls`
    (the first token); `e5` (as in multilingual-e5's model card: "query: " before the text, "passage: " before the
    candidates of a ranking task, then the mean, scaled to length 1); `labse` (as in LaBSE's model card: the pooler's
    output, scaled to length 1; the encoder needs a pooler). Cosines do not depend on the length."""
    max_length: int = 512
    """Largest number of tokens of a retrieval sentence (jiant and XTREME: 512)."""
    repeated_sentences: str = 'kept'
    """Mining (BUCC): how to treat sentences whose text occurs more than once on one side. `kept`: every row is mined
    separately. `expanded`: each text is mined once, and every pair of ids with the two texts is a candidate
    (jiant, tasks/lib/bucc2018.py). `dropped`: each text is mined once, and a pair with a repeated text is not a
    candidate (XTREME, third_party/utils_retrieve.py)."""
    qa_decoding: str = 'offsets'
    """How answers are decoded: `offsets` (the characters of the predicted tokens, scoring/spans.py) or `reference`
    (from white-space words, as in the scripts of jiant, XTREME and xTune, scoring/reference_spans.py)."""
    qa_unaligned: tuple[str, ...] = ()
    """Languages whose answers are the text of the predicted tokens, not aligned with the words; with `reference`
    only."""

    def layer_of(self, task: str) -> int:
        """Returns the configured layer of a retrieval task."""
        return self.retrieval_layers.get(task, self.retrieval_layer)

    def qa_decides(self) -> dict[str, object]:
        """Returns the fields that change how answers are decoded; {} for the default, so that digests of configs from
        before these fields stay the same."""
        if self.qa_decoding == 'offsets':
            return {}
        return {'qa_decoding': self.qa_decoding, 'qa_unaligned': sorted(self.qa_unaligned)}


@dataclasses.dataclass(frozen=True)
class MeshSpec:
    """The number of devices along each axis of the mesh. One axis may be -1: all remaining devices. If data, fsdp and
    model are all 0, the mesh is chosen for the plan's batches (docs/estimate.md), and evaluation shards only rows if
    the weights fit on every device. If one is given, a 0 means 1, or for `data` all remaining devices."""

    data: int = 0
    """Data parallelism: shards the rows of a batch."""
    fsdp: int = 0
    """Fully sharded data parallelism: shards the rows of a batch, the parameters and the optimizer's moments."""
    model: int = 0
    """Tensor parallelism: shards attention heads and feed-forward columns."""
    slices: int = 1
    """Number of TPU slices that a data-centre network joins; the axis `data` spans them. -1 = all slices."""


@dataclasses.dataclass(frozen=True)
class Config:
    """One plan of runs: every intermediate arm x every target x every seed."""

    name: str = 'run'
    """Name of the study."""
    title: str = ''
    """Title of its report."""
    preset: str = ''
    """Name of the published recipe that the config follows; written into result rows."""
    seeds: tuple[int, ...] = (1,)
    """Random seeds; every run of the plan is executed once per seed."""
    encoder: EncoderSpec = EncoderSpec()
    """The pretrained encoder."""
    intermediate: tuple[str, ...] = (NONE,)
    """Intermediate tasks, names of `arms`, or `none`. The encoder of an arm is trained once per seed and used for all
    targets."""
    targets: tuple[str, ...] = ()
    """Target tasks. Retrieval targets are evaluated without training."""
    arms: Mapping[str, Arm] = dataclasses.field(default_factory=dict)
    """Mixtures by name."""
    training: Mapping[str, Arm] = dataclasses.field(default_factory=dict)
    """Target -> its fine-tuning data, if this is not just its English train split (more languages, translated rows).
    Fields as in `arms.NAME`."""
    recipe: Recipe = Recipe()
    """The recipe of every phase."""
    recipes: Mapping[str, Recipe] = dataclasses.field(default_factory=dict)
    """Changes to `recipe` for one phase: the name of an arm, of an intermediate task, or of a target (its
    fine-tuning). Fields as in `recipe`."""
    evaluation: Evaluation = Evaluation()
    """Zero-shot evaluation."""
    mesh: MeshSpec = MeshSpec()
    """Number of devices along each axis of the mesh."""
    skip_bad_rows: bool = False
    """Skip rows that cannot be read, and count and list them; otherwise such a row is an error. Retrieval never skips
    rows."""
    keep_models: str = 'all'
    """Which trained models are kept: those of `all` runs, or only those of the `intermediate` phases. The weights of a
    target are then deleted once it is evaluated in every language."""
    data_root: str = ''
    """Folder of the data files; '' = the environment variable XLMR_DATA_ROOT."""
    tensorboard: bool = True
    """Also write the training logs as TensorBoard events."""

    def recipe_for(self, task: str) -> Recipe:
        """Returns the recipe of a phase: the entry of `recipes`, else `recipe`."""
        return self.recipes.get(task, self.recipe)
