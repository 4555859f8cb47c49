"""Time of building a graph, beside ASE's and pymatgen's own neighbour searches.

    OMP_NUM_THREADS=1 python benchmarks/graphs/building.py [--data-dir DIR] [--atoms 10]

Rivals are given the radius of the outermost shell, which ours has to find first. With
--data-dir, JARVIS crystals of that size are used; otherwise the examples.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.db import connect
from ase.neighborlist import neighbor_list
from pymatgen.io.ase import AseAtomsAdaptor

from recinet_ase.graph.adapters import to_crystal
from recinet_ase.graph.geometric import build_graph
from recinet_ase.graph.neighbours import shell_neighbours


def load(data_dir: str | None, n_atoms: int) -> list[Atoms]:
    if data_dir is None:
        path = Path(__file__).parents[2] / "examples" / "crystals.json"
        atoms = [row.toatoms() for row in connect(path).select()]
        return [a for a in atoms if 0.5 * n_atoms <= len(a) <= 2 * n_atoms]
    from recinet_ase.data.published import JARVIS

    records = JARVIS.records(data_dir).values()
    chosen = (r for r in records if len(r["atoms"]["elements"]) == n_atoms)
    return [to_crystal(record).to_ase() for record in islice(chosen, 300)]


def milliseconds(function: Callable[[Any], object], items: list[Any], repeat: int = 3) -> float:
    """Median over repeats of the mean time per item."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        for item in items:
            function(item)
        times.append((time.perf_counter() - start) / len(items) * 1e3)
    return float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir")
    parser.add_argument("--atoms", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    structures = load(arguments.data_dir, arguments.atoms)
    crystals = [to_crystal(a) for a in structures]
    found = [shell_neighbours(c.frac_coords, c.lattice) for c in crystals]
    cutoffs = [float(f.distance.max()) * (1 + 1e-6) for f in found]
    pymatgen = [AseAtomsAdaptor.get_structure(a) for a in structures]

    rows = {
        "recinet: shells": milliseconds(
            lambda c: shell_neighbours(c.frac_coords, c.lattice), crystals
        ),
        "recinet: Atoms to CrystalGraph": milliseconds(
            lambda a: build_graph(to_crystal(a)), structures
        ),
        "pymatgen: Structure.get_neighbor_list": milliseconds(
            lambda p: p[0].get_neighbor_list(p[1]), list(zip(pymatgen, cutoffs, strict=True))
        ),
        "pymatgen: Structure.get_all_neighbors": milliseconds(
            lambda p: p[0].get_all_neighbors(p[1]), list(zip(pymatgen, cutoffs, strict=True))
        ),
        "ase: neighbor_list": milliseconds(
            lambda p: neighbor_list("ijSd", *p), list(zip(structures, cutoffs, strict=True))
        ),
    }
    sizes = [len(a) for a in structures]
    print(f"{len(structures)} crystals, {np.mean(sizes):.1f} atoms, one thread")
    ours = rows["recinet: Atoms to CrystalGraph"]
    for name, value in rows.items():
        print(f"{name:40s} {value:7.3f} ms   {value / ours:6.2f} x our whole graph")


if __name__ == "__main__":
    main()
