"""Ewald message passing over a box of wave indices (Kosmala et al. 2023), for comparison.

Every wave ``n`` with ``|n_i| <= 1`` has a filter of its own, a product of two small matrices:
the filter belongs to the index, not to a length, so that the answer depends on the cell that
describes the crystal. The paper compares with this form (table 12, ``N_x = N_y = N_z = 1``).
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import nn

from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.graph.segments import segment_sum

BOX = 1
RANK = 8


class EwaldSum(nn.Module):
    """``(1/N) sum_n phi_nc sum_j cos(2 pi n.(f_i - f_j)) u_jc`` with ``phi = down @ up``.

    ``n`` runs over zero and half of the other indices of the box, whose opposites give the same
    sum.

    Args:
        channels: Channels C.
    """

    waves: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        box = itertools.product(range(-BOX, BOX + 1), repeat=3)
        half = [n for n in box if n >= (0, 0, 0)]
        self.register_buffer("waves", torch.tensor(half).float(), persistent=False)
        self.down = nn.Parameter(torch.randn(len(half), RANK) / math.sqrt(RANK))
        self.up = nn.Parameter(torch.randn(RANK, channels))

    def forward(self, values: torch.Tensor, batch: CrystalBatch) -> torch.Tensor:
        """The sum ``[N, C]`` of atom features ``[N, C]``, on full graphs."""
        if batch.frac_coords is None:
            raise ValueError("Ewald message passing needs full graphs (reduce=False)")
        with torch.autocast(values.device.type, enabled=False):
            values = values.to(self.up.dtype)
            # Indices are integers, so that whole turns can be taken off the coordinates.
            angle = 2 * math.pi * (batch.frac_coords % 1.0) @ self.waves.T  # [N, K]
            filters = self.down @ self.up  # [K, C]
            count = torch.bincount(batch.crystal, minlength=batch.n_crystals)
            values = values / count[batch.crystal, None]
            out = torch.zeros_like(values)
            for trig in (torch.cos(angle), torch.sin(angle)):
                parts = trig[:, :, None] * values[:, None, :]  # [N, K, C]
                total = segment_sum(parts.flatten(1), batch.crystal, batch.first_node)
                factor = total.view(-1, *parts.shape[1:]) * filters
                out = out + (trig[:, :, None] * factor[batch.crystal]).sum(1)
        return out
