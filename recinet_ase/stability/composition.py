"""Compositions from whatever states one: formulas, counts, atoms, pymatgen's objects."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from recinet_ase.elements import symbols
from recinet_ase.errors import ReciNetError
from recinet_ase.formula import formula_of

_TOKEN = re.compile(r"([A-Z][a-z]?)(\d*\.?\d*)|(\()|\)(\d*\.?\d*)|\s+")
_WHOLE = 1e-6  # amounts this close to whole numbers are whole numbers


@lru_cache(maxsize=1)
def atomic_numbers() -> dict[str, int]:
    """Atomic number of each chemical symbol."""
    return {symbol: z for z, symbol in enumerate(symbols()) if z}


def parse_formula(text: str) -> dict[str, float]:
    """Amount of each element in a formula such as ``"BaTiO3"`` or ``"Ca3(PO4)2"``.

    Raises:
        ReciNetError: If it is no formula, or has an unknown element.
    """
    stack: list[dict[str, float]] = [{}]
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ReciNetError(f"{text!r} is no chemical formula")
        symbol, count, opened, closed = found.groups()
        if symbol:
            if symbol not in atomic_numbers():
                raise ReciNetError(f"{text!r} is no chemical formula: there is no {symbol}")
            amount = float(count) if count not in ("", ".") else 1.0
            stack[-1][symbol] = stack[-1].get(symbol, 0.0) + amount
        elif opened:
            stack.append({})
        elif closed is not None:
            if len(stack) < 2:
                raise ReciNetError(f"{text!r} is no chemical formula: a parenthesis is not opened")
            group = stack.pop()
            factor = float(closed) if closed not in ("", ".") else 1.0
            for element, amount in group.items():
                stack[-1][element] = stack[-1].get(element, 0.0) + factor * amount
        at = found.end()
    amounts = {element: amount for element, amount in stack[0].items() if amount > 0}
    if len(stack) > 1 or not amounts:
        raise ReciNetError(f"{text!r} is no chemical formula")
    return amounts


def amounts_of(composition: Any) -> dict[str, float]:
    """Amount of each element.

    Args:
        composition: A formula, a mapping of symbols (or pymatgen's elements) to amounts, ASE
            ``Atoms``, a pymatgen ``Composition``, ``Structure`` or entry.

    Raises:
        ReciNetError: If it states no composition of known elements.
    """
    if isinstance(composition, str):
        return parse_formula(composition)
    if hasattr(composition, "get_chemical_symbols"):
        return {s: float(n) for s, n in Counter(composition.get_chemical_symbols()).items()}
    composition = getattr(composition, "composition", composition)
    if hasattr(composition, "get_el_amt_dict"):
        composition = composition.get_el_amt_dict()
    if not isinstance(composition, Mapping):
        raise ReciNetError(f"{composition!r} states no composition; give a formula, such as 'MgO'")
    amounts = {str(getattr(k, "symbol", k)): float(v) for k, v in composition.items()}
    amounts = {symbol: amount for symbol, amount in amounts.items() if amount != 0}
    unknown = [symbol for symbol in amounts if symbol not in atomic_numbers()]
    if unknown or not amounts or min(amounts.values()) < 0:
        raise ReciNetError(f"{composition!r} is no composition of known elements")
    return amounts


def system_of(text: str | Iterable[str]) -> tuple[str, ...]:
    """The elements of a chemical system, by atomic number.

    Args:
        text: ``"Li-Fe-O"``, or the symbols.

    Raises:
        ReciNetError: For an unknown element, or none.
    """
    given = text.split("-") if isinstance(text, str) else list(text)
    names = [name.strip() for name in given]
    unknown = [name for name in names if name not in atomic_numbers()]
    if unknown or not names:
        raise ReciNetError(f"{text!r} is no chemical system; write it as 'Li-Fe-O'")
    return tuple(sorted(set(names), key=atomic_numbers().__getitem__))


def is_whole(amounts: Mapping[str, float]) -> bool:
    """Whether the amounts are whole numbers."""
    return all(abs(amount - round(amount)) <= _WHOLE for amount in amounts.values())


def reduced_formula(amounts: Mapping[str, float]) -> str:
    """The formula as pymatgen writes it (``"BaTiO3"``, ``"O2"``), fractions with four digits."""
    if is_whole(amounts):
        return formula_of({symbol: round(amount) for symbol, amount in amounts.items()})
    return "".join(f"{symbol}{amount:.4g}" for symbol, amount in sorted(amounts.items()))
