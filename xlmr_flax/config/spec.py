"""The fields of a configuration and their defaults, as frozen dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from xlmr_flax.util.errors import UserError


class ConfigError(UserError, ValueError):
    """A config key or value that cannot be used; the message names the field and the closest known one."""


@dataclasses.dataclass(frozen=True)
class EncoderSpec:
    """The pretrained encoder. source: embedded, hf:NAME-OR-DIR, ckpt:DIR or random:SIZE. head: 'jiant' (the authors':
    pooler and a two-layer head) or 'hf' (transformers' classes; can be exported). dtype: compute, float32 or bfloat16
    (parameters are float32 always). dropout rates below 0 mean: as the checkpoint says. unroll: layers per scan step,
    0 = all. attention: 'auto' (by platform), or 'xla_cpu', 'xla', 'cudnn' or 'tpu' (models/attention/choose.py).
    remat: rematerialisation, what the backward pass of a layer computes again: 'none', 'dots' (all but matrix products
    and attention), 'full' (the whole layer, from its input) or 'auto' (dots).
    """

    source: str = 'embedded'
    head: str = 'jiant'
    dtype: str = 'float32'
    dropout: float = -1.0
    attention_dropout: float = -1.0
    remat: str = 'auto'
    unroll: int = 1
    attention: str = 'auto'


@dataclasses.dataclass(frozen=True)
class OptimizerSpec:
    """AdamW with decay on everything but biases and layer norms. The defaults are jiant's (simple/runscript.py).

    warmup: share of all steps (jiant: 0.1); warmup_steps >= 0 overrides it. schedule: 'linear' (to 0) or 'constant'.
    clip_norm: global norm, 0 = off. clip_per: 'step' (once per optimizer step) or 'micro_batch' (the authors': on the
    running sum after every micro-batch, jiant/proj/main/runner.py).
    """

    learning_rate: float = 1e-5
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    warmup: float = 0.1
    warmup_steps: int = -1
    schedule: str = 'linear'
    clip_norm: float = 1.0
    clip_per: str = 'step'


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one phase trains. steps > 0 overrides epochs. batch_size: examples per optimizer step, over all devices and
    micro-batches; accumulation: micro-batches per step. max_length: tokens, special ones included. lengths: the row
    lengths that may be compiled (the shortest that holds a batch is taken); () = multiples chosen up to max_length.
    packing: several examples share a row, as long as the longest example needs; the loss is the same, dropout masks
    differ. eval_every: steps between dev evaluations (0 = only at the end); eval_examples: number of dev rows, from the
    first (jiant: 500; 0 = all). dev_score: what dev rows are scored by, a task's 'first' metric or the 'mean' of F1
    and exact match (questions) or of accuracy and F1 (QQP), as jiant. keep: 'best' by dev score or 'last'. patience:
    evaluations without improvement before stopping (0 = never). checkpoint_every: steps between saved states (0 = only
    when stopped); keep_checkpoints: how many of the latest are kept (a damaged one is skipped). max_train: number of
    training rows, from the first (0 = all).
    """

    epochs: float = 3.0
    steps: int = 0
    batch_size: int = 32
    accumulation: int = 1
    max_length: int = 128
    lengths: tuple[int, ...] = ()
    packing: bool = True
    eval_every: int = 0
    eval_examples: int = 500
    dev_score: str = 'first'
    keep: str = 'last'
    patience: int = 0
    checkpoint_every: int = 0
    keep_checkpoints: int = 1
    log_every: int = 10
    max_train: int = 0
    optimizer: OptimizerSpec = OptimizerSpec()


@dataclasses.dataclass(frozen=True)
class Member:
    """One dataset of an `Arm`. task: '' = the task that the member is named after. languages: of its training rows;
    'en' is the task's train split, another language its translated one (or text in that language). head: members that
    name one head share it ('' = one of the task's own). rate: for sampler 'time_dependent', an expression in the step
    t. max_length, lengths, max_train: 0 or () = the recipe's. fraction: share of the training rows, a random subset by
    the seed. shuffle_labels: labels are permuted among the rows (a control). select: weight of its dev metric in the
    choice of the best checkpoint. alpha: languages are drawn by size ** alpha. split: trained on instead of the
    training rows, where those are not at hand ('dev'; result rows say so, and it selects nothing by its own dev rows).
    """

    task: str = ''
    languages: tuple[str, ...] = ('en',)
    head: str = ''
    weight: float = 1.0
    rate: str = '1'
    max_length: int = 0
    lengths: tuple[int, ...] = ()
    max_train: int = 0
    fraction: float = 1.0
    shuffle_labels: bool = False
    select: float = 1.0
    alpha: float = 1.0
    split: str = ''


@dataclasses.dataclass(frozen=True)
class Arm:
    """A mixture of datasets that trains one encoder. sampler: 'uniform', 'proportional', 'capped' (cap), 'temperature'
    (temperature, cap), 'weights' (the members' weight) or 'time_dependent' (the members' rate): jiant's
    (proj/main/components/task_sampler.py). mix: 'step' (one task per optimizer step, jiant's) or 'micro_batch' (one
    per micro-batch, of which a step has recipe.accumulation). block: draws after which the counts are exact (0 = 100).
    joint: no phase of its own; its members are mixed into the training of every target.
    """

    tasks: Mapping[str, Member] = dataclasses.field(default_factory=dict)
    sampler: str = 'proportional'
    cap: int = 0
    temperature: float = 1.0
    mix: str = 'step'
    block: int = 0
    joint: bool = False


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Zero-shot evaluation. languages: task name -> languages (absent = all the task has). split: task -> split
    (absent = 'test'). max_examples: first so many rows per language (0 = all). batch_tokens: of a forward pass, padding
    included; 0 = data.batches.pass_tokens. packing: several examples share a row. retrieval_layer: hidden_states index,
    -1 = by convention (layer 14 of 24, as jiant and XTREME, else the last); retrieval_layers: task name -> its own.
    pooling: 'mean' (special tokens included, as both) or 'cls'. max_length: of retrieval sentences (both: 512).
    repeated_sentences: of mining (BUCC), what becomes of sentences whose text is there more than once on one side:
    'kept' (every row is mined by itself), 'expanded' (each text is mined once, and every pair of ids with the two texts
    is a candidate: jiant, tasks/lib/bucc2018.py) or 'dropped' (each text is mined once, and a pair with a repeated text
    is no candidate: XTREME, third_party/utils_retrieve.py).
    qa_decoding: answers as 'offsets' (the characters of the predicted tokens, eval/spans.py) or as 'reference' (cut out
    of white-space words as the scripts of jiant, XTREME and xTune do, eval/reference_spans.py). qa_unaligned: with
    'reference', the languages whose answers are what the tokens read as, without a search in the words.
    """

    languages: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    split: Mapping[str, str] = dataclasses.field(default_factory=dict)
    max_examples: int = 0
    batch_tokens: int = 0
    packing: bool = True
    retrieval_layer: int = -1
    retrieval_layers: Mapping[str, int] = dataclasses.field(default_factory=dict)
    pooling: str = 'mean'
    max_length: int = 512
    repeated_sentences: str = 'kept'
    qa_decoding: str = 'offsets'
    qa_unaligned: tuple[str, ...] = ()

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
    """Devices along each axis; -1 once = all that are left. slices: TPU slices joined by a data-centre network, which
    data then spans (-1 = as many as there are)."""

    data: int = -1
    fsdp: int = 1
    model: int = 1
    slices: int = 1


@dataclasses.dataclass(frozen=True)
class Config:
    """One plan: every intermediate arm x every target x every seed.

    intermediate: 'none', task names or names of `arms`; an arm's encoder is trained once per seed and used by all
    targets. targets: task names; retrieval targets are evaluated without training. arms: mixtures by name. training:
    target -> what it is fine-tuned on where that is not its English train split alone (further languages, translated
    rows). recipe: for every phase; recipes: overrides by name (an arm's or an intermediate task's, or a target's for
    its fine-tuning). skip_bad_rows: rows that cannot be read are left out, counted and listed. data_root: '' = the
    environment's XLMR_DATA_ROOT.
    """

    name: str = 'run'
    title: str = ''
    preset: str = ''
    seeds: tuple[int, ...] = (1,)
    encoder: EncoderSpec = EncoderSpec()
    intermediate: tuple[str, ...] = ('none',)
    targets: tuple[str, ...] = ()
    arms: Mapping[str, Arm] = dataclasses.field(default_factory=dict)
    training: Mapping[str, Arm] = dataclasses.field(default_factory=dict)
    recipe: Recipe = Recipe()
    recipes: Mapping[str, Recipe] = dataclasses.field(default_factory=dict)
    evaluation: Evaluation = Evaluation()
    mesh: MeshSpec = MeshSpec()
    skip_bad_rows: bool = False
    keep_models: str = 'all'
    data_root: str = ''
    tensorboard: bool = True

    def recipe_for(self, task: str) -> Recipe:
        """The recipe of a task's phase: its own override, else the plan's."""
        return self.recipes.get(task, self.recipe)
