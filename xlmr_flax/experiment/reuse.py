"""What decides an evaluation: its rows are used again as long as nothing of that has changed."""

from __future__ import annotations

from typing import Any

from xlmr_flax.config import Config, digest
from xlmr_flax.experiment.plan.runs import Run, scored_length
from xlmr_flax.kinds import kind_of
from xlmr_flax.tasks import get_task


def evaluation_key(config: Config, run: Run, data: str) -> str:
    """A digest of the weights, the settings and the rows that are scored. data: the rows' `content_digest`.

    Settings that a task does not look at do not count, and values that are older than a setting count without it, so
    that earlier evaluations keep their keys.
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
