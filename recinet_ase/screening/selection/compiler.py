"""From the syntax tree of a condition to functions on columns.

Only the parts named here are allowed; everything else is an error that points at its place.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

import numpy as np

from recinet_ase.elements import symbols
from recinet_ase.errors import ReciNetError, UnknownNameError
from recinet_ase.screening.selection.arithmetic import Span, Truth
from recinet_ase.screening.selection.columns import (
    formula_elements,
    reduced_formula,
    resolve_column,
)
from recinet_ase.screening.selection.parts import (
    ExpressionError,
    Function,
    Part,
    Rows,
    contains,
    equal,
    fold,
    place_of,
    substring,
)

MAXIMUM_DEPTH = 40
"""Deepest nesting of an expression."""

DERIVED = {"nelements": "number", "elements": "elements"}
"""Names that are read from the formula, and their kind."""

_HINTS = {
    ast.BitAnd: "use 'and' and parentheses, not '&'",
    ast.BitOr: "use 'or' and parentheses, not '|'",
    ast.Invert: "use 'not', not '~'",
    ast.Pow: "powers are not known here; multiply",
}
_FORMULA = re.compile(r"(?:[A-Z][a-z]?\d*|\((?:[A-Z][a-z]?\d*)+\)\d*)+").fullmatch
FUNCTIONS = ("abs", "has", "max", "min")
_LISTS = (ast.Tuple, ast.List, ast.Set)
_KINDS = {
    "number": "a number",
    "text": "a text",
    "truth": "a condition",
    "elements": "a set of elements",
}


class Compiler:
    """Compiles one expression against the columns of a table.

    Args:
        text: The expression, one line.
        columns: The columns there are.
        units: Unit of each column of numbers.

    Attributes:
        names: Columns used so far, ``elements`` and ``nelements`` among them.
    """

    def __init__(self, text: str, columns: Sequence[str], units: Mapping[str, str]) -> None:
        self.text, self.columns, self.units = text, columns, units
        self.names: set[str] = set()

    def _fail(self, node: ast.AST, message: str) -> NoReturn:
        raise ExpressionError(message, self.text, *self.span(node))

    def span(self, node: ast.AST) -> tuple[int, int]:
        """First character of a node in the text, and the one behind its last."""
        raw = self.text.encode()  # positions of the parser are bytes
        start, end = (
            len(raw[: getattr(node, at, 0) or 0].decode(errors="ignore"))
            for at in ("col_offset", "end_col_offset")
        )
        return start, end

    def notes(self, tree: ast.AST) -> Iterator[tuple[int, int, str]]:
        """Start, end and replacement of each name that is an alias, and of each missing unit."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id not in FUNCTIONS:
                yield (*self.span(node), self.column_of(node))
            if not isinstance(node, ast.Compare):
                continue
            sides = [node.left, *node.comparators]
            plain = [side for side in sides if not isinstance(side, _LISTS)]
            parts = {side: self.part(side, 0) for side in plain}
            units = {part.unit for part in parts.values() if part.constant is None}
            unit = units.pop() if len(units) == 1 else None
            for side, part in parts.items():
                if unit and part.constant is not None:
                    end = self.span(side)[1]
                    yield end, end, f" {unit}"

    def column_of(self, node: ast.Name) -> str:
        """The column that a name in the expression means."""
        if node.id in DERIVED and "formula" in self.columns:
            return node.id
        place = place_of(self.text, *self.span(node))
        derived = list(DERIVED) if "formula" in self.columns else []
        return resolve_column(node.id, [*self.columns, *derived], place)

    def _kind_of_column(self, name: str) -> str:
        if name in DERIVED:
            return DERIVED[name]
        if name == "in_domain":
            return "truth"
        return "number" if name in self.units or name == "natoms" else "text"

    def part(self, node: ast.AST, depth: int) -> Part:
        """A node of any allowed kind; ``depth`` counts the nodes around it."""
        if depth > MAXIMUM_DEPTH:
            self._fail(node, f"it is nested more than {MAXIMUM_DEPTH} deep")
        deeper = depth + 1
        match node:
            case ast.Constant():
                return self._constant(node)
            case ast.Name():
                return self._name(node)
            case ast.BoolOp(op=op, values=values):
                join = operator.and_ if isinstance(op, ast.And) else operator.or_
                parts = [self.condition(value, deeper) for value in values]
                return Part("truth", lambda rows: fold(join, (p.run(rows) for p in parts)))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                inner = self.condition(operand, deeper)
                return Part("truth", lambda rows: ~inner.run(rows))
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
                number = self._number(operand, deeper)
                if isinstance(node.op, ast.UAdd):
                    return number
                return Part(
                    "number",
                    lambda rows: -number.run(rows),
                    None if number.constant is None else -number.constant,
                    number.unit,
                )
            case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div()):
                return self._operation(node, deeper)
            case ast.Compare():
                return self._comparison(node, deeper)
            case ast.Call():
                return self._call(node, deeper)
        what = getattr(node, "op", node)
        self._fail(node, _HINTS.get(type(what), "this is not allowed in an expression"))

    def _want(self, kind: str, node: ast.AST, depth: int) -> Part:
        part = self.part(node, depth)
        if part.kind != kind:
            self._fail(node, f"this is {_KINDS[part.kind]}, where {_KINDS[kind]} is needed")
        return part

    def condition(self, node: ast.AST, depth: int) -> Part:
        """A node that must be a condition."""
        return self._want("truth", node, depth)

    def _number(self, node: ast.AST, depth: int) -> Part:
        return self._want("number", node, depth)

    def _constant(self, node: ast.Constant) -> Part:
        value = node.value
        if isinstance(value, bool):
            truth = Truth(np.array(value), np.array(not value))
            return Part("truth", lambda rows: truth, value)
        if isinstance(value, int | float):
            number = float(value) if abs(value) < 1e300 else math.inf
            if not math.isfinite(number):
                self._fail(node, "this number is too large")
            array = np.array(number)
            return Part("number", lambda rows: Span(array, array), number)
        if isinstance(value, str):
            return Part(
                "text", lambda rows: (np.array(value, dtype=object), np.array(False)), value
            )
        self._fail(node, "this is neither a number nor a text")

    def _name(self, node: ast.Name) -> Part:
        name = self.column_of(node)
        self.names.add(name)
        kind = self._kind_of_column(name)
        runs: dict[str, Function] = {
            "number": lambda rows: rows.number(name),
            "text": lambda rows: rows.text(name),
            "truth": lambda rows: rows.truth(name),
            "elements": lambda rows: rows.elements(),
        }
        return Part(kind, runs[kind], unit=self.units.get(name) or None)

    def _operation(self, node: ast.BinOp, depth: int) -> Part:
        left, right = self._number(node.left, depth), self._number(node.right, depth)
        apply = {
            ast.Add: operator.add,
            ast.Sub: operator.sub,
            ast.Mult: operator.mul,
            ast.Div: operator.truediv,
        }[type(node.op)]  # type: ignore[index]
        if isinstance(node.op, ast.Div) and right.constant == 0:
            self._fail(node.right, "division by zero")
        constant = None
        if left.constant is not None and right.constant is not None:
            constant = apply(left.constant, right.constant)
        # A bare number takes the unit of what it is added to, and scales without one.
        units = {part.unit for part in (left, right) if part.constant is None}
        multiplied = isinstance(node.op, ast.Mult) and None is left.constant is right.constant
        divided = isinstance(node.op, ast.Div) and right.constant is None
        keeps = len(units) == 1 and not multiplied and not divided
        return Part(
            "number",
            lambda rows: apply(left.run(rows), right.run(rows)),
            constant,
            units.pop() if keeps else None,
        )

    def _comparison(self, node: ast.Compare, depth: int) -> Part:
        found: list[Function] = []
        left_node: ast.expr = node.left
        for op, right_node in zip(node.ops, node.comparators, strict=True):
            found.append(self._pair(node, left_node, op, right_node, depth))
            left_node = right_node
        return Part("truth", lambda rows: fold(operator.and_, (f(rows) for f in found)))

    def _pair(
        self, node: ast.Compare, left: ast.expr, op: ast.cmpop, right: ast.expr, depth: int
    ) -> Function:
        if isinstance(op, ast.In | ast.NotIn):
            inside = self._membership(left, right, depth)
            return inside if isinstance(op, ast.In) else lambda rows: ~inside(rows)
        if isinstance(op, ast.Is | ast.IsNot):
            self._fail(node, "write '==' or '!=', not 'is'")
        a, b = self.part(left, depth), self.part(right, depth)
        if a.kind != b.kind or a.kind == "elements":
            self._fail(node, f"{_KINDS[a.kind]} cannot be compared with {_KINDS[b.kind]}")
        ordered = {ast.Lt: (a, b, False), ast.Gt: (b, a, False)}
        ordered |= {ast.GtE: (a, b, True), ast.LtE: (b, a, True)}  # not a < b: missing stays so
        if type(op) in ordered:
            if a.kind != "number":
                self._fail(node, f"{_KINDS[a.kind]} has no order; use '==' or '!='")
            x, y, negate = ordered[type(op)]
            if negate:
                return lambda rows: ~x.run(rows).less(y.run(rows))
            return lambda rows: x.run(rows).less(y.run(rows))
        if "formula" in self._columns_in(left, right):
            a, b = self._reduced(left, a), self._reduced(right, b)
        if isinstance(op, ast.Eq):
            return lambda rows: equal(a.run(rows), b.run(rows))
        return lambda rows: ~equal(a.run(rows), b.run(rows))

    def _columns_in(self, *nodes: ast.expr) -> set[str]:
        return {self.column_of(node) for node in nodes if isinstance(node, ast.Name)}

    def _reduced(self, node: ast.expr, part: Part) -> Part:
        """Formulas are compared reduced: ``TiO2`` is the ``O4Ti2`` of a cell of rutile."""
        if isinstance(part.constant, str):
            text = reduced_formula(part.constant)
            if not _FORMULA(part.constant):
                self._fail(node, f"{part.constant!r} is no chemical formula such as 'TiO2'")
            self._elements_known(node, part.constant)
            return Part("text", lambda rows: (np.array(text, dtype=object), np.array(False)), text)

        def run(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
            values, missing = part.run(rows)
            reduced = np.array([reduced_formula(value or "") for value in values], dtype=object)
            return reduced, missing

        return Part("text", run)

    def _elements_known(self, node: ast.expr, formula: str) -> None:
        for symbol in sorted(formula_elements(formula)):
            self._element(node, symbol)

    def _membership(self, left: ast.expr, right: ast.expr, depth: int) -> Function:
        """``x in (1, 2)``, ``"Li" in elements``, ``"part" in id``."""
        a = self.part(left, depth)
        if isinstance(right, _LISTS):
            choices = [self._want(a.kind, element, depth) for element in right.elts]
            if not choices or a.kind == "elements":
                self._fail(right, "name the values that are allowed, e.g. natoms in (2, 4)")
            if "formula" in self._columns_in(left, *right.elts):
                a = self._reduced(left, a)
                nodes = zip(right.elts, choices, strict=True)
                choices = [self._reduced(node, choice) for node, choice in nodes]
            return lambda rows: fold(
                operator.or_, (equal(a.run(rows), c.run(rows)) for c in choices)
            )
        if isinstance(right, ast.Constant | ast.Name) and not isinstance(a.constant, str):
            b = self.part(right, depth)
            if a.kind == b.kind:
                return lambda rows: equal(a.run(rows), b.run(rows))  # "(x)" is no tuple
        b = self.part(right, depth)
        if b.kind not in ("elements", "text") or not isinstance(a.constant, str):
            self._fail(right, "'in' needs values in parentheses, 'elements' or a column of texts")
        wanted = a.constant
        if b.kind == "elements":
            self._element(left, wanted)
            return lambda rows: contains(b.run(rows), (wanted,))
        if isinstance(right, ast.Name) and self.column_of(right) == "formula":
            self._fail(right, f"'C' is also in 'CaCl2'; write {wanted!r} in elements")
        if b.constant is not None:
            return lambda rows: equal(a.run(rows), b.run(rows))
        return lambda rows: substring(wanted, *b.run(rows))

    def _element(self, node: ast.AST, symbol: str) -> None:
        if symbol not in symbols()[1:]:
            place = place_of(self.text, *self.span(node))
            known = {s.lower(): s for s in symbols()[1:]}
            near = f"; did you mean {known[symbol.lower()]!r}?" if symbol.lower() in known else ""
            raise ReciNetError(f"{place}: {symbol!r} is no chemical symbol{near}")

    def _call(self, node: ast.Call, depth: int) -> Part:
        if not isinstance(node.func, ast.Name) or node.keywords:
            self._fail(node, "only abs(..), min(..), max(..) and has('Li') can be called")
        name = node.func.id
        if name not in FUNCTIONS:
            error = UnknownNameError("function", name, FUNCTIONS)
            error.args = (f"{place_of(self.text, *self.span(node.func))}: {error.args[0]}",)
            raise error
        if name == "has":
            wanted = []
            for argument in node.args:
                part = self._want("text", argument, depth)
                if not isinstance(part.constant, str):
                    self._fail(argument, "has() wants chemical symbols, e.g. has('Li', 'O')")
                self._element(argument, part.constant)
                wanted.append(part.constant)
            if not wanted or "formula" not in self.columns:
                self._fail(node, "has() wants chemical symbols and a column 'formula'")
            self.names.add("elements")
            return Part("truth", lambda rows: contains(rows.elements(), wanted))
        parts = [self._number(argument, depth) for argument in node.args]
        if name == "abs" and len(parts) == 1:
            only = parts[0]
            return Part("number", lambda rows: abs(only.run(rows)), unit=only.unit)
        if name == "abs" or len(parts) < 2:
            self._fail(node, "abs() takes one number" if name == "abs" else f"{name}() needs two")
        pick = np.minimum if name == "min" else np.maximum
        same = {part.unit for part in parts if part.constant is None}
        return Part(
            "number",
            lambda rows: fold(lambda a, b: a.extreme(b, pick), (p.run(rows) for p in parts)),
            unit=same.pop() if len(same) == 1 else None,
        )
