"""The 92 element features of the node embedding.

The categories are CGCNN's (Xie and Grossman 2018; paper, appendix B.2), computed
from element data instead of copied from its ``atom_init.json``: group 18,
period 8, electronegativity 10, covalent radius 10, valence electrons 12,
log first ionisation energy 10, electron affinity 10, block 4, log atomic
volume 10. A continuous quantity is shared between the two nearest of its evenly
spaced bins, so that no two elements look the same (hard bins cannot tell several
lanthanides apart); a quantity that an element lacks is all zeros.
"""

from __future__ import annotations

import csv
import math
import re
from functools import lru_cache
from importlib.resources import files

import numpy as np

N_FEATURES = 92
"""Length of an element's feature vector."""

MAX_Z = 103
"""Heaviest element with features (lawrencium)."""

_F_SERIES = 8  # lanthanides and actinides have a period category of their own


def _one_hot(index: int, size: int) -> np.ndarray:
    vector = np.zeros(size)
    vector[index] = 1.0
    return vector


def _soft_bins(value: float | None, low: float, high: float, size: int) -> np.ndarray:
    """Linear weights on the two nearest of ``size`` bin centres spanning [low, high]."""
    vector = np.zeros(size)
    if value is None:
        return vector
    position = (min(max(value, low), high) - low) / (high - low) * (size - 1)
    left = min(int(position), size - 2)
    vector[left] = left + 1 - position
    vector[left + 1] = position - left
    return vector


@lru_cache(maxsize=1)
def symbols() -> tuple[str, ...]:
    """Chemical symbols, index 0 is ``"X"`` (no element)."""
    return ("X", *(row["symbol"] for row in _rows()))


@lru_cache(maxsize=1)
def _rows() -> list[dict[str, str]]:
    with (files("recinet_ase") / "elements.csv").open() as handle:
        return list(csv.DictReader(handle))


def _features(row: dict[str, str]) -> np.ndarray:
    """CGCNN's categories of an element, from its row of the table ``[92]``."""

    def value(key: str, log: bool = False) -> float | None:
        if row[key] == "":
            return None
        number = float(row[key])
        return math.log(number) if log else number

    f_series = row["block"] == "f" or row["symbol"] in ("Lu", "Lr")
    period = _F_SERIES if f_series else int(row["period"])
    return np.concatenate(
        (
            _one_hot(int(row["group"]) - 1, 18),
            _one_hot(period - 1, 8),
            _soft_bins(value("electronegativity"), 0.7, 4.0, 10),
            _soft_bins(value("covalent_radius"), 0.3, 2.6, 10),
            _soft_bins(value("valence_electrons"), 1, 16, 12),
            _soft_bins(value("ionization_energy", log=True), 1.35, 3.2, 10),
            _soft_bins(value("electron_affinity"), -1.0, 3.7, 10),
            _one_hot("spdf".index(row["block"]), 4),
            _soft_bins(value("molar_volume", log=True), 1.45, 4.27, 10),
        )
    )


@lru_cache(maxsize=1)
def element_features() -> np.ndarray:
    """Feature vectors of all elements, float64 ``[104, 92]``; row Z, row 0 is zero."""
    table = np.stack([np.zeros(N_FEATURES), *(_features(row) for row in _rows())])
    table.setflags(write=False)
    return table


_GROUPS = ("CN", "CO", "NH", "NO", "HO")  # in capitals these may be groups of two atoms
_SYMBOL = re.compile(r"([A-Za-z]{1,2})(?:\d*\.?\d*[+-]|[+-]\d*\.?\d*|0)?")


@lru_cache(maxsize=4096)
def atomic_number(symbol: str) -> int:
    """Atomic number of an element's symbol as files write it.

    A charge may follow (``Fe3+``, ``O-2``); D and T are hydrogen; capitals (``NA``) and small
    letters are understood where they cannot mean a group of atoms.

    Returns:
        The number, or 0 if it is no element's symbol.
    """
    from ase.data import atomic_numbers

    match = _SYMBOL.fullmatch(symbol.strip())
    name = match[1] if match else ""
    name = {"D": "H", "T": "H"}.get(name, name)
    if name not in atomic_numbers and name.upper() not in _GROUPS:
        name = name.capitalize()
    return int(atomic_numbers.get(name, 0))


@lru_cache(maxsize=1)
def covalent_radii() -> tuple[float, ...]:
    """Covalent radii in angstrom (Cordero 2008), by atomic number; index 0 is 0."""
    return (0.0, *(float(row["covalent_radius"]) for row in _rows()))


@lru_cache(maxsize=1)
def groups_and_periods() -> tuple[tuple[int, int], ...]:
    """Group and period by atomic number; index 0 is (0, 0)."""
    return ((0, 0), *((int(row["group"]), int(row["period"])) for row in _rows()))


def table_position(z: int) -> tuple[int, int]:
    """Column (1 to 18) and row of an element; lanthanides and actinides are rows 8 and 9."""
    if 57 <= z <= 70 or 89 <= z <= 102:
        return (z - 54, 8) if z <= 70 else (z - 86, 9)
    return groups_and_periods()[z]


@lru_cache(maxsize=1)
def pauling_electronegativities() -> tuple[float, ...]:
    """Pauling electronegativities (pymatgen's) by atomic number; NaN where there is none."""
    return (math.nan, *(float(row["electronegativity"] or "nan") for row in _rows()))


@lru_cache(maxsize=1)
def electronegativities() -> tuple[float, ...]:
    """Pauling electronegativities by atomic number; 2 where there is none, as for helium."""
    return tuple(2.0 if math.isnan(value) else value for value in pauling_electronegativities())
