"""The local block: message passing over neighbour shells (paper, eq. 22-25)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.graph.segments import first_rows, segment_sum
from recinet_ase.nn.fused import EdgeIndex, GatedSum, edge_products, sum_over_neighbours
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
        # False for plain operations only, which call the layers, so that hooks see what passes.
        self.fast = True

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
            edges: The same edges in the form of the fast ways, which are taken where they are
                given and possible: for predictions (no gradients), and for training steps with
                batch norm and without edge updates.

        Returns:
            New node features ``[N, d]`` and edge embeddings ``[E, edge_width]``.
        """
        edges = edges if self.fast else None
        batch_norm = isinstance(self.gate_norm, WeightedBatchNorm)
        if edges is not None and not torch.is_grad_enabled() and not self.training:
            total, opening = self._predicted_total(h, v, edge_weight, edges)
        elif edges is not None and batch_norm and self.training and not self.edge_update:
            total, opening = self._fast_total(h, v, edges), None
        else:
            z = self.from_edge(v)
            z = z + self.from_centre(h).index_select(0, batch.centre)
            z = z + self.from_neighbour(h).index_select(0, batch.neighbour)
            z_gate, z_message = functional.silu(z).split(self.width, dim=-1)
            opening = self.gate_norm(self.gate(z_gate), edge_weight)
            message = torch.sigmoid(opening) * self.message(z_message) * batch.edge_count[:, None]
            total = segment_sum(message.to(h.dtype), batch.centre, first_rows(batch.centre, len(h)))
        if self.edge_update:
            assert opening is not None
            v = v + functional.silu(opening)
        update = self.dropout(self.node_norm(total.to(h.dtype), batch.atom_weight))
        return functional.relu(h + update), v

    def _atom_products(self, h: torch.Tensor) -> torch.Tensor:
        """Both products of every atom, interleaved as in `EdgeIndex.both`, ``[2 N, 2 d]``."""
        bias = self.from_centre.bias
        products = functional.linear(
            h,
            torch.cat((self.from_centre.weight, self.from_neighbour.weight)),
            torch.cat((bias, torch.zeros_like(bias))),
        )
        return products.view(2 * len(h), 2 * self.width)

    def _predicted_total(
        self, h: torch.Tensor, v: torch.Tensor, edge_weight: torch.Tensor, edges: EdgeIndex
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum over neighbours ``[N, d]`` and the gate's opening ``[E, d]``, no gradients."""
        d, kind = self.width, v.dtype
        atoms, norm = self._atom_products(h).to(kind), self.gate_norm
        with torch.autocast(v.device.type, enabled=False):
            s = functional.silu(
                edge_products(atoms, v, self.from_edge.weight.to(kind), edges), inplace=True
            )
            if isinstance(norm, WeightedBatchNorm):
                # A fixed affine map here: part of the matrix product.
                scale, shift = norm.fixed_map()
                weight = (self.gate.weight * scale[:, None]).to(kind)
                opening = torch.addmm(shift.to(kind), s[:, :d], weight.t())
            else:
                opening = norm(
                    functional.linear(s[:, :d], self.gate.weight.to(kind), self.gate.bias.to(kind)),
                    edge_weight,
                )
            message = torch.addmm(
                self.message.bias.to(kind), s[:, d:], self.message.weight.to(kind).t()
            )
            message *= torch.sigmoid(opening)
            return sum_over_neighbours(message, edges), opening

    def _fast_total(self, h: torch.Tensor, v: torch.Tensor, edges: EdgeIndex) -> torch.Tensor:
        """The sum over neighbours ``[N, d]`` in training, as one differentiable function."""
        norm = self.gate_norm
        assert isinstance(norm, WeightedBatchNorm)
        total, mean, var = GatedSum.apply(
            self._atom_products(h),
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
