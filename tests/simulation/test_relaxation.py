"""Relaxation of many crystals against ASE's, with companions, symmetry, limits and bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import spglib
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from ase.stress import voigt_6_to_full_3x3_stress
from hypothesis import given, settings
from hypothesis import strategies as st

from recinet_ase import ReciNetForceCalculator
from recinet_ase.errors import ReciNetError, StructureError
from recinet_ase.simulation import relaxation
from recinet_ase.simulation.relaxation import RelaxationSettings, relax, relax_many
from recinet_ase.simulation.symmetry import Symmetry

FINE = RelaxationSettings(fmax=1e-3, symmetry=False)


@pytest.fixture(scope="module")
def model() -> ReciNetForceCalculator:
    return ReciNetForceCalculator("mlearn-pes", device="cpu", dtype="float64")


def disturbed(atoms: Atoms, seed: int, volume: float = 1.1, move: float = 0.1) -> Atoms:
    moved = atoms.copy()
    moved.set_cell(moved.cell.array * volume ** (1 / 3), scale_atoms=True)
    moved.positions += np.random.default_rng(seed).normal(0, move, moved.positions.shape)
    return moved


def alloys() -> list[Atoms]:
    mixed = bulk("Cu", cubic=True, a=3.75)
    mixed.symbols[0] = "Au"
    return [disturbed(bulk("Ni", "hcp", a=2.5, c=4.1), 0, 0.92), disturbed(mixed, 3, 1.05, 0.05)]


def group(atoms: Atoms, symprec: float = 1e-4) -> int:
    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    return int(spglib.get_symmetry_dataset(cell, symprec=symprec).number)


def test_minima_are_those_of_ases_fire_with_a_cell_filter() -> None:
    for atoms, found in zip(alloys(), relax_many(alloys(), EMT(), FINE), strict=True):
        assert found.converged and found.reason == "" and found.atoms is not None
        other = atoms.copy()
        other.calc = EMT()
        assert FIRE(FrechetCellFilter(other), logfile=None).run(fmax=1e-3, steps=500)
        assert found.energy == pytest.approx(other.get_potential_energy(), abs=1e-4)
        assert found.atoms.get_volume() == pytest.approx(other.get_volume(), rel=1e-3)
        ratio = other.get_volume() / atoms.get_volume()
        assert found.volume_change == pytest.approx(ratio - 1, abs=1e-3)
        lengths = found.atoms.get_all_distances(mic=True)
        assert lengths == pytest.approx(other.get_all_distances(mic=True), abs=5e-3)


def test_a_fixed_cell_is_kept_and_atoms_are_those_of_ase() -> None:
    keep = RelaxationSettings(fmax=1e-4, cell=False)
    atoms = disturbed(bulk("Cu", cubic=True), 1)
    (found,) = relax_many([atoms], EMT(), keep)
    assert found.converged and found.atoms is not None
    assert found.volume_change == pytest.approx(0, abs=1e-12)
    assert np.array_equal(found.atoms.cell.array, atoms.cell.array)
    other = atoms.copy()
    other.calc = EMT()
    FIRE(other, logfile=None).run(fmax=1e-4)
    assert found.energy == pytest.approx(other.get_potential_energy(), abs=1e-6)


def test_companions_change_nothing_but_rounding(model: ReciNetForceCalculator) -> None:
    cells = [disturbed(bulk(s, cubic=True), i) for i, s in enumerate(("Si", "Cu", "Mo", "Li"))]
    cells += [bulk("Ni", a=3.3), disturbed(bulk("Ge").repeat((2, 1, 1)), 9)]
    together = relax_many(cells, model)
    alone = [relax_many([atoms], model)[0] for atoms in cells]
    for one, other in zip(together, alone, strict=True):
        assert one.converged and one.atoms is not None and other.atoms is not None
        assert one.steps == other.steps
        assert one.energy == pytest.approx(other.energy, abs=1e-9)
        assert one.atoms.positions == pytest.approx(other.atoms.positions, abs=1e-7)
        assert one.atoms.cell.array == pytest.approx(other.atoms.cell.array, abs=1e-7)


def test_networks_are_asked_for_all_at_once(model: ReciNetForceCalculator) -> None:
    asked: list[int] = []
    cells = [bulk("Si", a=5.3), bulk("Cu", a=3.7), bulk("Mo", a=3.0)]
    relax_many(cells, model, beginning=asked.append)
    found = [relax_many([atoms], model)[0].steps for atoms in cells]
    assert asked == [sum(s >= k for s in found) for k in range(max(found) + 1)]


@pytest.mark.parametrize("keep", [True, False])
def test_the_space_group_is_kept_by_default(model: ReciNetForceCalculator, keep: bool) -> None:
    # The simple hexagonal cell of silicon is no minimum; noise would lead away from it.
    atoms = Atoms("Si", cell=[[2.6, 0, 0], [-1.3, 2.6 * 0.75**0.5, 0], [0, 0, 2.5]], pbc=True)
    atoms = atoms.repeat((2, 1, 1))
    atoms.positions += 1e-3 * np.random.default_rng(0).normal(size=(2, 3))
    (found,) = relax_many([atoms], model, RelaxationSettings(symmetry=keep))
    assert found.atoms is not None
    assert (group(found.atoms) == 191) == keep


def test_relaxed_cells_are_not_turned() -> None:
    atoms = disturbed(bulk("Cu", cubic=True), 3)
    (found,) = relax_many([atoms], EMT(), FINE)
    assert found.atoms is not None
    change = np.linalg.solve(atoms.cell.array, found.atoms.cell.array)
    assert change == pytest.approx(change.T, abs=2e-3)


def test_bad_ones_say_why_and_cost_the_others_nothing(model: ReciNetForceCalculator) -> None:
    overlapping = bulk("Si", cubic=True)
    overlapping.positions[1] = overlapping.positions[0] + 0.1
    cells: list[Any] = [
        bulk("NaCl", "rocksalt", a=5.6),
        bulk("Si"),
        ValueError("no such file"),
        overlapping,
        bulk("Cu", a=3.4),
        "nonsense",
    ]
    found = relax_many(cells, model, RelaxationSettings(max_steps=3))
    assert "was not trained on Na, Cl" in found[0].reason and found[0].atoms is None
    assert found[1].converged
    assert found[2].reason == "ValueError: no such file"
    assert "overlap" in found[3].reason
    assert not found[4].converged and found[4].steps == 3 and found[4].atoms is not None
    assert "not relaxed to 0.02 eV/A after 3 steps" in found[4].reason
    assert "largest stress" in found[4].reason
    assert found[5].error is not None and found[5].reason


def test_explosion_and_collapse_have_a_reason() -> None:
    class Pushing(EMT):
        sign = 1.0

        def calculate(self, *args: Any, **kwargs: Any) -> None:
            super().calculate(*args, **kwargs)
            self.results["stress"] = -self.sign * np.array([1.0, 1, 1, 0, 0, 0])

    calculator = Pushing()
    (found,) = relax_many([bulk("Cu")], calculator)
    assert "exploded" in found.reason and found.volume_change == pytest.approx(1.6, abs=0.2)
    calculator = Pushing()
    calculator.sign = -1.0
    (found,) = relax_many([bulk("Cu")], calculator)
    assert "collapsed" in found.reason and not found.converged


def test_numbers_that_are_none_end_the_relaxation_with_a_reason() -> None:
    class Broken(EMT):
        def calculate(self, *args: Any, **kwargs: Any) -> None:
            super().calculate(*args, **kwargs)
            if abs(self.atoms.get_volume() - bulk("Cu").get_volume() * 1.1**3) > 0.2:
                self.results["forces"] = np.full((len(self.atoms), 3), np.nan)

    (found,) = relax_many([bulk("Cu", a=3.61 * 1.1)], Broken())
    assert "broke off after 1 step: " in found.reason and "no finite number" in found.reason


def test_calculators_without_forces_or_stress_are_refused() -> None:
    class NoStress(EMT):
        implemented_properties = ["energy", "forces"]  # noqa: RUF012 (as ASE has it)

    with pytest.raises(ReciNetError, match="gives no stress"):
        relax_many([bulk("Cu")], NoStress())
    assert relax_many([bulk("Cu")], NoStress(), RelaxationSettings(cell=False))[0].converged
    with pytest.raises(ReciNetError, match="pass an ASE calculator"):
        relax_many([bulk("Cu")], "emt")
    with pytest.raises(ReciNetError, match="fmax must be a positive number"):
        RelaxationSettings(fmax=0)


def test_one_crystal_that_must_come_to_rest() -> None:
    steps: list[int] = []
    found = relax(bulk("Cu", a=3.8), EMT(), progress=steps.append)
    assert found.converged and steps == list(range(found.steps + 1))
    with pytest.raises(StructureError, match="allow more"):
        relax(bulk("Cu", a=3.8), EMT(), RelaxationSettings(max_steps=1))
    with pytest.raises(ReciNetError, match="EMT cannot relax Si2: No EMT-potential for Si"):
        relax(bulk("Si"), EMT())


def test_no_structures_are_no_results() -> None:
    assert relax_many([], EMT()) == []


def test_a_crystal_of_noble_gas_relaxes_though_it_is_soft() -> None:
    argon = LennardJones(sigma=3.4, epsilon=0.0104, rc=10, smooth=True)
    (found,) = relax_many([bulk("Ar", a=5.6)], argon, RelaxationSettings(fmax=1e-4))
    assert found.converged and found.atoms is not None
    assert found.atoms.cell.lengths()[0] * 2**0.5 == pytest.approx(5.25, abs=0.05)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["Si", "Cu", "Ti", "NaCl", "ZnO", "GaAs"]),
    st.integers(0, 10_000),
)
def test_projections_keep_what_is_symmetric_and_nothing_else(name: str, seed: int) -> None:
    kind = {"NaCl": "rocksalt", "ZnO": "wurtzite", "GaAs": "zincblende"}.get(name)
    atoms = bulk(name, kind, a=4.0 if kind else None)
    rng = np.random.default_rng(seed)
    atoms.rotate(float(rng.uniform(0, 180)), rng.normal(size=3), rotate_cell=True)
    before = group(atoms)
    found = Symmetry(atoms.numbers, atoms.get_scaled_positions(), atoms.cell.array, 1e-3)
    vectors, tensor = rng.normal(size=(len(atoms), 3)), rng.normal(size=(3, 3))
    moves, strain = found.of_vectors(vectors), found.of_tensor(tensor + tensor.T)
    assert found.of_vectors(moves) == pytest.approx(moves, abs=1e-9)
    assert found.of_tensor(strain) == pytest.approx(strain, abs=1e-9)
    # A projection is orthogonal: what it takes away has nothing in common with what it leaves.
    assert float((moves * (vectors - moves)).sum()) == pytest.approx(0, abs=1e-9)
    atoms.positions += 0.1 * moves
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.02 * strain), scale_atoms=True)
    assert group(atoms) == before


def test_noise_within_the_tolerance_is_taken_away() -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    noisy = atoms.copy()
    rng = np.random.default_rng(5)
    noisy.positions += 1e-3 * rng.normal(size=noisy.positions.shape)
    noisy.set_cell(noisy.cell.array + 1e-3 * rng.normal(size=(3, 3)), scale_atoms=True)
    found = Symmetry(noisy.numbers, noisy.get_scaled_positions(), noisy.cell.array, 1e-2)
    mended = Atoms(noisy.numbers, scaled_positions=found.frac_coords, cell=found.lattice, pbc=True)
    assert group(noisy, 1e-5) == 1 and group(mended, 1e-5) == 225
    assert mended.get_volume() == pytest.approx(atoms.get_volume(), rel=2e-3)


def test_stresses_may_come_as_matrices_as_chgnets_do() -> None:
    class Matrix(EMT):
        def calculate(self, *args: Any, **kwargs: Any) -> None:
            super().calculate(*args, **kwargs)
            if "stress" in self.results:
                self.results["stress"] = voigt_6_to_full_3x3_stress(self.results["stress"])

    class Wrong(EMT):
        def calculate(self, *args: Any, **kwargs: Any) -> None:
            super().calculate(*args, **kwargs)
            self.results["stress"] = np.zeros(3)

    cell = bulk("Ni", "hcp", a=2.5, c=4.3)
    (found,), (plain,) = relax_many([cell], Matrix()), relax_many([cell], EMT())
    assert found.converged and found.energy == pytest.approx(plain.energy, abs=1e-9)
    assert "stress of shape (3,)" in relax_many([cell], Wrong())[0].reason


def test_many_more_than_go_at_once_follow_as_others_come_to_rest(
    model: ReciNetForceCalculator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relaxation, "_TOGETHER", 2)
    cells = [bulk(s) for s in ("Si", "Cu", "Mo", "Li", "Ni")]
    cells.insert(2, bulk("NaCl", "rocksalt", a=5.6))
    asked: list[int] = []
    done: list[int] = []
    found = relax_many(cells, model, progress=done.append, beginning=asked.append)
    assert [r.converged for r in found] == [i != 2 for i in range(6)]
    assert [str(r.atoms.symbols) for r in found if r.atoms] == ["Si2", "Cu", "Mo", "Li", "Ni"]
    assert max(asked) == 2 and done == sorted(done) and done[-1] == 6
