"""Radial bases: of edge lengths, and of wave-vector lengths."""

from __future__ import annotations

import torch
from torch import nn


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
        return torch.exp(-self.gamma * (-0.75 / distance[:, None] - self.centres) ** 2)


class WaveBasis(nn.Module):
    """Gaussians of ``|G|`` under an envelope that falls smoothly to zero at ``k_max``.

    The envelope ``(1 - x^2)^3`` has two vanishing derivatives at the cutoff, so that a
    wave enters or leaves without a jump as the cell is strained. Each function is
    multiplied by ``5 / (1 + k_r^2)``: the number of waves at length k grows as k^2, and without
    the factor the many short waves would drown the few long ones (Ewald's filter
    falls off in the same way). The 5 brings the kernels of real crystals to order one.

    Args:
        size: Number of functions R.
        k_max: Cutoff in 1/angstrom.
    """

    centres: torch.Tensor

    def __init__(self, size: int, k_max: float) -> None:
        super().__init__()
        self.k_max = k_max
        spacing = k_max / size
        centres = spacing * torch.arange(1, size + 1, dtype=torch.get_default_dtype())
        self.register_buffer("centres", centres, persistent=False)
        self.gamma = 1.0 / (2 * spacing**2)

    def forward(self, length: torch.Tensor) -> torch.Tensor:
        """Wave-vector lengths in 1/angstrom ``[W]`` to basis values ``[W, R]``."""
        envelope = (1 - (length / self.k_max).clamp(max=1.0) ** 2) ** 3
        gauss = torch.exp(-self.gamma * (length[:, None] - self.centres) ** 2)
        return gauss * envelope[:, None] * (5.0 / (1 + self.centres**2))
