"""What a force training is told; saved with the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recinet_ase.data.splits import PUBLISHED_SEED
from recinet_ase.models.files import read_settings, write_json

CONFIG_VERSION = 1


@dataclass(frozen=True)
class ForceTrainingConfig:
    """Settings of one run.

    Attributes:
        dataset: ``"mlearn"`` or one element of it, ``"mlearn_Si"``.
        network: Changes to the architecture, by field name.
        split_seed: Seed of the random split (eight to one to one).
        epochs: Passes over the training cells.
        batch_size: Cells a step.
        learning_rate: Peak of the OneCycle schedule.
        weight_decay: AdamW's decoupled weight decay.
        clip: Largest gradient norm.
        ema_decay: Decay of the moving average of the weights.
        energy_weight: Weight of the error of the energy, per eV/atom.
        force_weight: Weight of the mean error of a force component, per eV/angstrom.
        stress_weight: Weight of the mean error of a stress component, per GPa.
        validate_every: Epochs between validations.
        checkpoint_minutes: Minutes between checkpoints.
        seed: Seed of initial weights and order of batches.
        limit: Use only this many training cells, or None.
        init: Force model (name or folder) whose weights to start from, with its architecture
            and references of energy; None starts afresh.
        version: Version of this layout.
    """

    dataset: str = "mlearn"
    network: tuple[tuple[str, Any], ...] = ()
    split_seed: int = PUBLISHED_SEED
    epochs: int = 100
    batch_size: int = 2
    learning_rate: float = 3e-3
    weight_decay: float = 1e-5
    clip: float = 10.0
    ema_decay: float = 0.999
    energy_weight: float = 5.0
    force_weight: float = 1.0
    stress_weight: float = 0.1
    validate_every: int = 5
    checkpoint_minutes: float = 5.0
    seed: int = 0
    limit: int | None = None
    init: str | None = None
    version: int = CONFIG_VERSION

    def save(self, path: Path) -> None:
        """Write as json, atomically."""
        write_json(path, self)

    @classmethod
    def load(cls, path: Path) -> ForceTrainingConfig:
        """Read what `save` wrote.

        Raises:
            ReciNetError: If the file is missing or damaged.
        """
        return read_settings(cls, path, CONFIG_VERSION)
