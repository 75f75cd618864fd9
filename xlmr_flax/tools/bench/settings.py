"""Makes configs and environment variables for the benchmarks of training and evaluation, and opens their runs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlmr_flax.config import NONE, Config, parse, to_dict
from xlmr_flax.tools.bench.subject import BenchError, Options

if TYPE_CHECKING:
    from xlmr_flax.experiment.plan.runs import Run
    from xlmr_flax.experiment.setting import Setting

# glibc tunables: use transparent huge pages and keep freed memory. Without them both sides spend 10 % of a step or more
# in page faults: torch allocates memory tensor by tensor, XLA its temporary arena at every step.
HUGE_PAGES = 'glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=100000000000'
# Peak dense bfloat16 FLOP/s by the name that the driver reports, from the vendor's data sheets (without sparsity). The
# first entry that is part of the name counts.
PEAKS: tuple[tuple[str, float], ...] = (
    ('B200', 2250e12),
    ('GH200', 989e12),
    ('H200', 989e12),
    ('H100 PCIe', 756e12),
    ('H100 NVL', 835e12),
    ('H100', 989e12),
    ('H800', 989e12),
    ('A100', 312e12),
    ('A800', 312e12),
    ('L40S', 362e12),
    ('L40', 181e12),
    ('L4', 121e12),
    ('A10G', 70e12),
    ('A10', 125e12),
    ('RTX 4090', 165e12),
)
FOREVER = 1_000_000  # steps of a benchmark's training run: it is stopped before it ends


def gpu_name() -> str:
    """Name of the first NVIDIA GPU, '' without one. nvidia-smi reports it, so that this process opens no context."""
    if not shutil.which('nvidia-smi'):
        return ''
    command = ['nvidia-smi', '--query-gpu=name', '--format=csv,noheader']
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout.strip() else ''


def peak_flops(name: str) -> float:
    """Peak dense bfloat16 FLOP/s of a GPU by its name, 0 if the table does not have it."""
    return next((flops for known, flops in PEAKS if known.lower() in name.lower()), 0.0)


def environment(options: Options) -> dict[str, str]:
    """Environment variables of every implementation: device, allocator, no token cache and no network.

    Tokens are made before the timed rounds and stay in memory.
    """
    variables = {'XLMR_CACHE': 'off', 'HF_HUB_OFFLINE': '1'}
    if options['device'] == 'cpu':
        variables |= {'JAX_PLATFORMS': 'cpu', 'CUDA_VISIBLE_DEVICES': ''}
    else:  # several processes share the device, so JAX must not preallocate its memory
        variables |= {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}
    if options.get('huge_pages'):
        variables['GLIBC_TUNABLES'] = HUGE_PAGES
    return variables


def task_config(
    task: str,
    encoder: str,
    *,
    rows: int,
    max_length: int,
    batch: int,
    dropout: float,
    dtype: str,
    data_root: str = '',
    target: bool = False,
    languages: tuple[str, ...] = (),
    packing: bool = True,
) -> dict[str, Any]:
    """Config, as a dict, that trains on one task, or with `target` evaluates it."""
    raw: dict[str, Any] = {
        'name': 'bench',
        'seeds': (1,),
        'encoder': {
            'source': encoder, 'head': 'hf', 'dropout': dropout, 'attention_dropout': dropout, 'dtype': dtype,
        },
        # The task is trained as an intermediate task, so that no labelled test rows are required.
        'intermediate': (NONE,) if target else (task,),
        'targets': (task,) if target else ('world_retrieval',),
        'recipe': {
            'batch_size': batch, 'max_length': max_length, 'max_train': rows, 'eval_examples': 1,
            'optimizer': {'learning_rate': 1e-5, 'schedule': 'constant', 'warmup_steps': 0}, 'packing': packing,
        },
        'evaluation': {'max_examples': rows if target else 0, 'max_length': max_length, 'packing': packing},
        'data_root': data_root,
        'tensorboard': False,
    }  # fmt: skip
    if languages:
        raw['evaluation']['languages'] = {task: languages}
    return to_dict(parse(raw))


def paced(config: Mapping[str, Any], steps: int, *, check: bool = False) -> Config:
    """Config of a training run for `Paced`: it has no end of its own and logs every `steps` steps.

    check: train `steps` steps without dropout, with a learning rate that falls to 0, and log each step.
    """
    more: dict[str, Any] = {'steps': FOREVER, 'log_every': steps, 'eval_every': 0, 'checkpoint_every': 0}
    raw = {**config, 'recipe': {**config['recipe'], **more}, 'tensorboard': False}
    raw['recipes'] = {name: {**recipe, **more} for name, recipe in config['recipes'].items()}
    if check:
        raw['encoder'] = {**config['encoder'], 'dropout': 0.0, 'attention_dropout': 0.0}
        for recipe in (raw['recipe'], *raw['recipes'].values()):
            recipe |= {'log_every': 1, 'steps': steps}
            recipe['optimizer'] = {**recipe['optimizer'], **CHECK}
    return parse(raw)


CHECK = {'schedule': 'linear', 'warmup_steps': 0, 'learning_rate': 1e-4}


FULL = 'mnli'  # the only task for which `write_full_rows` works
_GLUE = ('index', 'sentence1', 'sentence2', 'gold_label')


def located(options: Options, folder: Path) -> dict[str, Any]:
    """The config of the options; with full_rows, its data_root has the files of `write_full_rows`."""
    config = dict(options['config'])
    return {**config, 'data_root': str(folder / 'data')} if options.get('full_rows') else config


def write_full_rows(options: Options, folder: Path) -> None:
    """Writes an MNLI file in which every pair is longer than max_length, so that no batch has padding.

    Its sentences are joined from MNLI's. This measures only the training step. Raises BenchError for another task.
    """
    from xlmr_flax.data.sources import read_split
    from xlmr_flax.tasks import get_task
    from xlmr_flax.tasks.base import PairExample
    from xlmr_flax.util.files import write_atomically

    config = options['config']
    if options['task'] != FULL:
        raise BenchError(f'task {options["task"]!r}: full rows can be made only from {FULL!r}')
    recipe, task = config['recipe'], get_task(FULL)
    rows = read_split(task, 'en', 'train', config['data_root'], recipe['max_train'] or None)
    pairs = [row for row in rows if isinstance(row, PairExample) and row.label is not None]
    words = [' '.join((row.text_a, row.text_b or '')).split() for row in pairs]
    lines = ['\t'.join(_GLUE)]
    for i, row in enumerate(pairs):
        sides, at = [], i
        for _ in range(2):
            side: list[str] = []
            while len(side) < recipe['max_length']:
                side += words[at % len(words)]
                at += 1
            sides.append(' '.join(side).replace('\t', ' '))
        lines.append('\t'.join([str(i), *sides, task.labels[row.label or 0]]))
    write_atomically(folder / 'data' / 'intermediate' / 'mnli' / 'train.tsv', '\n'.join(lines) + '\n')


def open_training(config: Config, folder: Path, log: Callable[[dict[str, Any]], None]) -> tuple[Setting, Run]:
    """Opens a config: its setting, whose records are passed to `log`, and the first run of its plan that trains.

    Raises BenchError if no run trains, or if that run trains on several datasets.
    """
    import dataclasses

    from xlmr_flax.experiment.runner import Runner

    runner = Runner.open(config, folder, 'bench')
    run = next((run for run in runner.plan if run.recipe), None)
    if run is None:
        raise BenchError('the config trains nothing')
    if len(datasets := run.datasets) > 1:
        raise BenchError(f'{run.name} trains on {len(datasets)} datasets; the bench takes a training on one')
    return dataclasses.replace(runner.setting, log=log), run


def require_device(options: Options) -> None:
    """Raises BenchError if the options ask for a GPU and JAX has none."""
    import jax

    if options['device'] == 'gpu' and jax.default_backend() not in ('gpu', 'cuda', 'rocm'):
        raise BenchError(f'JAX has no GPU here but {jax.default_backend()}: install jax[cuda12]')


def count_compilations() -> Callable[[], int]:
    """Starts counting the programs that JAX compiles or fetches from its cache; the result returns the count so far."""
    from jax import monitoring

    seen = [0]

    def on_event(event: str, duration_secs: float, **more: Any) -> None:
        del duration_secs, more
        seen[0] += event == '/jax/core/compile/backend_compile_duration'

    monitoring.register_event_duration_secs_listener(on_event)
    return lambda: seen[0]


def device_facts() -> dict[str, int]:
    """{'device_memory': peak bytes of JAX's allocator}; {} if the device does not report it, as a CPU."""
    import jax

    stats = jax.local_devices()[0].memory_stats() or {}
    return {'device_memory': stats['peak_bytes_in_use']} if 'peak_bytes_in_use' in stats else {}
