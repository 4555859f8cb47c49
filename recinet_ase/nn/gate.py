"""A head for values that are often exactly zero, such as the gap of a metal."""

from __future__ import annotations

import torch
from torch import nn


class GatedHead(nn.Module):
    """``y = floor + sigmoid(g(x)) r(x)``: is there a gap, and if so, how wide?

    Both questions are answered from one hidden layer. A closed gate gives every crystal the same
    value, which the mean absolute error pulls to that of the metals (a gap of zero,
    standardised), so that the regression need not learn to be level there.

    Args:
        width: Features of a crystal's representation.
        outputs: Number of properties.
        dropout: Dropout before the last layers.
    """

    def __init__(self, width: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Dropout(dropout))
        self.value = nn.Linear(width, outputs)
        self.gate = nn.Linear(width, outputs)
        self.floor = nn.Parameter(torch.zeros(outputs))

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """Standardised predictions ``[B, outputs]`` from representations ``[B, width]``."""
        hidden = self.layers(latent)
        return self.floor + torch.sigmoid(self.gate(hidden)) * self.value(hidden)
