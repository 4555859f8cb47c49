"""Forces on a GPU, as far as that can be seen without one."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from pretended import GPU, PretendedGpu

from recinet_ase.forces import calculator
from recinet_ase.forces.calculator import ReciNetForceCalculator


def cells(n: int) -> list[Atoms]:
    found = [bulk("Si", cubic=True) for _ in range(n)]
    for seed, atoms in enumerate(found):
        atoms.rattle(0.05, seed=seed)
    return found


def test_many_cells_take_the_kernels_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = ReciNetForceCalculator("mlearn-pes", device="cpu")
    monkeypatch.setattr(calculator, "choose_device", lambda _: GPU)
    gpu = PretendedGpu()
    with gpu:
        here = ReciNetForceCalculator("mlearn-pes", device="cuda")
    kernels = []
    for n in (1, 6):
        with gpu:
            gpu.reset()
            found = list(here.many(cells(n)))
        assert not gpu.mixed, gpu.report()
        assert gpu.waits <= 14, gpu.report()
        kernels.append(gpu.kernels)
        for one, two in zip(found, expected.many(cells(n)), strict=True):
            np.testing.assert_allclose(one["forces"], two["forces"], atol=1e-5)
    assert kernels[1] <= kernels[0] + 40, gpu.report()
    assert kernels[0] < 700, kernels
