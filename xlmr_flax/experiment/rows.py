"""Result rows: one per run, task, language and metric, each carrying what a reader must know of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xlmr_flax.config import Config
from xlmr_flax.data.sources import stand_in
from xlmr_flax.eval.retrieval import retrieval_layer
from xlmr_flax.experiment.plan import NONE, Run
from xlmr_flax.models.source import EncoderSource
from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import Task
from xlmr_flax.tasks.languages import get_language


def result_rows(
    config: Config,
    source: EncoderSource,
    run: Run,
    task: Task,
    language: str,
    split: str,
    metrics: Mapping[str, float],
    n: int,
    step: int,
    command: str,
) -> list[dict[str, Any]]:
    """The rows of one evaluation, the task's major metric first. Values are percentages. `note`: what must be known
    of an encoder wherever its retrieval scores are shown."""
    stood_in = stand_ins(config, run, task, language, split)
    note = {'note': retrieval_note(config, source, task)} if task.kind == 'retrieval' else {}
    return [
        {
            'encoder': source.name,
            'intermediate': run.intermediate,
            'target': run.target,
            'language': language,
            'split': split,
            'metric': metric,
            'value': metrics[metric],
            'n': n,
            'seed': run.seed,
            'step': step,
            'run': run.id,
            'preset': config.preset,
            'command': command,
            **language_facts(language),
            **chance(task, n, metric),
            **note,
            **({'stand_in': stood_in} if stood_in else {}),
        }
        for metric in sorted(metrics, key=lambda m: (m not in task.metrics, m))
    ]


def retrieval_note(config: Config, source: EncoderSource, task: Task) -> str:
    """What stands with every retrieval score: layer, pooling, and what the encoder is."""
    layer = retrieval_layer(source.config, config.evaluation.layer_of(task.name))
    how = f'Layer {layer} of {source.config.num_layers}, {config.evaluation.pooling} pooling.'
    return f'{how} {source.note}'.strip()


def stand_ins(config: Config, run: Run, task: Task, language: str, split: str) -> str:
    """What stands in for the real data in a result, of the rows trained on and of those scored; '' = nothing does."""
    found = []
    for name in dict.fromkeys([run.intermediate, run.task]):
        if name not in ('', NONE):
            text = stand_in(get_task(name), 'en', 'train', config.data_root)
            found += [f'{name} train: {text}'] if text else []
    text = stand_in(task, language, split, config.data_root)
    return '; '.join(found + ([f'{task.name} {split}: {text}'] if text else []))


def language_facts(code: str) -> dict[str, Any]:
    """The language's columns of a result row."""
    language = get_language(code)
    return {
        'language_name': language.name,
        'script': language.script,
        'family': language.family,
        'resource_level': language.resource_level,
        'cc100_gib': language.cc100_gib,
        'english': language.code == 'en',
    }


def chance(task: Task, n: int, metric: str) -> dict[str, float]:
    """{'chance': percent} where guessing has a known rate: accuracy over classes or over a retrieval pool."""
    if not metric.startswith('accuracy'):
        return {}
    options = n if task.kind == 'retrieval' else len(task.labels)
    return {'chance': 100.0 / options} if options else {}
