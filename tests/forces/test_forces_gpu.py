"""Forces on a GPU, as far as that can be seen without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from pretended import GPU, OneGpu, PretendedGpu

from recinet_ase import ReciNetError
from recinet_ase.forces import calculator
from recinet_ase.forces.calculator import ReciNetForceCalculator
from recinet_ase.forces.labels import LabelledCells
from recinet_ase.forces.model import ForceModel, ForceModelConfig
from recinet_ase.forces.network import ForceNetworkConfig
from recinet_ase.forces.settings import ForceTrainingConfig
from recinet_ase.forces.task import ForceTask
from recinet_ase.training.trainer import Trainer


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
        assert gpu.waits == 2, gpu.report()
        assert all(kind != "waits" for _, kind in gpu.uploads), gpu.report()
        kernels.append(gpu.kernels)
        for one, two in zip(found, expected.many(cells(n)), strict=True):
            np.testing.assert_allclose(one["forces"], two["forces"], atol=1e-5)
    assert kernels[0] == kernels[1] <= 700, gpu.report()


def labelled(n: int) -> LabelledCells:
    """Rattled cells of silicon with made-up labels; the second has no energy, none has a stress."""
    structures = cells(n)
    start = 8 * np.arange(n + 1)
    random = np.random.default_rng(0)
    energy = random.normal(size=n)
    energy[1] = np.nan
    return LabelledCells(
        ids=[str(i) for i in range(n)],
        parts=["train"] * n,
        start=start,
        numbers=np.full(8 * n, 14),
        frac_coords=np.concatenate([a.get_scaled_positions() for a in structures]),
        lattice=np.stack([a.cell.array for a in structures]),
        neighbours=np.full((n, 2), 40.0),
        energy=energy,
        forces=random.normal(size=(8 * n, 3)),
        stress=np.full((n, 3, 3), np.nan),
    )


@pytest.mark.parametrize("kind", ["learning", "broken"])
def test_a_training_step_asks_the_device_nothing(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = ForceNetworkConfig(width=8, blocks=1, angular=2, channels=2, n_basis=8)
    model = ForceModel(ForceModelConfig("x", network, (14,), (), {"Si": 0.0}, 1.0))
    config = ForceTrainingConfig("x", epochs=2, batch_size=4)
    gpu = PretendedGpu()
    with gpu:
        task = ForceTask(model, labelled(10), range(8), range(8, 10), config)
        trainer = Trainer(task, config, tmp_path, OneGpu())  # type: ignore[arg-type]
        order = trainer._epoch_order(0)
        trainer._train_step(order)
        if kind == "broken":
            with torch.no_grad():
                next(model.network.head.parameters()).fill_(torch.nan)
        gpu.reset()
        trainer._train_step(order)
        assert gpu.waits == 0 and not gpu.mixed, gpu.report()
        assert all(kind != "waits" for _, kind in gpu.uploads), gpu.report()
        assert gpu.kernels <= 1400, gpu.report()
        if kind == "broken":
            with pytest.raises(ReciNetError, match="the loss became nan"):
                trainer._read()
        else:
            trainer._read()
            assert trainer.loss_sum > 0
