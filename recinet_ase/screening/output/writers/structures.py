"""What files with structures have in common: the atoms, and values under allowed keys."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recinet_ase.inference.result import ENDS, SPREAD

if TYPE_CHECKING:
    from ase import Atoms

    from recinet_ase.io.entries import Entry

_BITS = 63  # of the largest whole number that is kept


def atoms_of(entry: Entry | None) -> Atoms | None:
    """The structure as ``Atoms``, None if it could not be read."""
    from ase import Atoms

    structure = None if entry is None else entry.atoms
    if structure is None or isinstance(structure, Exception):
        return None
    if isinstance(structure, Atoms):
        return structure
    from pymatgen.io.ase import AseAtomsAdaptor

    try:
        return AseAtomsAdaptor.get_atoms(structure, msonable=False)
    except ValueError:  # a disordered structure, which ASE has not
        return None


def bare(atoms: Atoms) -> Atoms:
    """The structure without anything that a format may choke on."""
    from ase import Atoms

    return Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell.array, pbc=atoms.pbc)


def plain(values: Mapping[Any, Any]) -> dict[str, Any]:
    """Numbers, flags and texts of one line, as Python's own types; anything else is dropped.

    So are whole numbers that no file of structures can hold.
    """
    kept: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, float) and not math.isfinite(value):
            continue
        if isinstance(value, int) and value.bit_length() > _BITS:
            continue
        if isinstance(value, bool | int | float) or (
            isinstance(value, str) and value and value.isprintable()
        ):
            kept[str(key)] = value
    return kept


def kept_values(values: Mapping[Any, Any], columns: Sequence[str]) -> dict[str, Any]:
    """What the input says beyond the structure, without what this screen has its own word on.

    A property that was refused must not be answered by an older value, nor a new value stand
    beside an older error or interval.
    """
    own = {"error", "in_domain", *columns}
    own |= {f"{column}{end}" for column in columns for end in (*ENDS, SPREAD)}
    return {key: value for key, value in plain(values).items() if key not in own}


def predictions(row: Mapping[str, Any], columns: list[str]) -> dict[str, Any]:
    """What a row says beyond the structure itself."""
    return plain({c: row.get(c) for c in columns if c not in ("id", "formula", "natoms")})
