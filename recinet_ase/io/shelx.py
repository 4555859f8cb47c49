"""SHELX files (``.res``, ``.ins``), also as AIRSS and CASTEP write them.

ASE's reader takes the listed atoms for the whole cell; here LATT and SYMM are applied.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from recinet_ase.elements import atomic_number
from recinet_ase.errors import StructureError
from recinet_ase.io.symmetry.operations import combined, expanded, operations
from recinet_ase.io.symmetry.space_group import Statement
from recinet_ase.io.symmetry.unit_cell import Sites, lattice_vectors, unit_cell

if TYPE_CHECKING:
    from ase import Atoms

_CENTRINGS = {
    1: ("x,y,z",),
    2: ("x,y,z", "x+1/2,y+1/2,z+1/2"),
    3: ("x,y,z", "x+2/3,y+1/3,z+1/3", "x+1/3,y+2/3,z+2/3"),
    4: ("x,y,z", "x,y+1/2,z+1/2", "x+1/2,y,z+1/2", "x+1/2,y+1/2,z"),
    5: ("x,y,z", "x,y+1/2,z+1/2"),
    6: ("x,y,z", "x+1/2,y,z+1/2"),
    7: ("x,y,z", "x+1/2,y+1/2,z"),
}
"""Centring translations by the number of LATT, which is negative without inversion."""

_OTHERS = frozenset(
    "ABIN ACTA AFIX ANIS ANSC ANSR BASF BIND BLOC BOND BUMP CGLS CHIV CONF CONN DAMP DANG DEFS "
    "DELU DFIX DISP EADP EQIV EXTI EXYZ FEND FLAT FMAP FRAG FREE FVAR GRID HFIX HTAB ILSF ISOR "
    "L.S. LAUE LIST MERG MORE MOVE MPLA NCSY NEUT OMIT PLAN PRIG REM RESI RIGU RTAB SADI SAME "
    "SHEL SIMU SIZE SPEC STIR SUMP SWAT TEMP TIME TWIN TWST UNIT WGHT WIGL WPDB XNPD ZERR".split()
)
"""Instructions that say nothing about which atoms there are."""

_ATOM = re.compile(r"\s*[A-Za-z]\w*\s+\d+(\s+-?[\d.]+){3}").match


def parse_shelx(text: str) -> Atoms:
    """The unit cell of a SHELX file, with the energy that AIRSS writes into its title.

    Raises:
        StructureError: If it lacks something, is disordered, or holds what is not understood.
    """
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io.res import Res

    cell: list[float] = []
    latt: int | None = None
    symm: list[str] = ["x,y,z"]
    elements: list[int] = []
    rows: list[tuple[str, int, list[float]]] = []
    info: dict[str, Any] = {}
    for line in _lines(text):
        word, *rest = line.split()
        name = word[:4].upper()
        if line[:1].isspace() and not (latt == -1 and len(symm) == 1):
            # AIRSS may write atoms so; to SHELX it is a comment.
            raise StructureError(f"the line {line.strip()[:40]!r} may be an atom or a comment")
        if name == "TITL":
            try:
                info = Res.parse_title(line)
            except (ValueError, IndexError):
                info = {}
        elif name == "CELL":
            cell = [_number(t, line) for t in rest[1:7]]
        elif name == "LATT":
            latt = int(_number(rest[0], line)) if rest else None
        elif name == "SYMM":
            symm.append(line[4:])
        elif name == "SFAC":
            elements += _elements(rest)
        elif name in ("HKLF", "END"):
            break
        elif name == "PART":
            if _number(rest[0], line) != 0:
                raise StructureError("disordered: atoms belong to alternative parts (PART)")
        elif name not in _OTHERS and not word.startswith(("_", "+")):
            rows.append(_atom(word, rest, line))
    if len(cell) != 6:
        raise StructureError("the SHELX file has no complete CELL")
    if latt is None or abs(latt) not in _CENTRINGS:
        raise StructureError("the SHELX file has no LATT from 1 to 7 that tells its lattice")
    if not rows:
        raise StructureError("the SHELX file has no atoms")
    triplets = _triplets(latt, symm)
    lattice = lattice_vectors(cell[:3], cell[3:])
    sites = _sites(rows, elements)
    _check_full(rows, sites, triplets, lattice, plain=len(triplets) == 1)
    atoms = unit_cell(sites, lattice, Statement(triplets))
    atoms.info.update(info)
    if "energy" in info:
        atoms.calc = SinglePointCalculator(atoms, energy=info["energy"])
    return atoms


def _lines(text: str) -> Iterator[str]:
    """Lines that say something, those that ``=`` continues joined."""
    joined = ""
    for line in text.splitlines():
        line = joined + line.split("!")[0].rstrip()
        if line.endswith("="):
            joined = line[:-1] + " "
            continue
        joined = ""
        if line.strip() and (not line[:1].isspace() or _ATOM(line)):
            yield line
    if joined.strip():
        yield joined


def _number(text: str, line: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise StructureError(f"the SHELX line {line[:40]!r} is not understood") from None


def _elements(words: list[str]) -> list[int]:
    """Atomic numbers of SFAC: a list of elements, or one with its scattering factors."""
    numbers = []
    for word in words:
        if word[:1].isdigit() or word[:1] in "+-.":
            break
        number = atomic_number(word.lstrip("$"))
        if not number:
            raise StructureError(f"SFAC names {word[:20]!r}, which is no element")
        numbers.append(number)
    return numbers


def _atom(name: str, words: list[str], line: str) -> tuple[str, int, list[float]]:
    """Name, number in SFAC, coordinates and site occupation factor."""
    if len(words) < 4 or not words[0].isdecimal():
        raise StructureError(f"the SHELX line {line[:40]!r} is not understood")
    values = [_number(word, line) for word in words[1:5]]
    fixed = [_fixed(value, line) for value in values]
    return name, int(words[0]), [*fixed, 1.0][:4] if len(fixed) < 4 else fixed


def _fixed(value: float, line: str) -> float:
    """A value without the 10 that fixes it.

    Raises:
        StructureError: If it is tied to a free variable (20 and more).
    """
    if -5 < value < 5:
        return value
    if 5 <= value < 15:
        return value - 10
    raise StructureError(f"the SHELX line {line[:40]!r} ties a value to a free variable")


def _triplets(latt: int, symm: list[str]) -> tuple[str, ...]:
    """All operations of the group: SYMM, the inversion, the centring."""
    group = operations(tuple(symm))
    if latt > 0:
        group = combined(operations(("x,y,z", "-x,-y,-z")), group)
    return combined(operations(_CENTRINGS[abs(latt)]), group).triplets()


def _sites(rows: list[tuple[str, int, list[float]]], elements: list[int]) -> Sites:
    numbers = []
    for name, place, _ in rows:
        if not 1 <= place <= len(elements):
            raise StructureError(f"{name} is of element {place} of SFAC, which has {len(elements)}")
        numbers.append(elements[place - 1])
    coords = np.array([values[:3] for *_, values in rows])
    return Sites(np.array(numbers, dtype=np.int64), coords, tuple(name for name, *_ in rows))


def _check_full(
    rows: list[tuple[str, int, list[float]]],
    sites: Sites,
    triplets: tuple[str, ...],
    lattice: np.ndarray,
    plain: bool,
) -> None:
    """Site occupation factors are occupancy times multiplicity over order of the group.

    Raises:
        StructureError: If a site is not full.
    """
    group = operations(triplets)
    index, _ = expanded(group, sites.frac_coords, lattice)
    multiplicities = np.bincount(index, minlength=len(rows))
    for (name, _, values), multiplicity in zip(rows, multiplicities, strict=True):
        share = values[3] if plain else values[3] * len(group) / multiplicity
        if abs(share - 1) > 0.01:
            raise StructureError(
                f"disordered: {name} has the occupancy {share:.3g}; choose an ordered arrangement "
                "first"
            )
