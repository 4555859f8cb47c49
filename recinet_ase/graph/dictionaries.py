"""Structures as dictionaries of pymatgen or JARVIS: read here, and nowhere else.

Only numbers and element symbols are taken; no class is made by a name in the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from recinet_ase.elements import atomic_number
from recinet_ase.errors import StructureError, reason_of

_FRACTIONAL = 1.5  # from the middle of the cell; unwrapped coordinates are nearer


class Arrays(NamedTuple):
    """What a dictionary says.

    Attributes:
        numbers: Atomic number of each of N atoms.
        lattice: Lattice vectors as rows in angstrom, ``[3, 3]``.
        coords: Coordinates ``[N, 3]``.
        cartesian: Whether these are in angstrom, not fractions of the lattice vectors.
        pbc: Directions in which the structure is periodic.
    """

    numbers: list[int]
    lattice: np.ndarray
    coords: np.ndarray
    cartesian: bool
    pbc: Any = True

    @property
    def positions(self) -> np.ndarray:
        """Coordinates in angstrom ``[N, 3]``."""
        return self.coords if self.cartesian else self.coords @ self.lattice


def read_dictionary(record: Mapping[str, Any]) -> Arrays:
    """A ``Structure.as_dict()`` of pymatgen, or an ``Atoms`` dictionary of JARVIS.

    Args:
        record: The dictionary, or a whole JARVIS entry that holds one under ``"atoms"``.

    Raises:
        StructureError: If something is missing, of the wrong kind, or disordered.
    """
    return _pymatgen(record) if "sites" in record else _jarvis(record.get("atoms", record))


def element_of(symbol: Any, index: int) -> int:
    """Atomic number of an element's symbol.

    Raises:
        StructureError: If it is none, with the atom's index.
    """
    number = atomic_number(str(symbol).strip())
    if not number:
        raise StructureError(f"atom {index} is {str(symbol)[:20]!r}, which is no element")
    return number


def rows_of_three(rows: Any, length: int, what: str) -> np.ndarray:
    """Numbers as an array ``[length, 3]``.

    Raises:
        StructureError: If they are none.
    """
    try:
        array = np.array(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise StructureError(f"the {what} are not numbers ({reason_of(error)})") from None
    if array.shape != (length, 3) and array.size != 0:
        raise StructureError(f"the {what} have shape {array.shape}, not ({length}, 3)")
    return array.reshape(-1, 3)


def _jarvis(atoms: Any) -> Arrays:
    """An ``Atoms`` dictionary of JARVIS."""
    names = ("lattice_mat", "coords", "elements")
    missing = [key for key in names if not isinstance(atoms, Mapping) or key not in atoms]
    if missing:
        raise StructureError(f"the JARVIS dictionary lacks {', '.join(missing)}")
    elements = atoms["elements"]
    if not isinstance(elements, Sequence) or isinstance(elements, str):
        raise StructureError("the JARVIS dictionary's elements are no list")
    numbers = [element_of(symbol, index) for index, symbol in enumerate(elements)]
    lattice = rows_of_three(atoms["lattice_mat"], 3, "lattice_mat")
    coords = rows_of_three(atoms["coords"], len(numbers), "coords")
    if "cartesian" not in atoms and (np.abs(coords - 0.5) > _FRACTIONAL).any():
        raise StructureError(
            'the coordinates are far from fractional ones: say "cartesian": true if they are in '
            'angstrom, "cartesian": false if they are not'
        )
    return Arrays(numbers, lattice, coords, bool(atoms.get("cartesian", False)))


def _pymatgen(record: Mapping[str, Any]) -> Arrays:
    """A ``Structure`` dictionary of pymatgen."""
    lattice, sites = record.get("lattice"), record["sites"]
    if lattice is None:
        raise StructureError(
            "a pymatgen Molecule has no periodicity; the models are trained on crystals"
        )
    if not isinstance(lattice, Mapping) or not isinstance(sites, list):
        raise StructureError("the pymatgen dictionary's lattice or sites are damaged")
    numbers = [_species(site, index) for index, site in enumerate(sites)]
    coords = [site.get("abc") for site in sites]
    cartesian = bool(sites) and all(row is None for row in coords)
    if cartesian:
        coords = [site.get("xyz") for site in sites]
    return Arrays(
        numbers,
        _lattice(lattice),
        rows_of_three(coords, len(numbers), "coordinates"),
        cartesian,
        lattice.get("pbc") or True,
    )


def _lattice(lattice: Mapping[str, Any]) -> np.ndarray:
    """The vectors, or what lengths and angles make."""
    if "matrix" in lattice:
        return rows_of_three(lattice["matrix"], 3, "lattice matrix")
    from ase.cell import Cell

    names = ("a", "b", "c", "alpha", "beta", "gamma")
    try:
        return np.asarray(Cell.fromcellpar([float(lattice[name]) for name in names]).array)
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise StructureError(f"the lattice is incomplete ({reason_of(error)})") from None


def _species(site: Any, index: int) -> int:
    """Atomic number of a site that is one full element."""
    species = site.get("species") if isinstance(site, Mapping) else None
    if not isinstance(species, list) or not all(isinstance(one, Mapping) for one in species):
        raise StructureError(f"site {index} of the pymatgen dictionary has no species")
    shares = [(one.get("element"), one.get("occu", 1)) for one in species]
    try:
        ordered = len(shares) == 1 and float(shares[0][1]) > 0.999
    except (TypeError, ValueError):
        ordered = False
    if not ordered:
        text = ", ".join(f"{element} {share}" for element, share in shares)
        raise StructureError(
            f"site {index} is disordered ({text}); choose an ordered arrangement first"
        )
    return element_of(shares[0][0], index)
