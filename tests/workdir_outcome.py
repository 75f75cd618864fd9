"""What a workdir must hold however often its plan was killed, and by however many processes it was done."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

COMMAND = 'xlmr-flax run'
# The command says which process it was (in tables by its number), and the speed how it went.
VARYING = ('command', 'commands', 'examples_per_s')


def outcome(workdir: Path) -> dict[str, Any]:
    """file -> contents: rows of results and metrics, tables, predictions and trained models."""
    found: dict[str, Any] = {name: _rows(workdir / name) for name in ('results.jsonl', 'metrics.jsonl')}
    for path in sorted(workdir.glob('report/*')):
        if path.suffix == '.csv':
            found[path.name] = _without(list(csv.DictReader(io.StringIO(path.read_text('utf-8')))))
        elif path.suffix in ('.md', '.tex'):
            lines = path.read_text('utf-8').splitlines()
            found[path.name] = [re.sub(r'(\[\W?)\d+(\W?\])', r'\1\2', line) for line in lines if COMMAND not in line]
    kept = [*workdir.glob('runs/*/model/*'), *workdir.glob('predictions/*/*/*')]
    return found | {str(path.relative_to(workdir)): path.read_bytes() for path in sorted(kept)}


def _rows(path: Path) -> list[dict[str, Any]]:
    return _without([json.loads(line) for line in path.read_text('utf-8').splitlines()])


def _without(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in VARYING} for row in rows]
