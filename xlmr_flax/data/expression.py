"""Arithmetic expressions in the step `t` from a config: parsed and interpreted safely, without `eval`."""

from __future__ import annotations

import ast
import operator
import sys
from collections.abc import Callable, Mapping
from typing import cast

import numpy as np

from xlmr_flax.util.errors import UserError, shorten

_BINARY: Mapping[type, Callable[..., np.ndarray]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_FUNCTIONS: Mapping[str, tuple[Callable[..., np.ndarray], int]] = {
    'exp': (np.exp, 1),
    'log': (np.log, 1),
    'sqrt': (np.sqrt, 1),
    'min': (np.minimum, 2),
    'max': (np.maximum, 2),
}
_LONGEST = 500


class ExpressionError(UserError, ValueError):
    """Raised for a text that is not an arithmetic expression in t; the message names the part that is not allowed."""


class Expression:
    """A function of t, parsed from `text`: numbers, t, + - * / **, brackets, exp, log, sqrt, min(a, b), max(a, b)."""

    def __init__(self, text: str):
        self.text = text
        if len(text) > _LONGEST:
            raise ExpressionError(f'rate {text[:40]!r}...: longer than {_LONGEST} characters')
        try:
            self._tree = ast.parse(text.strip(), mode='eval').body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
            raise ExpressionError(f'rate {text!r}: no arithmetic expression ({e})') from None
        self._check(self._tree)

    def __call__(self, t: np.ndarray) -> np.ndarray:
        """Evaluates at float64 steps t; returns float64. Overflow and division by zero give inf or nan."""
        with np.errstate(all='ignore'):
            return np.asarray(_value(self._tree, np.asarray(t, np.float64)), np.float64)

    def _check(self, node: ast.AST) -> None:
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            if not abs(cast(float, node.value)) <= sys.float_info.max:
                raise ExpressionError(f'rate {shorten(self.text, 80)!r}: a number is too large')
            return
        if isinstance(node, ast.Name) and node.id == 't':
            return
        if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            parts: list[ast.expr] = [node.left, node.right]
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            parts = [node.operand]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS:
            parts = node.args
            if node.keywords or len(parts) != _FUNCTIONS[node.func.id][1]:
                raise ExpressionError(
                    f'rate {self.text!r}: {node.func.id} takes {_FUNCTIONS[node.func.id][1]} number(s)'
                )
        else:
            part = ast.unparse(node)
            raise ExpressionError(
                f'rate {self.text!r}: {part!r} is not allowed; known: numbers, t, + - * / **, '
                f'{", ".join(sorted(_FUNCTIONS))}'
            )
        for part in parts:
            self._check(part)


def _value(node: ast.AST, t: np.ndarray) -> np.ndarray:
    if isinstance(node, ast.Constant):
        return np.asarray(node.value, np.float64)  # type: ignore[arg-type]
    if isinstance(node, ast.Name):
        return t
    if isinstance(node, ast.UnaryOp):
        value = _value(node.operand, t)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp):
        return _BINARY[type(node.op)](_value(node.left, t), _value(node.right, t))
    assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    return _FUNCTIONS[node.func.id][0](*(_value(argument, t) for argument in node.args))
