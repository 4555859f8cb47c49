"""The crystal before any force is asked for: checks, symmetry, supercell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recinet_ase.errors import ReciNetError, StructureError
from recinet_ase.formula import reduced_counts

if TYPE_CHECKING:
    from ase import Atoms

SYMMETRY_PRECISION = 1e-2
"""Distance in angstrom by which atoms may miss their ideal places."""

SUPERCELL_LENGTH = 10.0
"""Least length in angstrom of a supercell's vectors."""

MAX_ATOMS = 1000
"""Largest supercell, in atoms."""


@dataclass(frozen=True)
class SpaceGroup:
    """A space group.

    Attributes:
        symbol: International short symbol, e.g. ``"Fm-3m"``.
        number: Number in the International Tables.
    """

    symbol: str
    number: int

    def __str__(self) -> str:
        return f"{self.symbol} ({self.number})"


def as_crystal(structure: Any) -> Atoms:
    """ASE ``Atoms`` of a checked crystal: elements, places and cell alone.

    Args:
        structure: ASE ``Atoms``, pymatgen ``Structure``, or a dictionary of pymatgen or JARVIS.

    Raises:
        StructureError: If it is no ordered crystal that is periodic in three directions.
    """
    from ase import Atoms

    from recinet_ase.graph.adapters import to_crystal

    if isinstance(structure, Atoms) and not structure.pbc.all():
        flags = "".join("T" if flag else "F" for flag in structure.pbc)
        raise StructureError(
            f"{structure.get_chemical_formula()} is not periodic in three directions "
            f"(pbc={flags}), and phonons are waves in a crystal. If it is one, set "
            "atoms.pbc = True; vibrations of molecules are computed by ase.vibrations"
        )
    crystal = to_crystal(structure)
    return Atoms(
        numbers=crystal.numbers,
        scaled_positions=crystal.frac_coords,
        cell=crystal.lattice,
        pbc=True,
    )


def symmetrise(
    atoms: Atoms, symprec: float = SYMMETRY_PRECISION, primitive: bool = False
) -> tuple[Atoms, SpaceGroup]:
    """The standard cell of a crystal, atoms on their ideal places (spglib).

    Whatever cell and orientation described the crystal, the standard cell is the same.

    Args:
        atoms: The crystal.
        symprec: Tolerance in angstrom.
        primitive: The primitive rather than the conventional standard cell.

    Returns:
        Idealised cell in standard orientation, and the space group.

    Raises:
        StructureError: If spglib finds no space group.
    """
    import spglib
    from ase import Atoms

    if not 0 < symprec < 1:
        raise ReciNetError(f"symprec must be a distance between 0 and 1 A, not {symprec:g}")
    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    try:
        dataset = spglib.get_symmetry_dataset(cell, symprec=symprec)
        standard = spglib.standardize_cell(cell, to_primitive=primitive, symprec=symprec)
    except spglib.SpglibError:
        dataset = standard = None
    if dataset is None or standard is None:
        raise StructureError(
            f"spglib finds no space group of {atoms.get_chemical_formula()} within {symprec:g} A; "
            "atoms may lie on each other, or the tolerance (symprec) be too large"
        )
    lattice, positions, numbers = standard
    ideal = Atoms(numbers=numbers, scaled_positions=positions, cell=lattice, pbc=True)
    return ideal, SpaceGroup(str(dataset.international), int(dataset.number))


def choose_supercell(
    unitcell: Atoms,
    supercell: Sequence[int] | None = None,
    min_length: float = SUPERCELL_LENGTH,
    max_atoms: int = MAX_ATOMS,
) -> tuple[int, int, int]:
    """How often the unit cell is repeated along each vector.

    Args:
        unitcell: The conventional standard cell.
        supercell: The user's own choice, three whole numbers.
        min_length: Without one: least length of the supercell's vectors in angstrom.
        max_atoms: Largest number of atoms allowed.

    Raises:
        ReciNetError: If the numbers make no supercell, or one with too many atoms.
    """
    lengths = unitcell.cell.lengths()
    if supercell is None:
        if not min_length > 0:
            raise ReciNetError(f"the supercell's least length must be positive, not {min_length:g}")
        chosen = [max(1, math.ceil(min_length / length - 1e-3)) for length in lengths]
    else:
        chosen = [int(n) for n in supercell]
        if len(chosen) != 3 or min(chosen) < 1 or chosen != list(supercell):
            raise ReciNetError(
                f"a supercell is three whole numbers from 1, e.g. 3 3 3, not {supercell}"
            )
    atoms = len(unitcell) * math.prod(chosen)
    if atoms > max_atoms:
        sizes = " x ".join(f"{n * length:.1f}" for n, length in zip(chosen, lengths, strict=True))
        raise ReciNetError(
            f"the supercell {'x'.join(map(str, chosen))} of {unitcell.get_chemical_formula()} "
            f"({sizes} A) has {atoms} atoms, more than {max_atoms}: choose a smaller one "
            f"(supercell, --supercell) or allow more atoms (max_atoms, --max-atoms)"
        )
    return chosen[0], chosen[1], chosen[2]


def formula(atoms: Atoms) -> str:
    """The reduced formula in Hill's order."""
    counts = reduced_counts(atoms.symbols.formula.convert("hill").count())
    return "".join(f"{symbol}{n if n > 1 else ''}" for symbol, n in counts.items())


def is_gamma(qpoints: np.ndarray) -> np.ndarray:
    """Which of the wave vectors ``[n, 3]`` are lattice vectors of the reciprocal lattice."""
    return np.abs(qpoints - np.round(qpoints)).max(axis=1) < 1e-6
