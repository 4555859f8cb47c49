"""Run folders of the benchmarks that train: finished ones are read, others trained to the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recinet_ase.models.property_model import PropertyModel
    from recinet_ase.training.config import TrainingConfig
    from recinet_ase.training.devices import Resources


def finished(folder: Path) -> bool:
    """Whether a run has come to its end."""
    path = folder / "config.json"
    return path.exists() and bool(json.loads(path.read_text())["training"].get("complete"))


def whole_run(folder: Path, config: TrainingConfig, resources: Resources) -> PropertyModel:
    """The model of a finished run; one that is not is begun or continued first.

    Raises:
        SystemExit: If the training was told to stop.
    """
    from recinet_ase.models.property_model import PropertyModel
    from recinet_ase.training.run import TRAINING_FILE, train

    if finished(folder):
        return PropertyModel.load(folder)
    print(f"{folder.name} ...", flush=True)
    model, complete = train(config, folder, resources, (folder / TRAINING_FILE).exists())
    if not complete:
        raise SystemExit(f"stopped in {folder.name}; the same command goes on from there")
    return model
