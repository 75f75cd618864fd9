"""usage: xlmr-flax bench SUBJECT [--alternations=N] [--threads=N] [--sides=A,B] [--out=DIR] [--task=T] [--rows=N] ...

Compares speed and memory with other implementations. They run in turn within one call, after a check that all of them
compute the same results. Subjects:
  train       our training loop and a PyTorch loop like that of transformers' Trainer (length grouping, dynamic padding,
              padding to --max_length; fused AdamW, SDPA; on a GPU bfloat16 and torch.compile)
  eval        zero-shot evaluation over the languages of --task; --embed: sentence vectors of a retrieval task
  retrieval   exact nearest neighbours in both directions (--rows vectors of size --dim per side), against torch
A subject that measures only our own code:
  attention   time and error of every attention implementation that this device supports; takes --rows (default 8),
              --max_length and --dropout
train takes --task, --encoder, --rows, --max_length, --batch and --dropout, or --config=FILE (the first training of its
plan). Prints Markdown; --out writes it to DIR/SUBJECT.md, and all measured times to DIR/SUBJECT.json. Implementations
that are not installed are skipped (pip install -e '.[torch]' in the checkout installs them).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from xlmr_flax.config.flag import define_config_flag, load_config

if TYPE_CHECKING:
    from xlmr_flax.tasks.base import Task

ARGUMENTS = 1  # the subject
ROWS = {'retrieval': 30_000, 'train': 256, 'eval': 64}


def define_flags(values: flags.FlagValues) -> None:
    define_config_flag(values)
    flags.DEFINE_integer(
        'alternations',
        None,
        'Rounds; each implementation runs once in each. Default: 5, retrieval 3.',
        flag_values=values,
        lower_bound=1,
    )
    flags.DEFINE_integer('threads', 0, 'Cores for each implementation; 0 = all.', flag_values=values)
    flags.DEFINE_list('sides', [], 'Implementations to run besides ours; default: all.', flag_values=values)
    flags.DEFINE_string('out', None, 'Folder for the report and the times.', flag_values=values)
    flags.DEFINE_integer(
        'rows', 0, 'Training rows; eval: rows a language; retrieval: vectors a side (0: as fits the subject).',
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_integer('dim', 768, 'retrieval: dimension of the vectors.', flag_values=values)
    flags.DEFINE_string('task', '', 'Task (train: mnli; eval: xnli; eval --embed: tatoeba).', flag_values=values)
    flags.DEFINE_string(
        'encoder', 'embedded', 'Encoder source: embedded, random:SIZE, hf:..., ckpt:...', flag_values=values
    )
    flags.DEFINE_integer('max_length', 128, 'Largest number of tokens of a row.', flag_values=values)
    flags.DEFINE_integer('batch', 16, 'Examples a step; eval: rows of a batch in PyTorch.', flag_values=values)
    flags.DEFINE_float('dropout', 0.1, 'Dropout rate on both sides; below 0: that of the encoder.', flag_values=values)
    flags.DEFINE_bool('packing', True, 'Whether ours packs several examples into a row.', flag_values=values)
    flags.DEFINE_list('languages', [], 'eval: only these languages.', flag_values=values)
    flags.DEFINE_bool('embed', False, 'eval: sentence vectors of a retrieval task.', flag_values=values)
    flags.DEFINE_enum('device', 'auto', ['auto', 'cpu', 'gpu'], 'auto: the GPU where one is.', flag_values=values)
    flags.DEFINE_enum(
        'dtype', 'auto', ['auto', 'float32', 'bfloat16'], 'auto: bfloat16 on a GPU, else float32.', flag_values=values
    )
    flags.DEFINE_bool('compile', False, 'torch.compile on a CPU too.', flag_values=values)
    flags.DEFINE_bool(
        'huge_pages', False, 'Huge pages and kept memory (glibc) for every implementation.', flag_values=values
    )
    flags.DEFINE_bool(
        'full_rows',
        False,
        "train: MNLI's sentences joined until every row is full (the step itself).",
        flag_values=values,
    )
    flags.DEFINE_string('data_root', '', "Root of the data files; '' = XLMR_DATA_ROOT.", flag_values=values)


def _options(values: flags.FlagValues, subject: str) -> dict[str, Any]:
    """Returns the options of all implementations as JSON values."""
    rows = values.rows or ROWS[subject]
    if subject == 'retrieval':
        from xlmr_flax.eval.mining import NEIGHBOURS

        return {'rows': rows, 'dim': values.dim, 'k': NEIGHBOURS, 'seed': 0}
    from xlmr_flax.config import to_dict
    from xlmr_flax.tasks import get_task
    from xlmr_flax.tools.bench import settings
    from xlmr_flax.tools.bench.timing import machine

    gpu = '' if values.device == 'cpu' else settings.gpu_name()
    device = ('gpu' if gpu else 'cpu') if values.device == 'auto' else values.device
    dtype = ('bfloat16' if device == 'gpu' else 'float32') if values.dtype == 'auto' else values.dtype
    task = values.task or ('mnli' if subject != 'eval' else 'tatoeba' if values.embed else 'xnli')
    _check_task(subject, get_task(task), embed=values.embed)
    if values.config is not None:
        config, task = (
            to_dict(load_config(values)),
            Path(getattr(values['config'], 'config_filename', 'config')).stem,
        )
    else:
        config = settings.task_config(
            task, values.encoder, rows=rows, max_length=values.max_length, batch=values.batch, dropout=values.dropout,
            dtype=dtype, data_root=values.data_root, target=subject == 'eval', languages=tuple(values.languages),
            packing=values.packing,
        )  # fmt: skip
    return {
        'config': config,
        'task': task,
        'device': device,
        'device_name': gpu or machine()['processor'],
        'peak_flops': settings.peak_flops(gpu) if device == 'gpu' else 0.0,
        'embed': values.embed,
        'compile': values.compile,
        'huge_pages': values.huge_pages,
        'full_rows': values.full_rows,
    }


def _check_task(subject: str, task: Task, *, embed: bool) -> None:
    """Raises BenchError if the subject does not support the task."""
    from xlmr_flax.tools.bench.subject import BenchError

    if subject == 'eval' and (task.embeds) != embed:
        other = 'go with a retrieval task' if embed else 'are what a retrieval task is measured by: --embed'
        raise BenchError(f'task {task.name!r} is of kind {task.kind!r}: sentence vectors {other}')
    if subject != 'eval' and (embed or task.embeds):
        raise BenchError(f'bench {subject} trains; task {task.name!r} and --embed are for bench eval --embed')


def run(values: flags.FlagValues, subject: str = '') -> int:
    from xlmr_flax.cli.main import UsageError
    from xlmr_flax.tools.bench import KERNELS, SUBJECTS
    from xlmr_flax.tools.bench.subject import BenchError
    from xlmr_flax.util.errors import closest
    from xlmr_flax.util.files import write_atomically
    from xlmr_flax.util.stopping import Stopped

    known = {**SUBJECTS, **KERNELS}
    if not subject:
        raise UsageError(f'the subject is missing: xlmr-flax bench {"|".join(known)}')
    if subject not in known:
        raise UsageError(f'unknown bench subject {subject!r}{closest(subject, known)}')
    if values.config is not None and subject != 'train':
        raise UsageError(f'--config goes with bench train, not with bench {subject}')
    share_compiled_programs()
    try:
        text, numbers = _measure(values, subject)
    except BenchError as e:
        raise UsageError(str(e)) from None
    except Stopped:
        raise Stopped('bench stopped; nothing of it is kept') from None
    if values.out:
        write_atomically(Path(values.out) / f'{subject}.json', numbers)
        write_atomically(Path(values.out) / f'{subject}.md', text)
    print(text)
    return 0


def _measure(values: flags.FlagValues, subject: str) -> tuple[str, str]:
    """Runs the benchmark of a subject; returns (Markdown, JSON). Raises BenchError."""
    from xlmr_flax.tools.bench import KERNELS
    from xlmr_flax.tools.bench.report import to_markdown
    from xlmr_flax.tools.bench.timing import bench

    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr)  # noqa: E731
    if subject in KERNELS:
        return _attention(values, say)
    options = _options(values, subject)
    rounds = values.alternations or (3 if subject == 'retrieval' else 5)
    outcome = bench(subject, options, alternations=rounds, threads=values.threads, say=say, sides=tuple(values.sides))
    return to_markdown(outcome), outcome.to_json()


def _attention(values: flags.FlagValues, say: Callable[[str], None]) -> tuple[str, str]:
    import jax

    from xlmr_flax.tools.bench.kernels import attention

    on_gpu = jax.default_backend() == 'gpu'
    return attention.measure(
        rows=values.rows or 8,
        length=values.max_length,
        rate=max(values.dropout, 0.0),
        dtype=('bfloat16' if on_gpu else 'float32') if values.dtype == 'auto' else values.dtype,
        rounds=values.alternations or 5,
        say=say,
    )


def share_compiled_programs() -> None:
    """Makes the child processes of a benchmark use the compilation cache of this process (`cli.main.set_up_jax`)."""
    import jax

    settings: Any = jax.config
    if folder := settings.jax_compilation_cache_dir:
        os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', folder)
        least = settings.jax_persistent_cache_min_compile_time_secs
        os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', str(least))
