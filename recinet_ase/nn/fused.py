"""The edge part of the local block, fast: for predictions, and differentiable for training.

Plain operations spend most of a step outside the matrix products, in passes over arrays
of one row an edge. Written out by hand, forward and backward take about half as many, and
gathers and sums over edges run as embedding bags, which read each row once and add up in
single precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.nn.norm import over_processes


@dataclass(frozen=True)
class EdgeIndex:
    """The edges of a batch, in the forms that gathers and sums want; made once a batch.

    Attributes:
        centre: Receiving atom of each edge, ascending, ``[E]``.
        neighbour: Neighbouring atom of each edge, ``[E]``.
        both: Rows ``2 i`` and ``2 j + 1`` of each edge, ``[E, 2]``: the atoms' products with
            the centre's and the neighbour's weights lie interleaved.
        everything: ``0 .. E - 1``.
        atoms: ``0 .. N - 1``.
        centre_start: First edge of each atom as receiver, ``[N]``.
        count: Multiplicity of each edge, ``[E]``.
        weight: Edges of the full crystals that each edge stands for, ``[E]``.
        span: Columns that the embeddings are given in ``[e, r]``, or None (see `nn.low_rank`).
    """

    centre: torch.Tensor
    neighbour: torch.Tensor
    both: torch.Tensor
    everything: torch.Tensor
    atoms: torch.Tensor
    centre_start: torch.Tensor
    count: torch.Tensor
    weight: torch.Tensor
    span: torch.Tensor | None = None

    @classmethod
    def build(cls, batch: CrystalBatch, edge_weight: torch.Tensor) -> EdgeIndex:
        """From a batch and the number of full edges that each edge stands for, ``[E]``."""
        centre, neighbour = batch.centre.long(), batch.neighbour.long()
        atoms = torch.arange(len(batch.z), device=centre.device)
        return cls(
            centre=centre,
            neighbour=neighbour,
            both=torch.stack((2 * centre, 2 * neighbour + 1), dim=1),
            everything=torch.arange(len(centre), device=centre.device),
            atoms=atoms,
            centre_start=torch.searchsorted(centre, atoms),
            count=batch.edge_count,
            weight=edge_weight,
        )

    @cached_property
    def by_neighbour(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Edges sorted by neighbour ``[E]``, and the first of each atom in that order ``[N]``."""
        ordered, by_neighbour = torch.sort(self.neighbour)
        return by_neighbour, torch.searchsorted(ordered, self.atoms)

    @cached_property
    def share(self) -> torch.Tensor:
        """Weight of each edge in batch statistics, summing to one over all processes ``[E]``."""
        return self.weight / over_processes(self.weight.sum())


def edge_products(
    atoms: torch.Tensor, v: torch.Tensor, edge_weight: torch.Tensor, edges: EdgeIndex
) -> torch.Tensor:
    """First layer of gate and message: centre's product, neighbour's, and ``W_e v``, summed.

    Args:
        atoms: Products of the atoms ``[2 N, 2 d]``, rows as in `EdgeIndex.both`.
        v: Edge embeddings ``[E, e]``, or ``[E, r]`` in the edges' span.
        edge_weight: ``W_e``, ``[2 d, e]``.
        edges: The edges.

    Returns:
        ``[E, 2 d]``.
    """
    z = functional.embedding_bag(edges.both, atoms, mode="sum")
    if edges.span is not None:
        edge_weight = edge_weight @ edges.span
    return z.addmm_(v, edge_weight.t())


def sum_over_neighbours(messages: torch.Tensor, edges: EdgeIndex) -> torch.Tensor:
    """``sum_j count * message`` of each atom, ``[E, d]`` to ``[N, d]``."""
    return functional.embedding_bag(
        edges.everything,
        messages,
        edges.centre_start,
        mode="sum",
        per_sample_weights=edges.count.to(messages.dtype),
    )


class GatedSum(torch.autograd.Function):
    """``sum_j count * sigmoid(batch_norm(W_g s_g)) * (W_m s_m)`` with ``[s_g | s_m] = silu(z)``.

    ``z`` of an edge is the centre's product plus the neighbour's plus ``W_e v``. Matrix
    products and gates are in the type of ``v``; statistics are in that of the weights.

    Inputs: ``atoms`` ``[2 N, 2 d]`` (rows as in `EdgeIndex.both`), ``v`` ``[E, e]``, the
    weights ``[2 d, e]``, ``[d, d]``, ``[d, d]``, ``[d]``, the scale and shift of the norm ``[d]``,
    the edges and the norm's epsilon. Returns the sum ``[N, d]``, and mean and variance
    of the gate's product ``[d]``, which carry no gradient.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        atoms: torch.Tensor,
        v: torch.Tensor,
        edge_weight: torch.Tensor,
        gate_weight: torch.Tensor,
        message_weight: torch.Tensor,
        message_bias: torch.Tensor,
        scale: torch.Tensor,
        shift: torch.Tensor,
        edges: EdgeIndex,
        eps: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The sum and the batch statistics; see the class."""
        kind, d = v.dtype, len(scale)
        w_edge, w_gate, w_message = (x.to(kind) for x in (edge_weight, gate_weight, message_weight))
        with torch.autocast(v.device.type, enabled=False):
            z = edge_products(atoms.detach().to(kind), v, w_edge, edges)
            s = functional.silu(z)
            product = (s[:, :d] @ w_gate.t()).to(scale.dtype)
            mean = over_processes(edges.share @ product)
            centred = product.sub_(mean)
            var = over_processes(edges.share @ (centred * centred))
            inverse = torch.rsqrt(var + eps)
            gate = torch.addcmul(shift, centred, scale * inverse).sigmoid_().to(kind)
            message = torch.addmm(message_bias.to(kind), s[:, d:], w_message.t())
            total = sum_over_neighbours(gate * message, edges)
        ctx.save_for_backward(v, w_edge, w_gate, w_message, z, s, centred, inverse, gate, message)
        ctx.edges, ctx.scale = edges, scale.detach()
        ctx.mark_non_differentiable(mean, var)
        return total, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:  # type: ignore[override]
        """Gradients of the tensors that went in."""
        v, w_edge, w_gate, w_message, z, s, centred, inverse, gate, message = ctx.saved_tensors
        edges, scale, d, kind = ctx.edges, ctx.scale, len(ctx.scale), v.dtype
        full = scale.dtype
        d_message = grads[0].to(kind).index_select(0, edges.centre)
        d_message.mul_(edges.count.to(kind)[:, None])
        d_normal = torch.ops.aten.sigmoid_backward(d_message * message, gate).to(full)
        d_message.mul_(gate)
        # Batch normalisation with row weights that sum to one over all processes.
        d_shift = d_normal.sum(0)
        along = (d_normal * centred).sum(0)
        all_shift, all_along = over_processes(torch.stack((d_shift, along)))
        common = torch.addcmul(all_shift, centred, inverse * inverse * all_along)
        common.mul_(edges.share[:, None])
        d_product = (d_normal - common).mul_(scale * inverse).to(kind)
        d_s = torch.cat((d_product @ w_gate, d_message @ w_message), dim=1)
        d_z = torch.ops.aten.silu_backward(d_s, z)
        by_neighbour, neighbour_start = edges.by_neighbour
        d_atoms = torch.stack(
            (
                functional.embedding_bag(edges.everything, d_z, edges.centre_start, mode="sum"),
                functional.embedding_bag(by_neighbour, d_z, neighbour_start, mode="sum"),
            ),
            dim=1,
        ).flatten(0, 1)
        return (
            d_atoms,
            d_z @ w_edge,
            (d_z.t() @ v).to(full),
            (d_product.t() @ s[:, :d]).to(full),
            (d_message.t() @ s[:, d:]).to(full),
            d_message.sum(0, dtype=full),
            inverse * along,
            d_shift,
            None,
            None,
        )
