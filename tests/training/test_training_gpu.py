"""Training steps on a GPU, as far as that can be seen without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ase import Atoms
from pretended import OneGpu, PretendedGpu
from support import random_model

from recinet_ase import ReciNetError
from recinet_ase.data.conversion import build_store
from recinet_ase.data.store import StoreSettings
from recinet_ase.models.property_model import PropertyModel
from recinet_ase.training.config import TrainingConfig
from recinet_ase.training.labels import Targets
from recinet_ase.training.property_task import PropertyTask
from recinet_ase.training.trainer import Trainer, load_checkpoint

RUNS: dict[str, tuple[bool, tuple[str, ...], dict[str, Any], dict[str, Any], int]] = {
    "plain": (True, ("bandgap",), {}, {}, 520),
    "small": (True, ("bandgap",), {"size": "small"}, {"optimizer": "muon"}, 770),
    "several": (
        True,
        ("formation_energy", "bandgap"),
        {"multitask": "moe", "experts": 4, "top_k": 2, "composition": True, "pooling": "attention"},
        {"task_weights": "uncertainty"},
        830,
    ),
}


def trainer_on(gpu: PretendedGpu, crystals: dict[str, Atoms], name: str, folder: Path) -> Trainer:
    reduce, properties, network, settings, _ = RUNS[name]
    few = dict(list(crystals.items())[:20])
    store = build_store(few.items(), StoreSettings(reduce=reduce))
    values = torch.rand(20, len(properties), generator=torch.Generator().manual_seed(0))
    train, val = (Targets(torch.arange(a, b), values[a:b]) for a, b in ((0, 16), (16, 20)))
    config = TrainingConfig(
        properties=properties, epochs=2, batch_size=4, reduce=reduce, dataset="x", **settings
    )
    model = random_model(properties=properties, **network)
    with gpu:
        task = PropertyTask(model, store, train, val, config)
        return Trainer(task, config, folder, OneGpu())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", RUNS)
def test_a_step_asks_the_device_nothing(
    name: str, crystals: dict[str, Atoms], tmp_path: Path
) -> None:
    gpu = PretendedGpu()
    trainer = trainer_on(gpu, crystals, name, tmp_path)
    with gpu:
        order = trainer._epoch_order(0)
        trainer._train_step(order)
        gpu.reset()
        trainer._train_step(order)
        assert gpu.waits == 0 and not gpu.mixed, gpu.report()
        assert all(kind != "waits" for _, kind in gpu.uploads), gpu.report()
        assert gpu.kernels <= RUNS[name][-1], gpu.report()
        trainer._read()
        assert trainer.loss_sum > 0 and gpu.waits == 1


def test_a_loss_that_is_not_finite_ends_the_run_before_anything_is_saved(
    crystals: dict[str, Atoms], tmp_path: Path
) -> None:
    gpu = PretendedGpu()
    trainer = trainer_on(gpu, crystals, "plain", tmp_path)
    with gpu:
        trainer._train_step(trainer._epoch_order(0))
        with torch.no_grad():
            next(trainer.model.network.head.parameters()).fill_(torch.inf)
        trainer._train_step(trainer._epoch_order(0))
        with pytest.raises(ReciNetError, match="the loss became .* lower the learning rate"):
            trainer._save_checkpoint()
    assert not list(tmp_path.iterdir())


def test_a_run_that_goes_on_later(crystals: dict[str, Atoms], tmp_path: Path) -> None:
    """Validation, what is saved, and what is read again: nothing meets two devices."""
    found = []
    for stops in ([], [3]):
        folder = tmp_path / str(len(stops))
        folder.mkdir()
        for last in (*stops, None):
            gpu = PretendedGpu()
            trainer = trainer_on(gpu, crystals, "plain", folder)
            with gpu:
                if (state := load_checkpoint(folder)) is not None:
                    trainer.restore(state)
                complete = trainer.fit(None, lambda: trainer.step == last)  # noqa: B023
            assert complete == (last is None) and not gpu.mixed, gpu.report()
        found.append(trainer.best_val)
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert PropertyModel.load(tmp_path / "1").config.properties == ("bandgap",)
