"""What a universal force model is good for, beside CHGNet.

    python benchmarks/forces/universal.py [--model NAME | --calculator MODULE:CLASS]
        [--parts rattled,volumes,moduli,phonons,dynamics,dft,speed] [--limit 200]

- rattled: forces on JARVIS validation crystals rattled by 0.01 to 0.3 A beside the teacher's, as
  differences to its answer on the crystal itself (goal: 60 meV/A);
- volumes: of relaxed validation crystals beside JARVIS' (goal: 2 % in the median, 5 % in 90 %), and
  energies of relaxed crystals beside the total energy of the label;
- moduli: bulk moduli from equations of state beside JARVIS' labels (goal: 12 GPa);
- phonons: lowest and highest modes of Si, Cu, MgO, NaCl, GaAs (goal: none imaginary);
- dynamics: drift of the total energy of NVE dynamics (goal: 1 meV/atom in 10 ps);
- dft: forces, stresses and energies (one offset an element fitted) of DFT beside the teacher's, on
  the files of ``--dft``;
- speed: one evaluation of cells of 10 and 100 atoms beside the teacher's, one thread (goals: 5 and
  3 times as fast).
"""

from __future__ import annotations

import argparse
import gzip
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.io import read
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.md.verlet import VelocityVerlet
from ase.stress import voigt_6_to_full_3x3_stress
from heldout import known_elements, validation_crystals

from recinet_ase.mechanics import equation_of_state
from recinet_ase.simulation import RelaxationSettings, load_calculator, relax_many
from recinet_ase.simulation.states import State, evaluate

TEACHER = "chgnet.model.dynamics:CHGNetCalculator"
CRYSTALS = {
    "Si": bulk("Si"),
    "Cu": bulk("Cu"),
    "MgO": bulk("MgO", "rocksalt", a=4.21),
    "NaCl": bulk("NaCl", "rocksalt", a=5.64),
    "GaAs": bulk("GaAs", "zincblende", a=5.65),
}
_SOLIDS = ("Si", "NaCl")  # of the dynamics
_RATTLES = (0.01, 0.03, 0.1, 0.3)  # angstrom


class Case:
    """What all parts are given."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.calculator = load_calculator(args.calculator or args.model, "cpu")
        self.known = known_elements(self.calculator)
        self._teacher: Any = None

    @property
    def teacher(self) -> Any:
        """The other calculator, made when it is asked for."""
        if self._teacher is None:
            self._teacher = load_calculator(self.args.teacher, "cpu")
        return self._teacher

    def crystals(self, prop: str) -> tuple[list[Atoms], np.ndarray]:
        """Validation crystals that the model knows the elements of."""
        args = self.args
        return validation_crystals(prop, args.limit, args.data_dir, self.known, args.most_atoms)


def rattled(case: Case) -> None:
    """Forces on rattled crystals beside the teacher's differences."""
    atoms, _ = case.crystals("formation_energy")
    rng = np.random.default_rng(0)
    print("\n| rattle, A | mean absolute error, meV/A | mean of the teacher's | crystals |")
    print("|---|---|---|---|")
    rest = evaluate(atoms, case.teacher, stress=False)
    own = evaluate(atoms, case.calculator, stress=False)
    for size in _RATTLES:
        moved = [a.copy() for a in atoms]
        for one in moved:
            one.positions += rng.normal(0, size, one.positions.shape)
        theirs = evaluate(moved, case.teacher, stress=False)
        ours = evaluate(moved, case.calculator, stress=False)
        pairs = [
            (mine.forces, other.forces - base.forces)
            for mine, other, base, start in zip(ours, theirs, rest, own, strict=True)
            if all(isinstance(s, State) for s in (mine, other, base, start))
        ]
        error = np.concatenate([np.abs(a - b).ravel() for a, b in pairs])
        usual = np.concatenate([np.abs(b).ravel() for _, b in pairs])
        print(f"| {size} | {1e3 * error.mean():.0f} | {1e3 * usual.mean():.0f} | {len(pairs)} |")


def volumes(case: Case) -> None:
    """Relaxed volumes and energies of validation crystals."""
    atoms, labels = case.crystals("total_energy")
    found = relax_many(atoms, case.calculator, RelaxationSettings())
    rest = [i for i, r in enumerate(found) if r.converged]
    change = np.array([abs(found[i].volume_change or 0.0) for i in rest])
    print(
        f"\n{len(rest)} of {len(atoms)} at rest; volumes differ from JARVIS' by "
        f"{np.median(change):.2%} in the median, {np.quantile(change, 0.9):.1%} in 90 %"
    )
    energy = np.array([(found[i].energy or np.nan) / len(atoms[i]) for i in rest])
    raw = np.abs(energy - labels[rest]).mean()
    counts = np.array([np.bincount(atoms[i].numbers, minlength=104) / len(atoms[i]) for i in rest])
    fitted = residual(energy - labels[rest], counts)
    print(
        f"energies of relaxed crystals: {1e3 * raw:.0f} meV/atom from the labels, "
        f"{1e3 * np.abs(fitted).mean():.0f} after one offset an element"
    )


def residual(difference: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """What of differences is left after one offset for each element."""
    present = counts.any(0)
    offsets = np.linalg.lstsq(counts[:, present], difference, rcond=1e-8)[0]
    return np.asarray(difference - counts[:, present] @ offsets)


def moduli(case: Case) -> None:
    """Bulk moduli from equations of state beside the labels."""
    atoms, labels = case.crystals("bulk_modulus")
    pairs, lost = [], 0
    for one, label in zip(atoms, labels, strict=True):
        try:
            found = equation_of_state(one, case.calculator, points=7, span=0.04, fmax=0.01)
        except Exception:
            lost += 1
        else:
            pairs.append((found.bulk_modulus, label))
    ours, right = np.array(pairs).T
    print(
        f"\nbulk moduli of {len(pairs)} crystals ({lost} without a minimum): mean absolute error "
        f"{np.abs(ours - right).mean():.1f} GPa, mean of ours less labels "
        f"{(ours - right).mean():+.1f} GPa, mean of the labels {right.mean():.0f} GPa"
    )


def phonon_modes(case: Case) -> None:
    """Lowest and highest modes of well-known crystals."""
    from recinet_ase.phonons import phonons

    print("\n| | a, A | lowest mode, THz | highest mode, THz | imaginary |\n|---|---|---|---|---|")
    for name, atoms in CRYSTALS.items():
        if case.known and not set(atoms.numbers.tolist()) <= set(case.known):
            continue
        found = phonons(atoms, case.calculator, mesh=30.0)
        a = found.structure.cell.lengths()[0]
        low, high = found.lowest_frequency, found.highest_frequency
        print(f"| {name} | {a:.3f} | {low:.2f} | {high:.2f} | {found.imaginary or 'none'} |")


def dynamics(case: Case) -> None:
    """Drift of the total energy at 300 K."""
    for name in _SOLIDS:
        atoms = CRYSTALS[name]
        if case.known and not set(atoms.numbers.tolist()) <= set(case.known):
            continue
        (rest,) = relax_many([atoms], case.calculator)
        assert rest.atoms is not None
        cell = rest.atoms.repeat(3)
        cell.calc = case.calculator
        rng = np.random.RandomState(0)
        MaxwellBoltzmannDistribution(cell, temperature_K=600, rng=rng)
        Stationary(cell)
        found: list[float] = []
        run = VelocityVerlet(cell, timestep=2 * units.fs)
        run.attach(lambda c=cell, f=found: f.append(c.get_total_energy() / len(c)), interval=5)
        run.run(int(500 * case.args.picoseconds))
        energies = 1e3 * np.array(found)
        slope = np.polyfit(np.linspace(0, 1, len(energies)), energies, 1)[0]
        print(
            f"\n{name}, {len(cell)} atoms, NVE at 300 K, {case.args.picoseconds:g} ps: drift "
            f"{slope:+.3f} meV/atom, spread {energies.std():.3f} meV/atom"
        )


def dft(case: Case) -> None:
    """Energies, forces and stresses of DFT beside the teacher's."""
    print("\n| | | energy, meV/atom | forces, meV/A | stress, GPa | crystals |")
    print("|---|---|---|---|---|---|")
    for path in case.args.dft:
        with gzip.open(path, "rt") as handle:
            frames = read(handle, index=":", format="extxyz")
        chosen = np.random.default_rng(0).permutation(len(frames))[: case.args.limit]
        frames = [frames[i] for i in sorted(chosen)]
        for one in frames:
            one.pbc = True  # the file of high temperatures leaves it out
        bare = [Atoms(a.numbers, positions=a.positions, cell=a.cell, pbc=True) for a in frames]
        both = [evaluate(bare, c) for c in (case.calculator, case.teacher)]
        known = [
            i for i in range(len(frames)) if all(isinstance(found[i], State) for found in both)
        ]
        for name, found in zip(("ours", "teacher"), both, strict=True):
            print(f"| {Path(path).name} | {name} | {compared(frames, found, known)} |")


def compared(frames: list[Atoms], found: list[Any], known: list[int]) -> str:
    """Three errors of a row."""
    counts, energy, forces, stress = [], [], [], []
    for i in known:
        atoms, state = frames[i], found[i]
        label = atoms.calc.results
        counts.append(np.bincount(atoms.numbers, minlength=104) / len(atoms))
        energy.append((state.energy - label["energy"]) / len(atoms))
        forces.append(np.abs(state.forces - label["forces"]).ravel())
        right = np.asarray(label["stress"])
        right = voigt_6_to_full_3x3_stress(right) if right.size == 6 else right.reshape(3, 3)
        # Of both signs the one that the calculators bear out is the files'.
        stress.append([np.abs(state.stress - sign * right).mean() for sign in (1, -1)])
    left = residual(np.array(energy), np.array(counts))
    return (
        f"{1e3 * np.abs(left).mean():.0f} | {1e3 * np.concatenate(forces).mean():.0f} | "
        f"{np.mean(stress, axis=0).min() / units.GPa:.2f} | {len(known)}"
    )


def speed(case: Case) -> None:
    """Milliseconds of an evaluation in a loop over one cell."""
    base = CRYSTALS["Si"] if 11 not in (case.known or (11,)) else CRYSTALS["NaCl"]
    print("\n| atoms | ours, ms | teacher, ms | ratio |\n|---|---|---|---|")
    for repeats in ((5, 1, 1), (5, 5, 2)):
        cell = base.repeat(repeats)
        took = []
        for calculator in (case.calculator, case.teacher):
            rng = np.random.default_rng(0)
            best = np.inf
            for _ in range(6):  # the first warms up
                one = cell.copy()
                one.positions += rng.normal(0, 0.02, one.positions.shape)
                start = time.perf_counter()
                evaluate([one], calculator)
                best = min(best, time.perf_counter() - start)
            took.append(1e3 * best)
        ours, theirs = took
        print(f"| {len(cell)} | {ours:.1f} | {theirs:.1f} | {theirs / ours:.1f} |")


PARTS = {
    "rattled": rattled,
    "volumes": volumes,
    "moduli": moduli,
    "phonons": phonon_modes,
    "dynamics": dynamics,
    "dft": dft,
    "speed": speed,
}


def main() -> None:
    """Run the parts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", help="shipped force model or folder, else jarvis-pes")
    parser.add_argument("--calculator", help="any calculator of ASE's in its place")
    parser.add_argument("--teacher", default=TEACHER, help="the calculator beside it")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--limit", type=int, default=200, help="crystals of a part")
    parser.add_argument("--most-atoms", type=int, default=40)
    parser.add_argument("--picoseconds", type=float, default=10.0)
    parser.add_argument("--dft", nargs="*", default=[], metavar="FILE", help=".extxyz.gz")
    parser.add_argument("--data-dir", help="data folder, else RECINET_DATA_DIR")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    case = Case(args)
    for name in args.parts.split(","):
        start = time.perf_counter()
        PARTS[name](case)
        print(f"({name}: {time.perf_counter() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
