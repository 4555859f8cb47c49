"""Which crystals of one set occur in another, whatever they are called there."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from recinet_ase.errors import ReciNetError
from recinet_ase.formula import reduced_counts

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from recinet_ase.graph.crystal import Crystal

Composition = tuple[tuple[int, int], ...]


def composition_key(crystal: Crystal) -> Composition:
    """Atomic numbers with their counts in the reduced formula, ascending."""
    return tuple(sorted(reduced_counts(Counter(crystal.numbers.tolist())).items()))


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
