"""Reads the claim files of a run, RUN.1.json, RUN.2.json, ..., from the folder of claims."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any


def claims_of(directory: Path, run: str) -> list[dict[str, Any]]:
    """The contents of a run's claim files in the order of their numbers."""
    found = [(re.fullmatch(rf'{re.escape(run)}\.(\d+)\.json', path.name), path) for path in directory.iterdir()]
    numbered = sorted((int(match[1]), path) for match, path in found if match)
    return [json.loads(path.read_text(encoding='utf-8')) for _, path in numbered]
