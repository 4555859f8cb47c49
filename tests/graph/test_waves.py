"""The reciprocal transform by itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, make_supercell
from hypothesis import given
from scipy.special import erfc
from support import random_crystals

from recinet_ase import StructureError
from recinet_ase.graph.wave_sums import Sizes, filtered_sum, pair_kernels, phases
from recinet_ase.graph.waves import WaveBasis, half_space_waves


def lattice_of(*atoms: Atoms) -> torch.Tensor:
    return torch.tensor(np.stack([a.cell.array for a in atoms]))


def frac_of(atoms: Atoms) -> torch.Tensor:
    return torch.tensor(atoms.get_scaled_positions())


def brute_force_waves(cell: np.ndarray, k_max: float, reach: int) -> list[float]:
    n = np.indices((2 * reach + 1,) * 3).reshape(3, -1).T - reach
    lengths = np.linalg.norm(n @ (2 * np.pi * np.linalg.inv(cell).T), axis=1)
    return sorted(lengths[(lengths <= k_max) & (lengths > 1e-9)])


@given(random_crystals(max_atoms=1))
def test_half_of_all_waves_each_once(atoms: Atoms) -> None:
    waves = half_space_waves(lattice_of(atoms), 4.0)
    expected = brute_force_waves(atoms.cell.array, 4.0, reach=8)
    assert 2 * len(waves.length) == len(expected)
    both = np.sort(np.repeat(waves.length.numpy(), 2))
    np.testing.assert_allclose(both, expected, rtol=1e-12)
    signed = {tuple(n) for n in waves.index.tolist()}
    assert not signed & {tuple(-c for c in n) for n in signed}


def test_a_batch_of_unlike_cells_equals_each_alone() -> None:
    cells = [
        bulk("Cu"),
        Atoms("Cu", cell=[3, 3, 90], pbc=True),
        Atoms("Cu", cell=[[3, 0, 0], [20, 3, 0], [31, 17, 3]], pbc=True),
        Atoms("Cu", cell=[1.5, 1.5, 1.5], pbc=True),
    ]
    together = half_space_waves(lattice_of(*cells), 4.0)
    assert together.count[3] == 0, "2 pi / 1.5 A is beyond the cutoff"
    for b, cell in enumerate(cells):
        alone = half_space_waves(lattice_of(cell), 4.0)
        mine = together.crystal == b
        assert int(together.count[b]) == len(alone.length)
        torch.testing.assert_close(
            together.length[mine].sort().values, alone.length.sort().values, rtol=1e-12, atol=0
        )


@given(random_crystals())
def test_pair_kernels_are_the_filtered_sum(atoms: Atoms) -> None:
    frac, lattice = frac_of(atoms), lattice_of(atoms)
    basis = WaveBasis(16, 4.0).double()
    waves = half_space_waves(lattice, 4.0)
    radial = basis(waves.length)
    i, j, kernel = pair_kernels(frac, waves, Sizes.of(waves, torch.tensor([len(atoms)])), radial)
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(len(atoms), 8, generator=generator, dtype=torch.float64)
    w = torch.randn(16, 8, generator=generator, dtype=torch.float64)
    by_pairs = torch.zeros_like(u).index_add(0, i, (kernel @ w) * u[j])
    by_waves = filtered_sum(frac, waves.index, radial @ w, u) / len(atoms)
    torch.testing.assert_close(by_pairs, by_waves, rtol=1e-10, atol=1e-12)


def test_no_wave_in_range_gives_exactly_zero() -> None:
    frac = torch.zeros(1, 3)
    waves = half_space_waves(torch.eye(3)[None] * 1.5, 4.0)
    assert len(waves.length) == 0
    basis = WaveBasis(4, 4.0)
    sizes = Sizes.of(waves, torch.tensor([1]))
    _, _, kernel = pair_kernels(frac, waves, sizes, basis(waves.length))
    assert kernel.shape == (1, 4) and not kernel.any()
    assert not filtered_sum(frac, waves.index, torch.ones(0, 1), torch.ones(1, 1)).any()


def test_phases_do_not_follow_the_global_matmul_precision() -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    waves = half_space_waves(lattice_of(atoms).float(), 4.0)
    frac, values = frac_of(atoms).float(), torch.ones(8, 2)
    basis = WaveBasis(16, 4.0)(waves.length)
    exact = pair_kernels(frac, waves, Sizes.of(waves, torch.tensor([8])), basis)[2]
    with torch.autocast("cpu", torch.bfloat16):
        assert len(half_space_waves(lattice_of(atoms).float(), 4.0).length) == len(waves.length)
        angle = phases(frac, waves.index)
    torch.testing.assert_close(angle, phases(frac, waves.index), rtol=0, atol=0)
    assert exact.dtype == torch.float32 and values.dtype == torch.float32


def test_cells_beyond_memory_are_refused() -> None:
    with pytest.raises(StructureError, match="Niggli-reduced"):
        half_space_waves(torch.diag(torch.tensor([3000.0, 3000.0, 300.0]))[None], 4.0)


def test_a_large_cell_is_summed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    frac, index = frac_of(atoms), half_space_waves(lattice_of(atoms), 4.0).index
    phi, u = torch.rand(len(index), 3).double(), torch.rand(8, 3).double()
    whole = filtered_sum(frac, index, phi, u)
    monkeypatch.setattr("recinet_ase.graph.wave_sums._TABLE_LIMIT", 100)
    torch.testing.assert_close(filtered_sum(frac, index, phi, u), whole)


def test_the_filter_vanishes_smoothly_at_the_cutoff() -> None:
    basis = WaveBasis(16, 4.0).double()
    k = torch.tensor([3.99, 3.999, 3.9999, 4.0], dtype=torch.float64, requires_grad=True)
    values = basis(k)
    assert values[-1].abs().max() == 0
    (slope,) = torch.autograd.grad(values.sum(), k)
    assert (slope.abs()[1:] < 1e-4).all()


def madelung(atoms: Atoms, alpha: float = 1.2) -> float:
    """Madelung constant of NaCl by Ewald's method, the long-range part by our transform."""
    charges = torch.tensor(np.where(atoms.numbers == 11, 1.0, -1.0))[:, None]
    cell = atoms.cell.array
    volume = atoms.get_volume()
    waves = half_space_waves(lattice_of(atoms), 14.0)
    k2 = waves.length[:, None] ** 2
    ewald = 4 * math.pi / volume * torch.exp(-k2 / (4 * alpha**2)) / k2
    potential = filtered_sum(frac_of(atoms), waves.index, ewald, charges)
    reciprocal = 0.5 * float((charges * potential).sum())
    self_energy = -alpha / math.sqrt(math.pi) * float((charges**2).sum())
    shifts = (np.indices((9, 9, 9)).reshape(3, -1).T - 4) @ cell
    q = charges[:, 0].numpy()
    real = 0.0
    for i, position in enumerate(atoms.positions):
        r = np.linalg.norm(atoms.positions[:, None] + shifts[None] - position, axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            term = np.where(r > 1e-9, erfc(alpha * r) / r, 0.0)
        real += 0.5 * q[i] * float((q[:, None] * term).sum())
    pairs = len(atoms) / 2
    nearest = 5.64 / 2
    return -(reciprocal + real + self_energy) / pairs * nearest


@pytest.mark.parametrize("cubic", [False, True], ids=["primitive", "conventional"])
def test_madelung_constant_of_rocksalt(cubic: bool) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=cubic)
    assert madelung(atoms) == pytest.approx(1.747565, abs=1e-5)


def test_madelung_constant_from_a_skewed_supercell() -> None:
    atoms = make_supercell(bulk("NaCl", "rocksalt", a=5.64), [[1, 1, 0], [0, 1, 0], [0, 1, 2]])
    assert madelung(atoms) == pytest.approx(1.747565, abs=1e-5)
