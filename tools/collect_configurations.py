"""Makes `jarvis-pes`' training data of the teacher's answers: JARVIS' minima, the teacher's shape.

    python tools/collect_configurations.py /work/pes/parts /work/pes/jarvis.extxyz

A relaxed crystal x0 keeps JARVIS' total energy and has neither forces nor stress. A copy x has
what the teacher T says of the difference, less the slope that T itself has at x0::

    E(x) = E_JARVIS + T(x) - T(x0) - W(x)
    W(x) = -sum F0 . u + p0 (V - V0) + V0 S0 : (D D^T - 1) / 2

with T's forces F0 at x0, a third of the trace of its stress p0 and the rest of it S0, lattices
``L = L0 D``, volumes V, and displacements u in x0's frame. Forces and stress are the derivatives of
that, to first order ``F_T(x) - F0`` and ``S_T(x) - S_T(x0)``; without W the energies would ask for
the teacher's minimum, and the forces for JARVIS'. Where elements were substituted there is no
JARVIS energy, and none is given.

A fiftieth of the formulas is for validation (``split=val``).
"""

from __future__ import annotations

import argparse
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.stress import full_3x3_to_voigt_6_stress
from ase.units import GPa

LARGEST_FORCE = 15.0  # eV/A
LARGEST_STRESS = 80.0 * GPa
LARGEST_ENERGY = 2.5  # eV/atom above the crystal, and a fifth of it below
TEACHER_FORCE = 1.0  # eV/A on a relaxed crystal, from which the teacher is not believed
TEACHER_STRESS = 15.0 * GPa
VALIDATION = 50


@dataclass(frozen=True)
class Answer:
    """A configuration and the teacher's answer.

    Attributes:
        jid, kind, repeat, numbers, frac_coords, lattice: As in ``label_configurations.Cell``.
        jarvis: JARVIS' energy in eV/atom at equilibrium, else NaN.
        energy, forces, stress: Of the teacher, eV, eV/A, eV/A^3.
    """

    jid: str
    kind: str
    repeat: np.ndarray
    numbers: np.ndarray
    frac_coords: np.ndarray
    lattice: np.ndarray
    jarvis: float
    energy: float
    forces: np.ndarray
    stress: np.ndarray


def answers(path: Path) -> Iterator[Answer]:
    """The configurations of a part; a crystal comes before its copies."""
    part = np.load(path)
    start = np.concatenate(([0], np.cumsum(part["n_atoms"])))
    columns = {key: part[key] for key in part.files}
    for i in range(len(columns["jid"])):
        rows = slice(start[i], start[i + 1])
        yield Answer(
            str(columns["jid"][i]), str(columns["kind"][i]), columns["repeat"][i].astype(int),
            columns["numbers"][rows].astype(int), columns["frac_coords"][rows],
            columns["lattice"][i], float(columns["jarvis_energy"][i]),
            float(columns["energy"][i]), columns["forces"][rows].astype(float),
            columns["stress"][i].astype(float),
        )  # fmt: skip


def labels(x: Answer, x0: Answer) -> tuple[float, np.ndarray, np.ndarray]:
    """Energy in eV (NaN if there is none), forces and stress of a copy of a crystal."""
    cells = int(np.prod(x.repeat))
    shifts = np.stack(np.meshgrid(*map(np.arange, x.repeat), indexing="ij"), -1).reshape(-1, 3)
    before = ((x0.frac_coords[None] + shifts[:, None]) / x.repeat).reshape(-1, 3)
    lattice = x0.lattice * x.repeat[:, None]
    deformed = np.linalg.solve(lattice, x.lattice)
    volume, volume0 = (abs(np.linalg.det(cell)) for cell in (x.lattice, lattice))
    pressure = np.trace(x0.stress) / 3
    rest = x0.stress - pressure * np.eye(3)
    work = pressure * (volume - volume0)
    work += 0.5 * volume0 * float((rest * (deformed @ deformed.T - np.eye(3))).sum())
    stress = x.stress - pressure * np.eye(3)
    stress -= volume0 / volume * deformed.T @ rest @ deformed
    forces = x.forces
    if x.kind not in ("exchanged", "substituted"):  # the sites keep their atoms
        slope = np.tile(x0.forces, (cells, 1))
        work -= float((slope * ((x.frac_coords - before) @ lattice)).sum())
        forces = forces - slope @ np.linalg.inv(deformed).T
    energy = float("nan")
    if x.kind != "substituted":
        energy = len(x.numbers) * x0.jarvis + x.energy - cells * x0.energy - work
    return energy, forces, stress


def believable(energy: float, forces: np.ndarray, stress: np.ndarray, jarvis: float) -> bool:
    """Whether a copy is near enough to its crystal for the teacher to be asked."""
    above = energy / len(forces) - jarvis
    near = np.isnan(above) or -0.2 * LARGEST_ENERGY < above < LARGEST_ENERGY
    small = np.abs(forces).max() < LARGEST_FORCE and np.abs(stress).max() < LARGEST_STRESS
    return bool(near and small)


def image(x: Answer, energy: float, forces: np.ndarray, stress: np.ndarray) -> Atoms:
    """A configuration with its labels."""
    atoms = Atoms(x.numbers, scaled_positions=x.frac_coords, cell=x.lattice, pbc=True)
    atoms.info |= {"id": x.jid, "kind": x.kind, "split": part_of(x.numbers)}
    results: dict[str, Any] = {"forces": forces, "stress": full_3x3_to_voigt_6_stress(stress)}
    if np.isfinite(energy):
        results["energy"] = energy
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def part_of(numbers: np.ndarray) -> str:
    """Training or validation, by the reduced formula."""
    counts = Counter(numbers.tolist())
    divisor = int(np.gcd.reduce(list(counts.values())))
    formula = " ".join(f"{z}:{n // divisor}" for z, n in sorted(counts.items()))
    digest = int.from_bytes(hashlib.sha256(formula.encode()).digest()[:4], "big")
    return "val" if digest % VALIDATION == 0 else "train"


def images(paths: list[Path], told: Counter[str]) -> Iterator[Atoms]:
    """The configurations of all parts; ``told`` counts them by kind."""
    for path in paths:
        crystal, trusted = None, False
        for x in answers(path):
            if x.kind == "equilibrium":
                crystal = x
                trusted = bool(
                    np.abs(x.forces).max() < TEACHER_FORCE
                    and np.abs(x.stress).max() < TEACHER_STRESS
                )
                told["equilibrium"] += 1
                told["crystals whose copies are not believed"] += not trusted
                zero = np.zeros_like(x.forces)
                yield image(x, len(x.numbers) * x.jarvis, zero, np.zeros((3, 3)))
                continue
            assert crystal is not None and crystal.jid == x.jid
            found = labels(x, crystal)
            if trusted and believable(*found, crystal.jarvis):
                told[x.kind] += 1
                yield image(x, *found)
            else:
                told["left out"] += 1


def main() -> None:
    """Write one extended xyz file of all parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    told: Counter[str] = Counter()
    temporary = arguments.output.with_name(f".{arguments.output.name}.part")
    paths = sorted(arguments.parts.glob("part-*.npz"))
    write(temporary, images(paths, told), format="extxyz")
    temporary.replace(arguments.output)
    print(", ".join(f"{key}: {value}" for key, value in told.items()))


if __name__ == "__main__":
    main()
