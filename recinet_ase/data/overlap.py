"""Which crystals of one set occur in another, whatever they are called there."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import torch

from recinet_ase.data.store import PackedStore
from recinet_ase.formula import reduced_counts

if TYPE_CHECKING:
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
