"""The rules of the house, read from the source: imports point one way, training needs no torch, files stay short."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'xlmr_flax'

_GROUND = frozenset({'config', 'util'})
_BELOW = frozenset({'models', 'encoders', 'kinds', 'parallel', 'scoring', 'data', 'tasks'})
_ALL_BELOW = _BELOW | {'train', 'eval', 'report'}

# Room -> the rooms it may import besides itself and config, which anyone may import. docs/architecture.md draws it.
MAY_IMPORT: dict[str, frozenset[str]] = {
    'config': frozenset(),
    'util': frozenset(),
    'tasks': frozenset(),
    'encoders': frozenset(),
    'kinds': frozenset({'tasks', 'data', 'scoring', 'encoders'}),
    'models': frozenset({'encoders', 'kinds'}),
    'parallel': frozenset({'encoders'}),
    'report': frozenset(),
    'data': frozenset({'tasks'}),
    'download': frozenset({'tasks', 'data'}),
    'scoring': frozenset({'tasks', 'data'}),
    'train': _BELOW,
    'eval': _BELOW,
    'experiment': _ALL_BELOW | {'download'},
    # What is made of result rows and prediction files when a plan is done.
    'analysis': _ALL_BELOW | {'experiment'},
    # Tools measure the product: nothing but cli knows them.
    'tools.torch': _ALL_BELOW | {'experiment', 'analysis'},
    'tools.estimate': _ALL_BELOW | {'experiment'},
    'tools.bench': _ALL_BELOW | {'experiment', 'tools.torch'},
}
ANYTHING = frozenset({'cli', '__main__'})

# Nothing that training, evaluation or a report needs imports these, not even inside a function.
HEAVY = ('torch', 'tensorflow')
HEAVY_ROOMS = ('tools.torch', 'tools.bench')

# nnx defines modules and nothing else; what trains them is plain jax.jit, jax.grad, jax.lax.scan and optax.
FORBIDDEN = (
    'flax.linen',
    'flax.training',
    'flax.nnx.jit',
    'flax.nnx.grad',
    'flax.nnx.value_and_grad',
    'flax.nnx.scan',
    'flax.nnx.Optimizer',
)
FLAX_ROOMS = frozenset({'models', 'encoders', 'kinds'})
FILES_A_ROOM = 16

FILE_LINES, FUNCTION_LINES = 350, 60
# path -> why it is longer. Keep it short.
LONG_FILES: dict[str, str] = {}
# path:function -> why it is longer. Keep it short.
LONG_FUNCTIONS: dict[str, str] = {}


@dataclass(frozen=True)
class Import:
    """One imported name, absolute: `from flax import nnx` is 'flax.nnx'."""

    name: str
    line: int


def imports(source: str, module: str, is_package: bool = False) -> Iterator[Import]:
    """Every import of a module's source, `module` being its dotted name (for relative imports)."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                parts = module.split('.')
                parts = parts[: len(parts) - node.level + is_package]
                base = '.'.join([*parts, base] if base else parts)
            for alias in node.names:
                yield Import(f'{base}.{alias.name}', node.lineno)


def dotted_uses(source: str) -> Iterator[tuple[str, int]]:
    """Attribute chains on imported names, absolute: `nnx.jit(f)` after `from flax import nnx` is 'flax.nnx.jit'."""
    tree = ast.parse(source)
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.split('.')[0]
                known[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            known |= {a.asname or a.name: f'{node.module}.{a.name}' for a in node.names}
    for node in ast.walk(tree):
        chain: list[str] = []
        inner: ast.AST = node
        while isinstance(inner, ast.Attribute):
            chain.append(inner.attr)
            inner = inner.value
        if chain and isinstance(inner, ast.Name) and inner.id in known:
            yield '.'.join([known[inner.id], *reversed(chain)]), node.lineno


def room_of(name: str) -> str | None:
    """The room of an absolute dotted name; None outside the package and for the package's own attributes."""
    parts = name.split('.')
    if parts[0] != 'xlmr_flax' or len(parts) == 1:
        return None
    if parts[1] == 'tools':
        return '.'.join(parts[1:3])
    known = MAY_IMPORT.keys() | ANYTHING
    return parts[1] if parts[1] in known or not parts[1].startswith('__') else None


def is_under(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(prefix + '.') for prefix in prefixes)


def breaches(path: str, source: str) -> list[str]:
    """What a file of the package breaks. path: relative to the package, with slashes."""
    parts = path.removesuffix('.py').split('/')
    is_package = parts[-1] == '__init__'
    module = '.'.join(['xlmr_flax', *(parts[:-1] if is_package else parts)])
    room = room_of(module)
    found = []
    for item in imports(source, module, is_package):
        target = room_of(item.name)
        where = f'xlmr_flax/{path}:{item.line}'
        if target is not None and target != room and room not in ANYTHING:
            if room is None:
                found.append(f'{where}: the package itself imports nothing, but here {item.name}')
            elif room not in MAY_IMPORT:
                found.append(f'{where}: room {room!r} is not in MAY_IMPORT')
            elif target not in MAY_IMPORT[room] | _GROUND:
                found.append(f'{where}: {room} may not import {target} ({item.name})')
        if room == 'config' and target not in (None, 'config', 'util'):
            found.append(f'{where}: config imports nothing but util')
        if is_under(item.name, HEAVY) and room not in HEAVY_ROOMS:
            found.append(f'{where}: {item.name} outside {"/, ".join(HEAVY_ROOMS)}/')
        if is_under(item.name, FORBIDDEN):
            found.append(f'{where}: {item.name} is not used here')
        if is_under(item.name, ('flax',)) and room not in FLAX_ROOMS:
            found.append(f'{where}: flax outside {"/, ".join(FLAX_ROOMS)}/')
    found += [
        f'xlmr_flax/{path}:{line}: {name} is not used here' for name, line in dotted_uses(source) if name in FORBIDDEN
    ]
    return found


def python_files(*folders: str) -> list[Path]:
    return sorted(p for folder in folders for p in (ROOT / folder).rglob('*.py') if '__pycache__' not in p.parts)


def test_imports_and_names_of_the_package() -> None:
    files = python_files('xlmr_flax')
    assert len(files) > 5
    found = [b for p in files for b in breaches(p.relative_to(PACKAGE).as_posix(), p.read_text(encoding='utf-8'))]
    assert not found, '\n' + '\n'.join(found)


def test_rooms_are_small() -> None:
    """Files of one folder, without its packages. A folder of tasks has one file a dataset."""
    folders = {path.parent for path in python_files('xlmr_flax')} - {PACKAGE / 'tasks'}
    found = {folder.relative_to(ROOT).as_posix(): len(list(folder.glob('*.py'))) for folder in folders}
    assert {name: count for name, count in found.items() if count > FILES_A_ROOM} == {}


def test_no_two_rooms_import_each_other() -> None:
    """MAY_IMPORT itself must be a direction."""
    order: list[str] = []
    rest = dict(MAY_IMPORT)
    while rest:
        ready = sorted(room for room, below in rest.items() if below <= set(order))
        assert ready, f'a circle among {sorted(rest)}'
        order += ready
        for room in ready:
            del rest[room]


def import_graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """{module: modules of the package that it imports}, from {module: source}; imports inside functions and for types
    alone count as well."""
    graph: dict[str, set[str]] = {}
    for module, source in sources.items():
        names = {item.name for item in imports(source, module)}
        known = {name if name in sources else name.rpartition('.')[0] for name in names} & sources.keys()
        graph[module] = known - {module}
    return graph


def circles(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """What is left of a graph when modules that import nothing that is left are taken away, again and again."""
    left = dict(graph)
    while ready := [module for module, below in left.items() if not below & left.keys()]:
        for module in ready:
            del left[module]
    return {module: below & left.keys() for module, below in left.items()}


def test_no_module_imports_itself_by_way_of_others() -> None:
    sources = {}
    for path in python_files('xlmr_flax'):
        parts = path.relative_to(ROOT).with_suffix('').parts
        name = '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)
        sources[name] = path.read_text(encoding='utf-8')
    graph = import_graph(sources)
    assert 'xlmr_flax.train.phase' in graph['xlmr_flax.train.loop']
    assert circles(graph) == {}


def test_a_circle_is_found() -> None:
    sources = {
        'p.a': 'from p.b import x\nfrom p import c',
        'p.b': 'def f():\n    import p.d',
        'p.c': '',
        'p.d': 'if TYPE_CHECKING:\n    from p.a import A',
    }
    assert import_graph(sources)['p.a'] == {'p.b', 'p.c'}
    assert circles(import_graph(sources)) == {'p.a': {'p.b'}, 'p.b': {'p.d'}, 'p.d': {'p.a'}}
    assert circles(import_graph({**sources, 'p.d': ''})) == {}


def test_files_are_short() -> None:
    found = []
    for path in python_files('xlmr_flax', 'configs', 'tests'):
        name = path.relative_to(ROOT).as_posix()
        lines = len(path.read_text(encoding='utf-8').splitlines())
        if lines > FILE_LINES and name not in LONG_FILES:
            found.append(f'{name}: {lines} lines')
    assert not found, '\n' + '\n'.join(found)


def test_functions_are_short() -> None:
    found = []
    for path in python_files('xlmr_flax', 'configs', 'tests'):
        name = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES and f'{name}:{node.name}' not in LONG_FUNCTIONS:
                    found.append(f'{name}:{node.lineno}: {node.name} has {lines} lines')
    assert not found, '\n' + '\n'.join(found)


@pytest.mark.parametrize('kind', ['file', 'function'])
def test_allowlists_name_things_that_exist(kind: str) -> None:
    names = LONG_FILES if kind == 'file' else [name.split(':')[0] for name in LONG_FUNCTIONS]
    assert not [name for name in names if not (ROOT / name).exists()]


BROKEN = [
    ('data/loader.py', 'from xlmr_flax.train import loop', 'data may not import train'),
    ('train/loop.py', 'def f():\n    from xlmr_flax import eval', 'train may not import eval'),
    ('tasks/xnli.py', 'from ..data import cache', 'tasks may not import data'),
    ('report/html.py', 'import xlmr_flax.tasks.base', 'report may not import tasks'),
    ('eval/__init__.py', 'from ..experiment import plan', 'eval may not import experiment'),
    ('config.py', 'from xlmr_flax.tasks import all_tasks', 'config imports nothing but util'),
    ('attic/x.py', 'import xlmr_flax.data', "room 'attic' is not in MAY_IMPORT"),
    ('__init__.py', 'from xlmr_flax.cli import main', 'the package itself imports nothing'),
    ('data/x.py', 'import torch.nn', 'torch.nn outside'),
    ('models/hf.py', 'def read():\n    import torch', 'torch outside'),
    ('experiment/x.py', 'from xlmr_flax.tools.torch import torch_run', 'experiment may not import tools.torch'),
    ('train/x.py', 'def f():\n    import tensorflow as tf', 'tensorflow outside'),
    ('models/x.py', 'from flax import nnx\n@nnx.jit\ndef f(): ...', 'flax.nnx.jit is not used'),
    ('models/x.py', 'from flax.nnx import Optimizer', 'flax.nnx.Optimizer is not used'),
    ('models/x.py', 'import flax\nflax.linen.Dense(3)', 'flax.linen is not used'),
    ('models/x.py', 'import flax.linen as nn', 'flax.linen is not used'),
    ('train/x.py', 'from flax import nnx', 'flax outside'),
]
FINE = [
    ('data/x.py', 'import tensorflow_datasets\nfrom xlmr_flax.tasks import base\nfrom xlmr_flax import config'),
    ('models/hf.py', 'import torchless'),
    ('models/x.py', 'from flax import nnx\nx = nnx.Linear\njit = 1'),
    ('tools/torch/x.py', 'import torch\nfrom xlmr_flax.experiment import plan'),
    ('cli/main.py', 'from xlmr_flax.experiment import plan\nfrom xlmr_flax import __version__'),
    ('data/sub/x.py', 'from ..cache import y\nfrom . import z'),
]


@pytest.mark.parametrize(('path', 'source', 'said'), BROKEN)
def test_a_breach_is_found(path: str, source: str, said: str) -> None:
    assert any(said in line for line in breaches(path, source)), breaches(path, source)


@pytest.mark.parametrize(('path', 'source'), FINE)
def test_what_is_allowed_is_not_a_breach(path: str, source: str) -> None:
    assert breaches(path, source) == []


def test_the_tests_have_the_folders_of_the_package() -> None:
    own = {path.parent.relative_to(PACKAGE).as_posix() for path in python_files('xlmr_flax')}
    found = {path.parent.relative_to(ROOT / 'tests').as_posix() for path in (ROOT / 'tests').rglob('test_*.py')}
    assert found - own == {'launch', 'notebooks'}, 'these test what lies beside the package'


def test_the_lists_of_fast_and_long_tests_name_files() -> None:
    text = (ROOT / 'tests' / 'conftest.py').read_text(encoding='utf-8')
    names = re.findall(r"'([\w/]+/test_\w+\.py|test_\w+\.py)'", text)
    assert len(names) > 20
    assert [name for name in names if not (ROOT / 'tests' / name).is_file()] == []
