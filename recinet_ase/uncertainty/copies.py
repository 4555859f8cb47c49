"""Changed copies of relaxed crystals: what users' unrelaxed structures look like to a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from recinet_ase.errors import StructureError
from recinet_ase.graph.adapters import to_crystal
from recinet_ase.graph.crystal import Crystal
from recinet_ase.models.ensemble import AnyModel
from recinet_ase.uncertainty.descriptors import GEOMETRY, Descriptors
from recinet_ase.uncertainty.observe import observe
from recinet_ase.uncertainty.strain import Copies

LARGEST_STRAIN = 0.12
"""Log ratio of volumes up to which copies are compressed and expanded."""

LARGEST_RATTLE = 0.15
"""Angstrom, root mean square of each coordinate's displacement."""


def strained(crystal: Crystal, log_ratio: float) -> Crystal:
    """The crystal with its volume times ``exp(log_ratio)``."""
    lattice = crystal.lattice * np.exp(log_ratio / 3)
    return Crystal(crystal.numbers, crystal.frac_coords, lattice)


def rattled(crystal: Crystal, amplitude: float, rng: np.random.Generator) -> Crystal:
    """The crystal with its atoms moved at random (normal, angstrom in each coordinate)."""
    moves = rng.normal(0, amplitude, (len(crystal), 3)) @ np.linalg.inv(crystal.lattice)
    return Crystal.from_arrays(crystal.numbers, crystal.frac_coords + moves, crystal.lattice)


def observe_copies(
    model: AnyModel,
    structures: Mapping[str, Any],
    ids: list[str],
    unchanged: Descriptors,
    kind: str,
    most: int | None = None,
    seed: int = 0,
) -> Copies:
    """A changed copy of each crystal, and what the model makes of it.

    Args:
        model: The model.
        structures: Crystals by id.
        ids: Those of ``unchanged``.
        unchanged: Descriptors of the crystals as they are.
        kind: ``"strained"`` (evenly up to `LARGEST_STRAIN`) or ``"rattled"`` (evenly up to
            `LARGEST_RATTLE`).
        most: Copies wanted, of crystals chosen at random; else one of each.
        seed: Of choice and changes.
    """
    rng = np.random.default_rng(seed)
    row = {key: i for i, key in enumerate(ids)}
    chosen = ids if most is None or most >= len(ids) else rng.permutation(ids)[:most].tolist()
    changed = {}
    for key in chosen:
        size = rng.uniform(-1, 1)
        crystal = to_crystal(structures[key])
        try:
            changed[key] = (
                strained(crystal, LARGEST_STRAIN * size)
                if kind == "strained"
                else rattled(crystal, LARGEST_RATTLE * abs(size), rng)
            )
        except StructureError:  # atoms that met
            continue
    known, found = observe(model, changed.items())
    origin = torch.tensor([row[key] for key in known], dtype=torch.long)
    volume = GEOMETRY.index("log_volume")
    return Copies(found, origin, found.geometry[:, volume] - unchanged.geometry[origin, volume])
