"""What every test shares: JAX on the CPU with a compilation cache, and the folder of real data."""

from __future__ import annotations

import gc
import hashlib
import os
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from relative_folders import pytest_addoption, pytest_configure

__all__ = ['pytest_addoption', 'pytest_configure']


def _cpu_fingerprint() -> str:
    """Names this CPU's instruction set: programs compiled for another one may not run here."""
    try:
        info = Path('/proc/cpuinfo').read_text(encoding='utf-8')
    except OSError:
        info = ''
    flags = next((line for line in info.splitlines() if line.startswith(('flags', 'Features'))), platform.processor())
    return hashlib.sha256(f'{platform.machine()} {flags}'.encode()).hexdigest()[:12]


# Before anything imports jax; child processes of the tests inherit it. What a user has set stands.
_CACHE = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'xlmr_flax' / f'jax-{_cpu_fingerprint()}'
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(_CACHE))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.3')
# Most tests compile many small programs and compute little with them: they compile without XLA's passes for fast
# programs, and with its older code generator (gone in jaxlib 0.12). A training test takes a third of the time. Runs of
# users do not have these settings; JAX_DISABLE_MOST_OPTIMIZATIONS=0 XLA_FLAGS= tests what they have.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
if tuple(map(int, version('jaxlib').split('.')[:2])) < (0, 12):
    os.environ.setdefault('XLA_FLAGS', '--xla_cpu_use_fusion_emitters=false')
os.environ.setdefault('MPLBACKEND', 'Agg')
os.environ.setdefault('HF_HUB_OFFLINE', '1')
os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')
# Tests of the token cache make their own; the others neither read nor fill the user's.
os.environ['XLMR_CACHE'] = 'off'

# Tracing makes containers by the million, and each few thousand of them start Python's collector: a tenth of the time.
gc.set_threshold(100_000, 50, 100)


# Modules that compile nothing, below tests/: their tests are marked fast (`bash tests/run.sh fast`, under two minutes).
FAST = (
    'data/readers/test_other_forms.py', 'data/test_packing.py', 'data/readers/test_readers.py',
    'data/readers/test_paths.py', 'data/test_sources.py', 'data/test_spans.py', 'data/readers/test_tables.py',
    'data/test_tagging.py', 'data/test_unlabelled.py', 'data/readers/test_untrusted_json.py', 'scoring/test_files.py',
    'scoring/test_gold.py', 'scoring/test_metrics.py', 'scoring/test_official_layout.py', 'scoring/test_score.py',
    'scoring/test_tag_scores.py', 'report/test_untrusted_rows.py', 'tasks/test_parse.py', 'tasks/test_table.py',
    'tasks/test_tiny_files.py', 'config/test_parsing.py', 'test_dependencies.py', 'test_house.py',
    'util/test_errors.py', 'util/test_secrets.py',
)  # fmt: skip


# Modules that take over 20 seconds, the longest first: no test worker is left with one at the end.
LONG = (
    'experiment/test_arms_run.py', 'notebooks/test_notebooks.py', 'experiment/test_every_task.py',
    'parallel/test_distributed_run.py', 'train/test_resume_points.py', 'models/test_parity.py',
    'experiment/test_run.py', 'experiment/test_runner.py', 'analysis/test_language_effects.py',
    'cli/test_prepare.py', 'train/test_diagnostics.py',
    'download/test_download.py', 'cli/test_stop_requests.py', 'encoders/test_encoder.py',
    'encoders/test_attention.py', 'cli/test_failed_saves.py', 'cli/test_readme_stops.py', 'cli/test_run_flags.py',
    'data/world/test_world.py', 'train/test_packed_step.py', 'parallel/test_mesh_steps.py', 'parallel/test_mesh.py',
    'tools/torch/test_torch_run.py', 'train/test_mixed.py', 'cli/test_resume.py', 'train/test_vocabulary.py',
)  # fmt: skip


def pytest_collection_finish() -> None:
    """Exempts what has been imported from garbage collection: it stays, and each run begins with a full collection."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    places = {name: place for place, name in enumerate(LONG)}
    for item in items:
        if item.path.relative_to(here).as_posix() in FAST:
            item.add_marker('fast')
    items.sort(key=lambda item: places.get(item.path.relative_to(here).as_posix(), len(LONG)))


@pytest.fixture(scope='session')
def data_root() -> Path:
    """The folder of real data, from XLMR_DATA_ROOT. Skips only where that is unset; a wrong one is an error."""
    value = os.environ.get('XLMR_DATA_ROOT')
    if not value:
        pytest.skip('XLMR_DATA_ROOT is not set: no folder of real data to test on')
    root = Path(value)
    if not root.is_dir():
        pytest.fail(f'XLMR_DATA_ROOT={value}: no such folder')
    return root


@pytest.fixture(scope='session')
def tiny_tokenizer() -> Path:
    """The tiny tokenizer that ships with the package."""
    from importlib import resources

    return Path(str(resources.files('xlmr_flax.models') / 'tiny_tokenizer.json'))


@pytest.fixture(scope='module', autouse=True)
def _programs() -> Iterator[None]:
    """Compiled programs of a test module go when there are many: a process has room for some thousands."""
    yield
    from xlmr_flax.parallel.programs import release

    release()
