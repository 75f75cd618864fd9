"""Times each part of the input pipeline, and the training step that consumes its batches.

`python -m xlmr_flax.tools.bench.pipeline FOLDER THREADS OPTIONS` writes FOLDER/measured.json; `parts` starts it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xlmr_flax.tools.bench.worker import Load, error_as_last_line, use_cores
from xlmr_flax.util.children import end_with_input

STEPS = 16  # steps of a timed block
WARM = 6  # at most this many blocks are run until one compiles no program


def main(folder: Path, options: dict[str, Any]) -> None:
    """Measures the parts and writes measured.json."""
    from xlmr_flax.tools.bench import settings

    load = Load()
    config = settings.paced(options['config'], STEPS)
    settings.require_device(options)
    setting, run = settings.open_training(config, folder / 'run', lambda record: None)
    parts, notes = _data(setting, run)
    parts['training step'] = _step(options, folder)
    (folder / 'measured.json').write_text(json.dumps({'parts': parts, 'notes': notes, 'others': load.others()}))


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began


def _data(setting: Any, run: Any) -> tuple[dict[str, Any], list[str]]:
    """Times reading, tokenizing, the token cache and the batches of one epoch; returns ({part: numbers}, notes)."""
    import jax

    from xlmr_flax.experiment.plan.arms import training_examples
    from xlmr_flax.experiment.training import Training
    from xlmr_flax.kinds import cache_entry, encode
    from xlmr_flax.parallel.mesh import put_batch
    from xlmr_flax.train.vocabulary import ActiveRows

    training = Training(setting, run)  # reads all files once, so that the page cache holds them
    (dataset,), recipe, pad = training.datasets, training.recipe, setting.tokenizer.pad
    length = dataset.max_length
    examples, reading = _timed(lambda: training_examples(dataset, run.seed))
    n, parts, notes = len(examples), {}, []
    parts['reading and parsing'] = {'examples': n, 'seconds': reading}
    _, seconds = _timed(lambda: encode(dataset.task, examples, setting.tokenizer, length))
    parts['tokenizing'] = {'examples': n, 'seconds': seconds}
    cache_entry(dataset.task, examples, setting.tokenizer, length)
    entry, seconds = _timed(lambda: cache_entry(dataset.task, examples, setting.tokenizer, length))
    if entry.state == 'read':
        parts['reading the token cache'] = {'examples': n, 'seconds': seconds}
    else:
        notes.append('The token cache keeps neither the embedded world nor sets below 256 examples')
    (stream,) = training.training_data(ActiveRows.all(setting.model.config.vocab_size)).streams
    steps, size = max(1, len(training.data[0]) // recipe.batch_size), recipe.batch_size
    batches, seconds = _timed(lambda: [stream.batch(step, size, pad) for step in range(steps)])
    parts['batches'] = {'examples': steps * size, 'seconds': seconds}

    def put() -> None:
        for batch in batches:
            jax.block_until_ready(put_batch(batch, setting.mesh, len(batch['ids'])))

    _, seconds = _timed(put)
    parts['batches to the device'] = {'examples': steps * size, 'seconds': seconds}
    return parts, notes


def _step(options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Times a block of the package's training loop, batches included, after compilation."""
    from xlmr_flax.experiment.training import train_run
    from xlmr_flax.tools.bench import settings
    from xlmr_flax.tools.bench.paced import Paced

    config, compilations = settings.paced(options['config'], STEPS), settings.count_compilations()
    training = Paced(lambda log: train_run(*settings.open_training(config, folder / 'step', log)))
    seconds = 0.0
    for _ in range(WARM):
        before = compilations()
        _, seconds = _timed(training)
        if compilations() == before:
            break
    recipe = next(iter(options['config']['recipes'].values()), options['config']['recipe'])
    return {'examples': STEPS * recipe['batch_size'], 'seconds': seconds}


if __name__ == '__main__':
    use_cores(int(sys.argv[2]))
    end_with_input()
    with error_as_last_line():
        main(Path(sys.argv[1]), json.loads(sys.argv[3]))
