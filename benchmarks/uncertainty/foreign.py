"""Share of changed validation crystals that a model flags as outside its domain.

python benchmarks/uncertainty/foreign.py [--model jarvis-mbj]
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from recinet_ase import Predictor
from recinet_ase.errors import StructureError
from recinet_ase.graph.adapters import to_crystal
from recinet_ase.graph.crystal import Crystal

FIXTURE = Path(__file__).parents[2] / "tests" / "fixtures" / "validation.json.gz"
Change = Callable[[Crystal, np.random.Generator], Crystal]


def scaled(factor: float) -> Change:
    return lambda c, rng: Crystal(c.numbers, c.frac_coords, c.lattice * factor ** (1 / 3))


def with_vacuum(factor: float) -> Change:
    def change(c: Crystal, rng: np.random.Generator) -> Crystal:
        normal = np.cross(c.lattice[0], c.lattice[1])
        normal /= np.linalg.norm(normal)
        lattice = c.lattice.copy()
        lattice[2] += (factor - 1) * (lattice[2] @ normal) * normal
        positions = c.frac_coords @ c.lattice
        return Crystal.from_arrays(c.numbers, positions @ np.linalg.inv(lattice), lattice)

    return change


def rattled(width: float) -> Change:
    def change(c: Crystal, rng: np.random.Generator) -> Crystal:
        moves = rng.normal(0, width, (len(c), 3)) @ np.linalg.inv(c.lattice)
        return Crystal.from_arrays(c.numbers, c.frac_coords + moves, c.lattice)

    return change


def strained(amount: float) -> Change:
    strain = np.diag([1 + amount, 1 / (1 + amount), 1])
    return lambda c, rng: Crystal(c.numbers, c.frac_coords, c.lattice @ strain)


def with_random_positions(c: Crystal, rng: np.random.Generator) -> Crystal:
    return Crystal(c.numbers, rng.random(c.frac_coords.shape), c.lattice)


def with_permuted_species(c: Crystal, rng: np.random.Generator) -> Crystal:
    return Crystal(rng.permutation(c.numbers), c.frac_coords, c.lattice)


def with_random_elements(elements: tuple[int, ...]) -> Change:
    def change(c: Crystal, rng: np.random.Generator) -> Crystal:
        present, place = np.unique(c.numbers, return_inverse=True)
        return Crystal(rng.choice(elements, len(present), False)[place], c.frac_coords, c.lattice)

    return change


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="jarvis-mbj")
    predictor = Predictor(parser.parse_args().model, device="cpu")
    config = predictor.models[0].config
    fixture = json.loads(gzip.decompress(FIXTURE.read_bytes()))
    dataset = config.training["dataset"]
    keys = fixture["labels"][f"{dataset}/{config.properties[0]}"]
    crystals = [to_crystal(fixture["structures"][f"{dataset}/{key}"]) for key in keys]
    changes: dict[str, Change] = {"nothing": scaled(1.0)}
    for factor in (0.5, 0.6, 0.7, 0.8, 0.9, 1.1, 1.2, 1.3, 1.5, 2.0, 3.0):
        changes[f"volume times {factor}"] = scaled(factor)
    for factor in (1.5, 2.0, 3.0):
        changes[f"vacuum along c, {factor} times the height"] = with_vacuum(factor)
    changes |= {
        "random elements on the sites": with_random_elements(config.elements),
        "species permuted among the sites": with_permuted_species,
        "atoms moved by 0.2 A (normal)": rattled(0.2),
        "atoms moved by 0.4 A (normal)": rattled(0.4),
        "strained by 20 %": strained(0.2),
        "strained by 40 %": strained(0.4),
        "random positions": with_random_positions,
    }
    print(f"{config.name}, {len(crystals)} validation crystals\n")
    print("| changed | flagged or refused | refused |\n|---|---|---|")
    for name, change in changes.items():
        rng = np.random.default_rng(0)
        structures: list[Crystal | StructureError] = []
        for crystal in crystals:
            try:
                structures.append(change(crystal, rng))
            except StructureError as error:
                structures.append(error)
        results = predictor.predict_many(structures)
        refused = np.mean([bool(r.error) for r in results])
        flagged = np.mean([bool(r.error) or not r.in_domain for r in results])
        print(f"| {name} | {100 * flagged:.0f} % | {100 * refused:.0f} % |", flush=True)


if __name__ == "__main__":
    main()
