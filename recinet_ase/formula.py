"""Reduced formulas, without an import of anything heavy."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from math import gcd, inf, isnan
from typing import TypeVar

K = TypeVar("K")

_MOLECULES = {
    "LiO": "Li2O2", "NaO": "Na2O2", "KO": "K2O2", "HO": "H2O2", "CsO": "Cs2O2", "RbO": "Rb2O2",
    "O": "O2", "N": "N2", "F": "F2", "Cl": "Cl2", "H": "H2",
}  # fmt: skip
"""Peroxides and molecules that keep their two atoms."""

_ANION = 1.65
"""Two elements that differ less than this in electronegativity are one anion (PO4)."""

_TOKEN = re.compile(r"([A-Z][a-z]?|\(|\))(\d*)")


def reduced_counts(counts: Mapping[K, int]) -> dict[K, int]:
    """Numbers of atoms in the smallest formula unit, in the order given.

    Args:
        counts: Number of atoms of each element, under any key.

    Returns:
        The numbers divided by their greatest common divisor; empty for an empty composition.
    """
    divisor = gcd(*counts.values()) or 1
    return {element: number // divisor for element, number in counts.items()}


def formula_of(elements: Iterable[str] | Mapping[str, int]) -> str:
    """The reduced formula as pymatgen writes it: ``CsPbI3``, ``MgO``, ``Ca3(PO4)2``.

    Args:
        elements: Chemical symbol of each atom, in any order, or their numbers by symbol.

    Returns:
        Elements by electronegativity, anions of two elements in parentheses, elements that form
        molecules with two atoms (``O2``); ``""`` without atoms.
    """
    return _written(tuple(sorted(reduced_counts(Counter(elements)).items())))


@lru_cache(maxsize=1 << 14)
def _written(counts: tuple[tuple[str, int], ...]) -> str:
    """A formula in the order of electronegativity, with an anion of several atoms in brackets."""
    numbers = dict(counts)
    order = sorted(numbers, key=lambda symbol: (_electronegativity(symbol), symbol))
    anion = ""
    if len(order) >= 3 and _electronegativity(order[-1]) - _electronegativity(order[-2]) < _ANION:
        pair = {symbol: numbers[symbol] for symbol in order[-2:]}
        times = gcd(*pair.values())
        if times > 1:
            inner = "".join(_unit(symbol, n // times) for symbol, n in pair.items())
            anion, order = f"({inner}){times}", order[:-2]
    text = "".join(_unit(symbol, numbers[symbol]) for symbol in order) + anion
    return _MOLECULES.get(text, text)


def _unit(symbol: str, number: int) -> str:
    return f"{symbol}{number if number > 1 else ''}"


@lru_cache(maxsize=1)
def _scale() -> dict[str, float]:
    from recinet_ase.elements import pauling_electronegativities, symbols

    return dict(zip(symbols(), pauling_electronegativities(), strict=True))


def _electronegativity(symbol: str) -> float:
    """Pauling's value; elements without one come last."""
    value = _scale().get(symbol, inf)
    return inf if isnan(value) else value


def count_elements(formula: str) -> dict[str, int]:
    """Number of atoms of each element in a formula, parentheses understood.

    What is no symbol, number or parenthesis is passed over.
    """
    levels: list[Counter[str]] = [Counter()]
    for token, digits in _TOKEN.findall(formula):
        times = int(digits or 1)
        if token == "(":
            levels.append(Counter())
        elif token == ")":
            if len(levels) > 1:
                inner = levels.pop()
                levels[-1].update({symbol: times * n for symbol, n in inner.items()})
        else:
            levels[-1][token] += times
    return dict(sum(levels, Counter()))
