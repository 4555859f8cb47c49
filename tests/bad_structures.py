"""Structures that no graph can be made of, and what is said of each."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule

NACL = bulk("NaCl", "rocksalt", a=5.64)


def broken(**changes: object) -> Atoms:
    atoms = NACL.copy()
    for key, value in changes.items():
        setattr(atoms, key, value)
    return atoms


BAD = {
    "no atoms": (Atoms(cell=[3, 3, 3], pbc=True), "no atoms"),
    "no periodicity": (molecule("H2O"), "no periodicity"),
    "slab": (broken(pbc=(True, True, False)), "not periodic in every direction"),
    "unknown element": (Atoms("X", cell=[3, 3, 3], pbc=True), "no element"),
    "overlap": (
        Atoms("Cu2", positions=[[0, 0, 0], [0.1, 0, 0]], cell=[4, 4, 4], pbc=True),
        "atoms 0 and 1 overlap: 0.100 A",
    ),
    "coincident": (
        Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 0]], cell=[4, 4, 4], pbc=True),
        "overlap: 0.000 A",
    ),
    "coincident across the boundary": (
        Atoms("Cu2", positions=[[0, 0, 0], [4, 0, 0]], cell=[4, 4, 4], pbc=True),
        "overlap: 0.000 A",
    ),
    "own image": (Atoms("Cu", cell=[0.3, 9, 9], pbc=True), "its own periodic image overlap"),
    "zero volume": (
        Atoms("Cu", cell=[[3, 0, 0], [0, 3, 0], [3, 3, 0]], pbc=True),
        "zero volume",
    ),
    "no cell": (Atoms("Cu", pbc=True), "zero volume"),
    "nan position": (broken(positions=np.array([[0, 0, 0], [np.nan, 0, 0]])), "atom 1"),
    "nan cell": (Atoms("Cu", cell=np.full((3, 3), np.nan), pbc=True), "lattice holds non-finite"),
    "infinite position": (broken(positions=np.array([[np.inf, 0, 0], [1, 1, 1]])), "atom 0"),
    "nanometres": (Atoms("NaCl", cell=np.eye(3) * 0.564, pbc=True), "in angstrom"),
    "isolated": (Atoms("Cu", cell=[15, 15, 15], pbc=True), "isolated"),
}
