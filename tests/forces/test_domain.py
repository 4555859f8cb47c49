"""What lies outside of a force model's training cells is said; torch's modes do not matter."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from recinet_ase import ReciNetForceCalculator, StructureError
from recinet_ase.forces.domain import DomainWarning, ForceDomain
from recinet_ase.forces.labels import Collector
from recinet_ase.forces.measure_domain import measure_domain
from recinet_ase.forces.model import ForceModel, ForceModelConfig
from recinet_ase.forces.network import ForceNetworkConfig
from recinet_ase.graph.adapters import to_crystal

NETWORK = ForceNetworkConfig(width=16, blocks=2, angular=4, channels=4, n_basis=12)


def strained(atoms: Atoms, seed: int) -> Atoms:
    rng = np.random.default_rng(seed)
    atoms.set_cell(atoms.cell.array * rng.uniform(0.95, 1.05), scale_atoms=True)
    atoms.rattle(0.05, rng=rng)
    return atoms


@pytest.fixture(scope="module")
def model() -> ForceModel:
    """A random network whose training cells are silicon and nickel aluminide near equilibrium."""
    torch.manual_seed(0)
    made = ForceModel(
        ForceModelConfig(
            name="random", network=NETWORK, elements=(13, 14, 28, 29),
            pairs=((13, 14), (13, 28), (13, 29)), references={}, scale=1.0,
        )
    )  # fmt: skip
    collector = Collector(NETWORK)
    for i in range(20):
        cells = (
            strained(bulk("Si", cubic=True), i),
            strained(bulk("AlNi", "cesiumchloride", a=2.9).repeat((2, 1, 1)), i),
            strained(bulk("Cu", cubic=True), i),
        )
        for k, atoms in enumerate(cells):
            crystal = to_crystal(atoms)
            collector.add(f"{i}-{k}", crystal, None, np.zeros((len(atoms), 3)), None)
    measure_domain(made, collector.cells(), range(60))
    return made


def told(model: ForceModel, *cells: Atoms) -> list[str]:
    calculator = ReciNetForceCalculator(model, device="cpu")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        list(calculator.many(cells))
    assert all(issubclass(w.category, DomainWarning) for w in found)
    return [str(w.message) for w in found]


def test_training_cells_are_inside(model: ForceModel) -> None:
    cells = [strained(bulk("Si", cubic=True), seed) for seed in range(5)]
    assert told(model, *cells, bulk("AlNi", "cesiumchloride", a=2.9)) == []


def test_compressed_and_expanded_silicon(model: ForceModel) -> None:
    small, large = told(model, bulk("Si", a=4.0)), told(model, bulk("Si", a=8.0))
    assert any("Si-Si at 1.73 A is shorter than all in its data (2." in text for text in small)
    assert any("8.0 A^3 an atom is smaller" in text for text in small)
    assert any("64.0 A^3 an atom is larger" in text for text in large)
    assert all(text.startswith("random, Si2: ") for text in (*small, *large))


def test_new_neighbours_and_new_surroundings(model: ForceModel) -> None:
    met = told(model, bulk("CuNi", "cesiumchloride", a=2.9))
    assert any("Ni and Cu are neighbours, as nowhere in its data" in text for text in met)
    flat = Atoms("Si", cell=[2.4, 2.4, 9.0], pbc=True)
    assert any("atom 0 (Si) is" in text for text in told(model, flat))


def test_each_kind_is_said_once(model: ForceModel) -> None:
    several = told(model, *(bulk("Si", a=a) for a in (4.0, 3.9, 3.8)))
    assert len(several) == len(told(model, bulk("Si", a=4.0)))


def test_files_keep_the_domain(model: ForceModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    again = ForceModel.load(tmp_path)
    assert again.config.domain == model.config.domain
    assert isinstance(again.config.domain, ForceDomain)
    for cell in (bulk("Si", a=4.0), Atoms("Si", cell=[2.4, 2.4, 9.0], pbc=True)):
        assert told(again, cell) == told(model, cell)


def test_an_element_only_seen_pure_is_refused(model: ForceModel) -> None:
    lone = ForceModel(ForceModelConfig("lone", NETWORK, (14, 28, 29), ((28, 29),), {}, 1.0)).eval()
    calculator = ReciNetForceCalculator(lone, device="cpu")
    with pytest.raises(StructureError, match="never saw Si and Ni together"):
        calculator.get_potential_energy(bulk("NiSi", "cesiumchloride", a=2.8))


@pytest.fixture
def double_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double_by_default")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_default_type_of_torch(dtype: str) -> None:
    atoms = bulk("Si")
    atoms.calc = ReciNetForceCalculator("mlearn-pes", device="cpu", dtype=dtype)
    assert atoms.get_potential_energy() == pytest.approx(-10.8448, abs=1e-3)
    assert np.isfinite(atoms.get_stress()).all()


def test_inference_mode(model: ForceModel) -> None:
    atoms = strained(bulk("Si", cubic=True), 3)
    expected = next(iter(ReciNetForceCalculator(model, device="cpu").many([atoms])))
    with torch.inference_mode():
        inside = ReciNetForceCalculator(model, device="cpu")
        shipped = ReciNetForceCalculator("mlearn-pes", device="cpu")
        found = next(iter(inside.many([atoms])))
        shipped.get_potential_energy(bulk("Si"))
    np.testing.assert_allclose(found["forces"], expected["forces"], atol=1e-6)
    outside = next(iter(inside.many([atoms])))
    np.testing.assert_allclose(outside["forces"], expected["forces"], atol=1e-6)
    assert np.isfinite(shipped.get_forces(bulk("Si"))).all()
