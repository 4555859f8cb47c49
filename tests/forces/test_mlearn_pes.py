"""The shipped force model: its card's errors, PBE's solids, steady dynamics, phonons."""

from __future__ import annotations

import gzip
import json
from functools import partial

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.eos import EquationOfState
from ase.filters import FrechetCellFilter
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from support import FIXTURES

from recinet_ase import (
    ReciNetError,
    ReciNetForceCalculator,
    StructureError,
    available_force_models,
)
from recinet_ase.mechanics import elastic_constants, equation_of_state
from recinet_ase.phonons import phonons
from recinet_ase.pretrained import FORCE_MODEL, model_card
from recinet_ase.simulation import load_calculator

FIXTURE = FIXTURES / "mlearn.json.gz"


@pytest.fixture(scope="module")
def calculator() -> ReciNetForceCalculator:
    return ReciNetForceCalculator("mlearn-pes", device="cpu")


def test_it_is_shipped_with_a_card() -> None:
    assert "mlearn-pes" in available_force_models()
    about = model_card("mlearn-pes")["training"]
    assert about["complete"] and set(about["validation_errors"]["by_element"]) == {
        "Cu", "Ge", "Li", "Mo", "Ni", "Si",
    }  # fmt: skip


def test_errors_on_validation_cells(calculator: ReciNetForceCalculator) -> None:
    """Two validation cells of each element, none of which it was trained on."""
    records = json.loads(gzip.decompress(FIXTURE.read_bytes()))
    about = model_card("mlearn-pes")["training"]
    assert not {r["id"] for r in records} & set(about["train_ids"])
    cells = [Atoms(r["elements"], r["positions"], cell=r["lattice"], pbc=True) for r in records]
    wrong = []
    for record, result in zip(records, calculator.many(cells), strict=True):
        wrong.append(np.abs(result["forces"] - record["forces"]).mean())
        error = abs(result["energy"] - record["energy"]) / len(record["elements"])
        assert error < 0.08, record["id"]
    assert 1e3 * np.mean(wrong) < 2 * about["validation_errors"]["forces"]


@pytest.mark.parametrize(
    ("element", "structure", "a", "modulus"),
    [("Si", "diamond", 5.475, 88.8), ("Cu", "fcc", 3.632, 138.0)],
)
def test_lattice_constants_and_bulk_moduli(
    calculator: ReciNetForceCalculator,
    element: str,
    structure: str,
    a: float,
    modulus: float,
) -> None:
    atoms = bulk(element, structure, a=1.01 * a, cubic=True)
    atoms.calc = calculator
    assert BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-3, steps=100)
    assert atoms.get_volume() ** (1 / 3) == pytest.approx(a, rel=0.005)
    cell = atoms.cell.array.copy()
    volumes, energies = [], []
    for scale in np.linspace(0.98, 1.02, 9):
        atoms.set_cell(scale * cell, scale_atoms=True)
        volumes.append(atoms.get_volume())
        energies.append(atoms.get_potential_energy())
    found = EquationOfState(volumes, energies, eos="birchmurnaghan").fit()[2] / units.GPa
    assert found == pytest.approx(modulus, rel=0.15)


def test_dynamics_keep_their_energy(calculator: ReciNetForceCalculator) -> None:
    atoms = bulk("Si", cubic=True)
    atoms.calc = calculator
    rng = np.random.RandomState(0)
    MaxwellBoltzmannDistribution(atoms, temperature_K=600, rng=rng)
    Stationary(atoms)
    dynamics = VelocityVerlet(atoms, timestep=2 * units.fs)
    energies: list[float] = []
    dynamics.attach(lambda: energies.append(atoms.get_total_energy() / len(atoms)), interval=5)
    dynamics.run(300)
    slope = np.polyfit(np.arange(len(energies)), energies, 1)[0] * len(energies)
    assert abs(slope) < 1e-3


def test_the_optical_mode_of_silicon(calculator: ReciNetForceCalculator) -> None:
    """Frozen phonon: the two atoms of the cell against each other, 15.5 THz by measurement."""
    atoms = bulk("Si", a=5.475)
    step = 0.01
    forces = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions[0, 0] += sign * step
        forces.append(calculator.forces_of([moved])[0])
    stiffness = -(forces[0] - forces[1])[0, 0] / (2 * step) / (units.J / units.m**2)
    mass = atoms.get_masses()[0] / units.kg
    frequency = np.sqrt(2 * stiffness / mass) / (2 * np.pi) / 1e12
    assert frequency == pytest.approx(15.5, rel=0.1)


def test_refusals(calculator: ReciNetForceCalculator) -> None:
    for atoms, message in (
        (bulk("MgO", "rocksalt", a=4.21), "not trained on O, Mg"),
        (bulk("CuNi", "rocksalt", a=4.5), "never saw Ni and Cu together"),
    ):
        atoms.calc = calculator
        with pytest.raises(StructureError, match=message):
            atoms.get_potential_energy()


def phonons_of_copper() -> None:
    pytest.importorskip("phonopy")
    phonons(bulk("Cu"))


@pytest.mark.skipif(FORCE_MODEL in available_force_models(), reason="there is one")
def test_without_a_model_for_every_element_what_there_is_gets_named() -> None:
    for work in (
        ReciNetForceCalculator,
        load_calculator,
        phonons_of_copper,
        partial(elastic_constants, bulk("Cu")),
        partial(equation_of_state, bulk("Cu")),
    ):
        with pytest.raises(ReciNetError, match=r"jarvis-pes.*mlearn-pes knows Li, Si, Ni"):
            work()
