"""What compiled expressions are made of: pieces, the rows they are asked of, and their errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recinet_ase.errors import ReciNetError
from recinet_ase.screening.selection.arithmetic import Span, Truth
from recinet_ase.screening.selection.columns import formula_elements


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
        self.pointer = f"{text}\n{' ' * start}{'^' * max(1, end - start)}"


def place_of(text: str, start: int, end: int) -> str:
    """Where in an expression something is wrong, in words."""
    part = text[start:end]
    part = part if len(part) <= 40 else f"{part[:37]}..."
    at = f"at character {start + 1}" + (f", {part!r}" if part.strip() else "")
    return f"in the expression {text!r}, {at}" if len(text) <= 80 else f"in the expression, {at}"


@dataclass
class Rows:
    """Columns of a block of rows, as the compiled expression asks for them.

    Attributes:
        get: The block of a column.
        intervals: Properties that stand for their whole 90 % interval.
    """

    get: Callable[[str], np.ndarray]
    intervals: frozenset[str]

    def number(self, name: str) -> Span:
        """A column of numbers, or the number of elements."""
        if name == "nelements":
            sizes = [float(len(e)) if e else np.nan for e in self.elements()]
            return Span(*[np.array(sizes, dtype=np.float64)] * 2)
        value = self.get(name)
        if name not in self.intervals:
            return Span(value, value)
        # A value is never outside its own interval; if it were, the wider span is the safe one.
        low, high = self.get(f"{name}_low"), self.get(f"{name}_high")
        return Span.between(np.minimum(low, value), np.maximum(high, value))

    def elements(self) -> list[frozenset[str]]:
        """The elements of each row; empty where there is no formula."""
        return [formula_elements(formula or "") for formula in self.get("formula")]

    def text(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The strings, and where they are missing (an unreadable structure has no formula)."""
        values = self.get(name)
        absent = (None, "") if name == "formula" else (None,)
        return values, np.array([value in absent for value in values], dtype=bool)

    def truth(self, name: str) -> Truth:
        """A column of True, False and None."""
        values = self.get(name)
        return Truth(
            np.array([value is not None and bool(value) for value in values], dtype=bool),
            np.array([value is not None and not value for value in values], dtype=bool),
        )


Function = Callable[[Rows], Any]


@dataclass(frozen=True)
class Part:
    """A compiled piece.

    Attributes:
        kind: ``"number"``, ``"text"``, ``"truth"`` or ``"elements"``.
        run: Its value for a block of rows.
        constant: The value, where it does not depend on the row.
        unit: Unit of a number, None where there is none or it is not known.
    """

    kind: str
    run: Function
    constant: Any = None
    unit: str | None = None


def fold(join: Callable[[Any, Any], Any], values: Iterator[Any]) -> Any:
    """All values joined, from the left."""
    result = next(values)
    for value in values:
        result = join(result, value)
    return result


def equal(a: Any, b: Any) -> Truth:
    """Equality of two numbers, truths, or texts with their missing flags."""
    if isinstance(a, Span | Truth):
        return a.equal(b)
    (x, no_x), (y, no_y) = a, b
    known = ~(no_x | no_y)
    same = np.asarray(x == y, dtype=bool)
    return Truth(known & same, known & ~same)


def contains(sets: Sequence[frozenset[str]], wanted: Sequence[str]) -> Truth:
    """Whether each set of elements holds the wanted ones; unknown for an empty set."""
    known = np.array([bool(found) for found in sets], dtype=bool)
    inside = np.array([found.issuperset(wanted) for found in sets], dtype=bool)
    return Truth(known & inside, known & ~inside)


def substring(part: str, values: np.ndarray, missing: np.ndarray) -> Truth:
    """Whether each text has the part in it."""
    inside = np.array([value is not None and part in value for value in values], dtype=bool)
    return Truth(~missing & inside, ~missing & ~inside)
