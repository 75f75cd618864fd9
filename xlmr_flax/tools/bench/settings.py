"""What the benches of training and evaluation run: options from flags, and from them a config and one run of it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlmr_flax.config import NONE, Config, parse, to_dict
from xlmr_flax.tools.bench.subject import BenchError, Options

if TYPE_CHECKING:
    from xlmr_flax.experiment.context import Setting
    from xlmr_flax.experiment.plan.runs import Run

# glibc: transparent huge pages, and memory that was freed is kept. Without it both sides spend a tenth of a step and
# more in page faults: torch asks for memory tensor by tensor, XLA for its temporary arena at every step.
HUGE_PAGES = 'glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=100000000000'
# Peak dense bfloat16 FLOP/s by the name that the driver gives, from the vendor's data sheets (without sparsity). The
# first that is in the name counts.
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
FOREVER = 1_000_000  # steps of a bench's training: it is stopped, never finished


def gpu_name() -> str:
    """The name of the first NVIDIA GPU, '' without one; asked of the driver, so that nothing is opened on it."""
    if not shutil.which('nvidia-smi'):
        return ''
    command = ['nvidia-smi', '--query-gpu=name', '--format=csv,noheader']
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout.strip() else ''


def peak_flops(name: str) -> float:
    """Dense bfloat16 FLOP/s of a GPU by its name, 0 where it is not in the table."""
    return next((flops for known, flops in PEAKS if known.lower() in name.lower()), 0.0)


def environment(options: Options) -> dict[str, str]:
    """Variables of every contestant: the device and the allocator. Tokens are made before anything is timed, and kept
    in memory."""
    found = {'XLMR_CACHE': 'off', 'HF_HUB_OFFLINE': '1'}
    if options['device'] == 'cpu':
        found |= {'JAX_PLATFORMS': 'cpu', 'CUDA_VISIBLE_DEVICES': ''}
    else:  # two processes stay on one device: neither may take all of it at its start
        found |= {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}
    if options.get('huge_pages'):
        found['GLIBC_TUNABLES'] = HUGE_PAGES
    return found


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
    """The config, as a dict, of one training of a task (target: and of its evaluation)."""
    raw: dict[str, Any] = {
        'name': 'bench',
        'seeds': (1,),
        'encoder': {
            'source': encoder, 'head': 'hf', 'dropout': dropout, 'attention_dropout': dropout, 'dtype': dtype,
        },
        # Trained as an intermediate task: nothing is asked about test rows with labels.
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


def as_dict(config: Config) -> dict[str, Any]:
    """A config as JSON values."""
    return to_dict(config)


def paced(config: Mapping[str, Any], steps: int, *, check: bool = False) -> Config:
    """A bench's config whose training never ends by itself and logs once in so many steps. check: without dropout, and
    with a learning rate that falls to 0 over these steps."""
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


FULL = 'mnli'  # the task whose rows can be filled
_GLUE = ('index', 'sentence1', 'sentence2', 'gold_label')


def located(options: Options, folder: Path) -> dict[str, Any]:
    """The config of the options; with full_rows, its data are those of `write_full_rows`."""
    config = dict(options['config'])
    return {**config, 'data_root': str(folder / 'data')} if options.get('full_rows') else config


def write_full_rows(options: Options, folder: Path) -> None:
    """MNLI's file with its sentences joined until every pair is longer than max_length: no padding, to measure
    the step itself. Raises BenchError for another task."""
    from xlmr_flax.data.sources import read_split
    from xlmr_flax.tasks import get_task
    from xlmr_flax.tasks.base import PairExample
    from xlmr_flax.util.files import write_atomically

    config = options['config']
    if options['task'] != FULL:
        raise BenchError(f'task {options["task"]!r}: full rows are made of {FULL!r} alone')
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
    """The setting of a config whose records go to `log`, and the first run of its plan that trains.

    Raises BenchError where there is none, or where it trains on several datasets.
    """
    import dataclasses

    from xlmr_flax.experiment.runner import Runner

    runner = Runner.open(config, folder, 'bench')
    run = next((run for run in runner.plan if run.recipe), None)
    if run is None:
        raise BenchError('the config trains nothing')
    if len(found := run.datasets) > 1:
        raise BenchError(f'{run.name} trains on {len(found)} datasets; the bench takes a training on one')
    return dataclasses.replace(runner.setting, log=log), run


def require_device(options: Options) -> None:
    """Raises BenchError unless JAX computes where the options say."""
    import jax

    if options['device'] == 'gpu' and jax.default_backend() not in ('gpu', 'cuda', 'rocm'):
        raise BenchError(f'JAX has no GPU here but {jax.default_backend()}: install jax[cuda12]')


def count_compilations() -> Callable[[], int]:
    """How many programs JAX has compiled, or fetched from its cache, since now."""
    from jax import monitoring

    seen = [0]

    def heard(event: str, duration_secs: float, **more: Any) -> None:
        del duration_secs, more
        seen[0] += event == '/jax/core/compile/backend_compile_duration'

    monitoring.register_event_duration_secs_listener(heard)
    return lambda: seen[0]


def device_facts() -> dict[str, int]:
    """{'device_memory'}: peak bytes of JAX's allocator; {} where the device does not tell, as a CPU."""
    import jax

    stats = jax.local_devices()[0].memory_stats() or {}
    return {'device_memory': stats['peak_bytes_in_use']} if 'peak_bytes_in_use' in stats else {}
