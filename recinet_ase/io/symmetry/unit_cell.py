"""A unit cell from a few sites and a stated symmetry: for CIF, PDB and SHELX alike."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from recinet_ase.errors import StructureError
from recinet_ase.io.symmetry.operations import (
    SITE_TOLERANCE,
    NearSpecialPositionError,
    Operations,
    expanded,
    same_atoms,
    wrapped,
)
from recinet_ase.io.symmetry.space_group import Reading, Statement, reading

if TYPE_CHECKING:
    from ase import Atoms

_TWICE = 0.02  # angstrom; atoms of one element nearer than this were written twice
_FEW = 100  # atoms whose pairs are looked at one by one
_FORMULA_TOLERANCE = 0.01  # of all atoms, for formulas with rounded numbers

_Filled = tuple[np.ndarray, np.ndarray]  # atomic numbers and fractional coordinates


class Sites(NamedTuple):
    """What a file lists.

    Attributes:
        numbers: Atomic numbers ``[N]``.
        frac_coords: Fractional coordinates ``[N, 3]``.
        names: Names of the sites, for messages.
    """

    numbers: np.ndarray
    frac_coords: np.ndarray
    names: tuple[str, ...]


class Formula(NamedTuple):
    """A formula that a file states.

    Attributes:
        counts: Atoms by atomic number; empty if none is stated.
        units: Formula units in the cell (Z), if stated.
    """

    counts: Mapping[int, float] = {}
    units: float | None = None

    def fits(self, numbers: np.ndarray) -> bool:
        """Whether the atoms of a cell are those of the formula, some times over.

        Less than one formula unit is in a cell only where Z says so.
        """
        total = sum(self.counts.values())
        if not total or not len(numbers):
            return True
        present = Counter(numbers.tolist())
        scale = len(numbers) / total
        allowed = _FORMULA_TOLERANCE * len(numbers)
        if scale < 1 - _FORMULA_TOLERANCE and not (self.units is not None and self.units < 1):
            return False
        return all(
            abs(present[z] - scale * self.counts.get(z, 0)) <= allowed
            for z in {*present, *self.counts}
        )


NO_FORMULA = Formula()


def lattice_vectors(lengths: Sequence[float], angles: Sequence[float]) -> np.ndarray:
    """Lattice vectors as rows, the first along x, the second in the plane of x and y.

    Args:
        lengths: Of a, b and c in angstrom.
        angles: alpha, beta and gamma in degrees.

    Raises:
        StructureError: If they make no cell.
    """
    a, b, c = lengths
    cosines = [
        0.0 if abs(angle - 90) < 1e-12 else math.cos(math.radians(angle)) for angle in angles
    ]
    cos_alpha, cos_beta, cos_gamma = cosines
    height = 1 - sum(x * x for x in cosines) + 2 * cos_alpha * cos_beta * cos_gamma
    if not (min(lengths) > 0 and min(angles) > 0 and max(angles) < 180 and height > 0):
        raise StructureError("the cell lengths and angles make no cell")
    sin_gamma = math.sqrt(1 - cos_gamma**2)
    along = (cos_alpha - cos_beta * cos_gamma) / sin_gamma
    vectors = [
        [a, 0.0, 0.0],
        [b * cos_gamma, b * sin_gamma, 0.0],
        [c * cos_beta, c * along, c * math.sqrt(height) / sin_gamma],
    ]
    return np.array(vectors)


def unit_cell(
    sites: Sites, lattice: np.ndarray, statement: Statement, formula: Formula = NO_FORMULA
) -> Atoms:
    """All atoms of the cell.

    Args:
        sites: The atoms that are listed.
        lattice: Lattice vectors as rows in angstrom, ``[3, 3]``.
        statement: The symmetry that is stated.
        formula: The formula that is stated: it must fit, and tells origins apart.

    Raises:
        StructureError: If the file contradicts itself, leaves something open, or two elements
            share a position.
    """
    from ase import Atoms

    if not len(sites.numbers):
        raise StructureError("the structure has no atoms")
    understood = reading(statement, lattice)
    numbers, coords = chosen = _chosen(understood, sites, lattice, formula)
    for text, groups in understood.rivals:
        if not any(same_atoms(chosen, other, lattice) for other in _each(groups, sites, lattice)):
            raise StructureError(f"{understood.source} and {text} contradict each other")
    atoms = Atoms(numbers, positions=coords @ lattice, cell=lattice, pbc=True)
    if not formula.fits(numbers):
        from ase.data import chemical_symbols

        stated = " ".join(f"{chemical_symbols[z]}{n:g}" for z, n in formula.counts.items())
        raise StructureError(
            f"the file states the formula {stated} but its atoms are "
            f"{atoms.get_chemical_formula()}; is it cut off, or are atoms missing?"
        )
    return atoms


def _chosen(understood: Reading, sites: Sites, lattice: np.ndarray, formula: Formula) -> _Filled:
    """The cell for the one possible group, or for the origin that formula and sites speak for."""
    if len(understood.choices) == 1:
        return _filled(understood.choices[0], sites, lattice)
    cells = _each(understood.choices, sites, lattice)
    if not cells:
        return _filled(understood.choices[0], sites, lattice)  # to raise its error
    if formula.counts:
        cells = [cell for cell in cells if _has_units(cell, formula)] or cells
    first, *others = cells
    if all(same_atoms(first, other, lattice) for other in others):
        return first
    if len(set(sites.numbers.tolist())) == 1:
        # Where the origin is the other one, the atoms of an element lie in more general
        # positions, and too near to each other.
        fewest, next_fewest, *_ = sorted(cells, key=lambda cell: len(cell[0]))
        if len(fewest[0]) < len(next_fewest[0]):
            return fewest
    raise StructureError(
        f"{understood.source} leaves open which origin is meant, and that makes different "
        "crystals; write ':1' or ':2' after the symbol, or state the symmetry operations"
    )


def _has_units(cell: _Filled, formula: Formula) -> bool:
    if not formula.fits(cell[0]):
        return False
    total = sum(formula.counts.values()) * (formula.units or 0)
    return not total or abs(len(cell[0]) - total) <= _FORMULA_TOLERANCE * total


def _each(groups: Sequence[Operations], sites: Sites, lattice: np.ndarray) -> list[_Filled]:
    """The cells for those groups that make one."""
    cells = []
    for group in groups:
        try:
            cells.append(_filled(group, sites, lattice))
        except StructureError:
            continue
    return cells


def _filled(group: Operations, sites: Sites, lattice: np.ndarray) -> _Filled:
    """The atoms of the cell, each once.

    Raises:
        StructureError: If two elements share a position.
    """
    try:
        index, coords = expanded(group, sites.frac_coords, lattice)
    except NearSpecialPositionError as error:
        raise StructureError(f"{sites.names[error.site]} {error}") from None
    numbers = sites.numbers[index]
    pairs = _close_pairs(coords, lattice)
    if not len(pairs):
        return numbers, coords
    unlike = numbers[pairs[:, 0]] != numbers[pairs[:, 1]]
    if unlike.any():
        first, second = (sites.names[index[i]] for i in pairs[np.flatnonzero(unlike)[0]])
        raise StructureError(
            f"disordered: {first} and {second} share a position; choose an ordered arrangement "
            "first"
        )
    twice = pairs[_distances(coords, pairs, lattice) < _TWICE]
    kept = np.setdiff1d(np.arange(len(numbers)), twice.max(axis=1))
    return numbers[kept], coords[kept]


def _close_pairs(coords: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """Pairs of atoms nearer than the tolerance of a site, ``[P, 2]``."""
    if len(coords) <= _FEW:
        pairs = _all_pairs(len(coords))
        return pairs[_distances(coords, pairs, lattice) < SITE_TOLERANCE]
    from scipy.spatial import KDTree

    heights = 1 / np.linalg.norm(np.linalg.inv(lattice), axis=0)
    radius = min(0.4, np.sqrt(3) * SITE_TOLERANCE / heights.min())
    tree = KDTree(wrapped(coords), boxsize=1)
    pairs = tree.query_pairs(radius, output_type="ndarray")
    return pairs[_distances(coords, pairs, lattice) < SITE_TOLERANCE]


@lru_cache(maxsize=_FEW)
def _all_pairs(n: int) -> np.ndarray:
    """Every pair of n atoms once, ``[n (n - 1) / 2, 2]``."""
    return np.stack(np.triu_indices(n, 1), axis=1)


def _distances(coords: np.ndarray, pairs: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    offsets = coords[pairs[:, 0]] - coords[pairs[:, 1]]
    offsets -= np.round(offsets)
    return np.linalg.norm(offsets @ lattice, axis=1)
