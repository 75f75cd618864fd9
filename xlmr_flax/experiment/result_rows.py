"""Makes result rows: one per run, task, language and metric, with all the facts that a reader of the score needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xlmr_flax.config import Config
from xlmr_flax.data.sources import BadRow
from xlmr_flax.data.split import Split
from xlmr_flax.eval.retrieval import layer_note
from xlmr_flax.experiment.plan.runs import Run
from xlmr_flax.experiment.workdir.bad_rows import count_among
from xlmr_flax.kinds import kind_of
from xlmr_flax.models.pretraining import has_read
from xlmr_flax.models.source import EncoderSource
from xlmr_flax.tasks.base import Task
from xlmr_flax.tasks.languages import get_language


def result_rows(
    config: Config,
    source: EncoderSource,
    run: Run,
    scored: Split,
    *,
    metrics: Mapping[str, float],
    n: int,
    step: int,
    command: str,
    bad_rows: Sequence[BadRow] | None = None,
    collapsed: str | None = None,
) -> list[dict[str, Any]]:
    """Returns the result rows of one evaluation, with the task's main metric first. Values are percentages.

    scored: the split that was scored. n: number of scored examples. step: training steps of the scored weights. Some
    fields: source is the origin of the scored rows, 'file', 'tfds' or 'world', several joined by '+'. tfds is the
    builder and version of rows from TFDS. left_out is the number of rows of the scored split that could not be read, if
    any (bad_rows.py). collapsed names the trainings of the scored model that ended in one class, '' = none
    (collapse.py); it is missing (None) if no dev rows could tell. note is shown with every retrieval score
    (`retrieval_note`). qa_decoding, for question answering, is that of config.Evaluation.
    """
    task, language = scored.task, scored.language
    stood_in = stand_ins(run, scored)
    left_out = count_among(bad_rows, scored.files()) if bad_rows else 0
    note = {'note': retrieval_note(config, source, task)} if task.embeds else {}
    if 'qa_decoding' in kind_of(task).settings:
        note = {'qa_decoding': config.evaluation.qa_decoding}
    return [
        {
            'encoder': source.name,
            'intermediate': run.intermediate,
            'target': run.target,
            'language': language,
            'split': scored.name,
            'metric': metric,
            'value': metrics[metric],
            'n': n,
            'seed': run.seed,
            'step': step,
            'run': run.id,
            'preset': config.preset,
            'command': command,
            **language_facts(language, source.name),
            **source_facts(scored),
            **chance(task, n, metric),
            **note,
            **({'stand_in': stood_in} if stood_in else {}),
            **({'left_out': left_out} if left_out else {}),
            **({} if collapsed is None else {'collapsed': collapsed}),
        }
        for metric in sorted(metrics, key=lambda m: (m not in task.metrics, m))
    ]


def retrieval_note(config: Config, source: EncoderSource, task: Task) -> str:
    """Returns the note for every retrieval score: the layer, the pooling, and the note of the encoder source."""
    note = layer_note(source.config, config.evaluation.layer_of(task.name), config.evaluation.pooling)
    how = f'{note.capitalize()}.'
    if task.mines and config.evaluation.repeated_sentences != 'kept':
        how += f' Repeated sentences are {config.evaluation.repeated_sentences}.'
    return f'{how} {source.note}'.strip()


def stand_ins(run: Run, scored: Split) -> str:
    """Describes the stand-in data that a result was trained or scored on; '' = none."""
    trained = [dataset for each in sorted(run.lineage, key=lambda r: bool(r.warms)) for dataset in each.datasets]
    notes = []
    for rows in [*(dataset.rows for dataset in trained), scored]:
        if text := rows.stand_in():
            notes.append(f'{rows.task.name} {rows.name}: {text}')
    notes += [f'{each.task.name} train: its {each.split} rows' for each in trained if each.spec.split]
    return '; '.join(dict.fromkeys(notes))


def source_facts(rows: Split) -> dict[str, str]:
    """Returns {'source': origin} of a split's rows, and 'tfds' if some are from TFDS."""
    origin = rows.origin()
    return {'source': origin.source} | ({'tfds': ', '.join(origin.builders)} if origin.builders else {})


def language_facts(code: str, encoder: str = '') -> dict[str, Any]:
    """Returns the fields of a result row that describe the language. encoder: the encoder source.

    'seen', whether the encoder has read the language in pretraining, is missing where that is unknown.
    """
    language = get_language(code)
    seen = has_read(encoder, language.cc100_gib)
    return {
        'language_name': language.name,
        'script': language.script,
        'family': language.family,
        'resource_level': language.resource_level,
        'cc100_gib': language.cc100_gib,
        'english': language.code == 'en',
        **({} if seen is None else {'seen': seen}),
    }


def chance(task: Task, n: int, metric: str) -> dict[str, float]:
    """Returns {'chance': percent} for accuracy over classes or over a retrieval pool, where the rate of random guesses
    is known; else {}."""
    if not metric.startswith('accuracy'):
        return {}
    options = n if task.embeds else len(task.labels)
    return {'chance': 100.0 / options} if options else {}
