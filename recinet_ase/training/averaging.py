"""The moving average of weights that is validated and saved."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

if TYPE_CHECKING:
    pass


def moving_average(decay: float) -> Callable[..., None]:
    """Exponential moving average whose memory grows with the number of steps done.

    The decay is at most ``(1 + n) / (10 + n)`` after n steps, so that the average of a
    short run is not stuck at the initial weights.
    """

    @torch.no_grad()
    def update(averaged: list[torch.Tensor], current: list[torch.Tensor], n: Any) -> None:
        steps = int(n)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + steps) / (10 + steps)))

    return update


class MovingAverage(AveragedModel):
    """A moving average whose count stays on the host: PyTorch's own asks the device for it."""

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Let a model's present parameters and buffers in."""
        own, now = (
            [x.detach() for x in (*module.parameters(), *module.buffers())]
            for module in (self.module, model)
        )
        count = int(self.n_averaged)
        if count:
            assert self.multi_avg_fn is not None
            self.multi_avg_fn(own, now, count)
        else:
            torch._foreach_copy_(own, now)
        self.n_averaged += 1
