"""The card of a force model: what a person must know before using it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.units import GPa

from recinet_ase.elements import symbols
from recinet_ase.forces.labels import LabelledCells
from recinet_ase.forces.model import ForceModel
from recinet_ase.models.files import write_atomic

CARD_FILE = "README.md"

_CARD = """# {name}

Energies, forces and stresses of {elements}, for relaxation, dynamics, elasticity and phonons:

    from recinet_ase import ReciNetForceCalculator
    atoms.calc = ReciNetForceCalculator("{usage}")

| | |
|---|---|
| data | {data} |
| cells | {train:,} train, {val:,} validation, {test:,} test |
| level of theory | {functional} |
| network | {parameters:,} parameters; {blocks} blocks, width {width}, cutoff {cutoff} A, {waves} |
| training | L1 on {learnt}; {stages}; {hours:.1f} h on {hardware} |
| zero of energy | that of the data: only differences mean something |

## Errors

Mean absolute errors on the {val:,} validation cells, in brackets those of the best sum of atoms' energies and of no forces and
stresses at all. Energies and stresses of an element's row are those of the cells that have it, forces those on its atoms.

| | energy, meV/atom | forces, meV/A | stress, GPa |
|---|---|---|---|
{rows}

## Where not to trust it

{caution}. Elements it never saw are refused; pairs of elements, distances and volumes that the training cells have not are
named in a warning. Free atoms and clusters are outside of the data.
"""  # noqa: E501


def write_card(
    model: ForceModel,
    cells: LabelledCells,
    val: Sequence[int],
    folder: Path,
    usage: str | None = None,
    data: str | None = None,
) -> None:
    """Write ``README.md`` into the folder of a trained model.

    Args:
        model: The model, with its figures in ``config.training``.
        cells: Its data.
        val: Positions of the validation cells.
        folder: Where to.
        usage: What the calculator is to be given, else the folder.
        data: Source and licence of the data, else their name.
    """
    config = model.config
    about: dict[str, Any] = config.training
    network = config.network
    stages = [about]
    while "start" in stages[0]:
        stages.insert(0, stages[0]["start"])
    found = about["validation_errors"]
    spread = _spreads(model, cells, val)
    rows = [
        _row(name, values, spread[name])
        for name, values in [
            *found["by_element"].items(),
            ("all", (found["energy"], found["forces"], found["stress"])),
        ]
    ]
    listed = [symbols()[z] for z in config.elements]
    text = _CARD.format(
        name=config.name,
        usage=usage or folder,
        elements=", ".join(listed) if len(listed) <= 12 else f"{len(listed)} elements",
        data=data or about["dataset"],
        train=about["train"],
        val=len(val),
        test=about["test"],
        functional=config.functional or "that of the data",
        parameters=about["parameters"],
        blocks=network.blocks,
        width=network.width,
        cutoff=network.cutoff,
        waves=f"waves to {network.k_max} 1/A" if network.channels else "no waves",
        learnt=", ".join(about["settings"].get("properties", ("energy", "forces", "stress"))),
        stages="; then ".join(map(_stage, stages)),
        hours=sum(stage.get("hours", 0.0) for stage in stages),
        hardware=about.get("hardware", "one CPU core"),
        rows="\n".join(rows),
        caution=(config.caution or "crystals unlike those of the data")[:1].upper()
        + (config.caution or "crystals unlike those of the data")[1:],
    )
    write_atomic(folder / CARD_FILE, text.encode())


def _stage(about: dict[str, Any]) -> str:
    """A stage of training in words."""
    s = about["settings"]
    done = about.get("epochs_done", s["epochs"])
    return (
        f"{done} epochs (batch {s['batch_size']}, peak learning rate {s['learning_rate']:g}, "
        f"weight of stresses {s['stress_weight']:g} per GPa)"
    )


def _row(name: str, found: Sequence[float], spread: Sequence[float]) -> str:
    cells = [
        "-" if np.isnan(f) else f"{f:.{d}f} ({s:.{d}f})"
        for f, s, d in zip(found, spread, (1, 0, 2), strict=True)
    ]
    return f"| {name} | {' | '.join(cells)} |"


def _spreads(
    model: ForceModel, cells: LabelledCells, val: Sequence[int]
) -> dict[str, tuple[float, float, float]]:
    """Errors of a model without forces that gives every atom its element's energy."""
    some = cells.select(np.asarray(val))
    owner = np.repeat(np.arange(len(some)), some.n_atoms)
    reference = model.reference.double().cpu().numpy()[some.numbers.astype(np.int64)]
    rest = (some.energy - np.bincount(owner, reference)) / some.n_atoms
    energy = 1e3 * np.abs(rest - np.nanmedian(rest))
    forces = 1e3 * np.abs(some.forces).mean(1)
    stress = np.abs(some.stress).mean((1, 2)) / GPa

    def means(atoms: np.ndarray) -> tuple[float, float, float]:
        own = np.unique(owner[atoms])
        return (
            float(np.nanmean(energy[own])) if np.isfinite(energy[own]).any() else float("nan"),
            float(forces[atoms].mean()),
            float(np.nanmean(stress[own])) if np.isfinite(stress[own]).any() else float("nan"),
        )

    found = {symbols()[z]: means(some.numbers == z) for z in np.unique(some.numbers).tolist()}
    return {**found, "all": means(np.ones(len(owner), dtype=bool))}
