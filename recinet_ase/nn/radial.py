"""The radial basis of edge lengths, and an envelope over them."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

_REACH = 40.0  # exp(-40) is nothing beside one, in double precision too


class PotentialBasis(nn.Module):
    """Gaussians of ``-0.75 / d``, a distance scaled like a pair potential (appendix B.2).

    The paper spreads 256 centres over [-4, 4]; ``-0.75/d`` of a real edge lies in
    (-0.75, -0.05), where only about 24 of them sit. ``low`` and ``high`` set the range.

    Args:
        size: Number of centres.
        low: First centre, 1/angstrom.
        high: Last centre, 1/angstrom.
        width: Standard deviation of a Gaussian in units of the spacing.
    """

    centres: torch.Tensor

    def __init__(self, size: int, low: float, high: float, width: float) -> None:
        super().__init__()
        self.register_buffer("centres", torch.linspace(low, high, size), persistent=False)
        spacing = (high - low) / (size - 1)
        self.gamma = 1.0 / (2 * (width * spacing) ** 2)

    def forward(self, distance: torch.Tensor) -> torch.Tensor:
        """Edge lengths in angstrom ``[E]`` to basis values ``[E, size]``."""
        exponent = -self.gamma * (-0.75 / distance[:, None] - self.centres) ** 2
        # Far centres must be exactly zero: denormal numbers, here and as products with them in
        # the layer that follows, would make a training step up to twice as slow on a CPU.
        value = torch.exp(exponent.clamp(min=-_REACH))
        return functional.threshold(value, 1.01 * math.exp(-_REACH), 0.0)


def fading(distance: torch.Tensor, cutoff: float) -> torch.Tensor:
    """Factor from one at contact to zero at ``cutoff``, twice differentiable, ``[E]``.

    ``1 - 28 x^6 + 48 x^7 - 21 x^8`` with ``x = d / cutoff`` (Gasteiger et al. 2020, eq. 8,
    p = 6).

    Args:
        distance: Edge lengths in angstrom ``[E]``.
        cutoff: Where it reaches zero, angstrom.
    """
    x = (distance / cutoff).clamp(max=1.0)
    return 1 - x**6 * (28 - 48 * x + 21 * x**2)
