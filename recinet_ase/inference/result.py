"""What a prediction is, and a list of them as a table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

    from recinet_ase.simulation.relaxation import Relaxation
    from recinet_ase.stability.phases import Component

RELAXATION = ("volume_change", "relax_steps", "relaxed")
"""Columns of a relaxation: share of the volume, steps, and whether the crystal came to rest."""

ENDS = ("_low", "_high")
"""What follows a property's name for the ends of its 90 % interval, wherever it has a name."""

SPREAD = "_spread"
"""What follows it for the standard deviation of an ensemble's members."""


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
        warnings: How the structure differs from those that a model was trained on, and what else
            keeps a number from being used alone, one sentence each, with the model's name.
        in_domain: Whether the structure is like those that the models were trained on; None if
            none of them could tell.
        error: Why values are missing, ``""`` if none is.
        formula: Reduced formula, ``""`` if the structure was unreadable.
        n_atoms: Number of atoms, 0 if the structure was unreadable.
        fault: Traceback of an error that is none of the structure but of this program or of the
            machine (its memory), ``""`` otherwise.
        units: Unit of each property that was asked for, ``""`` for pure numbers.
        relaxation: What became of the structure before it was judged, where that was asked for:
            its ``atoms`` are those that the values are for.
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
    units: dict[str, str] = field(default_factory=dict)
    relaxation: Relaxation | None = None

    def __repr__(self) -> str:
        """``<Prediction NaCl: bandgap 5.03 [4.8, 5.3] eV, outside the domain>``."""
        told = []
        for name, value in self.values.items():
            ends = self.intervals.get(name)
            interval = f" [{ends[0]:.4g}, {ends[1]:.4g}]" if ends else ""
            told.append(f"{name} {value:.4g}{interval} {self.units.get(name, '')}".rstrip())
        if self.in_domain is False:
            told.append("outside the domain")
        if self.error:
            told.append(f"error: {self.error}")
        return f"<Prediction {self.formula or 'of nothing readable'}: {', '.join(told)}>"

    def to_dict(self) -> dict[str, Any]:
        """One flat dictionary, with the columns that `recinet-screen` writes.

        Returns:
            ``formula``, ``natoms``, for each property its value, ``_low`` and ``_high`` (its 90 %
            interval) and ``_spread`` (of an ensemble) where there are such; beside ``ehull``
            ``ehull_lacks`` and ``decomposition``; ``volume_change``, ``relax_steps`` and
            ``relaxed`` of relaxed structures; ``in_domain``, ``warnings`` (joined by ``"; "``)
            and ``error``; None for what is missing.
        """
        row: dict[str, Any] = {"formula": self.formula, "natoms": self.n_atoms or None}
        for name in self.units or self.values:
            row[name] = self.values.get(name)
            if name in self.intervals:
                row[f"{name}_low"], row[f"{name}_high"] = self.intervals[name]
            if name in self.spreads:
                row[f"{name}_spread"] = self.spreads[name]
        if self.decomposition:
            from recinet_ase.stability.phases import describe

            row |= {"ehull_lacks": self.lacks, "decomposition": describe(self.decomposition)}
        return {
            **row,
            **(self.relaxation.columns() if self.relaxation else {}),
            "in_domain": self.in_domain,
            "warnings": "; ".join(self.warnings),
            "error": self.error,
        }


class Predictions(list[Prediction]):
    """Predictions in the order of their structures: a list that can become a table.

    Args:
        results: The predictions.
        units: Unit of each property that was asked for.
    """

    def __init__(
        self, results: Iterable[Prediction] = (), units: dict[str, str] | None = None
    ) -> None:
        super().__init__(results)
        self.units = dict(units or {})

    def to_frame(self) -> pandas.DataFrame:
        """A pandas table: one row a structure, flat columns, those of `Prediction.to_dict`.

        Units are in ``frame.attrs["units"]``. Values, intervals and spreads that are missing are
        NaN; a column is there if any row has it.
        """
        import pandas

        rows = [result.to_dict() for result in self]
        names = list(dict.fromkeys(name for row in rows for name in row))
        last = [n for n in ("relaxed", "in_domain", "warnings", "error") if n in names]
        texts = [name for name in ("ehull_lacks", "decomposition") if name in names]
        numbers = [name for name in names if name not in ("formula", *texts, *last)]
        frame = pandas.DataFrame(rows, columns=["formula", *numbers, *texts, *last])
        frame[numbers] = frame[numbers].astype(float)
        frame.attrs["units"] = dict(self.units)
        return frame

    def __repr__(self) -> str:
        """Each prediction on a line, the first ten of them."""
        lines = [repr(result) for result in self[:10]]
        if len(self) > 10:
            lines.append(f"... and {len(self) - 10:,} more")
        return "[" + ",\n ".join(lines) + "]"
