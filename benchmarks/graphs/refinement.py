"""Reduced against full graphs: what colour refinement leaves, costs and changes, in any cell.

python benchmarks/graphs/refinement.py --data-dir DIR [--every 40] [--model jarvis-mbj]
"""

from __future__ import annotations

import argparse
import time
from itertools import islice

import numpy as np
import spglib
import torch
from ase.build import bulk

from recinet_ase import Predictor, StructureError
from recinet_ase.data.published import JARVIS
from recinet_ase.graph.adapters import to_crystal
from recinet_ase.graph.crystal import Crystal, neighbours_of
from recinet_ase.graph.refinement import (
    PREDICTION,
    TRAINING,
    FlatGraphs,
    equitable_partition,
    reduce_graphs,
)
from recinet_ase.graph.waves import half_space_waves

K_MAX = 4.0


def orbits_of(crystal: Crystal) -> int:
    """Number of orbits under the space group."""
    cell = (crystal.lattice, crystal.frac_coords, crystal.numbers)
    found = spglib.get_symmetry_dataset(cell, symprec=1e-2)
    return len(crystal) if found is None else len(np.unique(found.equivalent_atoms))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir")
    parser.add_argument("--every", type=int, default=40)
    parser.add_argument("--model", default="jarvis-mbj")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    crystals, found = [], []
    for record in islice(JARVIS.records(arguments.data_dir).values(), 0, 40_000, arguments.every):
        try:
            crystal = to_crystal(record)
            found.append(neighbours_of(crystal))
            crystals.append(crystal)
        except StructureError:
            continue
    n = len(crystals)
    flat = FlatGraphs.join(crystals, found)
    waves = half_space_waves(torch.from_numpy(flat.lattice), K_MAX)
    spent = []
    for known in (None, waves):
        start = time.process_time()
        equitable_partition(flat, known)
        spent.append(1e3 * (time.process_time() - start) / n)
    start = time.process_time()
    orbits = sum(map(orbits_of, crystals))
    by_spglib = 1e3 * (time.process_time() - start) / n
    print(
        f"{n} crystals: {len(flat.numbers)} atoms, {orbits} orbits (spglib, 0.01 A), "
        f"{len(flat.distance)} edges"
    )
    for purpose, tolerance in (("prediction", PREDICTION), ("training", TRAINING)):
        few = reduce_graphs(flat, K_MAX, tolerance=tolerance)
        print(f"for {purpose}: {len(few.z)} classes, {len(few.distance)} edges")
    print(
        f"ms a crystal: {spent[0]:.3f} from neighbours alone, {spent[1]:.3f} with the waves, "
        f"spglib {by_spglib:.2f}"
    )
    values = []
    for reduce in (True, False):
        predictor = Predictor(arguments.model, device="cpu", intervals=False, reduce=reduce)
        name = next(iter(predictor.properties))
        results = predictor.predict_many(crystals)
        values.append(np.array([r.values.get(name, np.nan) for r in results]))
    change = np.abs(values[0] - values[1])
    print(
        f"{arguments.model}: predictions change by {np.nanpercentile(change, 99):.1e} at most for "
        f"99 % of the crystals, {np.nanmax(change):.1e} for all"
    )
    rng = np.random.default_rng(0)
    doubled = []
    for crystal in crystals:
        atoms = crystal.to_ase()
        atoms = atoms.repeat(np.where(np.arange(3) == rng.integers(3), 2, 1))
        doubled.append(atoms[rng.permutation(len(atoms))])
    predictor = Predictor(arguments.model, device="cpu", intervals=False)
    again = [r.values.get(name, np.nan) for r in predictor.predict_many(doubled)]
    change = np.abs(values[0] - again) / np.maximum(np.abs(values[0]), 0.1 * np.nanstd(values[0]))
    print(
        f"the cell doubled, atoms in any order: {np.nanmax(change):.1e} of the value (or of a "
        f"tenth of the spread) at most, {np.nansum(change > 1e-5):.0f} above 1e-5"
    )
    salt = bulk("NaCl", "rocksalt", a=5.64).repeat(8)
    predictor.predict(salt)
    start = time.process_time()
    predictor.preparation([salt])
    graphs = time.process_time() - start
    predictor.predict(salt)
    whole = time.process_time() - start - graphs
    print(f"an ideal supercell of {len(salt)} atoms: graphs {graphs:.2f} s of {whole:.2f} s in all")


if __name__ == "__main__":
    main()
