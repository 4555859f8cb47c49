"""Phases, and mixtures of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from recinet_ase.stability.composition import amounts_of, is_whole, parse_formula, reduced_formula


@dataclass(frozen=True)
class Phase:
    """A known phase.

    Attributes:
        formula: Formula unit, e.g. ``"BaTiO3"``, ``"O2"``.
        energy: Formation energy in eV/atom.
        id: Where it is found, e.g. ``"JVASP-1002"``; ``""`` if nothing is stated.
        amounts: Amount of each element in the formula.
    """

    formula: str
    energy: float
    id: str = ""
    amounts: Mapping[str, float] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, composition: Any, energy: float, name: str = "") -> Phase:
        """A phase from whatever states a composition.

        Raises:
            ReciNetError: If nothing does.
        """
        amounts = amounts_of(composition)
        formula = reduced_formula(amounts)
        unit = parse_formula(formula) if is_whole(amounts) else amounts
        return cls(formula, float(energy), name, unit)

    @property
    def atoms(self) -> float:
        """Atoms in the formula."""
        return sum(self.amounts.values())


@dataclass(frozen=True)
class Component:
    """A phase in a decomposition.

    Attributes:
        phase: The phase.
        atoms: Share of the atoms that are in it (pymatgen's amounts); all shares make 1.
        moles: Share of the formula units, as a reaction is written; all shares make 1.
    """

    phase: Phase
    atoms: float
    moles: float

    def __str__(self) -> str:
        name = f" [{self.phase.id}]" if self.phase.id else ""
        return f"{self.moles:.2f} {self.phase.formula}{name}"


def describe(components: Iterable[Component]) -> str:
    """A decomposition as text: ``"0.50 TiO2 [JVASP-9094] + 0.50 ZnO [JVASP-1195]"``."""
    return " + ".join(map(str, components))
