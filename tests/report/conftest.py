"""Made-up result rows: twelve languages, two intermediates, a classification and a retrieval target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

# code, name, script, resource level, CC-100 GiB
LANGUAGES = [
    ('en', 'English', 'Latn', 'high', 300.8),
    ('ru', 'Russian', 'Cyrl', 'high', 278.0),
    ('de', 'German', 'Latn', 'high', 66.6),
    ('zh', 'Chinese', 'Hans', 'high', 46.9),
    ('ar', 'Arabic', 'Arab', 'high', 28.0),
    ('hi', 'Hindi', 'Deva', 'high', 20.2),
    ('th', 'Thai', 'Thai', 'mid', 71.7),
    ('bg', 'Bulgarian', 'Cyrl', 'mid', 57.5),
    ('el', 'Greek', 'Grek', 'mid', 46.9),
    ('ur', 'Urdu', 'Arab', 'mid', 5.7),
    ('te', 'Telugu', 'Telu', 'low', 4.7),
    ('sw', 'Swahili', 'Latn', 'low', 1.6),
]
CONTRASTIVE = 'Trained contrastively: its retrieval scores start high.'
MakeRow = Callable[..., dict[str, Any]]


@pytest.fixture(scope='session')
def make_row() -> MakeRow:
    def make(language: str = 'de', value: float = 50.0, **fields: Any) -> dict[str, Any]:
        return {
            'encoder': 'small', 'intermediate': 'none', 'target': 'xnli', 'language': language, 'split': 'test',
            'metric': 'accuracy', 'value': value, 'n': 400, 'seed': 0, 'step': 10, **fields,
        }  # fmt: skip

    return make


@pytest.fixture(scope='session')
def study(make_row: MakeRow) -> list[dict[str, Any]]:
    """Two seeds. Language i of xnli scores 60 - i with 'none' and seed 0; see the gains below; seed 1 is 0.5 higher.

    Gains: mnli +4, but in English +10 and in Swahili -2; squad -1. Tatoeba (no English): 90 - 2 i; mnli +3, squad 0.
    """
    rows = []
    for seed in (0, 1):
        for i, (code, name, script, level, size) in enumerate(LANGUAGES):
            about = {
                'language_name': name, 'script': script, 'resource_level': level, 'cc100_gib': size, 'seed': seed,
                'english': code == 'en',
            }  # fmt: skip
            for task, gain in (('none', 0.0), ('mnli', {'en': 10.0, 'sw': -2.0}.get(code, 4.0)), ('squad', -1.0)):
                more = {**about, 'intermediate': task, 'chance': 33.3, 'stand_in': 'XNLI cut <small>'}
                rows.append(make_row(code, 60.0 - i + gain + seed / 2, **more))
            for task, gain in (('none', 0.0), ('mnli', 3.0), ('squad', 0.0)):
                more = {**about, 'intermediate': task, 'target': 'tatoeba', 'n': 1000, 'chance': 0.1}
                if code != 'en':
                    rows.append(make_row(code, 90.0 - 2 * i + gain, note=CONTRASTIVE, **more))
    return rows


@pytest.fixture(scope='session')
def curves() -> list[dict[str, Any]]:
    points: list[dict[str, Any]] = []
    for task in ('none', 'mnli'):
        for step in range(0, 50, 10):
            point = {'run': f'{task}-0', 'intermediate': task, 'target': 'xnli', 'seed': 0, 'step': step}
            scored = {'metric': 'accuracy', 'value': 35.0 + step} if step % 20 == 0 else {}
            points.append({**point, 'loss': 1 - step / 99, **scored})
    points.append({'run': 'mnli', 'intermediate': 'mnli', 'target': '', 'seed': 0, 'step': 1, 'loss': 1.1})
    return points
