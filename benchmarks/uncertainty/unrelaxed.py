"""What predictions lose on structures that are not at rest.

    OMP_NUM_THREADS=1 python benchmarks/uncertainty/unrelaxed.py

For each model 200 crystals of its validation set (tests/fixtures) are scaled, or their atoms are
moved (normal, the given root mean square of each coordinate), and predicted; errors are taken
against the labels of the relaxed crystals. Also: how many are outside the model's domain, and how
many of the others have that label in their interval (the calibration was fitted to these crystals
among others; `recinet calibrate` gives the cross-fitted figures).
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from recinet_ase import Predictor
from recinet_ase.pretrained import model_card

FIXTURE = Path(__file__).parents[2] / "tests" / "fixtures" / "validation.json.gz"
MODELS = ("jarvis-eform", "jarvis-mbj", "jarvis-bulk")
VOLUMES = (0.85, 0.9, 0.94, 0.97, 1.03, 1.06, 1.1, 1.15)
MOVES = (0.02, 0.05, 0.1, 0.2)  # angstrom


def crystals(name: str) -> tuple[list[Atoms], np.ndarray]:
    """The model's validation crystals in the fixture, and their labels."""
    kept = json.loads(gzip.decompress(FIXTURE.read_bytes()))
    card = model_card(name)
    dataset = card["training"]["dataset"]
    labels = kept["labels"][f"{dataset}/{card['properties'][0]}"]
    found = []
    for key in labels:
        record: dict[str, Any] = kept["structures"][f"{dataset}/{key}"]
        found.append(
            Atoms(
                record["elements"],
                cell=record["lattice_mat"],
                scaled_positions=record["coords"],
                pbc=True,
            )
        )
    return found, np.array([*labels.values()])


def main() -> None:
    for name in MODELS:
        atoms, labels = crystals(name)
        predictor = Predictor(name, device="cpu")
        info = predictor.infos[0]
        print(f"{name}, {len(atoms)} crystals, {info.unit}")
        rng = np.random.default_rng(0)
        cases = {"relaxed": atoms}
        for volume in VOLUMES:
            cases[f"volume x {volume}"] = [scaled(a, volume) for a in atoms]
        for move in MOVES:
            cases[f"moved by {move} A"] = [moved(a, move, rng) for a in atoms]
        for label, changed in cases.items():
            results = predictor.predict_many(changed)
            values = np.array([r.values.get(info.name, np.nan) for r in results])
            error = np.nanmean(np.abs(values - labels))
            bias = np.nanmean(values - labels)
            outside = np.array([r.in_domain is not True for r in results])
            held = np.array(
                [
                    info.name in r.intervals and low <= y <= high
                    for r, y in zip(results, labels, strict=True)
                    for low, high in [r.intervals.get(info.name, (np.nan, np.nan))]
                ]
            )
            print(
                f"{label:15} MAE {error:.4g}  bias {bias:+.3g}  outside {outside.mean():.0%}  "
                f"inside the interval, of the others {held[~outside].mean():.0%}"
            )


def scaled(atoms: Atoms, volume: float) -> Atoms:
    """The crystal with its cell and atoms scaled together."""
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell * volume ** (1 / 3), scale_atoms=True)
    return atoms


def moved(atoms: Atoms, size: float, rng: np.random.Generator) -> Atoms:
    """The crystal with every atom moved at random."""
    atoms = atoms.copy()
    atoms.positions += rng.normal(0, size, atoms.positions.shape)
    return atoms


if __name__ == "__main__":
    main()
