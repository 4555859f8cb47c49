"""From atoms to a crystal: means over its atoms.

All of them are means with weights that depend on the atoms alone, so that a supercell has
the same representation as its cell.
"""

from __future__ import annotations

import torch
from ase.data import atomic_masses
from torch import nn
from torch.nn import functional

from recinet_ase.elements import MAX_Z
from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.nn.reciprocal import crystal_mean

POOLINGS = ("mean", "attention", "peak")

_MASS = 30.0  # that of an atom whose values stay as they are, dalton


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
        share = _shares(self.score(h), batch).to(h.dtype)
        return crystal_mean(share * h, batch) / crystal_mean(share, batch)


class PeakPooling(nn.Module):
    """Values of single atoms, and of these the largest: for the highest phonon frequency.

    A vibration's frequency goes with the inverse root of the mass that moves, and the highest one
    belongs to the atoms that are lightest or most tightly held. So each atom gets values of its
    own, ``f_i + a = sqrt(30 / m_i) (MLP(h_i, x) + a)``, with the crystal's representation x by
    attention, m in dalton and ``-a`` the place of zero on the standardised scale. The crystal's
    are ``sum_i w_i exp(b f_i) f_i / sum_i w_i exp(b f_i)``, which is near the largest where the
    learnt b is large, and the same for a supercell as for its cell.

    The values are appended to x, and are all that the decoder (`LastColumns`) reads.

    Args:
        width: Node feature width.
        outputs: Number of properties.
    """

    root: torch.Tensor

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        root = (_MASS / torch.tensor(atomic_masses[: MAX_Z + 1])).sqrt()
        self.register_buffer("root", root.to(torch.get_default_dtype()), persistent=False)
        self.attention = AttentionPooling(width)
        self.atom = nn.Linear(width, width)
        self.crystal = nn.Linear(width, width, bias=False)
        self.last = nn.Linear(width, outputs)
        self.zero = nn.Parameter(torch.full((outputs,), 1.5))
        self.sharpness = nn.Parameter(torch.full((outputs,), 0.5))

    def forward(self, h: torch.Tensor, batch: CrystalBatch) -> torch.Tensor:
        """``[B, d + outputs]`` from node features ``[N, d]``."""
        x = self.attention(h, batch)
        value = self.last(functional.silu(self.atom(h) + self.crystal(x)[batch.crystal]))
        value = value.to(torch.promote_types(value.dtype, torch.float32))
        value = self.root[batch.z, None] * (value + self.zero) - self.zero
        share = _shares(functional.softplus(self.sharpness) * value, batch)
        peak = crystal_mean(share * value, batch) / crystal_mean(share, batch)
        return torch.cat((x.to(peak.dtype), peak), dim=1)


class LastColumns(nn.Module):
    """The decoder of `PeakPooling`, whose last columns are the answers.

    Args:
        outputs: Number of properties.
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """Standardised predictions ``[B, outputs]``."""
        return latent[:, -self.outputs :]


class MeanPooling(nn.Module):
    """The mean over atoms (paper, section 4.5)."""

    def forward(self, h: torch.Tensor, batch: CrystalBatch) -> torch.Tensor:
        """Crystal representations ``[B, d]`` from node features ``[N, d]``."""
        return crystal_mean(h, batch)


def make_pooling(kind: str, width: int, outputs: int) -> nn.Module:
    """The pooling of a name in `POOLINGS`."""
    if kind == "peak":
        return PeakPooling(width, outputs)
    return AttentionPooling(width) if kind == "attention" else MeanPooling()


def _shares(score: torch.Tensor, batch: CrystalBatch) -> torch.Tensor:
    """``exp(score)`` ``[N, C]``, of which the largest of each crystal and column is one."""
    score = score.to(torch.promote_types(score.dtype, torch.float32))  # not in bfloat16
    index = batch.crystal[:, None].expand_as(score)
    # Padding has no say, and no large value beside which atoms would vanish.
    score = score.masked_fill(batch.atom_weight[:, None] == 0, -torch.inf)
    largest = score.new_full((batch.n_crystals, score.shape[1]), -torch.inf)
    largest = largest.scatter_reduce(0, index, score.detach(), "amax")
    return torch.exp(score - largest[batch.crystal])
