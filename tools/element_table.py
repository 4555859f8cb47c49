"""Write recinet_ase/elements.csv: the element data behind the node features.

    python tools/element_table.py

Sources: pymatgen's periodic table (group, period, Pauling electronegativity,
first ionisation energy, electron affinity, block, molar volume) and ASE's
covalent radii (Cordero 2008). Empty cells mean "no value".
"""

from __future__ import annotations

import csv
import math
import warnings
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[1] / "recinet_ase" / "elements.csv"
LAST = 103
COLUMNS = (
    "z",
    "symbol",
    "group",
    "period",
    "electronegativity",
    "covalent_radius",
    "valence_electrons",
    "ionization_energy",
    "electron_affinity",
    "block",
    "molar_volume",
)


def valence_electrons(element: Any) -> int:
    """Electrons outside the noble-gas core; filled d and f shells below it count as core."""
    if element.symbol == "He":
        return 2
    if element.block == "f":
        return int(element.Z) - (86 if element.row == 7 else 54)
    return int(element.group) - (10 if element.block == "p" else 0)


def row(z: int) -> dict[str, Any]:
    from ase.data import covalent_radii
    from pymatgen.core import Element

    element = Element.from_Z(z)

    def number(name: str) -> float | str:
        try:
            value = float(getattr(element, name))
        except (TypeError, ValueError, AttributeError):
            return ""
        return "" if math.isnan(value) else value

    return {
        "z": z,
        "symbol": element.symbol,
        "group": element.group,
        "period": element.row,
        "electronegativity": number("X"),
        "covalent_radius": float(covalent_radii[z]),
        "valence_electrons": valence_electrons(element),
        "ionization_energy": number("ionization_energy"),
        "electron_affinity": number("electron_affinity"),
        # pymatgen files helium under p; its electrons are 1s2.
        "block": "s" if z == 2 else element.block,
        "molar_volume": number("molar_volume"),
    }


def table() -> list[dict[str, Any]]:
    """One row an element, Z = 1 to 103."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen warns for each missing value
        return [row(z) for z in range(1, LAST + 1)]


if __name__ == "__main__":
    with TARGET.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table())
    print(f"wrote {TARGET}")
