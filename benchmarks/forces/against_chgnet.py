"""The force model against CHGNet 0.3.0: errors on the same cells, time of a step.

    python benchmarks/forces/against_chgnet.py --data-dir DIR --chgnet-python PY [--part val]

Cells are the model's own validation (or test) cells of mlearn, none of which it was trained
on. CHGNet saw neither; its energies have another zero, so energies are compared after one
shift for each element. A step is energy, forces and stress of an MD step through each
package's ASE calculator, both with ``--cores`` threads; the programs take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import GPa

STEPS = 12


def step_cells() -> dict[str, Atoms]:
    """Cells of dynamics."""
    return {
        "Si64": bulk("Si", cubic=True).repeat(2),
        "Cu108": bulk("Cu", cubic=True).repeat(3),
        "Mo54": bulk("Mo", cubic=True).repeat(3),
    }


def measure(calculator: Any, path: str, many: Any = None) -> dict[str, Any]:
    """Errors on labelled cells, and seconds of a step, with any ASE calculator."""
    rows = []
    for atoms in ase.io.read(path, ":"):
        labels = atoms.calc.results
        free = atoms.copy()
        free.calc = calculator
        rows.append(
            {
                "element": str(atoms.symbols[0]),
                "energy": (free.get_potential_energy() - labels["energy"]) / len(atoms),
                "forces": float(np.abs(free.get_forces() - labels["forces"]).mean()),
                "atoms": len(atoms),
                "stress": float(np.abs(free.get_stress() - labels["stress"]).mean() / GPa),
            }
        )
    seconds = {}
    for name, cell in step_cells().items():
        cell.calc = calculator
        times = []
        for i in range(STEPS):
            cell.rattle(0.01, seed=i)
            start = time.perf_counter()
            cell.get_potential_energy()
            cell.get_forces()
            cell.get_stress()
            times.append(time.perf_counter() - start)
        seconds[name] = float(np.median(times[2:]))
    return {"rows": rows, "seconds": seconds}


def worker(which: str, path: str, model: str) -> None:
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if which == "chgnet":
        from chgnet.model.dynamics import CHGNetCalculator

        calculator = CHGNetCalculator(use_device="cpu", verbose=False)
    else:
        from recinet_ase import ReciNetForceCalculator

        calculator = ReciNetForceCalculator(model, device="cpu")
    print(json.dumps(measure(calculator, path)))


def write_cells(model: str, part: str, data_dir: str | None, path: Path) -> None:
    """The model's held-out cells with their labels, as extended xyz."""
    from recinet_ase import load_force_model
    from recinet_ase.data.mlearn import MLearn
    from recinet_ase.data.splits import SplitRule
    from recinet_ase.forces.sources import stress_of
    from recinet_ase.graph.adapters import to_crystal

    about = load_force_model(model).config.training
    dataset = MLearn(about["dataset"], data_dir)
    rule = SplitRule.parse("random", about["settings"]["split_seed"])
    split = dataset.split(dataset.info(dataset.properties[0]), rule)
    wanted = set(getattr(split, part))
    assert not wanted & set(about["train_ids"])
    images = []
    for c in dataset.configurations():
        if c.id in wanted:
            atoms = to_crystal(c.structure).to_ase()
            tensor = stress_of(c.stress)
            voigt = tensor[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
            atoms.calc = SinglePointCalculator(
                atoms, energy=c.energy * len(atoms), forces=c.forces, stress=voigt
            )
            images.append(atoms)
    ase.io.write(path, images)


def table(found: dict[str, dict[str, Any]]) -> None:
    elements = sorted({row["element"] for row in found["ours"]["rows"]})
    print("| | " + " | ".join(found) + " | ratio |")
    for element in [*elements, "all"]:
        cells = []
        for result in found.values():
            rows = [r for r in result["rows"] if element in (r["element"], "all")]
            energy = []
            for one in {r["element"] for r in rows}:
                some = np.array([r["energy"] for r in rows if r["element"] == one])
                energy += list(np.abs(some - np.median(some)))
            weights = [r["atoms"] for r in rows]
            forces = np.average([r["forces"] for r in rows], weights=weights)
            cells.append(
                (1e3 * np.mean(energy), 1e3 * forces, np.mean([r["stress"] for r in rows]))
            )
        ratio = f"{cells[-1][1] / cells[0][1]:.2f} x" if len(cells) > 1 else ""
        text = " | ".join(f"{e:.1f} meV/atom, {f:.0f} meV/A, {s:.2f} GPa" for e, f, s in cells)
        print(f"| {element} | {text} | {ratio} |")
    for cell in found["ours"]["seconds"]:
        times = [result["seconds"][cell] for result in found.values()]
        ratio = f"{times[-1] / times[0]:.1f} x" if len(times) > 1 else ""
        print(
            f"| step, {cell} | " + " | ".join(f"{1e3 * t:.0f} ms" for t in times) + f" | {ratio} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir")
    parser.add_argument("--model", default="mlearn-pes")
    parser.add_argument("--part", choices=["val", "test"], default="val")
    parser.add_argument("--chgnet-python")
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(*arguments.worker, arguments.model)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.extxyz"
        write_cells(arguments.model, arguments.part, arguments.data_dir, path)
        programs = {"ours": sys.executable}
        if arguments.chgnet_python:
            programs["CHGNet 0.3.0"] = arguments.chgnet_python
        found = {}
        for name, python in programs.items():
            which = "ours" if name == "ours" else "chgnet"
            command = [python, __file__, "--model", arguments.model, "--worker", which, str(path)]
            environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.cores)}
            done = subprocess.run(
                command, env=environment, check=True, stdout=subprocess.PIPE, text=True
            )
            found[name] = json.loads(done.stdout.splitlines()[-1])
        table(found)


if __name__ == "__main__":
    main()
