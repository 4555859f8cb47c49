"""The value of a condition's syntax tree, node by node, for a block of rows.

Only the nodes named here are allowed; everything else is an error that points at its place. An
expression is checked by evaluating it on no rows.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any, NoReturn, TypeVar

import numpy as np

from recinet_ase.elements import symbols
from recinet_ase.errors import ReciNetError, UnknownNameError
from recinet_ase.inference.result import ENDS
from recinet_ase.screening.selection.columns import formula_elements, resolve_column
from recinet_ase.screening.selection.table import FLAG_COLUMNS
from recinet_ase.screening.selection.values import Elements, Span, Text, Truth

MAXIMUM_DEPTH = 40
"""Deepest nesting of an expression."""

DERIVED = ("nelements", "elements")
"""Names that are read from the formula."""

FUNCTIONS = ("abs", "has", "max", "min")

_HINTS = {
    ast.BitAnd: "use 'and' and parentheses, not '&'",
    ast.BitOr: "use 'or' and parentheses, not '|'",
    ast.Invert: "use 'not', not '~'",
    ast.Pow: "powers are not known here; multiply",
}
_FORMULA = re.compile(r"(?:[A-Z][a-z]?\d*|\((?:[A-Z][a-z]?\d*)+\)\d*)+").fullmatch
_LISTS = (ast.Tuple, ast.List, ast.Set)
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_ORDER: dict[type[ast.cmpop], Callable[[Span, Span], Truth]] = {
    ast.Lt: lambda a, b: a.less(b),
    ast.Gt: lambda a, b: b.less(a),
    ast.GtE: lambda a, b: ~a.less(b),  # neither if one is missing
    ast.LtE: lambda a, b: ~b.less(a),
}
_Value = Span | Truth | Text | Elements
_V = TypeVar("_V", Span, Truth, Text, Elements)


class ExpressionError(ReciNetError):
    """An expression that cannot be understood.

    Args:
        message: What is wrong.
        text: The expression.
        start: Where, first character counted from 0.
        end: Position behind the last character.
    """

    def __init__(self, message: str, text: str, start: int, end: int) -> None:
        super().__init__(f"{place_of(text, start, end)}: {message}")


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a tree, names with a source in brackets whole."""
    yield node
    if not isinstance(node, ast.Subscript):
        for child in ast.iter_child_nodes(node):
            yield from _walk(child)


def place_of(text: str, start: int, end: int) -> str:
    """Where in an expression something is wrong, in words."""
    part = text[start:end]
    part = part if len(part) <= 40 else f"{part[:37]}..."
    at = f"at character {start + 1}" + (f", {part!r}" if part.strip() else "")
    return f"in the expression {text!r}, {at}" if len(text) <= 80 else f"in the expression, {at}"


class Evaluator:
    """Evaluates one expression on a block of a table's rows.

    Args:
        text: The expression, one line.
        columns: The columns there are.
        units: Unit of each column of numbers.
        block: The rows, by column; none by default, which checks the expression.
        intervals: Properties that stand for their whole 90 % interval.

    Attributes:
        names: Columns used so far, ``elements`` and ``nelements`` among them.
    """

    def __init__(
        self,
        text: str,
        columns: Sequence[str],
        units: Mapping[str, str],
        block: Mapping[str, np.ndarray] | None = None,
        intervals: frozenset[str] = frozenset(),
    ) -> None:
        self.text, self.columns, self.units = text, columns, units
        self.block, self.intervals = block, intervals
        self.names: set[str] = set()

    def condition(self, node: ast.AST, depth: int = 0) -> Truth:
        """A node that must be a condition."""
        return self._want(Truth, node, depth)

    def value(self, node: ast.AST, depth: int = 0) -> _Value:
        """A node of any allowed kind; ``depth`` counts the nodes around it."""
        if depth > MAXIMUM_DEPTH:
            self._fail(node, f"it is nested more than {MAXIMUM_DEPTH} deep")
        deeper = depth + 1
        match node:
            case ast.Constant():
                return self._constant(node)
            case ast.Name() | ast.Subscript(value=ast.Name()):
                return self._column(self.column_of(node))
            case ast.BoolOp(op=op, values=values):
                join = operator.and_ if isinstance(op, ast.And) else operator.or_
                return reduce(join, [self.condition(value, deeper) for value in values])
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return ~self.condition(operand, deeper)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self._want(Span, operand, deeper)
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self._want(Span, operand, deeper)
            case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() as op):
                left = self._want(Span, node.left, deeper)
                right = self._want(Span, node.right, deeper)
                if isinstance(op, ast.Div) and right.constant and right.low == 0:
                    self._fail(node.right, "division by zero")
                result: Span = _ARITHMETIC[type(op)](left, right)
                return result
            case ast.Compare():
                sides = [node.left, *node.comparators]
                pairs = zip(sides, node.ops, sides[1:], strict=False)
                return reduce(
                    operator.and_, [self._compared(node, *pair, deeper) for pair in pairs]
                )
            case ast.Call():
                return self._call(node, deeper)
        what = getattr(node, "op", node)
        self._fail(node, _HINTS.get(type(what), "this is not allowed in an expression"))

    def notes(self, tree: ast.AST) -> Iterator[tuple[int, int, str]]:
        """Start, end and replacement of each name that is an alias, and of each missing unit."""
        for node in _walk(tree):
            named = isinstance(node, ast.Name) and node.id not in FUNCTIONS
            if named or isinstance(node, ast.Subscript):
                yield (*self._span(node), self.column_of(node))
            if not isinstance(node, ast.Compare):
                continue
            sides = [s for s in [node.left, *node.comparators] if not isinstance(s, _LISTS)]
            values = {side: self.value(side) for side in sides}
            units = {value.unit for value in values.values() if not _written(value)}
            unit = units.pop() if len(units) == 1 else None
            for side, value in values.items():
                if unit and _written(value):
                    end = self._span(side)[1]
                    yield end, end, f" {unit}"

    def column_of(self, node: ast.AST) -> str:
        """The column that a name in the expression means, such as ``bulk_modulus[mp-bulk]``."""
        start, end = self._span(node)
        name = self.text[start:end]
        derived = DERIVED if "formula" in self.columns else ()
        if name in derived:
            return name
        place = place_of(self.text, start, end)
        return resolve_column(name, [*self.columns, *derived], place)

    def _span(self, node: ast.AST) -> tuple[int, int]:
        """First character of a node in the text, and the one behind its last."""
        raw = self.text.encode()  # positions of the parser are bytes
        start, end = (
            len(raw[: getattr(node, at, 0) or 0].decode(errors="ignore"))
            for at in ("col_offset", "end_col_offset")
        )
        return start, end

    def _fail(self, node: ast.AST, message: str) -> NoReturn:
        raise ExpressionError(message, self.text, *self._span(node))

    def _want(self, kind: type[_V], node: ast.AST, depth: int) -> _V:
        value = self.value(node, depth)
        if not isinstance(value, kind):
            self._fail(node, f"this is {value.kind}, where {kind.kind} is needed")
        return value

    def _constant(self, node: ast.Constant) -> _Value:
        """A number, a text or a truth that is written in the expression."""
        value = node.value
        if isinstance(value, bool):
            return Truth(np.array(value), np.array(not value))
        if isinstance(value, int | float):
            number = float(value) if abs(value) < 1e300 else math.inf
            if not math.isfinite(number):
                self._fail(node, "this number is too large")
            return Span.exactly(np.array(number), constant=True)
        if isinstance(value, str):
            return Text.written(value)
        self._fail(node, "this is neither a number nor a text")

    def _column(self, name: str) -> _Value:
        """The rows' values of a column."""
        self.names.add(name)
        if name in DERIVED:
            elements = Elements.of(self._block_of("formula", object))
            return elements if name == "elements" else elements.count
        if name in self.units or name == "natoms":
            value = self._block_of(name, float)
            unit = self.units.get(name) or None
            if name not in self.intervals:
                return Span.exactly(value, unit)
            # A value is never outside its own interval; if it were, the wider span is the safe one.
            low, high = (self._block_of(name + end, float) for end in ENDS)
            low, high = np.minimum(low, value), np.maximum(high, value)
            missing = np.isnan(low) | np.isnan(high)
            return Span(np.where(missing, np.nan, low), np.where(missing, np.nan, high), unit)
        values = self._block_of(name, object)
        if name in FLAG_COLUMNS:
            known = np.array([value is not None for value in values], dtype=bool)
            true = np.array([bool(value) for value in values], dtype=bool)
            return Truth(known & true, known & ~true)
        # An unreadable structure has no formula.
        absent = (None, "") if name == "formula" else (None,)
        missing = np.array([value in absent for value in values], dtype=bool)
        return Text(values, missing, formula=name == "formula")

    def _block_of(self, name: str, kind: type) -> np.ndarray:
        return np.empty(0, dtype=kind) if self.block is None else self.block[name]

    def _compared(
        self, node: ast.Compare, left: ast.expr, op: ast.cmpop, right: ast.expr, depth: int
    ) -> Truth:
        """One pair of a chain of comparisons."""
        if isinstance(op, ast.In | ast.NotIn):
            inside = self._membership(left, right, depth)
            return inside if isinstance(op, ast.In) else ~inside
        if isinstance(op, ast.Is | ast.IsNot):
            self._fail(node, "write '==' or '!=', not 'is'")
        a, b = self.value(left, depth), self.value(right, depth)
        if type(a) is not type(b) or isinstance(a, Elements):
            self._fail(node, f"{a.kind} cannot be compared with {b.kind}")
        if type(op) in _ORDER:
            if not isinstance(a, Span) or not isinstance(b, Span):
                self._fail(node, f"{a.kind} has no order; use '==' or '!='")
            return _ORDER[type(op)](a, b)
        same = self._equal((left, a), (right, b))
        return same if isinstance(op, ast.Eq) else ~same

    def _equal(self, *sides: tuple[ast.expr, _Value]) -> Truth:
        """Whether two values of the same kind are equal."""
        (_, a), (_, b) = sides
        if isinstance(a, Text) and isinstance(b, Text) and (a.formula or b.formula):
            for node, value in sides:
                written = value.constant
                if isinstance(written, str):
                    if not _FORMULA(written):
                        self._fail(node, f"{written!r} is no chemical formula such as 'TiO2'")
                    for symbol in sorted(formula_elements(written)):
                        self._check_element(node, symbol)
        found: Truth = a.equal(b)  # type: ignore[union-attr,arg-type]
        return found

    def _membership(self, left: ast.expr, right: ast.expr, depth: int) -> Truth:
        """``x in (1, 2)``, ``"Li" in elements``, ``"part" in id``."""
        a = self.value(left, depth)
        if isinstance(right, _LISTS):
            if not right.elts or isinstance(a, Elements):
                self._fail(right, "name the values that are allowed, e.g. natoms in (2, 4)")
            kind: Any = type(a)
            choices = [(node, self._want(kind, node, depth)) for node in right.elts]
            return reduce(operator.or_, [self._equal((left, a), choice) for choice in choices])
        b = self.value(right, depth)
        wanted = a.constant if isinstance(a, Text) else None
        if wanted is None:
            if type(a) is type(b) and isinstance(right, ast.Constant | ast.Name):
                return self._equal((left, a), (right, b))  # "(x)" is no tuple
            b = a  # no text to look for
        if wanted is None or not isinstance(b, Elements | Text):
            self._fail(right, "'in' needs values in parentheses, 'elements' or a column of texts")
        if isinstance(b, Elements):
            self._check_element(left, wanted)
            return b.hold(wanted)
        if b.formula:
            self._fail(right, f"'C' is also in 'CaCl2'; write {wanted!r} in elements")
        if b.constant is not None:
            return self._equal((left, a), (right, b))
        return b.holds(wanted)

    def _check_element(self, node: ast.AST, symbol: str) -> None:
        """Refuse what is no element's symbol."""
        if symbol not in symbols()[1:]:
            place = place_of(self.text, *self._span(node))
            known = {s.lower(): s for s in symbols()[1:]}
            near = f"; did you mean {known[symbol.lower()]!r}?" if symbol.lower() in known else ""
            raise ReciNetError(f"{place}: {symbol!r} is no chemical symbol{near}")

    def _call(self, node: ast.Call, depth: int) -> Span | Truth:
        """``abs(..)``, ``min(..)``, ``max(..)`` or ``has(..)``."""
        if not isinstance(node.func, ast.Name) or node.keywords:
            self._fail(node, "only abs(..), min(..), max(..) and has('Li') can be called")
        name = node.func.id
        if name not in FUNCTIONS:
            error = UnknownNameError("function", name, FUNCTIONS)
            error.args = (f"{place_of(self.text, *self._span(node.func))}: {error.args[0]}",)
            raise error
        if name == "has":
            return self._has(node, depth)
        numbers = [self._want(Span, argument, depth) for argument in node.args]
        if name == "abs" and len(numbers) == 1:
            return abs(numbers[0])
        if name == "abs" or len(numbers) < 2:
            self._fail(node, "abs() takes one number" if name == "abs" else f"{name}() needs two")
        return reduce(Span.smaller if name == "min" else Span.larger, numbers)

    def _has(self, node: ast.Call, depth: int) -> Truth:
        """``has("Li", "O")``."""
        wanted = []
        for argument in node.args:
            symbol = self._want(Text, argument, depth).constant
            if symbol is None:
                self._fail(argument, "has() wants chemical symbols, e.g. has('Li', 'O')")
            self._check_element(argument, symbol)
            wanted.append(symbol)
        if not wanted or "formula" not in self.columns:
            self._fail(node, "has() wants chemical symbols and a column 'formula'")
        self.names.add("elements")
        return Elements.of(self._block_of("formula", object)).hold(*wanted)


def _written(value: _Value) -> bool:
    """Whether a value is written in the expression, and so has no unit of its own."""
    return value.constant not in (None, False)
