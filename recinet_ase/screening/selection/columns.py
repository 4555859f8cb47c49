"""Columns by the names that users type, and what can be read from a formula."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache

from recinet_ase.elements import symbols
from recinet_ase.errors import ReciNetError, UnknownNameError
from recinet_ase.formula import count_elements, reduced_counts
from recinet_ase.inference.result import ENDS, SPREAD
from recinet_ase.properties import PROPERTIES, answer_for, get_property_info

LACKS = "ehull_lacks"
"""Column that says what the references of ``ehull`` lack for a crystal."""

DECOMPOSITION = "decomposition"
"""Column of the phases that compete with a crystal."""

WARNINGS = "warnings"
"""Column that says what keeps the numbers of a row from being used alone."""


class _UnknownColumnError(UnknownNameError):
    def __init__(self, name: str, known: Sequence[str], place: str) -> None:
        aliases = {
            alias: info.name
            for info in PROPERTIES.values()
            for alias in info.aliases
            if info.name in known
        }
        super().__init__("column", name, known, aliases)
        self.args = (f"{place}: {self.args[0]}" if place else self.args[0],)


def resolve_column(name: str, columns: Sequence[str], place: str = "") -> str:
    """The column that a name or alias of a property means.

    Args:
        name: As typed, e.g. ``"gap"``, ``"e_hull_high"``.
        columns: The columns there are.
        place: Where the name was found, for messages.

    Raises:
        UnknownNameError: If nothing has that name; the nearest are suggested.
        ReciNetError: If it is a known property that is not among the columns.
    """
    base, bracket, source = name.partition("[")
    if bracket:  # in an expression the end stands before the source: bulk_modulus_low[mp-bulk]
        end = next((end for end in (*ENDS, SPREAD) if base.endswith(end)), "")
        base, source = base.removesuffix(end), bracket + "".join(source.split()) + end
        with suppress(UnknownNameError):
            base = get_property_info(base).name
        name = base + source
    if name in columns:
        return name
    here = f"{place}: " if place else ""
    for end in ("", *ENDS, SPREAD):
        if not name.endswith(end):
            continue
        try:
            info = get_property_info(name.removesuffix(end))
        except UnknownNameError:
            continue
        found = _answer(info.name, columns, here)
        if found is not None and f"{found}{end}" in columns:
            return f"{found}{end}"
        if found is not None and end == SPREAD:
            raise ReciNetError(
                f"{here}there is no spread of {found}; ask an ensemble (--model NAME:ensemble), "
                "with --intervals"
            )
        if found is not None:
            raise ReciNetError(f"{here}there are no intervals of {found}; ask for --intervals")
        raise ReciNetError(
            f"{here}{info.name} is not predicted here; add it to --props "
            f"(columns: {', '.join(columns)})"
        )
    if name == DECOMPOSITION:
        raise ReciNetError(f"{here}there is no column {name}; ask for --decomposition")
    if name == "in_domain":
        raise ReciNetError(f"{here}there is no column in_domain; ask for --intervals")
    if _is_formula(name):
        raise ReciNetError(
            f"{here}{name} is no column; put elements and formulas in quotes: '{name}'"
        )
    raise _UnknownColumnError(name, columns, place)


def _answer(name: str, columns: Sequence[str], here: str) -> str | None:
    """The column of values that a property's name means."""
    try:
        values = [c for c in columns if not c.endswith((*ENDS, SPREAD))]
        return answer_for(name, values)
    except ReciNetError as error:
        raise ReciNetError(f"{here}{error}") from None


def _is_formula(name: str) -> bool:
    """Whether a word is made of chemical symbols and counts, with a capital to begin with."""
    known = set(symbols())
    parts = re.fullmatch(r"(?:[A-Z][a-z]?\d*)+", name)
    return bool(parts) and formula_elements(name) <= known


@lru_cache(maxsize=1 << 16)
def formula_elements(formula: str) -> frozenset[str]:
    """The chemical symbols in a formula."""
    return frozenset(re.findall(r"[A-Z][a-z]?", formula))


def reduced_formula(formula: str) -> str:
    """A key of a composition: its reduced formula, whatever the order of the elements.

    ``""`` for an empty formula.
    """
    counts = reduced_counts(count_elements(formula))
    return "".join(f"{symbol}{n}" for symbol, n in sorted(counts.items()))
