"""Intervals and three-valued logic on columns: what an expression is evaluated with.

One arithmetic serves both questions. With intervals whose ends are equal, "certainly true" is
plain truth; with the 90 % intervals it is "true at every point of the interval", that is, at
the unfavourable ends. A missing value makes a comparison neither true nor false, so that it
passes neither as it stands nor under ``not``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Span:
    """A number for each row, known to lie between two ends; NaN at both where missing.

    Attributes:
        low: Lower end, float64 ``[n]`` or ``[]``.
        high: Upper end; the same array where the number is known exactly.
    """

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def between(cls, low: np.ndarray, high: np.ndarray) -> Span:
        """A span whose ends are both missing where one is."""
        if low is high:
            return cls(low, low)
        missing = np.isnan(low) | np.isnan(high)
        return cls(np.where(missing, np.nan, low), np.where(missing, np.nan, high))

    @property
    def exact(self) -> bool:
        """Whether the ends are the same array."""
        return self.low is self.high

    def __neg__(self) -> Span:
        low = -self.high
        return Span(low, low if self.exact else -self.low)

    def __add__(self, other: Span) -> Span:
        low = self.low + other.low
        return Span.between(low, low if _exact(self, other) else self.high + other.high)

    def __sub__(self, other: Span) -> Span:
        return self + -other

    def __mul__(self, other: Span) -> Span:
        return _corners(self, other, np.multiply)

    def __truediv__(self, other: Span) -> Span:
        """Missing where the divisor may be zero."""
        safe = (other.low > 0) | (other.high < 0)
        low = np.where(safe, other.low, np.nan)
        high = low if other.exact else np.where(safe, other.high, np.nan)
        return _corners(self, Span(low, high), np.divide)

    def __abs__(self) -> Span:
        if self.exact:
            low = np.abs(self.low)
            return Span(low, low)
        return Span(
            np.maximum(0.0, np.maximum(self.low, -self.high)),
            np.maximum(np.abs(self.low), np.abs(self.high)),
        )

    def extreme(self, other: Span, pick: Callable[..., np.ndarray]) -> Span:
        """The smaller or larger of two; ``pick`` is ``np.minimum`` or ``np.maximum``."""
        low = pick(self.low, other.low)
        return Span.between(low, low if _exact(self, other) else pick(self.high, other.high))

    def less(self, other: Span) -> Truth:
        """``self < other``."""
        return Truth(self.high < other.low, self.low >= other.high)

    def equal(self, other: Span) -> Truth:
        """``self == other``."""
        same = (self.low == other.high) & (self.high == other.low)
        return Truth(same, (self.high < other.low) | (self.low > other.high))


def _exact(a: Span, b: Span) -> bool:
    return a.exact and b.exact


def _corners(a: Span, b: Span, operation: Callable[..., np.ndarray]) -> Span:
    if _exact(a, b):
        only = operation(a.low, b.low)
        return Span(only, only)
    corners = [operation(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
    return Span.between(
        np.minimum(np.minimum(corners[0], corners[1]), np.minimum(corners[2], corners[3])),
        np.maximum(np.maximum(corners[0], corners[1]), np.maximum(corners[2], corners[3])),
    )


@dataclass(frozen=True)
class Truth:
    """For each row whether a statement is certainly true, certainly false, or neither.

    Attributes:
        true: Bool ``[n]`` or ``[]``.
        false: Bool, of the same shape; never true where ``true`` is.
    """

    true: np.ndarray
    false: np.ndarray

    def __invert__(self) -> Truth:
        return Truth(self.false, self.true)

    def __and__(self, other: Truth) -> Truth:
        return Truth(self.true & other.true, self.false | other.false)

    def __or__(self, other: Truth) -> Truth:
        return Truth(self.true | other.true, self.false & other.false)

    def equal(self, other: Truth) -> Truth:
        """Whether both are true or both are false."""
        return (self & other) | (~self & ~other)
