"""Result rows: one per run, task, language and metric, each carrying what a reader must know of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xlmr_flax.config import Config
from xlmr_flax.data.sources import BadRow
from xlmr_flax.data.split import Split
from xlmr_flax.eval.retrieval import retrieval_layer
from xlmr_flax.experiment.plan.runs import Run
from xlmr_flax.experiment.workdir.bad_rows import count_among
from xlmr_flax.kinds import kind_of
from xlmr_flax.models.source import EncoderSource
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
    bad_rows: Sequence[BadRow] | None = None,
) -> list[dict[str, Any]]:
    """The rows of one evaluation, the task's major metric first. Values are percentages.

    source: where the scored rows came from, 'file', 'tfds' or 'world', several joined by '+'; tfds: builder and version
    of those from TFDS. left_out: how many of the scored split's rows could not be read, where any (see bad_rows.py).
    note: what must be known of an encoder wherever its retrieval scores are shown. qa_decoding: of question answering,
    that of config.Evaluation.
    """
    rows = Split(task, language, split, config.data_root)
    stood_in = stand_ins(run, rows)
    left_out = count_among(bad_rows, rows.files()) if bad_rows else 0
    note = {'note': retrieval_note(config, source, task)} if task.embeds else {}
    if 'qa_decoding' in kind_of(task).settings:
        note = {'qa_decoding': config.evaluation.qa_decoding}
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
            **source_facts(rows),
            **chance(task, n, metric),
            **note,
            **({'stand_in': stood_in} if stood_in else {}),
            **({'left_out': left_out} if left_out else {}),
        }
        for metric in sorted(metrics, key=lambda m: (m not in task.metrics, m))
    ]


def retrieval_note(config: Config, source: EncoderSource, task: Task) -> str:
    """What stands with every retrieval score: layer, pooling, and what the encoder is."""
    layer = retrieval_layer(source.config, config.evaluation.layer_of(task.name))
    how = f'Layer {layer} of {source.config.num_layers}, {config.evaluation.pooling} pooling.'
    if task.mines and config.evaluation.repeated_sentences != 'kept':
        how += f' Repeated sentences are {config.evaluation.repeated_sentences}.'
    return f'{how} {source.note}'.strip()


def stand_ins(run: Run, scored: Split) -> str:
    """What stands in for the real data in a result, of the rows trained on and of those scored; '' = nothing does."""
    trained = [dataset for each in sorted(run.lineage, key=lambda r: bool(r.warms)) for dataset in each.datasets]
    found = []
    for rows in [*(dataset.rows for dataset in trained), scored]:
        if text := rows.stand_in():
            found.append(f'{rows.task.name} {rows.name}: {text}')
    found += [f'{each.task.name} train: its {each.split} rows' for each in trained if each.spec.split]
    return '; '.join(dict.fromkeys(found))


def source_facts(rows: Split) -> dict[str, str]:
    """{'source'} of a split's rows, and {'tfds'} where some are from TFDS."""
    found = rows.origin()
    return {'source': found.source} | ({'tfds': ', '.join(found.builders)} if found.builders else {})


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
    options = n if task.embeds else len(task.labels)
    return {'chance': 100.0 / options} if options else {}
