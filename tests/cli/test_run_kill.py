"""kill -9 at any moment, and the same command again: results, tables, metrics and weights as if nothing had been.

Processes kill themselves, with their group, right before a file operation in the workdir: the points between which its
state changes. Which operation is drawn from a seed, out of all that an undisturbed run makes.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from workdir_outcome import outcome

from xlmr_flax.cli.main import main

PLAN = (
    "config.intermediate = ('none', 'world_nli')", "config.targets = ('world_pairs', 'world_retrieval')",
    "config.evaluation.languages = ConfigDict({'world_pairs': ('en', 'de'), 'world_retrieval': ('de',)})",
    'config.recipe.steps = 6', 'config.recipe.checkpoint_every = 2', 'config.recipe.eval_every = 2',
    "config.recipe.keep = 'best'", 'config.recipe.log_every = 1', 'config.recipe.max_train = 64',
)  # fmt: skip

# In the config file, which a process runs twice. Counts the file operations below a folder; kills its group before
# number `at` (0 = never), and leaves the count behind.
KILL = """
import atexit, os, signal, sys
from ml_collections import ConfigDict
from pathlib import Path
def watch(folder, at):
    count = 0
    def hook(event, args):
        nonlocal count
        if event not in ('open', 'os.rename', 'os.remove', 'os.rmdir', 'os.mkdir', 'os.link', 'os.utime'):
            return
        if event == 'open' and not (isinstance(args[1], str) and set(args[1]) & set('wax+')):
            return
        if not str(args[0]).startswith(folder + os.sep):
            return
        count += 1
        if count == at:
            os.killpg(0, signal.SIGKILL)
    sys.addaudithook(hook)
    atexit.register(lambda: Path(folder + '.count').write_text(str(count)))
if not hasattr(sys, 'watched') and 'KILL_AT' in os.environ:
    sys.watched = watch(os.environ['KILL_IN'], int(os.environ['KILL_AT']))
"""


# Two trainings, one behind the other.
SHORT = ("config.intermediate = ('world_nli',)", "config.targets = ('world_pairs',)",
         "config.evaluation.languages = ConfigDict({'world_pairs': ('en',)})")  # fmt: skip


@pytest.fixture
def config(config_file: Callable[..., Path], request: pytest.FixtureRequest) -> Path:
    path = config_file(*PLAN, *getattr(request, 'param', ()))
    path.write_text(KILL + path.read_text())
    return path


def start(config: Path, workdir: Path, at: int, seconds: float = 0.0) -> int:
    """Runs the plan in a process group that is killed at a file operation, or `seconds` after it was started."""
    code = (
        f'import os, sys; os.environ.update(KILL_AT={str(at)!r}, KILL_IN={str(workdir)!r}); '
        'from xlmr_flax.cli.main import main; sys.exit(main(sys.argv[1:]))'
    )
    command = [sys.executable, '-c', code, 'run', f'--config={config}', f'--workdir={workdir}']
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=root
    ) as process:
        try:
            said = process.communicate(timeout=seconds or 180)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            said = process.communicate()[0]
    assert process.returncode in (0, -signal.SIGKILL), said
    return process.returncode


def undisturbed(config: Path, workdir: Path, fresh: bool) -> int:
    """Runs the plan to its end; with `fresh` in a process of its own: the number of file operations."""
    if fresh:
        assert start(config, workdir, 0) == 0
        return int(Path(f'{workdir}.count').read_text())
    assert main(['run', f'--config={config}', f'--workdir={workdir}']) == 0
    return 0


@pytest.mark.slow
@pytest.mark.parametrize('config', [SHORT], indirect=True, ids=['short'])
def test_killed(config: Path, tmp_path: Path) -> None:
    whole, parted = tmp_path / 'whole', tmp_path / 'parted'
    undisturbed(config, whole, fresh=False)
    assert start(config, parted, 100) == -signal.SIGKILL  # the plan makes some three hundred operations
    assert len(list((parted / 'claims').glob('*.json'))) > 0
    undisturbed(config, parted, fresh=False)
    assert outcome(parted) == outcome(whole)
    assert {'results.jsonl', 'tables.md'} < outcome(whole).keys()
    assert not list(parted.glob('runs/*/checkpoints')), 'no state of a finished run is left'
    assert not list(parted.glob('runs/*/.model.*'))


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(6))
def test_killed_at_random_again_and_again(config: Path, tmp_path: Path, seed: int) -> None:
    whole, parted = tmp_path / 'whole', tmp_path / 'parted'
    total, draw = undisturbed(config, whole, fresh=True), random.Random(seed)
    kills = 0
    while kills < 8:
        if start(config, parted, draw.randrange(1, total)) == 0:
            # Finished before the point: the report alone is behind that.
            shutil.rmtree(parted)
            continue
        kills += 1
    undisturbed(config, parted, fresh=False)
    assert outcome(parted) == outcome(whole)


@pytest.mark.slow
def test_killed_by_the_clock(config: Path, tmp_path: Path) -> None:
    """Not only between two operations of Python: Orbax and safetensors write files by themselves."""
    whole, parted, draw = tmp_path / 'whole', tmp_path / 'parted', random.Random(0)
    began = time.monotonic()
    undisturbed(config, whole, fresh=True)
    took = time.monotonic() - began
    for _ in range(8):
        start(config, parted, 0, seconds=took * draw.uniform(0.4, 0.9))
    undisturbed(config, parted, fresh=False)
    assert outcome(parted) == outcome(whole)
