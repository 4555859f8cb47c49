"""Crystals relaxed before they are judged, and the geometry that a journal keeps of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recinet_ase.io.entries import Entry
from recinet_ase.pretrained import available_force_models, default_force_model, model_card
from recinet_ase.screening.output.writers.structures import atoms_of
from recinet_ase.simulation.relaxation import Relaxation, RelaxationSettings, relax_many
from recinet_ase.simulation.states import require

if TYPE_CHECKING:
    from ase import Atoms

RELAXED_CHUNK = 64
"""Structures that are relaxed together: enough for a network, and what a kill can cost."""

WORTH = 16
"""How many structures that are only judged take the time of one that is relaxed."""

Geometry = list[list[list[float]]]
"""Lattice vectors ``[3, 3]`` and Cartesian positions ``[N, 3]`` in angstrom, as json holds them."""


@dataclass(frozen=True)
class RelaxationSpec:
    """With what crystals are relaxed, and how.

    Attributes:
        calculator: As `recinet_ase.simulation.calculators.load_calculator` takes it.
        settings: How.
    """

    calculator: str
    settings: RelaxationSettings = field(default_factory=RelaxationSettings)

    @classmethod
    def chosen(
        cls, name: str | None = None, settings: RelaxationSettings | None = None
    ) -> RelaxationSpec:
        """The calculator of a name, by default the force model for every element.

        Raises:
            ReciNetError: If there is none of that name, or it cannot relax.
        """
        spec = cls(name or default_force_model(), settings or RelaxationSettings())
        calculator = spec.load("cpu")
        require(calculator, "forces", "a relaxation needs")
        if spec.settings.cell:
            require(calculator, "stress", "relaxing the cell needs (--fixed-cell keeps it)")
        return spec

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same for work to be continued."""
        weights = ""
        if self.calculator in available_force_models() or Path(self.calculator).is_dir():
            weights = str(model_card(self.calculator).get("sha256", ""))
        return {"calculator": self.calculator, "weights": weights, **asdict(self.settings)}

    def __str__(self) -> str:
        """One line for the user."""
        how = self.settings
        what = "cells and positions" if how.cell else "positions"
        return f"{what} relaxed with {self.calculator} to {how.fmax:g} eV/A"

    def load(self, device: str) -> Any:
        """The calculator, made once in each process."""
        return _loaded(self.calculator, device)

    def relax(
        self,
        structures: Iterable[Any],
        device: str = "cpu",
        beginning: Callable[[int], None] = lambda active: None,
    ) -> list[Relaxation]:
        """Relax structures (`relax_many`)."""
        return relax_many(list(structures), self.load(device), self.settings, beginning=beginning)


@lru_cache(maxsize=2)
def _loaded(name: str, device: str) -> Any:
    from recinet_ase.simulation.calculators import load_calculator

    return load_calculator(name, device)


def geometry_of(relaxation: Relaxation | None) -> Geometry | None:
    """What a journal keeps of a relaxed crystal."""
    if relaxation is None or relaxation.atoms is None:
        return None
    return [relaxation.atoms.cell.array.tolist(), relaxation.atoms.positions.tolist()]


def with_geometry(entry: Entry, geometry: Geometry | None) -> Entry:
    """The entry as it was relaxed; as it is where it could not be."""
    before = atoms_of(entry)
    if geometry is None or before is None:
        return entry
    return replace(entry, atoms=moved(before, *geometry))


def moved(atoms: Atoms, lattice: Any, positions: Any) -> Atoms:
    """The crystal elsewhere, without what was calculated for where it was."""
    relaxed = atoms.copy()
    relaxed.set_constraint()
    relaxed.calc = None
    relaxed.set_cell(np.asarray(lattice))
    relaxed.positions = np.asarray(positions)
    relaxed.pbc = True
    for name in ("momenta", "forces"):
        relaxed.arrays.pop(name, None)
    return relaxed
