"""No module outside of kinds/ and tasks/ tells kinds apart by their names."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from xlmr_flax.kinds import KINDS, kind_of
from xlmr_flax.tasks import all_tasks
from xlmr_flax.tasks.base import TaskError

PACKAGE = Path(__file__).parents[2] / 'xlmr_flax'
# Module -> words that are something else there: a command, a bench subject, a table of the paper, an arm, a task of the
# embedded world, a group of XTREME's tasks, the default of a command line flag.
OTHER = {
    'tools/bench/__init__.py': {'retrieval'},
    'cli/bench.py': {'retrieval'},
    'cli/retrieval.py': {'retrieval'},
    'cli/main.py': {'retrieval'},
    'cli/estimate.py': {'pair'},
    'data/world/__init__.py': {'retrieval'},
    'data/world/items.py': {'retrieval'},
    'data/world/tokenizer.py': {'retrieval'},
    'experiment/studies/logic.py': {'mlm'},
    'experiment/studies/phang2020.py': {'mlm'},
    'scoring/benchmarks.py': {'retrieval'},
}


def test_kinds_are_asked_and_not_named() -> None:
    found = {}
    for path in sorted(PACKAGE.rglob('*.py')):
        name = path.relative_to(PACKAGE).as_posix()
        if name.startswith(('kinds/', 'tasks/')):
            continue
        words = {node.value for node in ast.walk(ast.parse(path.read_text('utf-8'))) if isinstance(node, ast.Constant)}
        if named := words & KINDS.keys():
            found[name] = named
    assert found == OTHER


def test_every_task_has_a_kind() -> None:
    assert {kind_of(task).name for task in all_tasks().values()} == set(KINDS)
    assert [name for name, kind in KINDS.items() if name != kind.name] == []


def test_an_unknown_kind_is_named_with_the_closest() -> None:
    class Thing:
        kind = 'spam'

    with pytest.raises(TaskError, match='span'):
        kind_of(Thing())
