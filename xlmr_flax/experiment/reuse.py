"""Computes the key of an evaluation: its result rows are reused as long as the key does not change."""

from __future__ import annotations

from typing import Any

from xlmr_flax.config import Config, digest
from xlmr_flax.experiment.plan.runs import Run, scored_length
from xlmr_flax.kinds import kind_of
from xlmr_flax.tasks import get_task


def evaluation_key(config: Config, run: Run, data: str) -> str:
    """Returns a digest of the weights, the settings and the scored rows. data: the rows' `Split.digest`.

    Settings that the task does not use are not included. Newer settings are included only if they differ from the
    default, so that earlier evaluations keep their keys.
    """
    settings, task = config.evaluation, get_task(run.target)
    decides: dict[str, Any] = {'max_examples': settings.max_examples}
    if not run.recipe:
        decides |= {'layer': settings.layer_of(run.target), 'pooling': settings.pooling}
        decides['max_length'] = settings.max_length
    if task.mines and settings.repeated_sentences != 'kept':
        decides['repeated_sentences'] = settings.repeated_sentences
    if 'qa_decoding' in kind_of(task).settings:
        decides |= settings.qa_decides()
    return digest({'run': run.id, 'data': data, 'length': scored_length(config, run), **decides})
