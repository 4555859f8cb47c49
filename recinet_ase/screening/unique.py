"""Duplicates among structures: the first of each, reading no more structures than needed."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from recinet_ase.screening.columns import reduced_formula
from recinet_ase.screening.table import RowTable

if TYPE_CHECKING:
    from ase import Atoms

METHODS = {
    "fingerprint": "mean distances to neighbours of each element",
    "matcher": "pymatgen's StructureMatcher",
}
"""How structures are compared."""

FINGERPRINT_TOLERANCE = 0.01
"""Largest relative difference of a distance between equal structures."""

_NEAREST = 32  # far enough to tell cubic from hexagonal stacking
_NEAREST_OF_ELEMENT = 8
_LARGEST_RADIUS = 40.0  # A
_BLOCK = 256  # rows looked at together
_GROUP_PRECISION = 0.1  # A; loose, so that rounded coordinates split no group


def fingerprint(atoms: Atoms) -> np.ndarray:
    """Numbers that are the same for every description of a crystal, and change smoothly with it.

    For each element the distances to the 32 nearest atoms, and for each pair of elements those
    to the 8 nearest, in ascending order, averaged over the element's atoms (cf. the average
    minimum distances of Widdowson and Kurlin 2022). Independent of cell, supercell, origin,
    orientation and order of atoms; mirror images are equal.

    Args:
        atoms: A three-dimensional crystal.

    Returns:
        Distances in angstrom ``[e * 32 + e^2 * 8]`` for ``e`` elements in order of atomic number.

    Raises:
        ReciNetError: If it is no crystal, or so sparse in an element that neighbours are out of
            reach.
    """
    from recinet_ase.errors import StructureError
    from recinet_ase.graph.adapters import to_crystal
    from recinet_ase.graph.neighbours import radius_neighbours

    crystal = to_crystal(atoms)
    numbers, lattice = crystal.numbers, crystal.lattice
    elements, counts = np.unique(numbers, return_counts=True)
    volume = abs(np.linalg.det(lattice))
    wanted = max(_NEAREST / len(numbers), _NEAREST_OF_ELEMENT / counts.min())
    radius = 1.15 * (3 * volume * (wanted + 1 / len(numbers)) / (4 * np.pi)) ** (1 / 3)
    while radius < _LARGEST_RADIUS:
        found = radius_neighbours(crystal.frac_coords, lattice, radius)
        parts = [_nearest(found.centre, found.distance, len(numbers), _NEAREST)]
        for element in elements:
            near = numbers[found.neighbour] == element
            centre, distance = found.centre[near], found.distance[near]
            parts.append(_nearest(centre, distance, len(numbers), _NEAREST_OF_ELEMENT))
        if not any(part is None for part in parts):
            table = np.concatenate([part for part in parts if part is not None], axis=1)
            return np.concatenate([table[numbers == element].mean(axis=0) for element in elements])
        radius *= 1.25
    raise StructureError("neighbours of each element are too far apart to compare structures")


def _nearest(centre: np.ndarray, distance: np.ndarray, atoms: int, k: int) -> np.ndarray | None:
    """The ``k`` shortest distances of each atom ``[atoms, k]``; None if one has fewer."""
    counts = np.bincount(centre, minlength=atoms)
    if counts.min() < k:
        return None
    first = np.cumsum(counts) - counts
    return distance[first[:, None] + np.arange(k)]


def _same_fingerprint(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((np.abs(a - b) <= FINGERPRINT_TOLERANCE * np.maximum(a, b)).all())


def _prepared(atoms: Atoms) -> tuple[int, Any]:
    """Space group number and pymatgen structure."""
    import spglib
    from pymatgen.io.ase import AseAtomsAdaptor

    from recinet_ase.graph.adapters import to_crystal

    crystal = to_crystal(atoms)  # refuses what is no crystal
    cell = (crystal.lattice, crystal.frac_coords, crystal.numbers)
    dataset = spglib.get_symmetry_dataset(cell, symprec=_GROUP_PRECISION)
    return (dataset.number if dataset else 0), AseAtomsAdaptor.get_structure(atoms)


def _matches() -> Callable[[Any, Any], bool]:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    matcher = StructureMatcher()

    def same(a: tuple[int, Any], b: tuple[int, Any]) -> bool:
        return a[0] == b[0] and bool(matcher.fit(a[1], b[1]))

    return same


def first_of_each(
    table: RowTable, indices: np.ndarray, method: str, top: int | None = None
) -> np.ndarray:
    """The rows whose structure equals that of no earlier kept row.

    Only structures whose reduced formula occurs again are read, and none beyond the ``top``-th
    kept row's block. A structure that cannot be compared is kept.

    Args:
        table: All rows.
        indices: Rows in order of preference ``[k]``.
        method: Key of `METHODS`.
        top: Stop after this many.

    Returns:
        The kept part of ``indices``, in the same order.
    """
    prepare: Callable[[Atoms], Any] = fingerprint if method == "fingerprint" else _prepared
    same: Callable[[Any, Any], bool] = _same_fingerprint if method == "fingerprint" else _matches()
    formulas = table.column("formula")
    known: dict[str, list[int]] = defaultdict(list)  # kept rows by reduced formula
    seen: dict[int, Any] = {}  # what a row is compared by; None if it cannot be
    kept: list[int] = []
    block = _BLOCK if top is None else min(_BLOCK, max(32, top))
    for start in range(0, len(indices), block):
        rows = indices[start : start + block].tolist()
        keys = {row: reduced_formula(formulas[row] or "") for row in rows}
        _read(table, _wanted(keys, known, seen), prepare, seen)
        for row in rows:
            candidates = known[keys[row]] if keys[row] else []
            mine = seen.get(row)
            others = (seen.get(other) for other in candidates) if mine is not None else ()
            if any(other is not None and same(mine, other) for other in others):
                del seen[row]
                continue
            candidates.append(row)
            kept.append(row)
            if len(kept) == top:
                return np.array(kept, dtype=np.int64)
    return np.array(kept, dtype=np.int64)


def _wanted(keys: dict[int, str], known: dict[str, list[int]], seen: dict[int, Any]) -> list[int]:
    """Rows whose structures this block needs: those that share a reduced formula."""
    groups: dict[str, list[int]] = defaultdict(list)
    for row, key in keys.items():
        groups[key].append(row)
    wanted = []
    for key, rows in groups.items():
        everyone = [*known.get(key, ()), *rows]
        if key and len(everyone) > 1:
            wanted += [row for row in everyone if row not in seen]
    return wanted


def _read(
    table: RowTable, rows: list[int], prepare: Callable[[Atoms], Any], seen: dict[int, Any]
) -> None:
    if not rows:
        return
    order = sorted(rows)  # in the order of the input
    structures = table.structures(np.array(order, dtype=np.int64))
    for row, atoms in zip(order, structures, strict=True):
        seen[row] = None
        if isinstance(atoms, Exception):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                seen[row] = prepare(atoms)
        except Exception:
            continue  # cannot be compared: kept
