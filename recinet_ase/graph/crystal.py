"""`Crystal`, a validated periodic structure (what every adapter returns), and its neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recinet_ase.elements import MAX_Z
from recinet_ase.errors import StructureError
from recinet_ase.graph.neighbours import (
    SHELL_NEIGHBOURS,
    SHELL_TOLERANCE,
    NeighbourList,
    cell_volume,
    shell_neighbours,
    wrap,
)

if TYPE_CHECKING:
    from ase import Atoms

MINIMUM_DISTANCE = 0.4
"""Atoms closer than this (angstrom) are taken for an error in the structure."""

ISOLATED_DISTANCE = 8.0
"""An atom whose nearest neighbour is farther than this (angstrom) is no part of a crystal."""

MAXIMUM_CELLS = 1e6
"""Cells from the origin beyond which a position is no longer known to 1e-9 A."""

MINIMUM_VOLUME = 0.5
"""Smallest cell volume per atom in angstrom^3 (the densest real crystals have about 3)."""


@dataclass(frozen=True)
class Crystal:
    """A periodic structure that passed the checks of `check_crystal`.

    Attributes:
        numbers: Atomic numbers, int64 ``[N]``.
        frac_coords: Fractional coordinates in [0, 1), float64 ``[N, 3]``.
        lattice: Lattice vectors as rows, angstrom, float64 ``[3, 3]``.
    """

    numbers: np.ndarray
    frac_coords: np.ndarray
    lattice: np.ndarray

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def volume(self) -> float:
        """Cell volume in angstrom^3."""
        return cell_volume(self.lattice)

    def to_ase(self) -> Atoms:
        """The crystal as ASE ``Atoms``, periodic in three directions."""
        from ase import Atoms

        return Atoms(self.numbers, scaled_positions=self.frac_coords, cell=self.lattice, pbc=True)

    @classmethod
    def from_arrays(cls, numbers: Any, frac_coords: Any, lattice: Any) -> Crystal:
        """Check and wrap raw arrays.

        Raises:
            StructureError: For no atoms, non-finite or huge numbers, a flat cell or an unknown
                element.
        """
        numbers = np.asarray(numbers, dtype=np.int64).reshape(-1)
        frac_coords = np.asarray(frac_coords, dtype=np.float64)
        lattice = np.asarray(lattice, dtype=np.float64)
        if len(numbers) == 0:
            raise StructureError("the structure has no atoms")
        if frac_coords.shape != (len(numbers), 3) or lattice.shape != (3, 3):
            raise StructureError(
                f"{len(numbers)} atomic numbers, coordinates of shape {frac_coords.shape} and a "
                f"lattice of shape {lattice.shape} do not describe a crystal"
            )
        if not np.isfinite(lattice).all():
            raise StructureError("the lattice holds non-finite numbers (NaN or infinity)")
        lengths = np.linalg.norm(lattice, axis=1)
        volume = cell_volume(lattice)
        if not volume >= 1e-8 * max(float(np.prod(lengths)), 1e-8):  # nor not a number
            raise StructureError("the cell has zero volume; the lattice vectors lie in a plane")
        if not np.isfinite(frac_coords).all():
            bad = int(np.flatnonzero(~np.isfinite(frac_coords).all(axis=1))[0])
            raise StructureError(f"atom {bad} has a non-finite position (NaN or infinity)")
        farthest = int(np.abs(frac_coords).max(axis=1).argmax())
        if np.abs(frac_coords[farthest]).max() > MAXIMUM_CELLS:
            raise StructureError(
                f"atom {farthest} is {np.abs(frac_coords[farthest]).max():.1g} cells from the "
                "origin; where it lies in the cell is lost to rounding"
            )
        if volume < MINIMUM_VOLUME * len(numbers):
            raise StructureError(
                f"the cell has {volume / len(numbers):.3g} A^3 per atom, less than any crystal; "
                "are its lengths in angstrom?"
            )
        outside = (numbers < 1) | (numbers > MAX_Z)
        if outside.any():
            bad = int(np.flatnonzero(outside)[0])
            raise StructureError(
                f"atom {bad} has atomic number {int(numbers[bad])}, which is no element that the "
                f"network knows (1 to {MAX_Z})"
            )
        return cls(numbers, wrap(frac_coords)[0], lattice)


@dataclass(frozen=True)
class GraphSettings:
    """How a crystal becomes a graph; part of a model's configuration.

    Attributes:
        neighbours: Neighbours that set an atom's cutoff.
        tolerance: Relative tolerance of a shell.
    """

    neighbours: int = SHELL_NEIGHBOURS
    tolerance: float = SHELL_TOLERANCE


def check_neighbours(neighbours: NeighbourList) -> None:
    """Refuse overlapping and isolated atoms.

    Raises:
        StructureError: If two atoms are closer than 0.4 A, or an atom has no neighbour
            within 8 A.
    """
    # Sorted by centre, then distance: the first edge of a centre is its shortest.
    centre, distance = neighbours.centre, neighbours.distance
    closest = int(distance.argmin())
    if distance[closest] < MINIMUM_DISTANCE:
        i, j = int(centre[closest]), int(neighbours.neighbour[closest])
        what = f"atom {i} and its own periodic image" if i == j else f"atoms {i} and {j}"
        raise StructureError(
            f"{what} overlap: {distance[closest]:.3f} A apart, less than {MINIMUM_DISTANCE} A"
        )
    first = np.append(0, np.flatnonzero(np.diff(centre)) + 1)
    farthest = int(first[distance[first].argmax()])
    if distance[farthest] > ISOLATED_DISTANCE:
        raise StructureError(
            f"atom {int(centre[farthest])} is isolated: its nearest neighbour is "
            f"{distance[farthest]:.1f} A away (limit {ISOLATED_DISTANCE} A), and no model here "
            "was trained on free atoms or molecules"
        )


def neighbours_of(crystal: Crystal, settings: GraphSettings | None = None) -> NeighbourList:
    """The checked neighbour shells of a crystal.

    Raises:
        StructureError: For overlapping or isolated atoms.
    """
    settings = settings or GraphSettings()
    shells = shell_neighbours(
        crystal.frac_coords, crystal.lattice, settings.neighbours, settings.tolerance
    )
    check_neighbours(shells)
    return shells
