"""Colour refinement: the same answer from fewer nodes and edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import spglib
import torch
from ase import Atoms
from ase.build import bulk, make_supercell
from hypothesis import given, settings
from hypothesis import strategies as st
from support import kernel_batch, random_crystals, random_model

from recinet_ase import Predictor
from recinet_ase.graph.adapters import to_crystal
from recinet_ase.graph.crystal import neighbours_of
from recinet_ase.graph.refinement import (
    FlatGraphs,
    equitable_partition,
    full_batch,
    reduce_graphs,
)
from recinet_ase.graph.waves import WaveBasis, half_space_waves
from recinet_ase.inference.preparation import Preparation

K_MAX = 4.0


def flat_of(*atoms: Atoms) -> FlatGraphs:
    crystals = [to_crystal(a) for a in atoms]
    return FlatGraphs.join(crystals, [neighbours_of(c) for c in crystals])


def classes_of(*atoms: Atoms) -> np.ndarray:
    flat = flat_of(*atoms)
    return equitable_partition(
        flat, half_space_waves(torch.from_numpy(flat.lattice), K_MAX)
    ).classes


def layered(sequence: str) -> Atoms:
    """Close-packed layers stacked as told, e.g. ``"ABC"`` for fcc."""
    shifts = {"A": (0, 0), "B": (1 / 3, 2 / 3), "C": (2 / 3, 1 / 3)}
    n = len(sequence)
    a, height = 2.5, 2.5 * np.sqrt(2 / 3)
    cell = [[a, 0, 0], [-a / 2, a * np.sqrt(3) / 2, 0], [0, 0, n * height]]
    places = [(*shifts[s], i / n) for i, s in enumerate(sequence)]
    return Atoms(f"Co{n}", scaled_positions=places, cell=cell, pbc=True)


def test_the_space_groups_orbits_are_found(crystals: dict[str, Atoms]) -> None:
    for name, atoms in crystals.items():
        crystal = to_crystal(atoms)
        cell = (crystal.lattice, crystal.frac_coords, crystal.numbers)
        orbits = spglib.get_symmetry_dataset(cell, symprec=1e-5).equivalent_atoms
        classes = classes_of(atoms)
        # Never finer than symmetry; coarser only where the network sees no difference.
        joint = {(o, c) for o, c in zip(orbits.tolist(), classes.tolist(), strict=True)}
        assert len(joint) == len(set(orbits.tolist())), name


def test_supercells_and_stackings_have_the_classes_of_their_cell() -> None:
    silicon = bulk("Si")
    assert set(classes_of(make_supercell(silicon, np.diag([3, 2, 2])))) == {0}
    # dhcp has two kinds of layers; atoms of both have the same twelve nearest neighbours.
    assert classes_of(layered("ABAC")).tolist() in ([0, 1, 0, 1], [1, 0, 1, 0])
    assert set(classes_of(layered("ABC"))) == {0}


def test_what_only_the_waves_tell_apart_is_told_apart() -> None:
    # A chain of equal shells: each atom sees 16 like neighbours, far order differs.
    stacking = layered("ABABABABABACABABAC")
    flat = flat_of(stacking)
    waves = half_space_waves(torch.from_numpy(flat.lattice), K_MAX)
    with_waves, without = (equitable_partition(flat, w).classes for w in (waves, None))
    assert with_waves.max() >= without.max()
    model = random_model()
    full = Predictor(model, device="cpu", reduce=False).predict(stacking)
    reduced = Predictor(model, device="cpu").predict(stacking)
    assert reduced["bandgap"] == pytest.approx(full["bandgap"], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_reduced_is_full(crystals: dict[str, Atoms], dtype: str) -> None:
    atoms = [*crystals.values(), make_supercell(crystals["Si2"], np.diag([3, 3, 2]))]
    model = random_model()
    full, reduced = (
        [p.values["bandgap"] for p in Predictor(
            model, device="cpu", dtype=dtype, reduce=flag
        ).predict_many(atoms)]
        for flag in (False, True)
    )  # fmt: skip
    np.testing.assert_allclose(reduced, full, rtol=1e-5, atol=1e-5)
    flat = flat_of(*atoms)
    whole, few = full_batch(flat, K_MAX), reduce_graphs(flat, K_MAX)
    assert len(few.distance) < 0.5 * len(whole.distance)
    # Every atom and every edge is counted.
    assert few.atom_weight.sum() == len(whole.z)
    edges = few.edge_count * few.atom_weight[few.centre]
    assert edges.sum() == pytest.approx(len(whole.distance))


@given(atoms=random_crystals(), axis=st.integers(0, 2))
@settings(max_examples=15, deadline=None)
def test_random_supercells(atoms: Atoms, axis: int) -> None:
    repeats = np.ones(3, dtype=int)
    repeats[axis] = 2
    double = atoms.repeat(repeats)
    model = random_model()
    full = Predictor(model, device="cpu", reduce=False).predict(atoms)["bandgap"]
    for structure in (atoms, double):
        reduced = Predictor(model, device="cpu").predict(structure)["bandgap"]
        assert reduced == pytest.approx(full, rel=2e-5, abs=2e-5)


def test_one_crystal_has_no_say_in_another(crystals: dict[str, Atoms]) -> None:
    atoms = list(crystals.values())
    together = classes_of(*atoms)
    start = 0
    for a in atoms:
        own = together[start : start + len(a)]
        assert (own - own.min() == classes_of(a)).all()
        start += len(a)


def test_batches_can_be_divided(crystals: dict[str, Atoms]) -> None:
    atoms = list(crystals.values())
    for reduce in (True, False):
        (whole,) = Preparation(k_max=K_MAX, reduce=reduce)(atoms).batches
        assert list(whole.divided(len(atoms), math.inf)) == [whole]
        small = list(whole.divided(3, math.inf))
        assert len(small) == -(-len(atoms) // 3)
        places = [p for b in small for p in b.places]
        assert sorted(places) == whole.places
        model = random_model()
        (graph,) = whole.graphs.values()
        sizes = graph.edges_of_crystals()[places]
        assert (sizes.diff() >= 0).all()  # like sizes together
        parts = torch.cat([model(next(iter(b.graphs.values()))) for b in small])
        torch.testing.assert_close(parts, model(graph)[places], rtol=1e-5, atol=1e-5)
        few = list(whole.divided(math.inf, 500))
        assert all(
            len(b) == 1 or next(iter(b.graphs.values())).edges_of_crystals().sum() <= 500
            for b in few
        )
        alone = whole.part(slice(4, 5))
        assert alone.places == whole.places[4:5]


def test_kernels_cannot_be_divided(crystals: dict[str, Atoms]) -> None:
    batch = kernel_batch([crystals["Cu2"]], WaveBasis(8, K_MAX))
    with pytest.raises(ValueError, match="cannot be divided"):
        batch.select(torch.tensor([0]))


# As JARVIS-DFT publishes them, with five decimals: equal atoms are equal to 1e-5 only.
ROUNDED = {
    "JVASP-26365": Atoms(
        "GeIO6Rb",
        cell=[[5.10549, 0, 0], [2.552734, 4.421537, 0], [-1.1e-05, -7.1e-05, 6.36138]],
        scaled_positions=[
            [0.33333, 0.33333, 0.5], [0.66667, 0.66667, 0.5], [0.99785, 0.61782, 0.32886],
            [0.61782, 0.99785, 0.67113], [0.38433, 0.61782, 0.67113], [0.99785, 0.38433, 0.67113],
            [0.61782, 0.38433, 0.32887], [0.38433, 0.99785, 0.32887], [0, 0, 0],
        ],
        pbc=True,
    ),
    "JVASP-86638": Atoms(
        "Os8Pr4",
        cell=[[5.39781, 0, 0], [-2.698905, 4.674641, 0], [0, 0, 9.20009]],
        scaled_positions=[
            [0.16961, 0.33921, 0.75], [0.16961, 0.83039, 0.75], [0.33921, 0.16961, 0.25],
            [0.83039, 0.66079, 0.25], [0.66079, 0.83039, 0.75], [0, 0, 0],
            [0.83039, 0.16961, 0.25], [0, 0, 0.5], [0.33333, 0.66667, 0.43515],
            [0.66667, 0.33333, 0.56485], [0.66667, 0.33333, 0.93515], [0.33333, 0.66667, 0.06485],
        ],
        pbc=True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROUNDED)
def test_rounded_crystals_do_not_depend_on_their_cell(name: str) -> None:
    crystal = ROUNDED[name]
    rng = np.random.default_rng(0)
    supercells = [
        make_supercell(crystal, np.diag(copies))[rng.permutation(len(crystal) * np.prod(copies))]
        for copies in ([1, 1, 1], [2, 1, 1], [1, 2, 1], [1, 1, 2], [3, 1, 1], [2, 2, 2])
    ]
    for model in ("jarvis-eform", "jarvis-shear"):
        predictor = Predictor(model, device="cpu", dtype="float64")
        found = [r.values for r in predictor.predict_many([crystal, *supercells])]
        for property_, value in found[0].items():
            others = [values[property_] for values in found[1:]]
            np.testing.assert_allclose(others, value, rtol=1e-9)
