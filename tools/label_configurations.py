"""Labels perturbed JARVIS crystals with a universal potential, for training `jarvis-pes`.

JARVIS' relaxed crystals say where the minima of its energy surface are and how deep; a teacher
(CHGNet 0.3.0, whose weights are in its wheel) says how the energy rises around them. Every
crystal is labelled as it is and in several perturbed copies: rattled, strained, scanned in
volume, with atoms exchanged, with elements substituted. The parts hold the teacher's plain
answers; ``tools/collect_configurations.py`` makes the training labels of them.

No crystal is used that is in validation or test of a JARVIS task on which the model, or what is
computed with it, is judged, nor its twins (same reduced formula, volume per atom within 8 %).

    python tools/label_configurations.py /work/pes --data-dir /work/data

Crystals come in a random order, a hundred to a part, so that the parts at hand are always a fair
sample. Begun again it goes on with the first part that is missing.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols, covalent_radii
from ase.units import GPa

from recinet_ase.data.published import JARVIS
from recinet_ase.formula import reduced_counts

TASKS = (
    "formation_energy", "total_energy", "ehull_label", "bandgap", "bandgap_opt", "bulk_modulus",
    "shear_modulus", "exfoliation_energy", "heat_capacity",
)  # fmt: skip
"""Properties that the model gives, that are computed with it, or that are predicted for crystals
it has relaxed."""

TWIN_VOLUME = 0.08
PART = 100  # crystals
KINDS = {"rattled": 0.32, "strained": 0.30, "volume": 0.25, "exchanged": 0.05, "substituted": 0.08}
CLOSEST = 0.55  # of the sum of two covalent radii
BATCH_ATOMS = 160


@dataclass(frozen=True)
class Cell:
    """A configuration: a JARVIS crystal, or a copy of one (N atoms).

    Attributes:
        jid: The crystal's id.
        kind: ``"equilibrium"`` or one of `KINDS`.
        repeat: How often the crystal's cell is repeated along each vector ``[3]``.
        numbers: Atomic numbers ``[N]``, the crystal's order once for each repeated cell.
        frac_coords: Fractional coordinates, not wrapped ``[N, 3]``.
        lattice: Rows are vectors, angstrom ``[3, 3]``.
        energy: JARVIS' total energy in eV/atom at equilibrium, else NaN.
    """

    jid: str
    kind: str
    repeat: np.ndarray
    numbers: np.ndarray
    frac_coords: np.ndarray
    lattice: np.ndarray
    energy: float = float("nan")


def training_crystals(data_dir: str | None, most_atoms: int) -> list[Cell]:
    """JARVIS crystals that no judged task holds out, as they are, in the archive's order."""
    records = JARVIS.records(data_dir)
    held: set[str] = set()
    for name in TASKS:
        split = JARVIS.listed_split(JARVIS_INFO[name], data_dir)
        assert split is not None, f"the split of {name} is missing"
        held |= set(split.val) | set(split.test)
    keys = {jid: _formula_and_volume(record) for jid, record in records.items()}
    taken: dict[tuple[tuple[str, int], ...], list[float]] = defaultdict(list)
    for jid in held & set(keys):
        taken[keys[jid][0]].append(keys[jid][1])
    found = []
    for jid, record in records.items():
        formula, volume = keys[jid]
        energy = record["optb88vdw_total_energy"]
        twin = any(abs(volume / other - 1) < TWIN_VOLUME for other in taken.get(formula, ()))
        atoms = record["atoms"]
        if jid in held or twin or energy == "na" or len(atoms["elements"]) > most_atoms:
            continue
        found.append(
            Cell(
                jid,
                "equilibrium",
                np.ones(3, dtype=np.int64),
                np.array([chemical_symbols.index(symbol) for symbol in atoms["elements"]]),
                np.array(atoms["coords"], dtype=np.float64),
                np.array(atoms["lattice_mat"], dtype=np.float64),
                float(energy),
            )
        )
    return found


def _formula_and_volume(record: dict[str, Any]) -> tuple[tuple[tuple[str, int], ...], float]:
    elements = record["atoms"]["elements"]
    volume = abs(np.linalg.det(np.array(record["atoms"]["lattice_mat"], dtype=np.float64)))
    return tuple(sorted(reduced_counts(Counter(elements)).items())), volume / len(elements)


def copies(crystal: Cell, count: int, rng: np.random.Generator) -> Iterator[Cell]:
    """Perturbed copies of a crystal."""
    for kind in rng.choice(list(KINDS), size=count, p=list(KINDS.values())):
        for softer in 0.5 ** np.arange(5):
            found = perturbed(crystal, str(kind), float(softer), rng)
            if shortest_contact(found) > CLOSEST:
                yield found
                break


def perturbed(crystal: Cell, kind: str, softer: float, rng: np.random.Generator) -> Cell:
    """One copy of a kind, amplitudes multiplied by ``softer``."""
    base, strain, rattle = crystal, np.zeros((3, 3)), 0.0
    if kind != "volume" and len(crystal.numbers) < 8 and rng.random() < 0.8:
        base = repeated(crystal, int(rng.integers(8, 21)))
    numbers, lattice = base.numbers.copy(), base.lattice
    species = np.unique(numbers)
    if kind == "exchanged" and len(species) < 2:
        kind = "rattled"
    if kind == "rattled":
        rattle = _log_uniform(rng, 0.01, 0.3)
    elif kind == "strained":
        strain = _log_uniform(rng, 0.01, 0.12) * rng.uniform(-1, 1, (3, 3))
        strain = 0.5 * (strain + strain.T)
        rattle = _log_uniform(rng, 0.01, 0.15) if rng.random() < 0.5 else 0.0
    elif kind == "volume":
        strain = np.eye(3) * rng.uniform(-0.08, 0.12)
        rattle = _log_uniform(rng, 0.01, 0.1) if rng.random() < 0.3 else 0.0
    elif kind == "exchanged":
        one, other = rng.choice(species, size=2, replace=False)
        i, j = (rng.choice(np.flatnonzero(numbers == z)) for z in (one, other))
        numbers[i], numbers[j] = other, one
        rattle = _log_uniform(rng, 0.01, 0.15)
    else:
        old = rng.choice(species)
        places = np.flatnonzero(numbers == old)
        if len(places) > 1 and rng.random() < 0.5:
            places = rng.choice(places, size=int(rng.integers(1, len(places))), replace=False)
        before = covalent_radii[numbers].sum()
        numbers[places] = rng.choice(relatives(int(old)))
        strain = np.eye(3) * (0.7 * (covalent_radii[numbers].sum() / before - 1))
        strain = strain + np.eye(3) * rng.uniform(-0.04, 0.06)
        rattle = _log_uniform(rng, 0.01, 0.15)
    lattice = lattice @ (np.eye(3) + softer * strain)
    moved = softer * rattle * rng.standard_normal((len(numbers), 3)) @ np.linalg.inv(lattice)
    return Cell(crystal.jid, kind, base.repeat, numbers, base.frac_coords + moved, lattice)


def relatives(z: int) -> list[int]:
    """Elements of the same group, or next to it in its period."""
    from pymatgen.core import Element

    def place(number: int) -> tuple[int, int]:
        element = Element.from_Z(number)
        return element.group, element.row

    known = [k for k in range(1, 95) if k not in UNKNOWN_TO_TEACHER and k != z]
    group, row = place(z)
    return [
        k
        for k in known
        if place(k)[0] == group or (place(k)[1] == row and abs(place(k)[0] - group) == 1)
    ] or known


def repeated(crystal: Cell, most: int) -> Cell:
    """A supercell of at most so many atoms, as cubic as doubling and tripling make it."""
    repeat = np.ones(3, dtype=np.int64)
    lengths = np.linalg.norm(crystal.lattice, axis=1)
    size = len(crystal.numbers)
    while True:
        axis = int((lengths * repeat).argmin())
        larger = repeat + np.eye(3, dtype=np.int64)[axis]
        if size * larger.prod() > most:
            break
        repeat = larger
    shifts = np.stack(np.meshgrid(*map(np.arange, repeat), indexing="ij"), -1).reshape(-1, 3)
    frac = (crystal.frac_coords[None] + shifts[:, None]).reshape(-1, 3) / repeat
    numbers = np.tile(crystal.numbers, len(shifts))
    lattice = crystal.lattice * repeat[:, None]
    return Cell(crystal.jid, crystal.kind, repeat, numbers, frac, lattice)


def shortest_contact(cell: Cell) -> float:
    """Smallest distance in units of the sum of the two covalent radii."""
    from pymatgen.optimization.neighbors import find_points_in_spheres

    points = np.ascontiguousarray(cell.frac_coords % 1 @ cell.lattice)
    found = find_points_in_spheres(
        points, points, 4.0, np.ones(3, dtype=np.int64), np.ascontiguousarray(cell.lattice), 1e-8
    )
    centre, other, _, distance = found
    real = distance > 1e-8
    if not real.any():
        return 9.0
    radii = covalent_radii[cell.numbers]
    return float((distance[real] / (radii[centre[real]] + radii[other[real]])).min())


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


class Teacher:
    """CHGNet 0.3.0, asked for energy, forces and stress at once without a graph of gradients."""

    def __init__(self) -> None:
        from chgnet.model import CHGNet

        self.model = CHGNet.load(use_device="cpu", verbose=False).eval()
        self.model.requires_grad_(False)

    def graph(self, cell: Cell) -> Any:
        """CHGNet's graph of a cell.

        Raises:
            ValueError: If an atom has no neighbour within 6 A.
        """
        from pymatgen.core import Lattice, Structure

        symbols = [chemical_symbols[z] for z in cell.numbers]
        return self.model.graph_converter(
            Structure(Lattice(cell.lattice), symbols, cell.frac_coords % 1)
        )

    def label(self, graphs: Sequence[Any]) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
        """Energy in eV, forces in eV/A, stress in eV/A^3 (positive under tension) of each."""
        from chgnet.model.model import BatchedGraph

        model = self.model
        batch = BatchedGraph.from_graphs(
            graphs,
            bond_basis_expansion=model.bond_basis_expansion,
            angle_basis_expansion=model.angle_basis_expansion,
            compute_stress=True,
        )
        sizes = torch.bincount(batch.atom_owners)
        energy = model._compute(batch)["e"]
        n = len(graphs)
        slopes = torch.autograd.grad(
            (energy * sizes).sum(), [*batch.atom_positions, *batch.strains]
        )
        with torch.no_grad():
            total = (energy + model.composition_model(graphs)).double() * sizes
        for i in range(n):
            stress = slopes[n + i] / batch.volumes[i]
            yield (
                float(total[i]),
                -slopes[i].numpy(),
                (0.5 * (stress + stress.T)).numpy(),
            )


def label_part(teacher: Teacher, crystals: Sequence[Cell], count: int, seed: int) -> dict[str, Any]:
    """Arrays of a part: the crystals and their copies with the teacher's answers."""
    cells, graphs, left_out = [], [], []
    for crystal in crystals:
        rng = np.random.default_rng((seed, *crystal.jid.encode()))
        try:
            own = [crystal, *copies(crystal, count, rng)]
            made = [teacher.graph(cell) for cell in own]
        except ValueError as error:
            left_out.append(f"{crystal.jid}: {error}")
            continue
        cells += own
        graphs += made
    order = sorted(range(len(cells)), key=lambda i: len(cells[i].numbers))
    answers: list[Any] = [None] * len(cells)
    while order:
        size, some = 0, []
        while order and (not some or size < BATCH_ATOMS):
            some.append(order.pop())
            size += len(cells[some[-1]].numbers)
        for i, answer in zip(some, teacher.label([graphs[i] for i in some]), strict=True):
            answers[i] = answer
    return {
        "jid": np.array([cell.jid for cell in cells]),
        "kind": np.array([cell.kind for cell in cells]),
        "repeat": np.stack([cell.repeat for cell in cells]).astype(np.int16),
        "n_atoms": np.array([len(cell.numbers) for cell in cells]),
        "jarvis_energy": np.array([cell.energy for cell in cells]),
        "numbers": np.concatenate([cell.numbers for cell in cells]).astype(np.uint8),
        "frac_coords": np.concatenate([cell.frac_coords for cell in cells]),
        "lattice": np.stack([cell.lattice for cell in cells]),
        "energy": np.array([energy for energy, _, _ in answers]),
        "forces": np.concatenate([forces for _, forces, _ in answers]).astype(np.float32),
        "stress": np.stack([stress for _, _, stress in answers]).astype(np.float32),
        "left_out": np.array(left_out, dtype=str),
    }


JARVIS_INFO: dict[str, Any] = {}
UNKNOWN_TO_TEACHER = frozenset((84, 85, 86, 87, 88))
"""Elements without a crystal in the teacher's training set (MPtrj)."""


def main() -> None:
    """Label parts until all are there or the time is up."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the parts go")
    parser.add_argument("--data-dir", help="data folder, else RECINET_DATA_DIR")
    parser.add_argument("--copies", type=int, default=4, help="perturbed copies of a crystal")
    parser.add_argument("--most-atoms", type=int, default=40, help="of a crystal's cell")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", type=int, help="stop after so many parts")
    args = parser.parse_args()
    torch.set_num_threads(1)
    from recinet_ase.properties import PROPERTIES

    JARVIS_INFO.update({name: PROPERTIES[name] for name in TASKS})
    crystals = [
        crystal
        for crystal in training_crystals(args.data_dir, args.most_atoms)
        if not UNKNOWN_TO_TEACHER & set(crystal.numbers.tolist())
    ]
    random.Random(args.seed).shuffle(crystals)
    args.folder.mkdir(parents=True, exist_ok=True)
    print(f"{len(crystals)} crystals, {-(-len(crystals) // PART)} parts", flush=True)
    teacher = Teacher()
    done = 0
    for number, start in enumerate(range(0, len(crystals), PART)):
        path = args.folder / f"part-{number:04d}.npz"
        if path.exists():
            continue
        clock, own = time.monotonic(), time.process_time()
        arrays = label_part(teacher, crystals[start : start + PART], args.copies, args.seed)
        temporary = path.with_suffix(".unfinished")
        with temporary.open("wb") as handle:
            np.savez_compressed(handle, **arrays)
        temporary.replace(path)
        told = {
            "part": number,
            "configurations": len(arrays["jid"]),
            "atoms": len(arrays["numbers"]),
            "left_out": len(arrays["left_out"]),
            "seconds": round(time.monotonic() - clock, 1),
            "cpu_seconds": round(time.process_time() - own, 1),
            "largest_force": round(float(np.abs(arrays["forces"]).max()), 1),
            "largest_stress_gpa": round(float(np.abs(arrays["stress"]).max() / GPa), 1),
        }
        print(json.dumps(told), flush=True)
        done += 1
        if args.parts is not None and done >= args.parts:
            break


if __name__ == "__main__":
    main()
