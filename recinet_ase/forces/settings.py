"""What a force training is told; saved with the run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recinet_ase.errors import ReciNetError, UnknownNameError
from recinet_ase.forces.network import ForceNetworkConfig
from recinet_ase.models.files import read_settings
from recinet_ase.training.config import CONFIG_VERSION, TrainingConfig

QUANTITIES = ("energy", "forces", "stress")

_TUPLES = ("properties", "hold_out", "references", "log_targets")
_ATOMS_A_STEP = 128
_LEARNING_RATE, _FINE_TUNING_RATE = 3e-3, 1e-3
UNUSED = frozenset(
    ("unit", "size", "neighbours", "reduce", "hold_out", "leave_out", "log_targets", "freeze",
     "task_weights", "balance", "references")
)  # fmt: skip


@dataclass(frozen=True)
class ForceTrainingConfig(TrainingConfig):
    """Settings of one run on energies, forces and stresses.

    Those of `TrainingConfig` in `UNUSED` speak of properties and say nothing here.

    Attributes:
        properties: Which of `QUANTITIES` are learnt; forces always are.
        target: Prefix of the labels' keys in own data, as ``"REF_"``; None finds it.
        units: Units and signs of the labels in own data, a key of `forces.labels.UNITS`.
        batch_size: Cells a step; None is as many as have 128 atoms.
        learning_rate: Peak of the OneCycle schedule; None is 3e-3, or 1e-3 for a run that starts
            from a model.
        network: The architecture where it differs from `ForceNetworkConfig`, by field name.
        energy_weight: Weight of the error of the energy, per eV/atom.
        force_weight: Weight of the mean error of a force component, per eV/angstrom.
        stress_weight: Weight of the mean error of a stress component, per GPa.
    """

    dataset: str = "mlearn"
    properties: tuple[str, ...] = QUANTITIES
    units: str = "ase"
    epochs: int = 100
    clip: float = 10.0
    validate_every: int = 5
    energy_weight: float = 5.0
    force_weight: float = 1.0
    stress_weight: float = 0.1
    kind: str = "forces"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.properties:
            if name not in QUANTITIES:
                raise UnknownNameError("label of a force model", name, QUANTITIES)
        if "forces" not in self.properties:
            raise ReciNetError("a force model needs forces to learn: add them to --props")

    @property
    def peak_rate(self) -> float:
        """Peak learning rate."""
        default = _LEARNING_RATE if self.init is None else _FINE_TUNING_RATE
        return default if self.learning_rate is None else self.learning_rate

    def cells_a_step(self, cells: int, atoms: int) -> int:
        """Cells a step, for so many training cells with so many atoms in all."""
        fitting = max(1, round(_ATOMS_A_STEP * cells / atoms))
        return self.batch_size or max(1, min(fitting, cells // 4))

    def force_network(self, start: ForceNetworkConfig) -> ForceNetworkConfig:
        """The network to train, from the defaults or those of the model to start from."""
        return ForceNetworkConfig.from_dict({**start.to_dict(), **dict(self.network)})


def learns_forces(dataset: str | None, properties: tuple[str, ...]) -> bool:
    """Whether settings mean a run on forces.

    Properties that name the forces do, and none at all where the data are mlearn's, which is
    there for that.
    """
    if properties:
        return "forces" in properties
    return dataset is not None and dataset.partition("_")[0] == "mlearn"


def load_settings(path: Path) -> TrainingConfig:
    """The settings of a run folder, of whichever kind it is.

    Raises:
        ReciNetError: If the file is missing, damaged, or of a later layout.
    """
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        data = {}
    # Before there was a kind, force runs had a layout of their own.
    kind = data.get("kind", "forces" if "force_weight" in data else "property")
    if kind != "forces":
        return TrainingConfig.load(path)
    tuples = [key for key in _TUPLES if key in data]
    return read_settings(ForceTrainingConfig, path, CONFIG_VERSION, tuples)
