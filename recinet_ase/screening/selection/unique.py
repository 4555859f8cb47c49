"""Duplicates among structures: the first of each, reading no more structures than needed."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recinet_ase.screening.selection.columns import reduced_formula
from recinet_ase.screening.selection.table import RowTable

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
_SMALLEST_BLOCK, _LARGEST_BLOCK = 32, 20_000  # rows looked at together
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
    volume = crystal.volume
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


class _Fingerprints:
    """The fingerprints of the kept structures of one reduced formula."""

    def __init__(self) -> None:
        self._known: np.ndarray | None = None
        self._count = 0

    def holds(self, item: np.ndarray) -> bool:
        """Whether an equal one is known."""
        if self._known is None:
            return False
        known = self._known[: self._count]
        near = np.abs(known - item) <= FINGERPRINT_TOLERANCE * np.maximum(known, item)
        return bool(near.all(axis=1).any())

    def add(self, item: np.ndarray) -> None:
        """Keep one."""
        if self._known is None:
            self._known = item[None]
        elif self._count == len(self._known):
            self._known = np.concatenate([self._known, np.empty_like(self._known)])
        self._known[self._count] = item
        self._count += 1


def _prepared(atoms: Atoms) -> tuple[int, Any]:
    """Space group number and pymatgen structure."""
    import spglib
    from pymatgen.io.ase import AseAtomsAdaptor

    from recinet_ase.graph.adapters import to_crystal

    crystal = to_crystal(atoms)  # refuses what is no crystal
    cell = (crystal.lattice, crystal.frac_coords, crystal.numbers)
    dataset = spglib.get_symmetry_dataset(cell, symprec=_GROUP_PRECISION)
    return (dataset.number if dataset else 0), AseAtomsAdaptor.get_structure(atoms)


class _Structures:
    """The kept structures of one reduced formula, by space group."""

    def __init__(self) -> None:
        from pymatgen.analysis.structure_matcher import StructureMatcher

        self._matcher = StructureMatcher()
        self._known: dict[int, list[Any]] = defaultdict(list)

    def holds(self, item: tuple[int, Any]) -> bool:
        """Whether an equal one is known."""
        return any(self._matcher.fit(item[1], other) for other in self._known[item[0]])

    def add(self, item: tuple[int, Any]) -> None:
        """Keep one."""
        self._known[item[0]].append(item[1])


@dataclass
class _Group:
    """What is kept of one reduced formula.

    Attributes:
        known: The structures that were read.
        unread: A kept row whose structure nothing has been compared with yet.
    """

    known: _Fingerprints | _Structures
    unread: int | None = None


def first_of_each(
    table: RowTable, indices: np.ndarray, method: str, top: int | None = None
) -> np.ndarray:
    """The rows whose structure equals that of no earlier kept row.

    Only structures whose reduced formula occurs again are read, and none far behind the
    ``top``-th kept row. A structure that cannot be compared is kept.

    Args:
        table: All rows.
        indices: Rows in order of preference ``[k]``.
        method: Key of `METHODS`.
        top: Stop after this many.

    Returns:
        The kept part of ``indices``, in the same order.
    """
    prepare: Callable[[Atoms], Any] = fingerprint if method == "fingerprint" else _prepared
    formulas = table.column("formula")
    groups: dict[str, _Group] = {}
    kept: list[int] = []
    start, block = 0, _LARGEST_BLOCK if top is None else max(_SMALLEST_BLOCK, top)
    while start < len(indices):
        rows = indices[start : start + block].tolist()
        # Rows in order of preference are scattered over the input: the more are read
        # together, the less often each part of the input is parsed.
        start, block = start + block, min(2 * block, _LARGEST_BLOCK)
        keys = {row: reduced_formula(formulas[row] or "") for row in rows}
        items = _read(table, _wanted(keys, groups), prepare)
        for row in rows:
            if keys[row]:
                if keys[row] not in groups:
                    known = _Fingerprints() if method == "fingerprint" else _Structures()
                    groups[keys[row]] = _Group(known)
                if _is_known(groups[keys[row]], row, items):
                    continue
            kept.append(row)
            if len(kept) == top:
                return np.array(kept, dtype=np.int64)
    return np.array(kept, dtype=np.int64)


def _is_known(group: _Group, row: int, items: Mapping[int, Any]) -> bool:
    """Whether a kept row has the same structure; if none has, it becomes one of them."""
    if row not in items:
        group.unread = row
        return False
    if group.unread is not None:
        first, group.unread = items[group.unread], None
        if first is not None:
            group.known.add(first)
    item = items[row]
    if item is None:
        return False
    if group.known.holds(item):
        return True
    group.known.add(item)
    return False


def _wanted(keys: Mapping[int, str], groups: Mapping[str, _Group]) -> list[int]:
    """Rows whose structures this block needs: those that share a reduced formula."""
    sharing: dict[str, list[int]] = defaultdict(list)
    for row, key in keys.items():
        sharing[key].append(row)
    wanted = []
    for key, rows in sharing.items():
        group = groups.get(key)
        if key and (group is not None or len(rows) > 1):
            wanted += rows if group is None or group.unread is None else [group.unread, *rows]
    return sorted(wanted)  # the order of the input


def _read(table: RowTable, rows: Sequence[int], prepare: Callable[[Atoms], Any]) -> dict[int, Any]:
    """What each row is compared by, None if it cannot be."""
    items: dict[int, Any] = dict.fromkeys(rows)
    if not rows:
        return items
    structures = table.structures(np.array(rows, dtype=np.int64))
    for row, atoms in zip(rows, structures, strict=True):
        if isinstance(atoms, Exception):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                items[row] = prepare(atoms)
        except Exception:
            continue  # kept, since it cannot be compared
    return items
