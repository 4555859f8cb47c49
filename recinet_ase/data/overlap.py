"""Which crystals of one set occur in another, whatever they are called there.

`twins` compares formulas and volumes of many at once, `find_same` whole structures.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recinet_ase.data.store import PackedStore
from recinet_ase.errors import ReciNetError
from recinet_ase.formula import reduced_counts

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from recinet_ase.graph.crystal import Crystal

TWIN_VOLUME = 0.08
"""Crystals of one reduced formula whose volumes an atom differ by a smaller share are twins."""

Composition = tuple[tuple[int, int], ...]


def composition_key(crystal: Crystal) -> Composition:
    """Atomic numbers with their counts in the reduced formula, ascending."""
    return tuple(sorted(reduced_counts(Counter(crystal.numbers.tolist())).items()))


def twins(store: PackedStore, held: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    """Which candidates are twins of a crystal that is held out.

    A crystal with the reduced formula of another and nearly its volume counts as that crystal,
    whatever it is called in its own database: relaxed by another functional, most of them are.

    Args:
        store: Both.
        held: Positions of the crystals held out, int64.
        candidates: Positions of those looked at, int64 ``[n]``.

    Returns:
        For each candidate whether it has a twin, bool ``[n]``.
    """
    if not len(held) or not len(candidates):
        return torch.zeros(len(candidates), dtype=torch.bool)
    formula = store.formulas.astype(np.float64)
    size = np.log(store.arrays["volume"].double().numpy())
    # Formulas far apart, volumes of one formula side by side.
    place = 100 * formula
    known = np.sort((place + size)[held.numpy()])
    look = (place + size)[candidates.numpy()]
    low = np.searchsorted(known, look - np.log(1 + TWIN_VOLUME), "left")
    high = np.searchsorted(known, look - np.log(1 - TWIN_VOLUME), "right")
    return torch.from_numpy(high > low)


def find_same(
    wanted: Mapping[str, Any],
    others: Iterable[tuple[str, Any]],
    progress: Callable[[int], None] | None = None,
) -> dict[str, list[str]]:
    """Crystals among ``others`` that are the same as one that is wanted.

    Two crystals are the same if they have the same reduced formula and pymatgen's
    ``StructureMatcher`` (default tolerances, primitive cells, volumes scaled) maps one onto
    the other: small relaxations, as between two functionals, make no difference.

    Args:
        wanted: Structures by id (anything that `to_crystal` takes).
        others: Ids and structures to look through; what cannot be read is passed over, since
            no network can have been trained on it.
        progress: Called with the number of others done.

    Returns:
        The ids of the others that match, by wanted id; those without a match are left out.

    Raises:
        ReciNetError: If a wanted structure cannot be read: nothing could be said of it.
    """
    from pymatgen.analysis.structure_matcher import StructureMatcher

    from recinet_ase.graph.adapters import to_crystal

    groups: dict[Composition, list[tuple[str, Structure]]] = defaultdict(list)
    for key, structure in wanted.items():
        crystal = to_crystal(structure)
        groups[composition_key(crystal)].append((key, _structure(crystal)))
    matcher = StructureMatcher()
    found: dict[str, list[str]] = defaultdict(list)
    for done, (other, structure) in enumerate(others, 1):
        if progress is not None:
            progress(done)
        if isinstance(structure, Exception):
            continue
        try:
            crystal = to_crystal(structure)
        except ReciNetError:
            continue
        candidates = groups.get(composition_key(crystal))
        if candidates:
            theirs = _structure(crystal)
            for key, ours in candidates:
                if matcher.fit(ours, theirs):
                    found[key].append(other)
    return dict(found)


def _structure(crystal: Crystal) -> Structure:
    from pymatgen.core import Lattice, Structure

    return Structure(Lattice(crystal.lattice), crystal.numbers.tolist(), crystal.frac_coords)
