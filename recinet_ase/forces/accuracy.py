"""Errors of a force model on labelled cells."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from ase.units import GPa

from recinet_ase.elements import symbols
from recinet_ase.forces.labels import LabelledCells
from recinet_ase.forces.model import ForceModel

_ATOMS = 512  # of a batch


@dataclass(frozen=True)
class ForceErrors:
    """Mean absolute errors of a model, NaN where there are no labels.

    Attributes:
        energy: meV/atom.
        forces: meV/angstrom, over components.
        stress: GPa, over components.
        by_element: The same three by element symbol: energies and stresses of the cells that
            have the element, forces on its atoms.
    """

    energy: float
    forces: float
    stress: float
    by_element: dict[str, tuple[float, float, float]] = field(default_factory=dict)


def errors_of(
    model: ForceModel, cells: LabelledCells, chosen: Sequence[int] | None = None
) -> ForceErrors:
    """Errors of a model on labelled cells.

    Args:
        model: The model.
        cells: The cells.
        chosen: Positions of those to judge by, else all.
    """
    positions = np.arange(len(cells)) if chosen is None else np.asarray(chosen, dtype=np.int64)
    order = positions[np.argsort(cells.n_atoms[positions] * cells.neighbours[positions, 0])]
    batches = np.split(
        order, np.flatnonzero(np.diff(np.cumsum(cells.n_atoms[order]) // _ATOMS)) + 1
    )
    device = next(model.parameters()).device
    energy, forces, stress, numbers, owner = [], [], [], [], []
    for some in batches:
        batch, labels = cells.batch(some.tolist(), model.config.network, device)
        result = model(batch)
        size = torch.tensor(batch.n_atoms, device=device)
        energy.append(((result.energy - labels.energy) / size).abs().cpu().numpy())
        forces.append((result.forces - labels.forces).abs().mean(1).cpu().numpy())
        stress.append((result.stress - labels.stress).abs().mean((1, 2)).cpu().numpy())
        numbers.append(batch.z.cpu().numpy())
        owner.append(np.repeat(some, batch.n_atoms))
    row = np.full(len(cells), -1)
    row[order] = np.arange(len(order))
    columns = (
        1e3 * np.concatenate(energy), 1e3 * np.concatenate(forces), np.concatenate(stress) / GPa,
    )  # fmt: skip
    z, cell = np.concatenate(numbers), row[np.concatenate(owner)]

    def means(atoms: np.ndarray) -> tuple[float, float, float]:
        some = np.unique(cell[atoms])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # no label at all: NaN
            return (
                float(np.nanmean(columns[0][some])),
                float(columns[1][atoms].mean()),
                float(np.nanmean(columns[2][some])),
            )

    each = {symbols()[k]: means(z == k) for k in np.unique(z).tolist()}
    return ForceErrors(*means(np.ones(len(z), dtype=bool)), each)
