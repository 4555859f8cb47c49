"""Labels as they stand in people's files: numbers, their faults, their units."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from recinet_ase.errors import ReciNetError

NO_LABEL = "has no label"
_MISSING = {"", "na", "n/a", "none", "null", "-"}


def as_number(value: Any) -> float | str:
    """A label as a finite number, or the reason why it is none.

    Args:
        value: A number, a text that is one, or what stands for a missing value.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in _MISSING):
        return NO_LABEL
    if isinstance(value, bool | np.bool_):
        return f"label {value} is not a number"
    if not isinstance(value, int | float | np.number | str):
        return f"label of type {type(value).__name__} is not a number"
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return f"label {str(value)[:40]!r} is not a number"
    return number if math.isfinite(number) else f"label is {number}"


def conversion(given: str, wanted: str) -> float:
    """Factor from one unit to another: eV and meV (per anything alike), GPa and eV/A^3.

    Raises:
        ReciNetError: If the units are not the same and not among these.
    """
    if given.strip() == wanted:
        return 1.0
    (have, per), (want, want_per) = _parsed(given), _parsed(wanted)
    if have and want and per == want_per:
        return have / want
    raise ReciNetError(
        f"labels in {given.strip() or '1'} cannot be converted to {wanted or '1'}, the unit of "
        "this property; convert them yourself, or give the property a name of its own"
    )


def _parsed(unit: str) -> tuple[float, str]:
    """An energy unit as its size in eV and what it is counted per; size 0 if it is none."""
    from ase import units

    unit = unit.strip().replace(" ", "").replace("Å", "A").replace("**", "^").replace("A3", "A^3")
    if unit == "GPa":
        return float(units.GPa), "A^3"
    energy, _, per = unit.partition("/")
    return {"eV": 1.0, "meV": 1e-3}.get(energy, 0.0), per
