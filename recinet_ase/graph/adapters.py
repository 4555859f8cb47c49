"""From other packages' structures to a checked `Crystal`.

``to_crystal`` takes whatever the user has: ASE ``Atoms`` or a row of its databases, pymatgen
``Structure``, its dictionary or a ``ComputedStructureEntry``, phonopy's ``PhonopyAtoms``, a
JARVIS ``Atoms`` dictionary, or a `Crystal`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from recinet_ase.errors import StructureError, StructureKindError
from recinet_ase.graph.crystal import Crystal
from recinet_ase.graph.dictionaries import element_of, read_dictionary
from recinet_ase.graph.neighbours import cell_volume

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import IStructure


def _require_periodic(pbc: Any) -> None:
    """Refuse what is not periodic in three directions."""
    pbc = np.broadcast_to(np.asarray(pbc, dtype=bool), 3)
    if pbc.all():
        return
    flags = "".join("T" if flag else "F" for flag in pbc)
    state = "has no periodicity" if not pbc.any() else "is not periodic in every direction"
    raise StructureError(
        f"the structure {state} (pbc={flags}); the models are trained on three-dimensional "
        "crystals. If it is one, set atoms.pbc = True"
    )


def require_ordered(occupancy: Any) -> None:
    """Refuse the partial occupancies that ASE's CIF reader keeps in ``info``.

    Raises:
        StructureError: With the first site that is disordered.
    """
    if not isinstance(occupancy, Mapping):
        return
    for site, species in occupancy.items():
        if isinstance(species, Mapping) and (len(species) > 1 or sum(species.values()) < 0.999):
            shares = ", ".join(f"{symbol} {share:g}" for symbol, share in species.items())
            raise StructureError(
                f"site {site} is disordered ({shares}); choose an ordered arrangement first, and "
                "if the atoms are one already, delete atoms.info['occupancy']"
            )


def from_ase(atoms: Atoms) -> Crystal:
    """A `Crystal` from ASE ``Atoms``.

    Raises:
        StructureError: If it is not periodic in three directions, or not a valid crystal.
    """
    _require_periodic(atoms.pbc)
    require_ordered(atoms.info.get("occupancy"))
    lattice: np.ndarray = np.array(atoms.cell.array, dtype=np.float64)
    if not np.isfinite(lattice).all() or cell_volume(lattice) == 0.0:
        # Without a cell there are no fractional coordinates; let the checks name the fault.
        return Crystal.from_arrays(atoms.numbers, np.zeros((len(atoms), 3)), lattice)
    frac_coords = np.linalg.solve(lattice.T, atoms.positions.T).T
    return Crystal.from_arrays(atoms.numbers, frac_coords, lattice)


def from_pymatgen(structure: IStructure) -> Crystal:
    """A `Crystal` from a pymatgen ``Structure`` or ``IStructure``.

    Raises:
        StructureError: If sites are disordered, the lattice is not fully periodic, or the
            result is not a valid crystal.
    """
    if not hasattr(structure, "lattice"):
        raise StructureError(
            "a pymatgen Molecule has no periodicity; the models are trained on crystals"
        )
    _require_periodic(structure.lattice.pbc)
    if not structure.is_ordered:
        bad = next(i for i, site in enumerate(structure) if not site.is_ordered)
        raise StructureError(
            f"site {bad} is disordered ({structure[bad].species}); choose an ordered "
            "arrangement first, e.g. with pymatgen's OrderDisorderedStructureTransformation "
            "(order='ewald' in recinet_ase.predict)"
        )
    # By symbol: the atomic number of pymatgen's DummySpecies is a hash.
    numbers = [element_of(site.specie.symbol, i) for i, site in enumerate(structure)]
    return Crystal.from_arrays(numbers, structure.frac_coords, structure.lattice.matrix)


def from_dictionary(record: Mapping[str, Any]) -> Crystal:
    """A `Crystal` from a dictionary of pymatgen or JARVIS (see `read_dictionary`).

    (Four times as fast as making a pymatgen ``Structure`` first.)

    Raises:
        StructureError: If something is missing, sites are disordered, the lattice is not fully
            periodic, or the result is not a valid crystal.
    """
    arrays = read_dictionary(record)
    _require_periodic(arrays.pbc)
    coords, lattice = arrays.coords, arrays.lattice
    if arrays.cartesian:
        # Without a cell there are no fractional coordinates; let the checks name the fault.
        solid = lattice.shape == (3, 3) and cell_volume(lattice) > 0.0
        coords = np.linalg.solve(lattice.T, coords.T).T if solid else np.zeros_like(coords)
    return Crystal.from_arrays(arrays.numbers, coords, lattice)


def unwrapped(structure: Any) -> Any:
    """The structure in a database row, a computed entry or phonopy's atoms; others as they are.

    Raises:
        StructureError: If phonopy's atoms are mixtures of elements.
    """
    if hasattr(structure, "toatoms"):
        return structure.toatoms()
    if hasattr(structure, "entry_id") and hasattr(structure, "structure"):
        return structure.structure
    phonopy = sys.modules.get("phonopy.structure.atoms")
    if phonopy is None or not isinstance(structure, phonopy.PhonopyAtoms):
        return structure
    if getattr(structure, "has_mixtures", False):
        raise StructureError(
            "the PhonopyAtoms are disordered (mixtures of elements); choose an ordered arrangement "
            "first"
        )
    return Crystal.from_arrays(structure.numbers, structure.scaled_positions, structure.cell)


def to_crystal(structure: Any) -> Crystal:
    """A checked `Crystal` from ASE, pymatgen, phonopy or JARVIS structures.

    Raises:
        StructureError: If the structure is not a valid three-dimensional crystal.
        StructureKindError: If it is of a kind that is not known here.
    """
    structure = unwrapped(structure)
    if isinstance(structure, Crystal):
        return structure
    if isinstance(structure, Mapping):
        return from_dictionary(structure)
    # An object of a package that was never imported cannot exist, so neither is imported here.
    ase = sys.modules.get("ase")
    if ase is not None and isinstance(structure, ase.Atoms):
        return from_ase(structure)
    pymatgen = sys.modules.get("pymatgen.core.structure")
    if pymatgen is not None and isinstance(structure, (pymatgen.IStructure, pymatgen.IMolecule)):
        return from_pymatgen(structure)
    raise StructureKindError(
        f"cannot read a crystal from {type(structure).__name__}; "
        "pass ASE Atoms (or a database row), a pymatgen Structure (or its dictionary, or a "
        "ComputedStructureEntry), PhonopyAtoms or a JARVIS dictionary"
    )
