"""Which elements a model will answer for, and which validation crystals can judge it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from recinet_ase.elements import symbols
from recinet_ase.errors import ReciNetError
from recinet_ase.models.property_model import PropertyModel
from recinet_ase.training.labels import PreparedData, Targets
from recinet_ase.training.references import composition

RARE = 50
"""Training crystals with an element, below which a model is said to hardly know it."""


def known_elements(data: PreparedData, initial: PropertyModel | None) -> tuple[int, ...]:
    """Atomic numbers of the training crystals and of those that the start was trained on."""
    own = data.store.elements(data.train.index)
    return tuple(sorted({*own, *(() if initial is None else initial.config.elements)}))


def elements_of_start(data: PreparedData, initial: PropertyModel | None) -> list[int]:
    """Those that only the start has seen: the model answers, and says so."""
    own = set(data.store.elements(data.train.index))
    return [z for z in known_elements(data, initial) if z not in own]


def rare_elements(data: PreparedData) -> dict[str, int]:
    """Training crystals that hold each element of which fewer than `RARE` do, by symbol."""
    counts = (composition(data.store, data.train.index) > 0).sum(0).tolist()
    return {symbols()[z]: n for z, n in enumerate(counts) if 0 < n < RARE}


def listed_rare(rare: Mapping[str, int]) -> str:
    """A sentence for cards."""
    listed = ", ".join(f"{symbol} {n}" for symbol, n in sorted(rare.items(), key=lambda x: x[1]))
    return f"Fewer than {RARE} training crystals hold these elements: {listed}."


def answerable(
    data: PreparedData, elements: Sequence[int], message: Callable[[str], None] | None = None
) -> PreparedData:
    """The data without validation crystals that the model refuses.

    Predictions for an element that was never seen are refused, so they must not
    count in the error that chooses the weights and that the card states.

    Args:
        data: Data of a run.
        elements: Atomic numbers that the model answers for.
        message: Called with what was left out.

    Raises:
        ReciNetError: If no validation crystal remains.
    """
    shares = composition(data.store, data.val.index)
    known = torch.zeros(shares.shape[1], dtype=torch.bool)
    known[list(elements)] = True
    foreign = shares[:, ~known].sum(1) > 0
    if not foreign.any():
        return data
    missing = torch.nonzero(((shares > 0) & ~known).any(0)).flatten().tolist()
    listed = ", ".join(symbols()[z] for z in missing)
    if foreign.all():
        raise ReciNetError(
            f"every validation crystal has an element that no training crystal has ({listed}); "
            "divide the crystals otherwise (--split-seed), or start from a model that knows them "
            "(--init)"
        )
    if message is not None:
        message(
            f"{int(foreign.sum()):,} of {len(foreign):,} validation crystals are not judged: no "
            f"training crystal has {listed}"
        )
    kept = torch.nonzero(~foreign).flatten()
    reason = f"validation crystal with an element that no training crystal has ({listed})"
    rejected = {data.val_ids[i]: reason for i in torch.nonzero(foreign).flatten().tolist()}
    return replace(
        data,
        val=Targets(data.val.index[kept], data.val.values[kept]),
        val_ids=[data.val_ids[i] for i in kept.tolist()],
        rejected={**data.rejected, **rejected},
    )
