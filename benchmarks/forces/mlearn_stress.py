"""Unit, sign and order of the stresses in mlearn's files, from the data themselves.

    python benchmarks/forces/mlearn_stress.py --data-dir DIR

Pairs of cells of one element whose atoms sit at the same fractional coordinates differ by a
strain alone. Their difference in energy is ``V sigma : strain``, which gives unit and sign.
Differences in stress are linear in the strain: which of the six numbers answers to a shear in
which plane (or to a stretch along which axis) gives the order.
"""

from __future__ import annotations

import argparse
from itertools import combinations

import numpy as np
from ase.units import GPa

from recinet_ase.data.mlearn import ELEMENTS, Configuration, MLearn

AXES = ("xx", "yy", "zz", "xy", "yz", "zx")


def strain_between(a: Configuration, b: Configuration) -> np.ndarray | None:
    """The six strains that lead from one cell to the other, or None if more differs."""
    if len(a.forces) != len(b.forces):
        return None
    lattices = [np.array(c.structure["lattice_mat"]) for c in (a, b)]
    coords = [np.array(c.structure["coords"]) for c in (a, b)]
    if a.structure.get("cartesian"):
        coords = [x @ np.linalg.inv(m) for x, m in zip(coords, lattices, strict=True)]
    moved = coords[0] - coords[1]
    change = np.linalg.solve(*lattices) - np.eye(3)
    if np.abs(moved - np.round(moved)).max() > 1e-3 or not 1e-3 < np.abs(change).max() < 0.06:
        return None
    e = 0.5 * (change + change.T)
    return np.array([e[0, 0], e[1, 1], e[2, 2], e[0, 1], e[1, 2], e[0, 2]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir")
    data_dir = parser.parse_args().data_dir
    for symbol in ELEMENTS:
        still = [
            c
            for c in MLearn(f"mlearn_{symbol}", data_dir).configurations()
            if np.abs(c.forces).max() < 0.02
        ]
        strains, stresses, energies, work = [], [], [], []
        for a, b in combinations(still, 2):
            strain = strain_between(a, b)
            if strain is None:
                continue
            strains.append(strain)
            stresses.append(b.stress - a.stress)
            if np.abs(strain[3:]).max() < 1e-4:
                volume = np.mean([abs(np.linalg.det(c.structure["lattice_mat"])) for c in (a, b)])
                energies.append(len(a.forces) * (b.energy - a.energy))
                work.append(volume * strain[:3] @ (a.stress + b.stress)[:3] / 2)
        if not strains:
            print(f"{symbol}: no pairs of cells that differ by a strain alone")
            continue
        x, e = np.array(work), np.array(energies)
        line = f"{symbol}: {len(strains)} pairs"
        if len(x):
            line += f"; energy = {x @ e / (x @ x) / GPa:+.4f} GPa x V stress : strain"
        print(line)
        # Rows: the strain; columns: how each of the six numbers answers, in the file's unit.
        found = np.linalg.lstsq(np.array(strains), np.array(stresses), rcond=1e-6)[0]
        for axis, row in zip(AXES, found, strict=True):
            if np.abs(row).max() > 1:
                print(f"   {axis}: {np.array2string(row, precision=0, suppress_small=True)}")


if __name__ == "__main__":
    main()
