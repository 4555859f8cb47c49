"""What a training has to know of what is learnt: `Task`; and how far it is: `Progress`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Progress:
    """What the loop reports after each step.

    Attributes:
        epoch: Epoch in progress, from 1.
        step, steps: Steps done, and steps of the whole run.
        train_mae: Mean error of the epoch so far (units as in ``metrics.csv``).
        val_mae: Last validation error, NaN before the first.
        best_mae, best_epoch: The best one and its epoch, NaN and 0 before the first.
        unit: Unit of the errors.
    """

    epoch: int
    step: int
    steps: int
    train_mae: float
    val_mae: float
    best_mae: float = math.nan
    best_epoch: int = 0
    unit: str = ""


class Task(ABC):
    """What a run learns: all in which trainings of properties and of forces differ.

    Attributes:
        model: The model in training, with ``network``, ``config`` and ``save``.
        module: What Fabric wraps: positions in the training set, int64 ``[b]``, to what `loss`
            takes. Its parameters are those of the model.
        size: Training crystals.
        scale: What the reported errors are multiplied by, for ``metrics.csv``.
        unit: Unit of the errors so multiplied.
        frozen: Modules that keep their weights and running statistics.
    """

    model: Any
    module: nn.Module
    size: int
    scale: float = 1.0
    unit: str = ""
    frozen: tuple[nn.Module, ...] = ()

    @abstractmethod
    def to(self, device: torch.device) -> None:
        """Move model and data to a device."""

    def order(self, generator: torch.Generator, batch_size: int) -> torch.Tensor:
        """The order of an epoch: positions in the training set, int64 ``[size]``."""
        return torch.randperm(self.size, generator=generator)

    @abstractmethod
    def loss(
        self, output: Any, mine: torch.Tensor, chosen: torch.Tensor, world: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What to minimise, and the error to report, as shares of the whole batch's.

        Args:
            output: Of `module`.
            mine: Positions that this process took, on the host.
            chosen: Those of the whole batch, on the host.
            world: Processes, over which gradients are averaged.
        """

    @abstractmethod
    def validate(self, model: Any) -> tuple[float, dict[str, float]]:
        """The figure to be minimised, and the errors that stand for it, of a model."""

    def columns(self, errors: dict[str, float]) -> dict[str, float]:
        """Errors that ``metrics.csv`` shows beside the figure, by column."""
        return errors

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps besides weights and position."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:  # noqa: B027 (most keep nothing)
        """Take back what `state` gave, from a checkpoint."""
