"""Neighbour shells of a periodic crystal.

The graph of the network joins every atom to all periodic images within the
distance of its k-th nearest one, *whole shell included*. A strict "k nearest"
rule cuts through the shells of rocksalt (18 atoms), fcc (18), bcc (26) or
perovskites (20), keeps an arbitrary part of each, and so makes the answer depend
on the order of atoms and on the cell chosen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from recinet_ase.errors import StructureError

SHELL_NEIGHBOURS = 16
"""Neighbours that set an atom's cutoff (paper, tables 7-10)."""

SHELL_TOLERANCE = 1e-4
"""Relative distance within which two neighbours belong to one shell."""

_PERIODIC = np.ones(3, dtype=np.int64)
# 1.6 times the volume that k atoms fill on average: one search is enough for
# nearly every crystal, and the next radius grows by a quarter where it is not.
_FIRST_GUESS, _GROWTH = 1.6, 1.25
_MAX_PAIRS = 40_000_000


@dataclass(frozen=True)
class NeighbourList:
    """Directed neighbour pairs, sorted by centre and then by distance.

    Attributes:
        centre: Receiving atom ``i`` of each edge, int64 ``[E]``.
        neighbour: Neighbour ``j`` of each edge, int64 ``[E]``.
        offset: Lattice translation of the neighbour, int64 ``[E, 3]``: the vector of
            an edge is ``(f_j + offset - f_i) @ lattice``, for the fractional
            coordinates as given (wrapped or not).
        distance: Length of each edge in angstrom, float64 ``[E]``.
    """

    centre: np.ndarray
    neighbour: np.ndarray
    offset: np.ndarray
    distance: np.ndarray


def cell_volume(lattice: np.ndarray) -> float:
    """Volume of a cell in the cube of its unit, from its vectors as rows ``[3, 3]``.

    (The triple product; a determinant of three numbers costs numpy five times as long.)
    """
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = lattice.tolist()
    return abs(ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx))


def wrap(frac_coords: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fractional coordinates in [0, 1) and the whole translations taken off, int64."""
    shift = np.floor(frac_coords)
    wrapped = frac_coords - shift
    # -1e-17 rounds to exactly 1.0, which is the origin.
    over = wrapped >= 1.0
    return np.where(over, 0.0, wrapped), shift.astype(np.int64) + over


class _Search:
    """All pairs within a radius, in the order the search found them.

    Coincident atoms are kept, so that the check for overlaps can name them; an atom and
    itself are not a pair.
    """

    def __init__(self, frac_coords: np.ndarray, lattice: np.ndarray, radius: float) -> None:
        from pymatgen.optimization.neighbors import find_points_in_spheres

        lattice = np.ascontiguousarray(lattice, dtype=np.float64)
        wrapped, self._shift = wrap(frac_coords)
        expected = len(wrapped) ** 2 / cell_volume(lattice) * 4.2 * radius**3
        if expected > _MAX_PAIRS:
            raise StructureError(
                f"the neighbour search out to {radius:.1f} A would visit about {expected:.0f} "
                "pairs; the cell is far from any crystal (check its lattice and units)"
            )
        positions = np.ascontiguousarray(wrapped @ lattice)
        self.centre, self._neighbour, self._offset, self.distance = find_points_in_spheres(
            positions, positions, r=radius, pbc=_PERIODIC, lattice=lattice, tol=1e-8
        )
        order = np.lexsort((self.distance, self.centre))
        itself = (self.distance < 1e-8) & (self.centre == self._neighbour)
        self.order = order[~itself[order]]

    def pairs(self, chosen: np.ndarray) -> NeighbourList:
        """The chosen pairs, offsets made good for the coordinates as they were given."""
        centre, neighbour = self.centre[chosen], self._neighbour[chosen]
        offset = self._offset[chosen].astype(np.int64)
        if self._shift.any():
            offset += self._shift[centre] - self._shift[neighbour]
        return NeighbourList(centre, neighbour, offset, self.distance[chosen])


def radius_neighbours(frac_coords: np.ndarray, lattice: np.ndarray, cutoff: float) -> NeighbourList:
    """All directed pairs within a fixed radius (eq. 4 of the paper).

    Args:
        frac_coords: Fractional coordinates ``[N, 3]``, wrapped or not.
        lattice: Lattice vectors as rows, angstrom ``[3, 3]``; either handedness.
        cutoff: Radius in angstrom.

    Returns:
        The pairs, sorted by centre, then distance.
    """
    search = _Search(frac_coords, lattice, float(cutoff))
    return search.pairs(search.order)


def shell_neighbours(
    frac_coords: np.ndarray,
    lattice: np.ndarray,
    k: int = SHELL_NEIGHBOURS,
    tolerance: float = SHELL_TOLERANCE,
) -> NeighbourList:
    """Neighbours within the distance of each atom's ``k``-th nearest, whole shell included.

    Periodic self-images count; an atom is never its own neighbour at zero distance.
    The rule is the paper's ("the k-th nearest distance as the radius for node i",
    appendix B.4) with the tie made whole.

    Args:
        frac_coords: Fractional coordinates ``[N, 3]``, wrapped or not.
        lattice: Lattice vectors as rows, angstrom ``[3, 3]``; either handedness.
        k: Number of neighbours that sets the radius of an atom.
        tolerance: Relative tolerance within which a neighbour belongs to the k-th one's shell.

    Returns:
        At least ``k`` pairs for every atom, sorted by centre, then distance.
    """
    n_atoms = len(frac_coords)
    volume = cell_volume(lattice)
    radius = (3 * _FIRST_GUESS * k * volume / (4 * math.pi * n_atoms)) ** (1 / 3)
    while True:
        search = _Search(frac_coords, lattice, radius)
        centre, distance = search.centre[search.order], search.distance[search.order]
        counts = np.bincount(centre, minlength=n_atoms)
        if counts.min() >= k:
            cutoff = distance[np.cumsum(counts) - counts + k - 1] * (1 + tolerance)
            if cutoff.max() <= radius:
                return search.pairs(search.order[distance <= cutoff[centre]])
            radius = float(cutoff.max()) * (1 + 1e-9)
        else:
            radius *= _GROWTH
