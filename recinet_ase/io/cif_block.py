"""One block of a CIF, core or macromolecular (mmCIF), as a crystal.

gemmi reads the syntax. What is not understood wholly is refused: a number for another crystal
than the one in the file is worse than none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from recinet_ase.elements import atomic_number
from recinet_ase.errors import StructureError
from recinet_ase.io.symmetry.operations import combined, operations
from recinet_ase.io.symmetry.space_group import Statement
from recinet_ase.io.symmetry.unit_cell import (
    NO_FORMULA,
    Formula,
    Sites,
    lattice_vectors,
    unit_cell,
)

if TYPE_CHECKING:
    import gemmi
    from ase import Atoms

_CELL = tuple(f"_cell_length_{axis}" for axis in "abc") + tuple(
    f"_cell_angle_{angle}" for angle in ("alpha", "beta", "gamma")
)
_OPERATIONS = (
    "_space_group_symop_operation_xyz",
    "_symmetry_equiv_pos_as_xyz",
    "_symmetry_equiv_as_xyz",
)
_MAGNETIC_OPERATIONS = (
    "_space_group_symop_magn_operation_xyz",
    "_space_group_symop_magn_operation_algebraic",
)
_MAGNETIC_CENTRINGS = (
    "_space_group_symop_magn_centering_xyz",
    "_space_group_symop_magn_centering_algebraic",
)
_MAGNETIC = ("_space_group_magn", "_magnetic_space_group", "_space_group_symop_magn")
_MODULATED = (
    "_cell_wave_vector",
    "_space_group_ssg",
    "_space_group_symop_ssg",
    "_space_group_magn_ssg",
)
_HALL = ("_space_group_name_hall", "_symmetry_space_group_name_hall", "_symmetry_name_hall")
_SYMBOLS = (
    "_space_group_name_h-m_alt",
    "_symmetry_space_group_name_h-m",
    "_space_group_name_h-m",
    "_symmetry_name_h-m",
    "_space_group_name_h-m_full",
)
_NUMBERS = ("_space_group_it_number", "_symmetry_int_tables_number")
_FRACTIONAL = tuple(f"_atom_site_fract_{axis}" for axis in "xyz")
_CARTESIAN = tuple(f"_atom_site_cartn_{axis}" for axis in "xyz")
_LABELS = ("_atom_site_label", "_atom_site_label_atom_id", "_atom_site_id")
_PARTS = re.compile(r"[A-Z][a-z]?").findall
_LABEL_SYMBOL = re.compile(r"([A-Z][a-z]?)(?![a-z])").match

_FULL = 0.999  # an occupancy that is 1 but for rounding


class _Tags:
    """Tags of a block in lower case, with ``_`` for the dots of newer dictionaries."""

    def __init__(self, block: gemmi.cif.Block) -> None:
        self._values: dict[str, tuple[gemmi.cif.Loop | None, int | str]] = {}
        self._twice: set[str] = set()
        for item in block:
            pair: Any = item.pair
            if pair is not None:
                self._add(pair[0], None, pair[1])
            elif item.loop is not None:
                for column, tag in enumerate(item.loop.tags):
                    self._add(tag, item.loop, column)

    def _add(self, tag: str, loop: gemmi.cif.Loop | None, value: int | str) -> None:
        tag = tag.lower().replace(".", "_")
        if self._values.setdefault(tag, (loop, value)) != (loop, value):
            self._twice.add(tag)

    def has(self, *prefixes: str) -> bool:
        """Whether any tag begins with one of these."""
        return any(tag.startswith(prefixes) for tag in self._values)

    def column(self, *tags: str) -> list[str]:
        """Values of the first of some tags that is there, unquoted; gaps are ``""``."""
        for tag in tags:
            if tag in self._values:
                if tag in self._twice:
                    raise StructureError(f"the CIF states {tag} twice, and not the same")
                loop, value = self._values[tag]
                if loop is None:
                    return [_plain(str(value))]
                assert isinstance(value, int)
                return [_plain(text) for text in loop.values[value :: loop.width()]]
        return []

    def one(self, *tags: str) -> str:
        """The first value that is given under any of some tags, ``""`` for none."""
        return next((v for tag in tags for v in self.column(tag) if v), "")

    def agreed(self, *tags: str) -> str:
        """The one value that is given under some tags of one meaning, ``""`` for none."""
        values = {" ".join(v.split()) for tag in tags for v in self.column(tag) if v}
        if len(values) > 1:
            listed = " and ".join(map(repr, sorted(values)))
            raise StructureError(f"the CIF contradicts itself: {tags[0]} is {listed}")
        return values.pop() if values else ""


def _plain(text: str) -> str:
    import gemmi

    if text[:1] in "'\";":
        return gemmi.cif.as_string(text).strip()
    return "" if text in ("?", ".") else text


def _numbers(texts: Sequence[str]) -> list[float]:
    """Numbers without their standard uncertainties; NaN for what is none."""
    try:
        if any("_" in text for text in texts):  # which Python passes over
            raise ValueError
        return [float(text) for text in texts]
    except ValueError:
        import gemmi

        return [gemmi.cif.as_number(text) for text in texts]


def crystal_of(block: gemmi.cif.Block) -> Atoms:
    """The unit cell that a block describes.

    Raises:
        StructureError: If it describes none, a disordered one, or contradicts itself.
    """
    tags = _Tags(block)
    lattice = _lattice(tags)
    if tags.has(*_MODULATED):
        raise StructureError("the structure is modulated: no unit cell holds it")
    sites = _sites(tags, lattice)
    return unit_cell(sites, lattice, _statement(tags), _formula(tags))


def _lattice(tags: _Tags) -> np.ndarray:
    """Lattice vectors from lengths and angles."""
    texts = [tags.one(tag) for tag in _CELL]
    if not all(texts):
        raise StructureError("the CIF has no complete unit cell (three lengths, three angles)")
    values = _numbers(texts)
    for text, value in zip(texts, values, strict=True):
        if not math.isfinite(value):
            raise StructureError(f"the CIF's cell has {text[:20]!r} where a number should be")
    return lattice_vectors(values[:3], values[3:])


def _statement(tags: _Tags) -> Statement:
    """What the block says of its symmetry."""
    triplets = tuple(text for text in tags.column(*_OPERATIONS) if text)
    magnetic = tags.column(*_MAGNETIC_OPERATIONS)
    if magnetic:
        # Time reversal moves no atom.
        spatial = [",".join(text.split(",")[:3]) for text in magnetic]
        centrings = [",".join(t.split(",")[:3]) for t in tags.column(*_MAGNETIC_CENTRINGS)]
        return Statement(magnetic_operations(tuple(spatial), tuple(centrings)))
    if not triplets and tags.has(*_MAGNETIC):
        raise StructureError("the magnetic space group is stated without its operations")
    number, hall = tags.agreed(*_NUMBERS), tags.agreed(*_HALL)
    try:
        it_number = int(number) if number else None
    except ValueError:
        raise StructureError(f"the space group number {number[:20]!r} is none") from None
    symbols = dict.fromkeys(v for tag in _SYMBOLS for v in tags.column(tag) if v)
    return Statement(triplets, hall, tuple(symbols), it_number)


@lru_cache(maxsize=256)
def magnetic_operations(triplets: tuple[str, ...], centrings: tuple[str, ...]) -> tuple[str, ...]:
    """Triplets of all products of magnetic operations and centrings, without time reversal."""
    group = operations(triplets)
    if centrings:
        group = combined(operations(centrings), group)
    return group.triplets()


def _sites(tags: _Tags, lattice: np.ndarray) -> Sites:
    """The atoms that are listed, in fractional coordinates."""
    coords = [tags.column(tag) for tag in _FRACTIONAL]
    cartesian = not all(coords)
    if cartesian:
        coords = [tags.column(tag) for tag in _CARTESIAN]
    if not all(coords):
        missing = next(t for t in _FRACTIONAL if not tags.column(t))
        raise StructureError(
            f"the CIF lacks {missing}" if tags.has("_atom_site_") else "the CIF has no atoms"
        )
    labels = tags.column(*_LABELS) or [""] * len(coords[0])
    names = [label or f"site {i}" for i, label in enumerate(labels)]
    kept = _present(tags, names)
    x, y, z = map(_numbers, coords)
    positions = np.array([(x[i], y[i], z[i]) for i in kept]).reshape(-1, 3)
    symbols = tags.column("_atom_site_type_symbol") or [""] * len(labels)
    names, symbols = [names[i] for i in kept], [symbols[i] for i in kept]
    numbers = [_element(symbol, name) for symbol, name in zip(symbols, names, strict=True)]
    if not np.isfinite(positions).all():
        bad = np.flatnonzero(~np.isfinite(positions).all(axis=1))
        raise StructureError(f"{names[bad[0]]} has coordinates that are not given or no numbers")
    if cartesian:
        _check_orthogonal(tags, lattice)
        positions = np.linalg.solve(lattice.T, positions.T).T
    return Sites(np.array(numbers, dtype=np.int64), positions, tuple(names))


def _present(tags: _Tags, names: Sequence[str]) -> list[int]:
    """Rows that are atoms.

    Raises:
        StructureError: If some are there in part.
    """
    for tag, what in (
        ("_atom_site_disorder_group", "belong to alternatives (disorder groups)"),
        ("_atom_site_label_alt_id", "belong to alternatives"),
        ("_atom_site_pdbx_pdb_model_num", "belong to several models"),
    ):
        given = set(tags.column(tag)) - {""}
        if len(given) > 1:
            raise StructureError(f"disordered: atoms {what}; choose an ordered arrangement first")
    hydrogens = tags.column("_atom_site_attached_hydrogens")
    if any(text not in ("", "0") for text in hydrogens):
        raise StructureError("hydrogen atoms are counted (attached_hydrogens) without positions")
    present = list(range(len(names)))
    flags = tags.column("_atom_site_calc_flag")
    if flags:
        present = [i for i in present if flags[i].lower() != "dum"]
    texts = tags.column("_atom_site_occupancy")
    if not texts:
        return present
    shares = _numbers([text or "1" for text in texts])
    for i in present:
        if not shares[i] >= 0 or shares[i] > 2 - _FULL:
            raise StructureError(f"{names[i]} has the occupancy {texts[i][:20]}")
        if 0 < shares[i] < _FULL:
            raise StructureError(
                f"disordered: {names[i]} has the occupancy {texts[i]}; choose an ordered "
                "arrangement first"
            )
    return [i for i in present if shares[i] > 0]


def _element(symbol: str, label: str) -> int:
    """Atomic number by the type symbol, or by the label where there is none.

    Raises:
        StructureError: If it is no single element.
    """
    if number := atomic_number(symbol):
        return number
    if symbol:
        parts = _PARTS(symbol)
        if symbol.isalpha() and not ("".join(parts) == symbol and all(map(atomic_number, parts))):
            raise StructureError(f"{label} is of the type {symbol[:30]!r}, which is no element")
        raise StructureError(
            f"disordered: {label} is of the type {symbol[:30]!r}, a mixture or a group of atoms "
            "and no element; choose an ordered arrangement of single atoms first"
        )
    match = _LABEL_SYMBOL(label)
    number = atomic_number(match[1]) if match else 0
    # "OW" and "CA" are an atom of water or carbon alpha for some, elements for others.
    if match is None or not number or (len(match[1]) == 1 and label[1:2].isalpha()):
        raise StructureError(
            f"the label {label[:30]!r} does not tell an element; state _atom_site_type_symbol"
        )
    return number


def _check_orthogonal(tags: _Tags, lattice: np.ndarray) -> None:
    """Cartesian coordinates are along a and in the plane of a and b, unless the file says else."""
    stated = [
        [tags.one(f"_atom_sites_fract_transf_matrix[{i}][{j}]") for j in (1, 2, 3)]
        for i in (1, 2, 3)
    ]
    shift = [tags.one(f"_atom_sites_fract_transf_vector[{i}]") or "0" for i in (1, 2, 3)]
    if not all(all(row) for row in stated):
        if tags.has("_atom_sites_cartn_tra"):
            raise StructureError("the CIF states Cartesian axes of its own and no fractions")
        return
    matrix = np.stack([_numbers(row) for row in stated])
    if not np.allclose(matrix @ lattice.T, np.eye(3), atol=1e-2) or any(_numbers(shift)):
        raise StructureError(
            "the CIF's Cartesian axes are not the usual ones (a, and b in a plane)"
        )


# The stated formula


def _formula(tags: _Tags) -> Formula:
    """``_chemical_formula_sum`` and Z; no formula where it is not plain."""
    stated: dict[int, float] = {}
    units = _numbers([tags.one("_cell_formula_units_z") or "nan"])[0]
    for word in tags.one("_chemical_formula_sum").split():
        part = re.fullmatch(r"([A-Z][a-z]?)(\d*\.?\d*)", word)
        number = atomic_number(part[1]) if part else 0
        if part is None or not number:
            return NO_FORMULA
        count = float(part[2]) if part[2] not in ("", ".") else 1.0
        stated[number] = stated.get(number, 0.0) + count
    return Formula(stated, None if np.isnan(units) else float(units))
