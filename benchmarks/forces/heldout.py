"""JARVIS crystals that the shipped models were chosen on, and disturbed copies of them."""

from __future__ import annotations

import random
from collections.abc import Collection

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from recinet_ase.data.published import JARVIS
from recinet_ase.properties import PROPERTIES


def validation_crystals(
    prop: str,
    count: int,
    data_dir: str | None = None,
    elements: Collection[int] = (),
    most_atoms: int = 200,
) -> tuple[list[Atoms], np.ndarray]:
    """Crystals of the official validation set of a property, drawn at random, and their labels.

    Args:
        prop: The property.
        count: How many.
        data_dir: Data folder, else RECINET_DATA_DIR.
        elements: Atomic numbers that a crystal may hold; all if empty.
        most_atoms: Of a cell.
    """
    split = JARVIS.listed_split(PROPERTIES[prop], data_dir)
    assert split is not None, f"the split of {prop} is missing"
    records = JARVIS.records(data_dir)
    ids = [key for key in split.val if key in records]
    random.Random(0).shuffle(ids)
    known = {chemical_symbols[z] for z in elements}
    found, labels = [], []
    for key in ids:
        atoms = records[key]["atoms"]
        symbols = [symbol.strip() for symbol in atoms["elements"]]
        if len(symbols) > most_atoms or (known and not set(symbols) <= known):
            continue
        found.append(
            Atoms(
                symbols,
                scaled_positions=atoms["coords"],
                cell=atoms["lattice_mat"],
                pbc=True,
                info={"id": key},
            )
        )
        labels.append(split.val[key])
        if len(found) == count:
            break
    return found, np.array(labels, dtype=np.float64)


def disturbed(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """A copy with its volume times 0.9 to 1.1 and atoms moved by 0.1 A (each coordinate)."""
    moved = atoms.copy()
    moved.set_cell(moved.cell.array * rng.uniform(0.9, 1.1) ** (1 / 3), scale_atoms=True)
    moved.positions += rng.normal(0, 0.1, moved.positions.shape)
    return moved


def known_elements(calculator: object) -> tuple[int, ...]:
    """Atomic numbers that a force model knows; empty where nothing says."""
    model = getattr(calculator, "model", None)
    return tuple(getattr(getattr(model, "config", None), "elements", ()))
