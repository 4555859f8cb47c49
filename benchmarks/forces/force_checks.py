"""What a force model is good for: lattice constants, bulk moduli, dynamics.

    python benchmarks/forces/force_checks.py [--model mlearn-pes] [--picoseconds 10]

Equations of state of the six elements in their ground-state structure against PBE values, and
the drift of the total energy of NVE dynamics at 300 K.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from ase import units
from ase.build import bulk
from ase.eos import EquationOfState
from ase.filters import FrechetCellFilter
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from recinet_ase import ReciNetForceCalculator

PBE = {
    # Lattice constant (A) and bulk modulus (GPa) as PBE gives them without zero-point motion.
    # Lattice constants: all-electron, Haas, Tran, Blaha, Phys. Rev. B 79, 085104 (2009). Bulk
    # moduli: typical of published PBE calculations, which scatter by a few per cent.
    "Si": ("diamond", 5.475, 88.8),
    "Ge": ("diamond", 5.769, 59.0),
    "Li": ("bcc", 3.435, 13.9),
    "Cu": ("fcc", 3.632, 138.0),
    "Ni": ("fcc", 3.518, 197.0),
    "Mo": ("bcc", 3.164, 260.0),
}


def equation_of_state(element: str, calculator: Any) -> tuple[float, float]:
    """Lattice constant in angstrom and bulk modulus in GPa."""
    structure, guess, _ = PBE[element]
    atoms = bulk(element, structure, a=guess, cubic=True)
    atoms.calc = calculator
    BFGS(FrechetCellFilter(atoms, hydrostatic_strain=True), logfile=None).run(fmax=1e-4, steps=100)
    cell = atoms.cell.array.copy()
    volumes, energies = [], []
    for scale in np.linspace(0.98, 1.02, 9):
        atoms.set_cell(scale * cell, scale_atoms=True)
        volumes.append(atoms.get_volume())
        energies.append(atoms.get_potential_energy())
    volume, _, modulus = EquationOfState(volumes, energies, eos="birchmurnaghan").fit()
    return volume ** (1 / 3), modulus / units.GPa


def drift(element: str, calculator: Any, picoseconds: float) -> tuple[float, float, float]:
    """Drift and spread of the total energy in meV/atom, and seconds a step."""
    structure, a, _ = PBE[element]
    atoms = bulk(element, structure, a=a, cubic=True).repeat(2)
    atoms.calc = calculator
    rng = np.random.RandomState(0)
    MaxwellBoltzmannDistribution(atoms, temperature_K=600, rng=rng)  # half goes into the potential
    Stationary(atoms)
    step = 1.0 if element == "Li" else 2.0
    dynamics = VelocityVerlet(atoms, timestep=step * units.fs)
    found: list[float] = []
    dynamics.attach(lambda: found.append(atoms.get_total_energy() / len(atoms)), interval=10)
    start = time.perf_counter()
    steps = int(1000 * picoseconds / step)
    dynamics.run(steps)
    seconds = (time.perf_counter() - start) / steps
    energies = 1e3 * np.array(found)
    slope, _ = np.polyfit(np.linspace(0, 1, len(energies)), energies, 1)
    return float(slope), float(np.std(energies)), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mlearn-pes")
    parser.add_argument("--elements", default=",".join(PBE))
    parser.add_argument("--picoseconds", type=float, default=10.0)
    parser.add_argument("--dynamics", default="Si,Cu")
    arguments = parser.parse_args()
    calculator = ReciNetForceCalculator(arguments.model, device="cpu")
    for element in arguments.elements.split(","):
        a, modulus = equation_of_state(element, calculator)
        _, a0, b0 = PBE[element]
        print(
            f"{element}: a = {a:.3f} A (PBE {a0}, {a / a0 - 1:+.2%}), "
            f"B = {modulus:.0f} GPa (PBE {b0:.0f}, {modulus / b0 - 1:+.0%})"
        )
    for element in filter(None, arguments.dynamics.split(",")):
        slope, spread, seconds = drift(element, calculator, arguments.picoseconds)
        print(
            f"{element}: NVE at 300 K, {arguments.picoseconds:g} ps: drift {slope:+.3f} meV/atom, "
            f"spread {spread:.3f} meV/atom, {1e3 * seconds:.0f} ms a step"
        )


if __name__ == "__main__":
    main()
