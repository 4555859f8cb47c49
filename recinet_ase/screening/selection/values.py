"""What a condition is evaluated with: columns that know their arithmetic, order and units.

One arithmetic serves both questions. With intervals whose ends are equal, "certainly true" is
plain truth; with the 90 % intervals it is "true at every point of the interval", that is, at
the unfavourable ends. A missing value makes a comparison neither true nor false, so that it
passes neither as it stands nor under ``not``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from recinet_ase.screening.selection.columns import formula_elements, reduced_formula


@dataclass(frozen=True)
class Span:
    """A number for each row, known to lie between two ends; NaN at both where missing.

    Attributes:
        low: Lower end, float64 ``[n]`` or ``[]``.
        high: Upper end; the same array where the number is known exactly.
        unit: Its unit, None where there is none or it is not known.
        constant: Whether it is written in the expression, and the same for all rows.
    """

    kind: ClassVar[str] = "a number"

    low: np.ndarray
    high: np.ndarray
    unit: str | None = None
    constant: bool = False

    @classmethod
    def exactly(cls, values: np.ndarray, unit: str | None = None, constant: bool = False) -> Span:
        """Numbers that are known."""
        return cls(values, values, unit, constant)

    @property
    def exact(self) -> bool:
        """Whether the ends are the same array."""
        return self.low is self.high

    def __neg__(self) -> Span:
        low = -self.high
        return replace(self, low=low, high=low if self.exact else -self.low)

    def __abs__(self) -> Span:
        low = np.abs(self.low)
        if self.exact:
            return replace(self, low=low, high=low)
        nearest = np.maximum(0.0, np.maximum(self.low, -self.high))
        return replace(self, low=nearest, high=np.maximum(low, np.abs(self.high)))

    def __add__(self, other: Span) -> Span:
        return self._with(other, np.add)

    def __sub__(self, other: Span) -> Span:
        return self + -other

    def __mul__(self, other: Span) -> Span:
        scaled = self.constant or other.constant
        return self._corners(other, np.multiply, self._common_unit(other) if scaled else None)

    def __truediv__(self, other: Span) -> Span:
        """Missing where the divisor may be zero."""
        safe = (other.low > 0) | (other.high < 0)
        low = np.where(safe, other.low, np.nan)
        high = low if other.exact else np.where(safe, other.high, np.nan)
        unit = self._common_unit(other) if other.constant else None
        return self._corners(replace(other, low=low, high=high), np.divide, unit)

    def smaller(self, other: Span) -> Span:
        """The smaller of two."""
        return self._with(other, np.minimum)

    def larger(self, other: Span) -> Span:
        """The larger of two."""
        return self._with(other, np.maximum)

    def less(self, other: Span) -> Truth:
        """``self < other``."""
        return Truth(self.high < other.low, self.low >= other.high)

    def equal(self, other: Span) -> Truth:
        """``self == other``."""
        same = (self.low == other.high) & (self.high == other.low)
        return Truth(same, (self.high < other.low) | (self.low > other.high))

    def _common_unit(self, other: Span) -> str | None:
        """That of the columns among the two; a bare number takes it."""
        units = {span.unit for span in (self, other) if not span.constant}
        return units.pop() if len(units) == 1 else None

    def _with(self, other: Span, operation: Callable[..., np.ndarray]) -> Span:
        """An operation that grows with both numbers."""
        low = operation(self.low, other.low)
        high = low if self.exact and other.exact else operation(self.high, other.high)
        constant = self.constant and other.constant
        return _between(low, high, self._common_unit(other), constant)

    def _corners(self, other: Span, operation: Callable[..., np.ndarray], unit: str | None) -> Span:
        """An operation whose extremes lie at ends of both intervals."""
        constant = self.constant and other.constant
        if self.exact and other.exact:
            return Span.exactly(operation(self.low, other.low), unit, constant)
        corners = [operation(x, y) for x in (self.low, self.high) for y in (other.low, other.high)]
        return _between(np.minimum.reduce(corners), np.maximum.reduce(corners), unit, constant)


def _between(low: np.ndarray, high: np.ndarray, unit: str | None, constant: bool) -> Span:
    """A span whose ends are both missing where one is."""
    if low is not high:
        missing = np.isnan(low) | np.isnan(high)
        low, high = np.where(missing, np.nan, low), np.where(missing, np.nan, high)
    return Span(low, high, unit, constant)


@dataclass(frozen=True)
class Truth:
    """For each row whether a statement is certainly true, certainly false, or neither.

    Attributes:
        true: Bool ``[n]`` or ``[]``.
        false: Bool, of the same shape; never true where ``true`` is.
    """

    kind: ClassVar[str] = "a condition"

    true: np.ndarray
    false: np.ndarray
    constant: ClassVar[bool] = False
    unit: ClassVar[None] = None

    def __invert__(self) -> Truth:
        return Truth(self.false, self.true)

    def __and__(self, other: Truth) -> Truth:
        return Truth(self.true & other.true, self.false | other.false)

    def __or__(self, other: Truth) -> Truth:
        return Truth(self.true | other.true, self.false & other.false)

    def equal(self, other: Truth) -> Truth:
        """Whether both are true or both are false."""
        return (self & other) | (~self & ~other)


@dataclass(frozen=True)
class Text:
    """A text for each row.

    Attributes:
        values: The texts, object ``[n]`` or ``[]``.
        missing: Where there is none, bool of the same shape.
        constant: The text that is written in the expression, None for a column.
        formula: Whether it is the column of formulas, which is compared reduced: ``TiO2`` is the
            ``O4Ti2`` of a cell of rutile.
    """

    kind: ClassVar[str] = "a text"
    unit: ClassVar[None] = None

    values: np.ndarray
    missing: np.ndarray
    constant: str | None = None
    formula: bool = False

    @classmethod
    def written(cls, text: str) -> Text:
        """A text of the expression."""
        return cls(np.array(text, dtype=object), np.array(False), text)

    def equal(self, other: Text) -> Truth:
        """``self == other``."""
        a, b = self.values, other.values
        if self.formula or other.formula:
            a, b = _reduced(a), _reduced(b)
        known = ~(self.missing | other.missing)
        same = np.asarray(a == b, dtype=bool)
        return Truth(known & same, known & ~same)

    def holds(self, part: str) -> Truth:
        """``part in self``."""
        inside = np.array([v is not None and part in v for v in self.values], dtype=bool)
        return Truth(~self.missing & inside, ~self.missing & ~inside)


def _reduced(values: np.ndarray) -> np.ndarray:
    found = np.empty(values.shape, dtype=object)
    found[...] = np.frompyfunc(lambda value: reduced_formula(value or ""), 1, 1)(values)
    return found


@dataclass(frozen=True)
class Elements:
    """The elements of each row.

    Attributes:
        sets: Chemical symbols; empty where there is no formula.
    """

    kind: ClassVar[str] = "a set of elements"
    constant: ClassVar[None] = None
    unit: ClassVar[None] = None

    sets: Sequence[frozenset[str]]

    @classmethod
    def of(cls, formulas: np.ndarray) -> Elements:
        """The elements of formulas; None for a missing one."""
        return cls([formula_elements(formula or "") for formula in formulas])

    @property
    def count(self) -> Span:
        """How many there are."""
        sizes = [float(len(found)) if found else np.nan for found in self.sets]
        return Span.exactly(np.array(sizes, dtype=np.float64))

    def hold(self, *wanted: str) -> Truth:
        """Whether all of these are there; unknown for an empty set."""
        known = np.array([bool(found) for found in self.sets], dtype=bool)
        inside = np.array([found.issuperset(wanted) for found in self.sets], dtype=bool)
        return Truth(known & inside, known & ~inside)
