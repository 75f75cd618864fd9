"""setup.py requires what the package imports, and nothing else."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = {  # import name -> distribution, where they differ
    'absl': 'absl-py',
    'ml_collections': 'ml-collections',
    'orbax': 'orbax-checkpoint',
    'tensorflow_datasets': 'tensorflow-datasets',
    'libtpu': 'jax[tpu]',
    'jaxlib': 'jax',
}
NOT_IMPORTED = {'importlib_resources'}  # tensorflow-datasets imports it and does not require it


def requirements() -> tuple[set[str], set[str]]:
    """(names of install_requires, names of all extras but dev) of setup.py."""
    tree = ast.parse((ROOT / 'setup.py').read_text(encoding='utf-8'))
    names = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    (call,) = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, 'id', '') == 'setup']
    given = {keyword.arg: keyword.value for keyword in call.keywords}

    def listed(node: ast.AST) -> set[str]:
        strings = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        strings += [s for n in ast.walk(node) if isinstance(n, ast.Name) and n.id in names for s in listed(names[n.id])]
        return {re.split(r'[<>=;!\[ ]', s)[0] for s in strings}

    extras = given['extras_require']
    assert isinstance(extras, ast.Dict)
    optional = [v for k, v in zip(extras.keys, extras.values, strict=True) if getattr(k, 'value', '') != 'dev']
    return listed(given['install_requires']), set().union(*map(listed, optional))


def imported() -> dict[str, str]:
    """Distribution -> a file of the package that imports it."""
    found: dict[str, str] = {}
    for path in sorted(ROOT.glob('xlmr_flax/**/*.py')):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for name in (each.split('.')[0] for each in names):
                if name not in sys.stdlib_module_names and name != 'xlmr_flax':
                    found.setdefault(MODULES.get(name, name), path.relative_to(ROOT).as_posix())
    return found


def test_everything_imported_is_required() -> None:
    required, optional = requirements()
    known = required | optional | {'jax[tpu]'}
    assert not {name: path for name, path in imported().items() if name not in known}


def test_everything_required_is_used() -> None:
    required, _ = requirements()
    assert not required - imported().keys() - NOT_IMPORTED
