"""Neighbour shells against a brute-force count."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from hypothesis import given
from support import random_crystals

from recinet_ase.graph.adapters import to_crystal
from recinet_ase.graph.neighbours import (
    SHELL_TOLERANCE,
    NeighbourList,
    radius_neighbours,
    shell_neighbours,
)


def brute_force(frac: np.ndarray, lattice: np.ndarray, cutoffs: np.ndarray) -> list[np.ndarray]:
    """Sorted distances of all images of all atoms within each atom's cutoff."""
    heights = 1 / np.linalg.norm(np.linalg.inv(lattice), axis=0)
    wrapped = frac - np.floor(frac)
    reach = np.ceil(cutoffs.max() / heights).astype(int) + 1
    grid = np.indices(2 * reach + 1).reshape(3, -1).T - reach
    out = []
    for i, cutoff in enumerate(cutoffs):
        vectors = (wrapped[None] + grid[:, None] - wrapped[i]) @ lattice
        distances = np.linalg.norm(vectors, axis=-1).ravel()
        out.append(np.sort(distances[(distances > 1e-8) & (distances <= cutoff)]))
    return out


def check(frac: np.ndarray, lattice: np.ndarray, k: int = 16) -> NeighbourList:
    """Compare with brute force: same distances for every atom, vectors that fit them."""
    found = shell_neighbours(frac, lattice, k)
    cutoffs = np.array(
        [
            np.sort(found.distance[found.centre == i])[k - 1] * (1 + SHELL_TOLERANCE)
            for i in range(len(frac))
        ]
    )
    for i, expected in enumerate(brute_force(frac, lattice, cutoffs)):
        np.testing.assert_allclose(np.sort(found.distance[found.centre == i]), expected, atol=1e-9)
    vectors = (frac[found.neighbour] + found.offset - frac[found.centre]) @ lattice
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), found.distance, atol=1e-9)
    pairs = {
        (i, j, *o)
        for i, j, o in zip(found.centre, found.neighbour, map(tuple, found.offset), strict=True)
    }
    assert len(pairs) == len(found.centre), "every directed pair once"
    assert (np.diff(found.centre) >= 0).all()
    return found


@given(random_crystals())
def test_random_crystals(atoms: Atoms) -> None:
    check(atoms.get_scaled_positions(), atoms.cell.array)


def test_real_crystals(crystals: dict[str, Atoms]) -> None:
    for atoms in crystals.values():
        if len(atoms) <= 14:
            check(atoms.get_scaled_positions(), atoms.cell.array)


@pytest.mark.parametrize(
    ("atoms", "shell"),
    [
        (bulk("NaCl", "rocksalt", a=5.64), 18),
        (bulk("Cu", "fcc", a=3.61), 18),
        (bulk("Fe", "bcc", a=2.87), 26),
        (bulk("Si", "diamond", a=5.43), 16),
    ],
    ids=["rocksalt", "fcc", "bcc", "diamond"],
)
def test_whole_shells(atoms: Atoms, shell: int) -> None:
    found = check(atoms.get_scaled_positions(), atoms.cell.array)
    assert (np.bincount(found.centre) == shell).all()


def test_perovskite_titanium_keeps_its_whole_shell() -> None:
    atoms = Atoms(
        "SrTiO3",
        scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
        cell=[3.905] * 3,
        pbc=True,
    )
    counts = np.bincount(check(atoms.get_scaled_positions(), atoms.cell.array).centre)
    # Ti: 6 O, 8 Sr, 6 Ti (20, not a cut through the last six).
    assert counts[1] == 20


@pytest.mark.parametrize(
    "cell",
    [
        np.diag([2.5, 2.5, 60.0]),
        np.diag([3.0, 40.0, 3.0]),
        np.array([[3.0, 0, 0], [20.0, 3.0, 0], [31.0, 17.0, 3.0]]),  # badly skewed
        np.diag([3.0, 3.2, -3.4]),  # left-handed
        np.array([[0, 3.0, 0], [3.1, 0, 0], [0, 0, 3.3]]),  # left-handed
    ],
    ids=["thin", "flat", "skewed", "negative", "swapped"],
)
def test_awkward_cells(cell: np.ndarray) -> None:
    rng = np.random.default_rng(3)
    check(rng.random((1, 3)), cell)
    check(np.array([[0.1, 0.2, 0.3], [0.6, 0.7, 0.55]]), cell)


def test_large_cell(crystals: dict[str, Atoms]) -> None:
    cell = crystals["Al2MgO4"] if "Al2MgO4" in crystals else max(crystals.values(), key=len)
    n = int(np.ceil((200 / len(cell)) ** (1 / 3)))
    atoms = make_supercell(cell, np.diag([n, n, n]))
    assert len(atoms) >= 200
    atoms.rattle(0.05, seed=1)
    check(atoms.get_scaled_positions(), atoms.cell.array)


def test_unwrapped_coordinates_give_the_same_edges() -> None:
    rng = np.random.default_rng(0)
    frac = rng.random((4, 3))
    lattice = np.array([[4.0, 0.3, 0], [0.5, 5.0, 0], [0.1, 0.2, 6.0]])
    moved = frac + rng.integers(-3, 4, frac.shape)
    inside, outside = check(frac, lattice), check(moved, lattice)
    np.testing.assert_allclose(inside.distance, outside.distance, atol=1e-9)


def test_coordinates_a_hair_below_zero_are_wrapped() -> None:
    crystal = to_crystal(Atoms("Cu", positions=[[-1e-17, 0, 0]], cell=[2.5] * 3, pbc=True))
    assert (crystal.frac_coords >= 0).all() and (crystal.frac_coords < 1).all()


def test_radius_rule_matches_ase(crystals: dict[str, Atoms]) -> None:
    from ase.neighborlist import neighbor_list

    for atoms in list(crystals.values())[:12]:
        found = radius_neighbours(atoms.get_scaled_positions(), atoms.cell.array, 5.0)
        i, d = neighbor_list("id", atoms, 5.0)
        assert len(i) == len(found.centre)
        np.testing.assert_allclose(np.sort(d), np.sort(found.distance), atol=1e-9)
