"""Output on a terminal whose encoding lacks characters."""

from __future__ import annotations

import os
import subprocess
import sys


def test_characters_that_the_terminal_lacks_are_replaced() -> None:
    code = "import sys; from xlmr_flax.cli import main as m; m._main = lambda: print('日本 –') or 0; sys.exit(m.main())"
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, env=os.environ | {'PYTHONIOENCODING': 'latin-1'}, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, b'?? ?'), done.stderr
