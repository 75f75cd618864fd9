"""One training run of a plan: data, starting weights, training, the saved model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from xlmr_flax.config import Recipe
from xlmr_flax.data.encode import Encoded
from xlmr_flax.data.masking import Masking
from xlmr_flax.data.mixture import stream_seed
from xlmr_flax.data.packing import Packing
from xlmr_flax.encoders.config import ModelError
from xlmr_flax.encoders.tensors import read_json
from xlmr_flax.experiment.dev_selection import Selection
from xlmr_flax.experiment.out_of_memory import evaluating
from xlmr_flax.experiment.plan.arms import (
    Dataset,
    heads_of,
    mixture_of,
    phase_steps,
    training_examples,
)
from xlmr_flax.experiment.plan.cost import CACHED, SplitSizes
from xlmr_flax.experiment.plan.defaults import remedy
from xlmr_flax.experiment.plan.draws import expected_draws
from xlmr_flax.experiment.plan.fields import phase_field
from xlmr_flax.experiment.plan.load import Load
from xlmr_flax.experiment.plan.load_estimates import load_of
from xlmr_flax.experiment.plan.runs import Run
from xlmr_flax.experiment.setting import Setting
from xlmr_flax.kinds import HeadSpec, encode_cached, head_spec, kind_of
from xlmr_flax.models.model import Model, Params, check_pooling, head_key
from xlmr_flax.models.source import MODEL_FILE, open_source, save_checkpoint
from xlmr_flax.parallel.distributed import on_leader
from xlmr_flax.parallel.mesh import batch_devices, fetch
from xlmr_flax.train.checkpoint import changed_settings
from xlmr_flax.train.loop import train
from xlmr_flax.train.optimizer import Optimizer, method_of
from xlmr_flax.train.phase import Phase, Trained
from xlmr_flax.train.streams import Stream, TrainingData
from xlmr_flax.train.training_checkpoints import newest_decides
from xlmr_flax.train.vocabulary import ActiveRows
from xlmr_flax.util.console import Line, say
from xlmr_flax.util.stopping import check, deferred, requests


def start_params(setting: Setting, run: Run) -> Params:
    """Loads the encoder and the pooler from which a run starts: those of its parent run, else those of the source. If
    the source has no pooler, a new one is initialised.

    Of the heads that the run trains, loads the source's language-model head and the head of a warm-up phase, if there
    is one. Raises ModelError for weights that cannot be read, and for a pooling of sentence vectors that needs the
    pooler of a source without one.
    """
    source = open_source(f'ckpt:{parent_dir(setting, run)}') if run.parent else setting.source
    trained = heads_of(run.datasets).keys()
    pretrained = {name for name, head in source.heads.items() if kind_of(head).pretraining}
    kept = {run.target} if run.keeps_head else pretrained
    params = source.load(kept & trained)
    if run.recipe is None:
        check_pooling(params, setting.config.evaluation.pooling, source.name)
    pooler = params.get('pooler') or jax.device_get(setting.model.init_pooler(jax.random.key(run.seed)))
    return {'encoder': params['encoder'], 'pooler': pooler, 'heads': params.get('heads', {})}


def parent_dir(setting: Setting, run: Run) -> str:
    """The run directory of a run's parent, found by its id."""
    matches = sorted((setting.workdir.path / 'runs').glob(f'*-{run.parent[:8]}'))
    matches.sort(key=lambda path: not (path / 'model').is_dir())  # plans may give one run two arm names
    return str(matches[0]) if matches else f'{setting.workdir.path}/runs/(of {run.parent})'


def head_of(run: Run) -> tuple[str, HeadSpec]:
    """(name, spec) of the head that the target of a run is scored with."""
    return run.target, heads_of(run.datasets)[run.target]


def initial_params(setting: Setting, run: Run) -> Params:
    """What a run's training starts from: `start_params`, and fresh heads that the run's seed and their names decide."""
    params = start_params(setting, run)
    heads = {}
    for name, spec in heads_of(run.datasets).items():
        key = head_key(jax.random.key(run.seed), name)
        heads[name] = params['heads'].get(name) or jax.device_get(setting.model.init_head(key, spec))
    return {**params, 'heads': heads}


def trained_facts(setting: Setting, run: Run) -> dict[str, Any] | None:
    """{'run', 'step', 'metric' and, if its dev rows could tell, 'collapsed'} of a run that has finished training, else
    None. Raises ModelError."""
    path = setting.workdir.run_dir(run) / 'model' / MODEL_FILE
    if not path.is_file():
        return None
    facts = read_json(path).get('trained')
    if not isinstance(facts, dict) or not isinstance(facts.get('step'), int):
        raise ModelError(f"{path}: no field 'trained' with the step; this is not the model of a run")
    return facts


class Training:
    """The data of one run, read and encoded, and what depends on it: steps, optimizer, mixture, dev selection."""

    def __init__(self, setting: Setting, run: Run):
        assert run.recipe is not None and run.arm is not None
        self.setting, self.run, self.recipe, self.arm = setting, run, run.recipe, run.arm
        self.datasets = run.datasets
        self.data = [self._encoded(dataset) for dataset in self.datasets]
        check()
        self.loads = self._loads()
        self.recipe = self._merged(run.recipe)
        sizes = [len(data) for data in self.data]
        self.steps = phase_steps(self.arm, self.recipe, self.datasets, sizes)
        self.optimizer = Optimizer(self.recipe.optimizer, self.steps)
        parts = self.recipe.accumulation
        where = phase_field(setting.config, run.intermediate, run.target or run.warms)
        self.mixture = mixture_of(self.arm, self.datasets, sizes, run.seed, where, self.steps, parts)
        self.selection = Selection.of(setting.tokenizer, self.datasets, self.recipe, setting.bad_rows)

    def _encoded(self, dataset: Dataset) -> Encoded:
        setting = self.setting
        examples = training_examples(dataset, self.run.seed, setting.bad_rows)
        return encode_cached(dataset.task, examples, setting.tokenizer, dataset.max_length)

    def _loads(self) -> list[Load]:
        """The batches of each dataset (experiment/plan/load.py), from the lengths of all its rows."""

        def sizes(data: Encoded) -> SplitSizes:
            return SplitSizes(len(data), len(data), np.asarray(data.tokens.lengths), data.group, CACHED)

        both = zip(self.datasets, self.data, strict=True)
        return [load_of(dataset, sizes(data), self.recipe, self.arm.mix, 1.0) for dataset, data in both]

    def _merged(self, recipe: Recipe) -> Recipe:
        """The recipe with the number of micro-batches that are computed here (experiment/plan/defaults.py)."""
        parts = self.setting.defaults.parts(self.setting.model.config, recipe, self.loads)
        return dataclasses.replace(recipe, accumulation=parts)

    def remarks(self) -> list[str]:
        """Messages for the user: merged micro-batches, or why they are not merged; datasets with mostly padding."""
        defaults, asked = self.setting.defaults, self.run.recipe
        assert asked is not None
        lines = [remedy(load, defaults) for load in self.loads]
        if self.recipe.accumulation < asked.accumulation:
            merged = f'micro-batches a step: {self.recipe.accumulation} instead of {asked.accumulation}'
            lines.append(f'{merged}, since the activations fit into memory')
        elif asked.accumulation > 1 and defaults.shards > 1 and self.loads[0].apart:
            why = 'gradients are clipped after each' if self.arm.mix == 'step' else 'each has its own task'
            lines.append(f'{asked.accumulation} micro-batches a step stay apart: {why}')
        return [line for line in lines if line]

    def active(self, rows: int) -> ActiveRows:
        """The rows of the word table that are trained. All of them if a language model's head has an output for each,
        or if the optimizer has no closed form for the other rows."""
        if any(dataset.task.is_text for dataset in self.datasets) or method_of(self.recipe.optimizer).untouched is None:
            return ActiveRows.all(rows)
        return ActiveRows.of([*(data.tokens for data in self.data), *self.selection.tokens()], rows)

    def training_data(self, active: ActiveRows) -> TrainingData:
        """Makes the streams and their mixture. Token ids become rows of the cut word table."""
        masking = Masking.of(self.setting.tokenizer) if any(d.task.is_text for d in self.datasets) else None
        streams = tuple(
            Stream(
                dataset.name,
                dataset.head,
                head_spec(dataset.task),
                data.with_tokens(active.remap(data.tokens)),
                dataset.lengths,
                stream_seed(self.run.seed, dataset.name, len(self.datasets)),
                masking if dataset.task.is_text else None,
                self.packing(dataset, data),
            )
            for dataset, data in zip(self.datasets, self.data, strict=True)
        )
        return TrainingData(streams, self.mixture, self.arm.mix)

    def packing(self, dataset: Dataset, data: Encoded) -> Packing | None:
        """How a dataset's batches are packed; None = padded."""
        recipe = self.recipe
        if not recipe.packing:
            return None
        parts = 1 if self.arm.mix == 'micro_batch' else recipe.accumulation
        multiple, apart = batch_devices(self.setting.mesh), recipe.optimizer.clip_per == 'micro_batch'
        sizes = data.tokens.lengths.reshape(-1, data.group)
        return Packing.of(sizes, dataset.lengths, multiple * (1 if apart else parts), parts if apart else 1)

    def mixture_table(self) -> list[str]:
        """Formats the mixture as lines of a table: rows, cap, rate, expected draws and passes of each dataset."""
        lines = [
            f'{self.arm.sampler} mixture, {len(self.datasets)} datasets, {self.steps} steps of {self.recipe.batch_size}'
        ]
        lines.append(f'  {"dataset":28} {"n":>8} {"cap":>8} {"rate":>7} {"draws":>7} {"passes":>7}')
        sizes = [len(data) for data in self.data]
        for each in expected_draws(self.arm, self.recipe, self.datasets, sizes, self.mixture, self.steps):
            cap = f'{each.cap}' if each.cap else '-'
            lines.append(
                f'  {each.dataset.name:28} {each.rows:8} {cap:>8} {each.rate:7.4f} {each.draws:7} {each.passes:7.2f}'
            )
        return lines


def train_run(setting: Setting, run: Run) -> None:
    """Trains a run from its parent's or the source's weights and saves its model directory."""
    training = Training(setting, run)
    recipe = training.recipe
    # The whole word table is large. Nothing keeps it during the training; `_save` reads it again.
    active, params = _cut(training, initial_params(setting, run))
    model = _cut_model(setting.model, active)
    model = dataclasses.replace(model, unroll=setting.defaults.unroll_of(training.steps))
    for text in training.remarks():
        say(text)
    data = training.training_data(active)
    if len(data.streams) > 1:
        for text in training.mixture_table():
            say(text)
    if not (directory := setting.workdir.run_dir(run) / 'checkpoints').exists():
        for text in unused_checkpoints(setting, run):
            say(text)
    line = Line(f'train {run.name}')
    eval_model = dataclasses.replace(model, unroll=setting.model.unroll)
    facts = {'run': run.name, 'intermediate': run.intermediate, 'target': run.target, 'task': run.task}

    def evaluate(params: Params) -> Mapping[str, float]:
        with evaluating(run.name, eval_model, params, setting.eval_mesh, setting.config.evaluation, recipe.max_length):
            return training.selection.evaluate(setting, eval_model, params, run, active.remap)

    phase = Phase(
        task=run.task,
        model=model,
        recipe=recipe,
        data=data,
        steps=training.steps,
        seed=run.seed,
        pad=setting.tokenizer.pad,
        mesh=setting.mesh,
        directory=directory,
        run_hash=run.id,
        decides=run.decides,
        evaluate=evaluate if training.selection.sets else None,
        log=lambda record: setting.log({**facts, 'seed': run.seed, **record}),
        progress=line,
        on_start=lambda step, evaluated: setting.workdir.forget_metrics(run.name, step, evaluated),
        write_log=setting.workdir.write_log,
        say=say,
        trace=setting.profiler.of(run.name) if setting.profiler else None,
    )
    # A stop request after the last step waits until the model is saved: there may be no checkpoint to resume from.
    check()
    with requests(), deferred():
        trained = train(phase, params)
        if trained.is_earlier:
            evaluate(trained.params)  # so that the dev predictions in the run's folder are those of the kept weights
        kept = fetch(trained.params, setting.mesh)
        on_leader('model', lambda: _save(setting, run, trained, kept, active, training))
        phase.forget_checkpoints()
    line.close(f'{trained.step} steps, dev {trained.metric:.2f}, {trained.programs} programs compiled')


def unused_checkpoints(setting: Setting, run: Run) -> list[str]:
    """Lists checkpoints of unfinished trainings of the same arm, target and seed under another configuration, each with
    the settings that differ, as messages. A run resumes only from its own checkpoints."""
    messages = []
    for directory in sorted((setting.workdir.path / 'runs').glob(f'{run.name.removesuffix(run.id[:8])}*/checkpoints')):
        for step, decides in newest_decides(directory).items():
            different = '; '.join(changed_settings(decides, run.decides)[:8])
            messages.append(f'{directory}: step {step} of another configuration is not used ({different})')
    return messages


def _cut(training: Training, params: Params) -> tuple[ActiveRows, Params]:
    active = training.active(len(params['encoder']['embeddings']['word']))
    return active, active.cut(params)


def _cut_model(model: Model, active: ActiveRows) -> Model:
    changed = model.config.renumbered(active.number)
    return dataclasses.replace(model, config=dataclasses.replace(model.config, vocab_size=len(active.rows), **changed))


def _save(
    setting: Setting,
    run: Run,
    trained: Trained,
    kept: Params,
    active: ActiveRows,
    training: Training,
) -> None:
    metric = None if np.isnan(trained.metric) else trained.metric
    factor = training.optimizer.untouched_factor(trained.step, setting.model.config.num_layers)
    started = start_params(setting, run)
    params = active.restore(kept, started['encoder']['embeddings']['word'], 1.0 if factor is None else factor)
    collapsed = training.selection.collapsed(setting, run)
    if collapsed:
        say(f'{run.name}  collapsed: {collapsed}')
    save_model(setting, run, training, params, trained.step, metric, collapsed)


def save_model(
    setting: Setting,
    run: Run,
    training: Training,
    params: Params,
    step: int,
    metric: float | None,
    collapsed: str | None = None,
) -> None:
    """Saves the trained parameters as the model directory of a run, with the heads that it trained. collapsed: from
    `Selection.collapsed`."""
    tested = {} if collapsed is None else {'collapsed': collapsed}
    save_checkpoint(
        setting.workdir.run_dir(run) / 'model',
        setting.model.config,
        params,
        setting.tokenizer.path,
        style=setting.model.style,
        heads=heads_of(training.datasets),
        labels={dataset.head: dataset.task.labels for dataset in training.datasets},
        note=setting.source.note,
        max_length=max(dataset.max_length for dataset in training.datasets),
        extra={'trained': {'run': run.id, 'step': step, 'metric': metric, **tested}},
    )
