"""The crystals that an analysis looks at: a random sample of any input, and its composition."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from recinet_ase.analysis.bonding import Composition, Tally, bonding_class
from recinet_ase.errors import ReciNetError
from recinet_ase.graph.adapters import to_crystal
from recinet_ase.graph.crystal import Crystal

FAMILIES = (
    "triclinic", "monoclinic", "orthorhombic", "tetragonal", "hexagonal", "cubic", "undetermined",
)  # fmt: skip
"""The crystal families (trigonal and hexagonal crystals are one family), low to high symmetry."""

_FIRST_GROUPS = (1, 3, 16, 75, 143, 195)
_SEED = 0
_PRECISION = 1e-2  # of the space group, angstrom


@dataclass(frozen=True)
class Sample:
    """Crystals of an input.

    Attributes:
        data: The input's name.
        ids: Identity of each crystal.
        crystals: The crystals.
        composition: Classes of all crystals of the input, sampled or not.
        refused: Reason by id for entries that are no usable crystal.
    """

    data: str
    ids: tuple[str, ...]
    crystals: tuple[Crystal, ...]
    composition: Composition
    refused: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def groups(self) -> dict[str, list[str]]:
        """Group of each crystal under each way to divide them."""
        return {
            "crystal family": [crystal_family(c) for c in self.crystals],
            "bonding": [bonding_class(c.numbers.tolist()) for c in self.crystals],
        }


def crystal_family(crystal: Crystal) -> str:
    """The crystal family by spglib's space group, the same for any cell of a crystal."""
    import spglib

    cell = (crystal.lattice, crystal.frac_coords, crystal.numbers)
    try:
        found = spglib.get_symmetry_dataset(cell, symprec=_PRECISION)
    except spglib.SpglibError:
        return FAMILIES[-1]
    return (
        FAMILIES[-1] if found is None else FAMILIES[bisect_right(_FIRST_GROUPS, found.number) - 1]
    )


def draw_sample(
    data: str,
    entries: Iterable[tuple[str, Any]],
    limit: int | None,
    progress: Callable[[int], None] | None = None,
) -> Sample:
    """A random sample of a stream (fixed seed, in the stream's order) and its composition.

    Args:
        data: The input's name.
        entries: Id and structure of every entry; an exception stands for a bad one.
        limit: Crystals in the sample, None for all.
        progress: Called with the number of entries seen.

    Raises:
        ReciNetError: If no entry is a usable crystal.
    """
    rng = random.Random(_SEED)
    tally, refused = Tally(data), {}
    kept: list[tuple[int, str, Crystal]] = []
    seen = 0
    for number, (key, structure) in enumerate(entries, 1):
        if progress is not None:
            progress(number)
        try:
            if isinstance(structure, Exception):
                raise structure
            crystal = to_crystal(structure)
        except Exception as error:  # one bad entry must not end the reading
            refused[key] = " ".join(str(error).split()) or type(error).__name__
            continue
        tally.add(crystal.numbers.tolist())
        seen += 1
        if limit is None or len(kept) < limit:
            kept.append((number, key, crystal))
        elif (place := rng.randrange(seen)) < limit:
            kept[place] = (number, key, crystal)
    if not kept:
        why = f" (the first: {next(iter(refused.values()))})" if refused else ""
        raise ReciNetError(f"{data} holds no crystal that can be used{why}")
    kept.sort(key=lambda item: item[0])
    return Sample(
        data, tuple(k for _, k, _ in kept), tuple(c for _, _, c in kept), tally.result(), refused
    )


def file_entries(patterns: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Ids and structures of everything that ``recinet-screen`` reads.

    Raises:
        ReciNetError: For a missing file or an unreadable format.
    """
    from recinet_ase.io import find_sources, read_entries

    for entry in read_entries(find_sources(patterns)):
        yield entry.id, entry.atoms
