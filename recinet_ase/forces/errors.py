"""Errors of a force model on labelled cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from ase.units import GPa

from recinet_ase.elements import symbols
from recinet_ase.forces.data import LabelledCell, join
from recinet_ase.forces.model import ForceModel

_BATCH = 8


@dataclass(frozen=True)
class ForceErrors:
    """Mean absolute errors of a model.

    Attributes:
        energy: meV/atom.
        forces: meV/angstrom, over components.
        stress: GPa, over components.
        by_element: The same three by element symbol (of single-element cells).
    """

    energy: float
    forces: float
    stress: float
    by_element: dict[str, tuple[float, float, float]] = field(default_factory=dict)


def errors_of(model: ForceModel, cells: Sequence[LabelledCell]) -> ForceErrors:
    """Errors of a model on labelled cells."""
    rows = []
    for start in range(0, len(cells), _BATCH):
        part = cells[start : start + _BATCH]
        batch, labels = join(part)
        result = model(batch)
        by_atom = (result.forces - labels.forces).abs().sum(1).split(batch.n_atoms)
        stress = (result.stress - labels.stress).abs().mean((1, 2))
        for i, cell in enumerate(part):
            n = len(cell.graph.numbers)
            rows.append(
                (
                    symbols()[int(cell.graph.numbers[0])],
                    abs(float(result.energy[i]) - cell.energy) / n,
                    float(by_atom[i].sum()),
                    3 * n,
                    float(stress[i]),
                )
            )

    def mean(some: list[tuple[str, float, float, int, float]]) -> tuple[float, float, float]:
        return (
            1e3 * float(np.mean([r[1] for r in some])),
            1e3 * sum(r[2] for r in some) / sum(r[3] for r in some),
            float(np.mean([r[4] for r in some])) / GPa,
        )

    return ForceErrors(
        *mean(rows),
        {s: mean([r for r in rows if r[0] == s]) for s in sorted({r[0] for r in rows})},
    )
