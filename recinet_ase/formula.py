"""Reduced formulas, without an import of anything heavy."""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd
from typing import TypeVar

K = TypeVar("K")


def reduced_counts(counts: Mapping[K, int]) -> dict[K, int]:
    """Numbers of atoms in the smallest formula unit, in the order given.

    Args:
        counts: Number of atoms of each element, under any key.

    Returns:
        The numbers divided by their greatest common divisor; empty for an empty composition.
    """
    divisor = gcd(*counts.values()) or 1
    return {element: number // divisor for element, number in counts.items()}
