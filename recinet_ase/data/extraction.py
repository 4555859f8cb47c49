"""From the columns of a published record to a label that a network can learn.

A label must be the same whichever cell describes the crystal: components of a tensor are
averaged, totals of a cell or a formula unit are divided by its atoms.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recinet_ase.data.labels import as_number
from recinet_ase.formula import reduced_counts


@dataclass(frozen=True)
class Extraction:
    """How a label follows from a record.

    Attributes:
        columns: Keys of the record; their mean is taken, and all must be there.
        per: What the record's number belongs to and the label is divided by the atoms of:
            ``"cell"``, ``"formula"``, or ``""`` if it is divided by nothing.
        low, high: Numbers outside are no labels: the bounds that JARVIS-Leaderboard's files
            keep to.
        zero: Whether 0 is a value; else it stands for "not defined".
    """

    columns: tuple[str, ...]
    per: str = ""
    low: float = -math.inf
    high: float = math.inf
    zero: bool = True

    def label(self, record: Mapping[str, Any]) -> float | None:
        """The label of a record with ``atoms``, None if it has none."""
        numbers: list[float] = []
        for column in self.columns:
            number = as_number(record.get(column))
            if isinstance(number, str) or not self.low <= number <= self.high:
                return None
            numbers.append(number)
        value = math.fsum(numbers) / len(numbers)
        if value == 0 and not self.zero:
            return None
        return value / self._atoms(record) if self.per else value

    def _atoms(self, record: Mapping[str, Any]) -> int:
        elements = record["atoms"]["elements"]
        if self.per == "cell":
            return len(elements)
        return sum(reduced_counts(Counter(elements)).values())


FUNCTIONAL_TASKS: dict[str, tuple[str, Extraction]] = {
    "dielectric": ("mepsx", Extraction(("mepsx", "mepsy", "mepsz"), low=0, high=400)),
    "dielectric_opt": ("epsx", Extraction(("epsx", "epsy", "epsz"), low=0, high=400)),
    "dielectric_total": (
        "dfpt_piezo_max_dielectric",
        Extraction(("dfpt_piezo_max_dielectric",), low=1, high=1200),
    ),
    "piezoelectric_strain": (
        "dfpt_piezo_max_dij",
        Extraction(("dfpt_piezo_max_dij",), low=0, high=3000),
    ),
    "slme": ("slme", Extraction(("slme",), low=0, high=34)),
    "spillage": ("spillage", Extraction(("spillage",), low=0, high=4)),
    "magnetic_moment": (
        "magmom_oszicar",
        Extraction(("magmom_oszicar",), per="cell", low=0, high=10),
    ),
    "seebeck_n": ("n_Seebeck", Extraction(("n_Seebeck",), low=-1500, high=1200)),
    "power_factor_n": ("n_powerfact", Extraction(("n_powerfact",), low=0, high=7000)),
    # JARVIS writes 0 for metals, whose bands have no edge to fit a mass to.
    "electron_mass": ("avg_elec_mass", Extraction(("avg_elec_mass",), high=3, zero=False)),
    "hole_mass": ("avg_hole_mass", Extraction(("avg_hole_mass",), high=3, zero=False)),
    "heat_capacity": (
        "ph_heat_capacity",
        Extraction(("ph_heat_capacity",), per="formula", low=0, high=600),
    ),
    "electric_field_gradient": ("max_efg", Extraction(("max_efg",), low=0, high=200)),
}
"""JARVIS' functional properties: the leaderboard's task, and how its records give the label."""
