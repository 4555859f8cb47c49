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

from recinet_ase.elements import atomic_number
from recinet_ase.errors import StructureError, StructureKindError
from recinet_ase.graph.crystal import Crystal
from recinet_ase.graph.neighbours import cell_volume

_FRACTIONAL = 1.5  # from the middle of the cell; unwrapped coordinates are nearer

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import IStructure


def _number(symbol: str, index: int) -> int:
    number = atomic_number(symbol)
    if not number:
        raise StructureError(f"atom {index} is {symbol!r}, which is no element")
    return number


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
    numbers = [_number(site.specie.symbol, i) for i, site in enumerate(structure)]
    return Crystal.from_arrays(numbers, structure.frac_coords, structure.lattice.matrix)


def check_fractional(record: Mapping[str, Any], coords: np.ndarray) -> None:
    """Coordinates of a JARVIS dictionary that does not say what they are must look fractional.

    Raises:
        StructureError: If they do not.
    """
    if "cartesian" not in record and (np.abs(coords - 0.5) > _FRACTIONAL).any():
        raise StructureError(
            'the coordinates are far from fractional ones: say "cartesian": true if they are in '
            'angstrom, "cartesian": false if they are not'
        )


def from_jarvis(record: Mapping[str, Any]) -> Crystal:
    """A `Crystal` from a JARVIS ``Atoms`` dictionary.

    Args:
        record: ``lattice_mat``, ``coords`` and ``elements`` (and ``cartesian``), or a whole
            JARVIS entry that holds such a dictionary under ``"atoms"``.

    Raises:
        StructureError: If a key is missing or the result is not a valid crystal.
    """
    atoms = record.get("atoms", record)
    missing = [key for key in ("lattice_mat", "coords", "elements") if key not in atoms]
    if missing:
        raise StructureError(f"the JARVIS dictionary lacks {', '.join(missing)}")
    try:
        numbers = [_number(symbol.strip(), i) for i, symbol in enumerate(atoms["elements"])]
        lattice = np.asarray(atoms["lattice_mat"], dtype=np.float64)
        coords: np.ndarray = np.asarray(atoms["coords"], dtype=np.float64)
        coords = coords.reshape(len(numbers), -1)
    except (AttributeError, TypeError, ValueError) as error:
        if isinstance(error, StructureError):
            raise
        raise StructureError(f"the JARVIS dictionary is broken ({error})") from None
    if atoms.get("cartesian", False):
        if lattice.shape != (3, 3) or cell_volume(lattice) == 0.0:
            return Crystal.from_arrays(numbers, np.zeros((len(numbers), 3)), lattice)
        coords = np.linalg.solve(lattice.T, coords.T).T
    check_fractional(atoms, coords)
    return Crystal.from_arrays(numbers, coords, lattice)


def from_pymatgen_dict(record: Mapping[str, Any]) -> Crystal:
    """A `Crystal` from ``Structure.as_dict()``, as MatBench's files hold it.

    (Four times as fast as making the ``Structure`` first.)

    Raises:
        StructureError: If sites are disordered, a key is missing, the lattice is not fully
            periodic, or the result is not a valid crystal.
    """
    try:
        lattice = np.asarray(record["lattice"]["matrix"], dtype=np.float64)
        _require_periodic(record["lattice"].get("pbc", True))
        numbers, coords = [], []
        for i, site in enumerate(record["sites"]):
            species = site["species"]
            if len(species) != 1 or species[0]["occu"] < 0.999:
                shares = ", ".join(f"{one['element']} {one['occu']:g}" for one in species)
                raise StructureError(
                    f"site {i} is disordered ({shares}); choose an ordered arrangement first"
                )
            numbers.append(_number(str(species[0]["element"]), i))
            coords.append(site["abc"])
    except (AttributeError, KeyError, TypeError, IndexError, ValueError) as error:
        if isinstance(error, StructureError):
            raise
        raise StructureError(f"the pymatgen dictionary is incomplete ({error!r})") from None
    return Crystal.from_arrays(numbers, np.reshape(coords, (len(numbers), 3)), lattice)


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
        if "sites" in structure:
            return from_pymatgen_dict(structure)
        return from_jarvis(structure)
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
