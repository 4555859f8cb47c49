"""The labels of `jarvis-pes`: a relaxed crystal is the minimum, whatever the teacher thinks."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

TOOL = Path(__file__).parents[2] / "tools" / "collect_configurations.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("collect_configurations", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


class Case:
    """A crystal whose teacher (EMT) wants another volume and other positions."""

    def __init__(self, tool: ModuleType) -> None:
        self.tool = tool
        atoms = bulk("Cu", cubic=True)
        atoms.set_cell(atoms.cell.array * [1.02, 0.99, 1.01], scale_atoms=True)
        atoms.rattle(0.05, seed=1)
        atoms.symbols[0] = "Au"
        self.crystal = self.answer(atoms, "equilibrium", np.ones(3, int), -3.0)
        self.atoms = atoms

    def answer(self, atoms: Atoms, kind: str, repeat: np.ndarray, energy: float = np.nan):  # type: ignore[no-untyped-def]
        atoms = atoms.copy()
        atoms.calc = EMT()
        return self.tool.Answer(
            "X", kind, repeat, atoms.numbers, atoms.cell.scaled_positions(atoms.positions),
            atoms.cell.array, energy, atoms.get_potential_energy(), atoms.get_forces(),
            atoms.get_stress(voigt=False),
        )  # fmt: skip

    def labels(self, atoms: Atoms, kind: str = "rattled", repeat: tuple[int, ...] = (1, 1, 1)):  # type: ignore[no-untyped-def]
        return self.tool.labels(self.answer(atoms, kind, np.array(repeat)), self.crystal)


def test_the_crystal_itself_is_the_minimum(tool: ModuleType) -> None:
    case = Case(tool)
    for repeat in ((1, 1, 1), (2, 1, 1)):
        energy, forces, stress = case.labels(case.atoms.repeat(repeat), repeat=repeat)
        assert energy == pytest.approx(-12.0 * np.prod(repeat), abs=1e-9)
        np.testing.assert_allclose(forces, 0, atol=1e-9)
        np.testing.assert_allclose(stress, 0, atol=1e-9)


def test_forces_and_stress_are_derivatives_of_the_energy(tool: ModuleType) -> None:
    case = Case(tool)
    atoms = case.atoms.repeat((1, 2, 1))
    shear = np.array([[0.02, 0.01, 0], [0, -0.03, 0.02], [0.01, 0, 0.04]])
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + shear), scale_atoms=True)
    atoms.rattle(0.08, seed=4)
    _, forces, stress = case.labels(atoms, repeat=(1, 2, 1))
    step = 1e-4

    def slope(change) -> float:  # type: ignore[no-untyped-def]
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            change(moved, sign * step)
            energies.append(case.labels(moved, repeat=(1, 2, 1))[0])
        return float(energies[0] - energies[1]) / (2 * step)

    for i, axis in ((0, 0), (5, 1), (7, 2)):

        def move(moved: Atoms, by: float, i: int = i, axis: int = axis) -> None:
            moved.positions[i, axis] += by

        assert forces[i, axis] == pytest.approx(-slope(move), abs=1e-5)
    for a, b in ((0, 0), (1, 1), (0, 2)):

        def strain(moved: Atoms, by: float, a: int = a, b: int = b) -> None:
            small = np.zeros((3, 3))
            small[a, b] += by / 2
            small[b, a] += by / 2
            moved.set_cell(moved.cell.array @ (np.eye(3) + small), scale_atoms=True)

        assert stress[a, b] * atoms.get_volume() == pytest.approx(slope(strain), abs=1e-4)


def test_substituted_crystals_have_no_energy(tool: ModuleType) -> None:
    case = Case(tool)
    atoms = case.atoms.copy()
    atoms.symbols[1] = "Ag"
    energy, forces, _ = case.labels(atoms, "substituted")
    assert np.isnan(energy) and np.abs(forces).max() > 0
    image = tool.image(
        case.answer(atoms, "substituted", np.ones(3, int)), energy, forces, np.eye(3)
    )
    assert set(image.calc.results) == {"forces", "stress"}


def test_what_is_far_from_the_crystal_is_left_out(tool: ModuleType) -> None:
    small = np.full((2, 3), 0.1)
    assert tool.believable(-5.9, small, np.zeros((3, 3)), -3.0)
    assert not tool.believable(0.0, small, np.zeros((3, 3)), -3.0)
    assert not tool.believable(-5.9, 200 * small, np.zeros((3, 3)), -3.0)
    assert not tool.believable(-5.9, small, np.eye(3), -3.0)
    case = Case(tool)
    assert tool.part_of(case.crystal.numbers) == tool.part_of(
        replace(case.crystal, numbers=np.tile(case.crystal.numbers, 3)).numbers
    )
