"""The local block: message passing over neighbour shells (paper, eq. 22-25)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.nn.fused import EdgeIndex, GatedSum
from recinet_ase.nn.norm import NORMS, WeightedBatchNorm


class LocalBlock(nn.Module):
    """Gated graph convolution of PotNet's base network.

    Equations 22-25: ``z = [h_i | h_j | v_ij]``, gate ``sigmoid(norm(MLP(z)))``, message
    ``gate * MLP(z)``, summed over neighbours, ``h' = relu(h + norm(sum))``.

    The first linear layer of both MLPs is factored, ``W z = W1 h_i + W2 h_j + W3 v_ij``:
    the node products are computed once an atom instead of once an edge. It is the same
    function.

    Args:
        width: Node feature width d.
        edge_width: Width of the edge embedding v.
        norm: ``"batch"`` (paper) or ``"layer"``.
        dropout: Dropout of the summed messages.
        edge_update: Whether edges carry their gate on to the next block,
            ``v' = v + silu(norm(MLP(z)))`` (needs ``edge_width == width``).
    """

    def __init__(
        self,
        width: int,
        edge_width: int,
        norm: str,
        dropout: float = 0.0,
        edge_update: bool = False,
    ) -> None:
        super().__init__()
        self.width = width
        # Rows 0..d-1 belong to the gate's MLP, d..2d-1 to the message's.
        self.from_centre = nn.Linear(width, 2 * width)
        self.from_neighbour = nn.Linear(width, 2 * width, bias=False)
        self.from_edge = nn.Linear(edge_width, 2 * width, bias=False)
        # A bias before batch normalisation has no gradient but rounding noise, which Adam
        # would scale up to full steps.
        self.gate = nn.Linear(width, width, bias=norm != "batch")
        self.message = nn.Linear(width, width)
        self.gate_norm = NORMS[norm](width)
        self.node_norm = NORMS[norm](width)
        self.dropout = nn.Dropout(dropout)
        self.edge_update = edge_update

    def forward(
        self,
        h: torch.Tensor,
        v: torch.Tensor,
        batch: CrystalBatch,
        edge_weight: torch.Tensor,
        edges: EdgeIndex | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Update node (and edge) features.

        Args:
            h: Node features ``[N, d]``.
            v: Edge embeddings ``[E, edge_width]``.
            batch: The graphs.
            edge_weight: Edges of the full crystal that each edge stands for ``[E]``.
            edges: The same edges sorted for the fast form of a training step, which is taken
                where it is given and possible (batch norm, no edge update).

        Returns:
            New node features ``[N, d]`` and edge embeddings ``[E, edge_width]``.
        """
        batch_norm = isinstance(self.gate_norm, WeightedBatchNorm) and self.gate_norm.training
        if edges is not None and batch_norm and not self.edge_update:
            total = self._fast_total(h, v, edges)
            update = self.dropout(self.node_norm(total.to(h.dtype), batch.atom_weight))
            return functional.relu(h + update), v
        # Without gradients edge arrays are overwritten: memory traffic is a third of the time.
        alone = not torch.is_grad_enabled()
        z = self.from_edge(v)
        z += self.from_centre(h).index_select(0, batch.centre)
        z += self.from_neighbour(h).index_select(0, batch.neighbour)
        z_gate, z_message = functional.silu(z, inplace=alone).split(self.width, dim=-1)
        opening = self.gate_norm(self.gate(z_gate), edge_weight)
        message = self.message(z_message)
        if alone:
            message *= torch.sigmoid(opening)
            message *= batch.edge_count[:, None]
        else:
            message = torch.sigmoid(opening) * message * batch.edge_count[:, None]
        total = torch.zeros_like(h).index_add(0, batch.centre, message.to(h.dtype))
        if self.edge_update:
            v = v + functional.silu(opening)
        return functional.relu(h + self.dropout(self.node_norm(total, batch.atom_weight))), v

    def _fast_total(self, h: torch.Tensor, v: torch.Tensor, edges: EdgeIndex) -> torch.Tensor:
        """The sum over neighbours ``[N, d]`` in training, as one differentiable function."""
        bias = self.from_centre.bias
        products = functional.linear(
            h,
            torch.cat((self.from_centre.weight, self.from_neighbour.weight)),
            torch.cat((bias, torch.zeros_like(bias))),
        )
        norm = self.gate_norm
        assert isinstance(norm, WeightedBatchNorm)
        total, mean, var = GatedSum.apply(
            products.view(2 * len(h), 2 * self.width),
            v,
            self.from_edge.weight,
            self.gate.weight,
            self.message.weight,
            self.message.bias,
            norm.weight,
            norm.bias,
            edges,
            norm.eps,
        )
        norm.update_running(mean, var)
        return total
