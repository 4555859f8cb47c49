"""The answer does not depend on how a crystal is described."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, make_supercell
from hypothesis import given
from hypothesis import strategies as st
from support import full_graphs, other_cell, random_crystals, random_model, rotated

from recinet_ase.inference.predictor import Predictor
from recinet_ase.models.property_model import PropertyModel
from recinet_ase.pretrained import available_models, load_model

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
DTYPES = [torch.float64, torch.float32]
NETWORKS = {
    **{mode: {"reciprocal": mode} for mode in ("lattice", "mean", "none")},
    "attention": {"pooling": "attention"},
    "peak": {"pooling": "peak"},
    "envelope and gate": {"envelope": 5.0, "gate": True},
}
MODELS = {
    (name, dtype): random_model(properties=("formation_energy",), **network).to(dtype)
    for name, network in NETWORKS.items()
    for dtype in DTYPES
}


def outputs(model: PropertyModel, *structures: Atoms) -> torch.Tensor:
    """Each structure's prediction on its own."""
    dtype = next(model.parameters()).dtype
    with torch.no_grad():
        return torch.cat([model(full_graphs([a], dtype)) for a in structures])


def assert_same(mode: str, dtype: torch.dtype, *structures: Atoms) -> None:
    values = outputs(MODELS[mode, dtype], *structures)
    # Outputs are of order one; the tolerance is relative to the larger of one and the value.
    spread = (values - values[0]).abs().max()
    assert spread <= TOLERANCE[dtype] * max(1.0, float(values[0].abs().max())), values.ravel()


def mirrored(atoms: Atoms) -> Atoms:
    return Atoms(
        numbers=atoms.numbers,
        scaled_positions=atoms.get_scaled_positions(wrap=False),
        cell=atoms.cell.array * [1, 1, -1],
        pbc=True,
    )


def translated(atoms: Atoms, seed: int) -> Atoms:
    moved = atoms.copy()
    moved.positions += np.random.default_rng(seed).normal(0, 5, 3)
    return moved


def unwrapped(atoms: Atoms, seed: int) -> Atoms:
    moved = atoms.copy()
    shifts = np.random.default_rng(seed).integers(-4, 5, (len(atoms), 3))
    moved.positions += shifts @ atoms.cell.array
    return moved


def permuted(atoms: Atoms, seed: int) -> Atoms:
    return atoms[np.random.default_rng(seed).permutation(len(atoms))]


CHANGES = {
    "rotation": rotated,
    "translation": translated,
    "wrapping": unwrapped,
    "permutation": permuted,
    "cell": other_cell,
}


@pytest.mark.parametrize("dtype", DTYPES, ids=["float64", "float32"])
@pytest.mark.parametrize("mode", NETWORKS)
@pytest.mark.parametrize("change", CHANGES)
@given(atoms=random_crystals(), seed=st.integers(0, 10**6))
def test_random_crystals(
    change: str, mode: str, dtype: torch.dtype, atoms: Atoms, seed: int
) -> None:
    assert_same(mode, dtype, atoms, CHANGES[change](atoms, seed))


@pytest.mark.parametrize("dtype", DTYPES, ids=["float64", "float32"])
@pytest.mark.parametrize("change", CHANGES)
def test_real_crystals(change: str, dtype: torch.dtype, crystals: dict[str, Atoms]) -> None:
    for seed, atoms in enumerate(crystals.values()):
        if len(atoms) <= 20:
            for mode in ("lattice", "attention"):
                assert_same(mode, dtype, atoms, CHANGES[change](atoms, seed))


@given(atoms=random_crystals())
def test_mirror_image_of_the_lattice(atoms: Atoms) -> None:
    assert_same("lattice", torch.float64, atoms, mirrored(atoms))


PEROVSKITE = Atoms(
    "SrTiO3",
    scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
    cell=[3.905] * 3,
    pbc=True,
)
TRICLINIC = Atoms(
    "LiFeO2",
    scaled_positions=[[0.02, 0.1, 0.05], [0.4, 0.55, 0.5], [0.75, 0.2, 0.6], [0.2, 0.7, 0.9]],
    cell=[3.1, 4.2, 5.3, 77, 101, 112],
    pbc=True,
)
PROTOTYPES = {
    "rocksalt": (bulk("NaCl", "rocksalt", a=5.64), bulk("NaCl", "rocksalt", a=5.64, cubic=True)),
    "fcc": (bulk("Cu", "fcc", a=3.61), bulk("Cu", "fcc", a=3.61, cubic=True)),
    "bcc": (bulk("Fe", "bcc", a=2.87), bulk("Fe", "bcc", a=2.87, cubic=True)),
    "caesium chloride": (bulk("CsCl", "cesiumchloride", a=4.12),) * 2,
    "diamond": (bulk("Si", "diamond", a=5.43), bulk("Si", "diamond", a=5.43, cubic=True)),
    "perovskite": (PEROVSKITE, PEROVSKITE),
    "triclinic": (TRICLINIC, TRICLINIC),
}
SUPERCELLS = [
    np.diag([2, 1, 1]),
    np.diag([2, 2, 2]),
    np.array([[1, 1, 0], [-1, 1, 0], [0, 0, 1]]),
    np.array([[2, 1, 0], [0, 1, 1], [0, 0, 3]]),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=["float64", "float32"])
@pytest.mark.parametrize("name", PROTOTYPES)
def test_primitive_conventional_and_supercells(name: str, dtype: torch.dtype) -> None:
    primitive, conventional = PROTOTYPES[name]
    larger = [make_supercell(primitive, matrix) for matrix in SUPERCELLS]
    assert max(map(len, larger)) > 6
    assert_same("lattice", dtype, primitive, conventional, *larger)


@pytest.mark.parametrize("dtype", DTYPES, ids=["float64", "float32"])
def test_a_supercell_on_the_wave_path(dtype: torch.dtype) -> None:
    # More than 32 atoms are summed over waves instead of pairs: the same function.
    big = make_supercell(PEROVSKITE, np.diag([2, 2, 2]))
    assert len(big) > 32
    assert_same("lattice", dtype, PEROVSKITE, big, other_cell(big, 1))


def test_the_literal_equations_are_not_invariant() -> None:
    # Why equations (8)-(9) are not built as printed: every one of these changes the answer.
    model = random_model(properties=("formation_energy",), reciprocal="literal").double()
    atoms = TRICLINIC
    value = outputs(model, atoms)
    for changed in (rotated(atoms, 1), other_cell(atoms, 1), make_supercell(atoms, SUPERCELLS[0])):
        assert (outputs(model, changed) - value).abs().max() > 1e-4


def test_a_box_of_wave_indices_depends_on_the_cell() -> None:
    # Ewald message passing as the paper compares with: rotations and translations, but not
    # another cell of the same crystal.
    model = random_model(properties=("formation_energy",), reciprocal="ewald").double()
    atoms = TRICLINIC
    value = outputs(model, atoms)
    for same in (rotated(atoms, 1), unwrapped(atoms, 1), permuted(atoms, 1)):
        assert outputs(model, same) == pytest.approx(value, rel=1e-9)
    assert (outputs(model, other_cell(atoms, 1)) - value).abs().max() > 1e-4


@pytest.mark.parametrize("dtype", DTYPES, ids=["float64", "float32"])
def test_one_alone_equals_one_in_a_batch(dtype: torch.dtype, crystals: dict[str, Atoms]) -> None:
    model = MODELS["lattice", dtype]
    big = make_supercell(PEROVSKITE, np.diag([2, 2, 2]))
    structures = [*list(crystals.values())[:25], big, *list(crystals.values())[25:]]
    alone = outputs(model, *structures)
    with torch.no_grad():
        together = model(full_graphs(structures, dtype))
    scale = TOLERANCE[dtype] * alone.abs().clamp(min=1.0)
    assert ((alone - together).abs() <= scale).all()


@pytest.mark.parametrize("name", available_models())
def test_shipped_models(name: str, crystals: dict[str, Atoms]) -> None:
    predictor = Predictor(load_model(name), device="cpu")
    config = predictor.models[0].config
    spread = dict(zip(config.properties, config.std, strict=True))  # Seebeck: 110 uV/K
    for seed, (formula, atoms) in enumerate(crystals.items()):
        if len(atoms) > 14 or not set(atoms.numbers) <= set(config.elements):
            continue
        variants = [
            rotated(atoms, seed),
            unwrapped(atoms, seed),
            permuted(atoms, seed),
            other_cell(atoms, seed),
            make_supercell(atoms, SUPERCELLS[2]),
        ]
        values = predictor.predict(atoms)
        for variant in variants:
            others = predictor.predict(variant)
            for prop, value in values.items():
                near = pytest.approx(value, rel=1e-5, abs=1e-5 * max(1.0, spread.get(prop, 0.0)))
                assert others[prop] == near, (formula, prop)
