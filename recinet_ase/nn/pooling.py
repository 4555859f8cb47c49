"""From atoms to a crystal: means over its atoms.

All of them are means with weights that depend on the atoms alone, so that a supercell has
the same representation as its cell.
"""

from __future__ import annotations

import torch
from torch import nn

from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.nn.reciprocal import crystal_mean

POOLINGS = ("mean", "attention")


class AttentionPooling(nn.Module):
    """A mean in which each feature chooses the atoms that count.

    ``x_c = sum_i w_i exp(s_ic) h_ic / sum_i w_i exp(s_ic)`` with scores ``s = W h`` and the
    atoms' multiplicities ``w``. It starts as the plain mean (W = 0) and can go as far as the value
    of a single atom: for properties that one kind of site decides, such as the highest phonon
    frequency.

    Args:
        width: Node feature width.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.score.weight)

    def forward(self, h: torch.Tensor, batch: CrystalBatch) -> torch.Tensor:
        """Crystal representations ``[B, d]`` from node features ``[N, d]``."""
        score = self.score(h)
        score = score.to(torch.promote_types(score.dtype, torch.float32))  # not in bfloat16
        index = batch.crystal[:, None].expand_as(score)
        # Padding has no say, and no large value beside which atoms would vanish.
        score = score.masked_fill(batch.atom_weight[:, None] == 0, -torch.inf)
        largest = score.new_full((batch.n_crystals, score.shape[1]), -torch.inf)
        largest = largest.scatter_reduce(0, index, score.detach(), "amax")
        share = torch.exp(score - largest[batch.crystal]).to(h.dtype)
        return crystal_mean(share * h, batch) / crystal_mean(share, batch)


class MeanPooling(nn.Module):
    """The mean over atoms (paper, section 4.5)."""

    def forward(self, h: torch.Tensor, batch: CrystalBatch) -> torch.Tensor:
        """Crystal representations ``[B, d]`` from node features ``[N, d]``."""
        return crystal_mean(h, batch)


def make_pooling(kind: str, width: int) -> nn.Module:
    """The pooling of a name in `POOLINGS`."""
    return AttentionPooling(width) if kind == "attention" else MeanPooling()
