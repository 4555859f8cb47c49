"""Conditions on result rows, e.g. ``bandgap > 1 and bandgap < 2 and has('Li')``.

An expression is parsed with Python's own parser, and its tree evaluated on whole columns by
`evaluator`, which knows a short list of nodes; nothing of it is ever run as Python. It is checked
against the columns before any work.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence

import numpy as np

from recinet_ase.errors import ReciNetError
from recinet_ase.inference.result import ENDS
from recinet_ase.screening.selection.evaluator import DERIVED, Evaluator, ExpressionError
from recinet_ase.screening.selection.table import RowTable, has_interval, property_columns

MAXIMUM_LENGTH = 2000
"""Longest expression in characters."""

_BLOCK = 1 << 18  # rows evaluated at once: temporaries stay small


class Expression:
    """A checked condition.

    Args:
        text: The expression.
        columns: Columns of the table that it will be asked of.
        units: Unit of each column of numbers.

    Raises:
        ExpressionError: If it cannot be understood; the message names the place.
        UnknownNameError: For an unknown column or function, with suggestions.
        ReciNetError: For a property that is not predicted, or an unknown element.
    """

    def __init__(self, text: str, columns: Sequence[str], units: Mapping[str, str]) -> None:
        if len(text) > MAXIMUM_LENGTH:
            raise ReciNetError(
                f"the expression has {len(text)} characters; {MAXIMUM_LENGTH} are allowed"
            )
        # One line, so that positions are characters of the text.
        self.text = " ".join(text.splitlines()).strip()
        self.columns, self.units = columns, units
        self._tree = parse(self.text)
        self._checked = Evaluator(self.text, columns, units)
        with np.errstate(all="ignore"):
            self._checked.condition(self._tree)

    @property
    def properties(self) -> list[str]:
        """The predicted properties in it."""
        return [n for n in property_columns(self.columns, self.units) if n in self._checked.names]

    def mask(self, table: RowTable, confident: bool = False) -> np.ndarray:
        """Which rows pass.

        Args:
            table: The rows, ``n`` of them.
            confident: A row passes only where every point of the 90 % intervals does and the
                crystal is in the models' domain.

        Returns:
            Bool ``[n]``.

        Raises:
            ReciNetError: If ``confident`` and the table lacks intervals, or a model gave none.
        """
        if confident:
            self.check_confident()
        arrays = {name: table.column(name) for name in self._needed(confident)}
        for name in self.properties if confident else ():
            if np.isnan(arrays[name + ENDS[0]]).all() and not np.isnan(arrays[name]).all():
                raise ReciNetError(
                    f"--confident needs intervals of {name}, and its model has no calibration"
                )
        passed = np.zeros(len(table), dtype=bool)
        for start in range(0, len(table), _BLOCK):
            rows = slice(start, min(start + _BLOCK, len(table)))
            block = {name: array[rows] for name, array in arrays.items()}
            passed[rows] = self._evaluate(block, frozenset())
            if confident:
                passed[rows] &= self._evaluate(block, frozenset(self.properties))
                passed[rows] &= np.array([bool(value) for value in block["in_domain"]], dtype=bool)
        return passed

    def check_confident(self) -> None:
        """The table has what a confident answer needs.

        Raises:
            ReciNetError: If intervals or the domain flag are missing.
        """
        lacking = [n for n in self.properties if not has_interval(n, self.columns)]
        if lacking or "in_domain" not in self.columns:
            what = f"intervals of {', '.join(lacking)}" if lacking else "the column in_domain"
            raise ReciNetError(f"--confident needs {what}; ask for --intervals")

    def _needed(self, confident: bool) -> set[str]:
        needed = {"formula" if name in DERIVED else name for name in self._checked.names}
        if confident:
            needed |= {f"{name}{end}" for name in self.properties for end in ENDS}
            needed.add("in_domain")
        return needed

    def _evaluate(self, block: Mapping[str, np.ndarray], intervals: frozenset[str]) -> np.ndarray:
        evaluator = Evaluator(self.text, self.columns, self.units, block, intervals)
        with np.errstate(all="ignore"):
            return np.asarray(evaluator.condition(self._tree).true)

    def explain(self) -> str:
        """The expression with units and the columns' own names.

        ``"gap > 1 and e_hull < 0.05"`` becomes ``"bandgap > 1 eV and ehull < 0.05 eV/atom"``.
        """
        text = self.text
        for start, end, replacement in sorted(self._checked.notes(self._tree), reverse=True):
            text = f"{text[:start]}{replacement}{text[end:]}"
        return text


def parse(text: str) -> ast.expr:
    """The syntax tree of a condition, of which nothing is known yet.

    Args:
        text: The expression, one line.

    Raises:
        ReciNetError: If it is no expression; the message names the place.
    """
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError as error:
        # Where the text ends too early the parser may point at its beginning.
        early = re.search(r"(\b(and|or|not|in)|[-+*/<>=(,])\s*$", text)
        start = early.start() if early else max(0, min((error.offset or 1) - 1, len(text)))
        message = f"this cannot be read ({error.msg})"
        if not text:
            message = "it is empty"
        elif re.search(r"(?<![=<>!])=(?!=)", text):
            message = "write '==' to compare, not '='"
        elif re.search(r"&&|\|\||\b(AND|OR|NOT|IN)\b", text):
            message = "write 'and', 'or', 'not', 'in'"
        elif early:
            message = "something must follow"
        elif re.search(r"\d\s*[A-Za-z]", text[max(0, start - 2) : start + 2]):
            message = "write numbers without a unit: they are in that of the column"
        raise ExpressionError(message, text, start, early.end() if early else start + 1) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise ReciNetError(f"the expression cannot be read ({error})") from None
