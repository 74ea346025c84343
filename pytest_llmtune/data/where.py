"""Row filters: a small expression language, parsed and never evaluated as Python."""

from __future__ import annotations

import ast
import operator
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from pytest_llmtune._util.text import InvalidError, parse_number, shown
from pytest_llmtune.errors import SuiteError
from pytest_llmtune.types import Row

Condition = Callable[[Row], bool]
Value = Callable[[Row], Any]

_MAX_CHARS, _MAX_NODES = 10_000, 2_000
_ORDERS: Mapping[type[ast.cmpop], tuple[str, Callable[[Any, Any], bool]]] = {
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
}
_WORDS = {"true": True, "false": False, "null": None}
"""Spelled as in YAML and JSON; a column of such a name is row["true"]."""


def compile_condition(text: str) -> tuple[Condition, frozenset[str]]:
    """A predicate on rows, and the columns it uses.

    A comparison with a missing value is false (except ``!=``, ``not in`` and ``is None``); a numeric string compares with
    a number as a number, because all cells of a CSV are strings.

    Raises:
        SuiteError: not such an expression; the message names the part that is not allowed.
    """
    if len(text) > _MAX_CHARS:
        raise InvalidError(f"has {len(text):,} characters, more than the limit of {_MAX_CHARS:,}")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", None) or error
        raise InvalidError(
            f"{shown(text)} is not an expression: {reason}; valid: level >= 3 and topic in ['a', 'b']"
        ) from None
    if sum(1 for _ in ast.walk(tree)) > _MAX_NODES:
        raise InvalidError(f"{shown(text)} exceeds the limit of {_MAX_NODES:,} parts")
    columns: set[str] = set()
    return _Compiler(text.strip(), columns).condition(tree.body), frozenset(columns)


class _Compiler:
    """Compiles a syntax tree to closures; any node not handled here is refused."""

    def __init__(self, text: str, columns: set[str]) -> None:
        self.text, self.columns = text, columns

    def condition(self, node: ast.expr) -> Condition:
        if isinstance(node, ast.BoolOp):
            parts = [self.condition(value) for value in node.values]
            combine = all if isinstance(node.op, ast.And) else any
            return lambda row: combine(part(row) for part in parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.condition(node.operand)
            return lambda row: not inner(row)
        if isinstance(node, ast.Compare):
            values = [self._value(operand) for operand in (node.left, *node.comparators)]
            steps = list(zip(values, [self._test(op) for op in node.ops], values[1:], strict=False))
            return lambda row: all(test(left(row), right(row)) for left, test, right in steps)
        if (name := self._column(node)) is not None:
            return lambda row: bool(row.get(name))
        if isinstance(node, ast.Constant) and isinstance(node.value, bool):
            constant = node.value
            return lambda _: constant
        raise self._refused(node)

    def _test(self, op: ast.cmpop) -> Callable[[Any, Any], bool]:
        if isinstance(op, (ast.Eq, ast.Is)):
            return _equal
        if isinstance(op, (ast.NotEq, ast.IsNot)):
            return lambda left, right: not _equal(left, right)
        if isinstance(op, ast.In):
            return self._contained
        if isinstance(op, ast.NotIn):
            return lambda left, right: not self._contained(left, right)
        symbol, compare = _ORDERS[type(op)]
        return lambda left, right: self._ordered(compare, symbol, left, right)

    def _ordered(self, compare: Callable[[Any, Any], bool], symbol: str, left: Any, right: Any) -> bool:
        if left is None or right is None:
            return False
        one, other = _alike(left, right)
        try:
            return bool(compare(one, other))
        except TypeError:
            raise SuiteError(f"where={self.text!r}: {shown(left)} {symbol} {shown(right)} cannot be compared") from None

    def _contained(self, left: Any, right: Any) -> bool:
        if isinstance(right, str):
            return isinstance(left, str) and left in right
        if isinstance(right, (list, tuple, Mapping)):
            return any(_equal(left, item) for item in right)
        if right is None:
            return False
        raise SuiteError(f"where={self.text!r}: {shown(right)} is not a list or string, as `in` requires")

    def _value(self, node: ast.expr) -> Value:
        if (name := self._column(node)) is not None:
            return lambda row: row.get(name)
        constant = self._constant(node)
        return lambda _: constant

    def _column(self, node: ast.expr) -> str | None:
        """``name`` or ``row["any name"]``."""
        name: Any = None
        if isinstance(node, ast.Name) and node.id not in _WORDS:
            name = node.id
        elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "row":
            name = node.slice.value if isinstance(node.slice, ast.Constant) else None
        if not isinstance(name, str):
            return None
        self.columns.add(column := unicodedata.normalize("NFC", name))
        return column

    def _constant(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, int, float, bool, type(None))):
            return node.value
        if isinstance(node, ast.Name) and node.id in _WORDS:
            return _WORDS[node.id]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            value = node.operand.value
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                return -value
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            return [self._constant(item) for item in node.elts]
        raise self._refused(node)

    def _refused(self, node: ast.expr) -> InvalidError:
        part = ast.get_source_segment(self.text, node) or self.text
        return InvalidError(
            f"{shown(part, 60)} is not allowed in {shown(self.text)}; valid: columns and constants with "
            "== != < <= > >= in, not in, is None, joined by and, or, not (for more, give a function of the row)"
        )


def _alike(left: Any, right: Any) -> tuple[Any, Any]:
    """Convert a numeric string that is compared with a number."""
    for text, other in ((left, right), (right, left)):
        if isinstance(text, str) and isinstance(other, (int, float)) and not isinstance(other, bool):
            value = parse_number(text)
            if value is not None:
                exact = float(value) if isinstance(other, float) else value
                return (exact, other) if text is left else (other, exact)
    return left, right


def _equal(left: Any, right: Any) -> bool:
    one, other = _alike(left, right)
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
