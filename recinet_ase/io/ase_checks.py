"""What some formats say that ASE's readers pass over: it is refused, not dropped.

A check takes the lines of a file, and raises where ASE would give another structure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from recinet_ase.errors import StructureError
from recinet_ase.io.symmetry.unit_cell import lattice_vectors

if TYPE_CHECKING:
    from ase import Atoms

_FULL = 0.999  # an occupancy that is 1 but for rounding
_AXES = 0.01  # of a fractional coordinate; SCALE has six decimals
_MASS = 0.5  # atomic mass units between a type's mass and its element's


def _lammps_dump(lines: Iterable[str]) -> None:
    """Lengths in angstrom, a box that ASE reads, and elements by name."""
    before = ""
    for line in lines:
        if before.startswith("ITEM: UNITS") and line.strip() not in ("metal", "real"):
            raise StructureError(
                f"the LAMMPS dump is in the units {line.strip()[:20]!r}; write it in metal or real"
            )
        if line.startswith("ITEM: BOX BOUNDS abc"):
            raise StructureError(
                "the LAMMPS dump has a general triclinic box, which ASE does not read; write it "
                "without 'triclinic/general yes'"
            )
        before = line
        if line.startswith("ITEM: ATOMS") and "element" not in line.split():
            raise StructureError(
                "the LAMMPS dump numbers its types of atoms and names no elements; write it with "
                "'dump ... custom ... element' and 'dump_modify ... element Na Cl'"
            )


def _lammps_data(lines: Iterable[str]) -> None:
    if not any(line.strip().startswith(("Masses", "Atom Type Labels")) for line in lines):
        raise StructureError("the LAMMPS data file numbers its types of atoms and has no masses")


def _pdb(lines: Iterable[str]) -> None:
    """The usual axes, elements by name, and no alternatives or copies."""
    lattice, to_fractions = np.zeros((3, 3)), np.zeros((3, 4))
    for line in lines:
        record = line[:6].strip()
        if record == "CRYST1":
            ends = (6, 15, 24, 33, 40, 47, 54)
            values = [float(line[a:b]) for a, b in pairwise(ends)]
            lattice = lattice_vectors(values[:3], values[3:])
        elif record in ("SCALE1", "SCALE2", "SCALE3"):
            columns = ((10, 20), (20, 30), (30, 40), (45, 55))
            to_fractions[int(record[5]) - 1] = [float(line[a:b]) for a, b in columns]
            usual = np.abs(to_fractions[:, :3] @ lattice.T - np.eye(3)).max() < _AXES
            if record == "SCALE3" and not (usual and np.abs(to_fractions[:, 3]).max() < _AXES):
                raise StructureError(
                    "the PDB file's axes (SCALE) are not the usual ones: a along x, b in the plane "
                    "of x and y"
                )
        if record in ("ATOM", "HETATM"):
            if line[16:17].strip():
                raise StructureError(
                    "disordered: the PDB file has alternative locations; choose one first"
                )
            if not line[76:78].strip():
                raise StructureError("the PDB file has no element symbols (columns 77 and 78)")
        elif record.startswith("MTRIX") and line[59:60] != "1":
            raise StructureError("the PDB file gives copies of its atoms (MTRIX) as operations")


def _with(pattern: str, what: str) -> Callable[[Iterable[str]], None]:
    """A check that refuses lines with a pattern: a symmetry that ASE does not apply."""
    search = re.compile(pattern, re.IGNORECASE).search

    def check(lines: Iterable[str]) -> None:
        for line in lines:
            if search(line.split("!")[0].split("#")[0]):
                raise StructureError(
                    f"the file states {what}, and ASE's reader takes the atoms that are listed for "
                    "all of them; write out the whole cell"
                )

    return check


CHECKS: dict[str, Callable[[Iterable[str]], None]] = {
    "lammps-dump-text": _lammps_dump,
    "lammps-data": _lammps_data,
    "proteindatabank": _pdb,
    "espresso-in": _with(r"\bspace_group\s*=|crystal_sg", "a space group"),
    "abinit-in": _with(r"\b(?:spgroup|natrd)\b", "a space group"),
    "nwchem-in": _with(r"^\s*sym(?:metry)?\s+(?!c1\b)", "a space group"),
    "xsd": _with(r'GroupName="(?!P\s?1")', "a space group"),
    "dmol-car": _with(r"^PBC.*\((?!P1\))", "a space group"),
    "dmol-arc": _with(r"^PBC.*\((?!P1\))", "a space group"),
}
"""By ASE's name of the format."""


def check_atoms(atoms: Atoms, kind: str) -> None:
    """What can be told after reading: occupancies, and masses that are no element's.

    Raises:
        StructureError: If the structure is disordered, or of no elements.
    """
    for name in ("occupancy", "occupancies"):
        shares = atoms.arrays.get(name)
        if shares is None or shares.dtype.kind not in "iuf":
            continue
        partial = np.flatnonzero(~(shares > _FULL))
        if len(partial):
            i = int(partial[0])
            raise StructureError(
                f"disordered: atom {i} has the occupancy {shares[i]:g}; choose an ordered "
                "arrangement first"
            )
    if kind == "lammps-dump-text" and atoms.calc is not None:
        atoms.calc.results.pop("energy", None)  # a zero that ASE puts beside forces
    if kind == "lammps-data":
        from ase.data import atomic_masses

        if (np.abs(atoms.get_masses() - atomic_masses[atoms.numbers]) > _MASS).any():
            raise StructureError("the LAMMPS data file has masses that are no element's")


def space_group(lines: Iterable[str]) -> str:
    """The space group of a PDB file's CRYST1, ``""`` if it is P 1 or has none.

    Raises:
        StructureError: If its models have several.
    """
    groups = {line[55:66].strip() for line in lines if line.startswith("CRYST1")}
    groups = {"" if group.replace(" ", "") == "P1" else group for group in groups}
    if len(groups) > 1:
        raise StructureError("the PDB file states several space groups")
    return groups.pop() if groups else ""
