"""One training run of a plan: data, starting weights, training, the saved model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from xlmr_flax.config import Config, Recipe
from xlmr_flax.data.cache import encode_cached
from xlmr_flax.data.encode import Encoded
from xlmr_flax.data.sources import read_split
from xlmr_flax.data.tokenize import Tokenizer
from xlmr_flax.eval import files
from xlmr_flax.eval.score import score_files
from xlmr_flax.eval.zero_shot import Evaluator
from xlmr_flax.experiment.plan import Run, has_dev, task_of
from xlmr_flax.experiment.workdir import Workdir
from xlmr_flax.models.model import HeadSpec, Model, Params, head_key
from xlmr_flax.models.source import EncoderSource, open_source, save_checkpoint
from xlmr_flax.report.progress import Line
from xlmr_flax.tasks.base import Example, Task
from xlmr_flax.train.loop import Phase, Trained, total_steps, train
from xlmr_flax.train.vocabulary import ActiveRows, decay_factor


@dataclass(frozen=True)
class Setting:
    """What all runs of a plan share."""

    config: Config
    source: EncoderSource
    model: Model
    tokenizer: Tokenizer
    mesh: Mesh
    workdir: Workdir
    log: Callable[[dict[str, Any]], None]


def make_model(config: Config, source: EncoderSource) -> Model:
    """The model of a plan: the source's shape with the config's dropout and dtype."""
    spec, shape = config.encoder, source.config
    rates = {'dropout': spec.dropout, 'attention_dropout': spec.attention_dropout}
    shape = dataclasses.replace(shape, **{k: v for k, v in rates.items() if v >= 0})
    return Model(shape, spec.head, spec.dtype, spec.remat, spec.unroll)


def start_params(setting: Setting, run: Run) -> Params:
    """Encoder and pooler to start a run from: the parent's, else the source's; a pooler the source lacks is fresh."""
    if run.parent:
        params = open_source(f'ckpt:{parent_dir(setting, run)}').load()
    else:
        params = setting.source.load()
    key = jax.random.key(run.seed)
    pooler = params.get('pooler') or jax.device_get(setting.model.init_pooler(key))
    return {'encoder': params['encoder'], 'pooler': pooler, 'heads': {}}


def parent_dir(setting: Setting, run: Run) -> str:
    """The run directory of a run's parent, found by its id."""
    matches = sorted((setting.workdir.path / 'runs').glob(f'*-{run.parent[:8]}'))
    return str(matches[0]) if matches else f'{setting.workdir.path}/runs/(of {run.parent})'


def head_of(run: Run, task: Task) -> tuple[str, HeadSpec]:
    """(name, spec) of the head that a run trains."""
    return run.target or run.task, head_spec(task)


def head_spec(task: Task) -> HeadSpec:
    """The head that a task needs."""
    return HeadSpec(task.kind, len(task.labels) if task.kind in ('pair', 'tag') else 1)


def initial_params(setting: Setting, run: Run) -> Params:
    """What a run's training starts from: `start_params`, and the fresh head that the run's seed and name decide."""
    params = start_params(setting, run)
    name, head = head_of(run, task_of(setting.config, run.task))
    key = head_key(jax.random.key(run.seed), name)
    return {**params, 'heads': {name: jax.device_get(setting.model.init_head(key, head))}}


def trained_facts(setting: Setting, run: Run) -> dict[str, Any] | None:
    """{'run', 'step', 'metric'} of a run that has finished training, else None."""
    path = setting.workdir.run_dir(run) / 'model' / 'model.json'
    return json.loads(path.read_text(encoding='utf-8'))['trained'] if path.is_file() else None


def _examples(setting: Setting, task: Task, split: str, limit: int) -> list[Example]:
    return read_split(task, 'en', split, setting.config.data_root, limit or None)


def _encoded(setting: Setting, run: Run, task: Task, split: str, limit: int) -> Encoded:
    assert run.recipe is not None
    return encode_cached(task, _examples(setting, task, split, limit), setting.tokenizer, run.recipe.max_length)


def _dev_metric(
    setting: Setting, run: Run, task: Task, model: Model, active: ActiveRows
) -> Callable[[Params], float] | None:
    """params -> the task's major metric on its English dev rows, through the official prediction file; None without
    dev.
    """
    recipe = run.recipe
    assert recipe is not None
    if not has_dev(setting.config, task):
        return None
    examples = _examples(setting, task, 'dev', recipe.eval_examples)
    path = setting.workdir.run_dir(run) / f'dev-predictions.{files.SUFFIXES[task.kind]}'

    def evaluate(params: Params) -> float:
        evaluator = Evaluator(
            model,
            params,
            setting.tokenizer,
            setting.mesh,
            setting.config.evaluation,
            setting.config.data_root,
            recipe.max_length,
            head_of(run, task),
            lengths=recipe.lengths,
            remap=active.remap,
        )
        evaluator.predict(task, examples, path)
        return score_files(task, 'en', path, examples)[task.metrics[0]]

    return evaluate


def train_run(setting: Setting, run: Run) -> None:
    """Trains a run from its parent's or the source's weights and saves its model directory."""
    recipe, task = run.recipe, task_of(setting.config, run.task)
    assert recipe is not None
    setting.tokenizer.check_length(recipe.max_length, setting.model.config.max_length)
    data = _encoded(setting, run, task, 'train', recipe.max_train)
    dev = _encoded(setting, run, task, 'dev', recipe.eval_examples) if has_dev(setting.config, task) else None
    params = initial_params(setting, run)
    name, head = head_of(run, task)
    full_word = np.asarray(params['encoder']['embeddings']['word'])
    active = ActiveRows.of([data.tokens] + ([dev.tokens] if dev else []), len(full_word))
    model = _cut_model(setting.model, len(active.rows))
    line = Line(f'train {run.name}')

    def log(record: dict[str, Any]) -> None:
        setting.log(
            {
                'run': run.name,
                'intermediate': run.intermediate,
                'target': run.target,
                'task': run.task,
                'seed': run.seed,
                **record,
            }
        )

    directory = setting.workdir.run_dir(run)
    phase = Phase(
        task=run.task,
        model=model,
        head_name=name,
        head=head,
        recipe=recipe,
        data=data.with_tokens(active.remap(data.tokens)),
        seed=run.seed,
        pad=setting.tokenizer.pad,
        mesh=setting.mesh,
        directory=directory / 'checkpoints',
        run_hash=run.id,
        evaluate=_dev_metric(setting, run, task, model, active),
        log=log,
        progress=line,
        restarted=lambda step: setting.workdir.forget_metrics(run.name, step),
    )
    trained = train(phase, active.cut(params))
    _save(setting, run, trained, active, full_word, recipe, len(data), task)
    phase.forget_checkpoints()
    line.close(f'{trained.step} steps, dev {trained.metric:.2f}')


def _cut_model(model: Model, rows: int) -> Model:
    return dataclasses.replace(model, config=dataclasses.replace(model.config, vocab_size=rows))


def _save(
    setting: Setting,
    run: Run,
    trained: Trained,
    active: ActiveRows,
    full_word: np.ndarray,
    recipe: Recipe,
    n: int,
    task: Task,
) -> None:
    metric = None if np.isnan(trained.metric) else trained.metric
    factor = decay_factor(recipe.optimizer, total_steps(recipe, n), trained.step)
    params = active.restore(jax.device_get(trained.params), full_word, factor)
    name, head = head_of(run, task)
    save_checkpoint(
        setting.workdir.run_dir(run) / 'model',
        setting.model.config,
        params,
        setting.tokenizer.path,
        style=setting.model.style,
        heads={name: head},
        labels={name: task.labels},
        note=setting.source.note,
        max_length=recipe.max_length,
        extra={'trained': {'run': run.id, 'step': trained.step, 'metric': metric}},
    )
