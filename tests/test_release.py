"""A release: one version, in the package and at the top of the changelog, and pinned dependencies for each Python."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import xlmr_flax

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parents[1]
CONSTRAINTS = sorted((ROOT / 'constraints').glob('*.txt'))


def test_the_changelog_begins_with_the_version() -> None:
    versions = re.findall(r'^## \[(.+?)\]', (ROOT / 'CHANGELOG.md').read_text(encoding='utf-8'), re.MULTILINE)
    assert versions[0] == xlmr_flax.__version__
    assert f'version: {xlmr_flax.__version__}' not in (ROOT / 'CITATION.cff').read_text(encoding='utf-8')


@pytest.mark.parametrize('path', CONSTRAINTS, ids=lambda path: path.name)
def test_constraints_pin_what_the_package_requires(path: Path) -> None:
    lines = [line for line in path.read_text(encoding='utf-8').splitlines() if not line.startswith('#')]
    assert [line for line in lines if not re.fullmatch(r'[A-Za-z0-9._-]+==[A-Za-z0-9._]+', line)] == []
    pinned = {re.sub(r'[-_.]+', '-', line.split('==')[0]).lower() for line in lines}
    assert {'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'transformers', 'torch', 'pytest', 'ruff'} <= pinned
    assert re.fullmatch(r'py31[1-3]\.txt', path.name)
