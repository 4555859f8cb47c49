"""Which crystals of one set occur in another, by their whole structures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from recinet_ase.data.overlap import Composition, composition_key
from recinet_ase.errors import ReciNetError
from recinet_ase.graph.adapters import to_crystal

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from recinet_ase.graph.crystal import Crystal


def find_same(wanted: Mapping[str, Any], others: Iterable[tuple[str, Any]]) -> dict[str, list[str]]:
    """Crystals among ``others`` that are the same as one that is wanted.

    Two crystals are the same if they have the same reduced formula and pymatgen's
    ``StructureMatcher`` (default tolerances, primitive cells, volumes scaled) maps one onto
    the other: small relaxations, as between two functionals, make no difference.

    Args:
        wanted: Structures by id (anything that `to_crystal` takes).
        others: Ids and structures to look through; what cannot be read is passed over, since
            no network can have been trained on it.

    Returns:
        The ids of the others that match, by wanted id; those without a match are left out.

    Raises:
        ReciNetError: If a wanted structure cannot be read: nothing could be said of it.
    """
    from pymatgen.analysis.structure_matcher import StructureMatcher

    groups: dict[Composition, list[tuple[str, Structure]]] = defaultdict(list)
    for key, structure in wanted.items():
        crystal = to_crystal(structure)
        groups[composition_key(crystal)].append((key, _structure(crystal)))
    matcher = StructureMatcher()
    found: dict[str, list[str]] = defaultdict(list)
    for other, structure in others:
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
