"""Several networks that answer as one: the mean of their predictions, and its spread."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import nn

from recinet_ase.errors import ReciNetError
from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.models.property_model import ModelConfig, ModelOutput, PropertyModel
from recinet_ase.nn.reciprocal import LatticeSums
from recinet_ase.uncertainty import calibration as calibrations
from recinet_ase.uncertainty.calibration import Calibration


class EnsembleModel(nn.Module):
    """Models of the same properties on the same graphs, asked together.

    A prediction is the mean of the members' predictions, each in its unit and within its
    physical bound; the spread is their standard deviation (n - 1). It costs what the
    members cost; graphs are built once.

    Args:
        config: What the members have in common (`recinet_ase.models.ensemble_files.merged_card`).
        members: Two models at least.

    Attributes:
        calibration: Intervals and domain of its predictions, or None.
        fingerprint: sha256 of the members' fingerprints.

    Raises:
        ReciNetError: If there are fewer than two members, or they do not match.
    """

    minimum: torch.Tensor
    maximum: torch.Tensor

    def __init__(self, config: ModelConfig, members: Sequence[PropertyModel]) -> None:
        super().__init__()
        if len(members) < 2:
            raise ReciNetError(f"{config.name} has {len(members)} members; two make an ensemble")
        for member in members:
            own = member.config
            same = (own.properties, own.units, own.graph, own.functional)
            if same != (config.properties, config.units, config.graph, config.functional):
                raise ReciNetError(
                    f"{own.name} cannot be a member of {config.name}: they differ in properties, "
                    "units, level of theory or neighbour rule"
                )
        self.config = config
        self.networks = nn.ModuleList(members)
        self.calibration: Calibration | None = None
        names = "\n".join(member.fingerprint for member in members)
        self.fingerprint = hashlib.sha256(names.encode()).hexdigest()
        self.register_buffer("minimum", members[0].minimum.clone(), persistent=False)
        self.register_buffer("maximum", members[0].maximum.clone(), persistent=False)

    __repr__ = PropertyModel.__repr__

    @property
    def members(self) -> tuple[PropertyModel, ...]:
        """The models that are asked."""
        return tuple(cast("PropertyModel", network) for network in self.networks)

    def forward(self, batch: CrystalBatch, sums: LatticeSums | None = None) -> torch.Tensor:
        """Properties in their units ``[B, outputs]``."""
        return self.outcome(batch, sums).output.clamp(self.minimum, self.maximum)

    def outcome(self, batch: CrystalBatch, sums: LatticeSums | None = None) -> ModelOutput:
        """Mean and spread of the members; the representation is the first member's."""
        sums = LatticeSums(batch) if sums is None else sums
        outcomes = [member.outcome(batch, sums) for member in self.members]
        outputs = torch.stack([one.output for one in outcomes])
        bounded = outputs.clamp(self.minimum, self.maximum)
        mean = bounded.mean(0)
        # Where all members are beyond a bound, how far they are says how sure they are.
        inside = (mean > self.minimum) & (mean < self.maximum)
        output = torch.where(inside, mean, outputs.mean(0))
        return ModelOutput(output, outcomes[0].latent, bounded.std(0))

    @classmethod
    def load(
        cls,
        config: ModelConfig,
        folder: Path,
        members: Sequence[Path],
        calibrated: bool = True,
    ) -> EnsembleModel:
        """Read the members and the ensemble's own calibration.

        Args:
            config: What the members have in common.
            folder: Where the calibration is.
            members: Folders of the members.
            calibrated: Read the calibration, if there is one.

        Raises:
            ReciNetError: If a file is missing or damaged, or the members do not match.
        """
        model = cls(config, [PropertyModel.load(path, calibrated=False) for path in members])
        if calibrated and calibrations.present(folder):
            calibration = Calibration.load(folder, model.fingerprint)
            model.calibration = replace(calibration, bounds=config.bounds)
        return model.eval()


AnyModel = PropertyModel | EnsembleModel
"""What a prediction may come from."""
