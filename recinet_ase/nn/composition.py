"""What the chemical formula alone says: a branch beside the graph network.

An energy above the convex hull is a formation energy minus a function of the
composition, so a network for it wants to see the composition undiluted. The number of
atoms in the reduced formula is part of the formula too (AB or A2B2 is the same crystal, AB2
is not), and the labels of JARVIS-DFT depend on it.
"""

from __future__ import annotations

import torch
from torch import nn

from recinet_ase.elements import MAX_Z
from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.nn.reciprocal import crystal_mean


def formula_atoms(batch: CrystalBatch) -> torch.Tensor:
    """Atoms in the reduced formula of each crystal, ``[B]`` (3 for MgF2, Mg2F4, ...)."""
    counts = torch.zeros(
        batch.n_crystals * (MAX_Z + 1), dtype=torch.long, device=batch.z.device
    ).index_add(0, batch.crystal * (MAX_Z + 1) + batch.z, batch.atom_weight.long())
    counts = counts.view(batch.n_crystals, MAX_Z + 1)
    common = counts
    while common.shape[1] > 1:  # gcd(a, 0) = a
        half = (common.shape[1] + 1) // 2
        left, right = common[:, :half], common[:, half:]
        common = torch.gcd(left, nn.functional.pad(right, (0, half - right.shape[1])))
    return counts.sum(1) // common[:, 0].clamp(min=1)


class CompositionBranch(nn.Module):
    """``y = head * s(n) + c(composition, n)`` with n the atoms of the reduced formula.

    It starts as ``s = 1 / n`` and ``c = 0``: the graph network's own answer, for a
    formula instead of an atom.

    Args:
        n_features: Features of an element.
        width: Width of its layers.
        outputs: Number of predicted values.
    """

    def __init__(self, n_features: int, width: int, outputs: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([[1.0], [0.0]]).repeat(1, outputs))
        self.element = nn.Sequential(nn.Linear(n_features, width), nn.SiLU())
        last = nn.Linear(width, outputs)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.formula = nn.Sequential(
            nn.Linear(2 * width + 2, 2 * width),
            nn.SiLU(),
            nn.Linear(2 * width, width),
            nn.SiLU(),
            last,
        )

    def forward(
        self, output: torch.Tensor, element_features: torch.Tensor, batch: CrystalBatch
    ) -> torch.Tensor:
        """Combine the head's output ``[B, outputs]`` with the composition.

        Args:
            output: Output of the graph network's head.
            element_features: Element features of each atom ``[N, n_features]``.
            batch: The crystals.
        """
        inverse = 1.0 / formula_atoms(batch).to(output.dtype)[:, None]
        e = self.element(element_features)
        mean = crystal_mean(e, batch)
        spread = crystal_mean((e - mean[batch.crystal]) ** 2, batch)
        x = torch.cat((mean, spread, inverse, inverse.log()), dim=1)
        return output * (self.scale[0] * inverse + self.scale[1]) + self.formula(x)
