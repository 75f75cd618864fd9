"""Child processes with several simulated CPU devices, for the tests of meshes."""

from __future__ import annotations

import os
import subprocess
import sys


def environment(devices: int) -> dict[str, str]:
    """Returns environment variables for a child process with `devices` simulated CPU devices.

    The child has the compiler flags of this process (conftest.py) and finds the same modules.
    """
    flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={devices}'
    return os.environ | {
        'XLA_FLAGS': flags.strip(),
        'JAX_PLATFORMS': 'cpu',
        'PYTHONPATH': os.pathsep.join(filter(None, sys.path)),
    }


def output_of(file: str, *arguments: str, devices: int = 8) -> str:
    """Runs a test module as a program with `devices` simulated devices. Returns its standard output."""
    command = [sys.executable, file, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(devices))
    assert done.returncode == 0, done.stderr
    return done.stdout
