"""What a prediction is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recinet_ase.stability.hull import Component

ENDS = ("_low", "_high")
"""What follows a property's name for the ends of its 90 % interval, wherever it has a name."""

SPREAD = "_spread"
"""What follows it for the standard deviation of an ensemble's members."""

_OTHER_ENDS = {"_lower": ENDS[0], "_upper": ENDS[1]}


def with_known_end(name: str) -> str:
    """A name whose end is spelt as here: ``"gap_lower"`` is ``"gap_low"``."""
    for other, end in _OTHER_ENDS.items():
        if name.endswith(other):
            return name.removesuffix(other) + end
    return name


@dataclass(frozen=True)
class Prediction:
    """What came out for one structure.

    Attributes:
        values: Value of each property in its unit; missing where refused.
        intervals: 90 % interval of each value (lower, upper), in the same unit; missing for
            models without a calibration.
        decomposition: The known phases that compete with the crystal, with their shares, where a
            distance to the hull was asked for (`recinet_ase.stability.Component`).
        lacks: What the references of that distance lack for the crystal's elements.
        spreads: Standard deviation of the members' predictions for each value that an ensemble
            gave, in the same unit.
        warnings: How the structure differs from those that a model was trained on, one
            sentence each, with the model's name.
        in_domain: Whether no model warned; None if none of them could tell.
        error: Why values are missing, ``""`` if none is.
        formula: Chemical formula (Hill order), ``""`` if the structure was unreadable.
        n_atoms: Number of atoms, 0 if the structure was unreadable.
        fault: Traceback of an error that is none of the structure but of this program or of the
            machine (its memory), ``""`` otherwise.
    """

    values: dict[str, float] = field(default_factory=dict)
    error: str = ""
    formula: str = ""
    n_atoms: int = 0
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    in_domain: bool | None = None
    spreads: dict[str, float] = field(default_factory=dict)
    fault: str = ""
    decomposition: tuple[Component, ...] = ()
    lacks: str = ""
