"""Times the parts of the start of a training run in a fresh process.

`python -m xlmr_flax.tools.bench.startup FOLDER THREADS OPTIONS` writes FOLDER/measured.json; `parts` starts it twice.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xlmr_flax.tools.bench.parts import COMPILING, started
from xlmr_flax.tools.bench.worker import Load, error_as_last_line, use_cores
from xlmr_flax.util.children import end_with_input

TRACED = ('/jax/core/compile/jaxpr_trace_duration', '/jax/core/compile/jaxpr_to_mlir_module_duration')
COMPILED = '/jax/core/compile/backend_compile_duration'


class Clock:
    """Adds up the seconds of each named part."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps `work`, so that the time of each call is added to the part `name`."""

        def call(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return work(*arguments, **named)
            finally:
                self.parts[name] = self.parts.get(name, 0.0) + time.perf_counter() - began

        return call


def main(folder: Path, options: dict[str, Any]) -> None:
    """Starts a training run as the package does, up to the end of its first steps, and writes the times."""
    load, clock = Load(), Clock()
    from xlmr_flax.experiment import training as phase
    from xlmr_flax.tools.bench import settings
    from xlmr_flax.tools.bench.paced import Paced

    clock.parts['interpreter and imports'] = time.time() - started()
    settings.require_device(options)
    compiled = _listen()
    recipe = options['config']['recipe']
    steps = max(1, recipe['max_train'] // recipe['batch_size']) if recipe['max_train'] else 4
    config = settings.paced(options['config'], steps)
    # Wraps the parts of train_run to time them; their behaviour is unchanged.
    phase.Training = clock.timed('data: reading, tokens', phase.Training)  # type: ignore[misc]
    phase.initial_params = clock.timed('weights', phase.initial_params)
    setting: list[Any] = []

    def work(log: Callable[[dict[str, Any]], None]) -> None:
        opened = clock.timed('plan: source, tokenizer, digests of the data', settings.open_training)
        setting[:] = opened(config, folder / 'run', log)
        phase.train_run(*setting)

    training, began = Paced(work), time.perf_counter()
    training()
    others = [name for name in clock.parts if name != 'interpreter and imports']
    rest = time.perf_counter() - began - sum(clock.parts[name] for name in others)
    clock.parts['state and first steps'] = rest
    clock.parts['→ tracing and lowering'] = compiled[1]
    clock.parts[COMPILING] = compiled[0]
    clock.parts['whole'] = time.time() - started()
    result = {
        'parts': clock.parts, 'steps': steps, 'examples': recipe['batch_size'], 'programs': int(compiled[2]),
        'others': load.others(),
    }  # fmt: skip
    (folder / 'measured.json').write_text(json.dumps(result), encoding='utf-8')


def _listen() -> list[float]:
    """Starts counting: [seconds of compiling or fetching, seconds of tracing and lowering, number of programs]."""
    from jax import monitoring

    totals = [0.0, 0.0, 0.0]

    def on_event(event: str, duration_secs: float, **more: Any) -> None:
        del more
        if event == COMPILED:
            totals[0] += duration_secs
            totals[2] += 1
        elif event in TRACED:
            totals[1] += duration_secs

    monitoring.register_event_duration_secs_listener(on_event)
    return totals


if __name__ == '__main__':
    use_cores(int(sys.argv[2]))
    end_with_input()
    with error_as_last_line():
        main(Path(sys.argv[1]), json.loads(sys.argv[3]))
