"""The paper's own formulation, written the way its equations read: what ours is measured against.

Full graphs in PyTorch Geometric, features of both atoms and the edge joined to one vector
of 3 d for each edge (eq. 22-25), the reciprocal block of equations (5) and (7)-(10) as printed
with all d channels, complex numbers and the three basis vectors, crystals collated one by one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional
from torch_geometric.data import Data
from torch_geometric.utils import scatter

if TYPE_CHECKING:
    from recinet_ase.nn.local import LocalBlock


class NaiveLocalBlock(nn.Module):
    """Equations 22-25."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = self._mlp(width)
        self.message = self._mlp(width)
        self.gate_norm = nn.BatchNorm1d(width)
        self.node_norm = nn.BatchNorm1d(width)

    @staticmethod
    def _mlp(width: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(3 * width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, h: torch.Tensor, edge_index: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Node features ``[N, d]``, edges ``[2, E]`` and edge features ``[E, d]`` to new nodes."""
        centre, neighbour = edge_index
        z = torch.cat((h[centre], h[neighbour], v), dim=-1)
        beta = torch.sigmoid(self.gate_norm(self.gate(z)))
        total = scatter(beta * self.message(z), centre, dim=0, dim_size=len(h), reduce="sum")
        return functional.relu(h + self.node_norm(total))

    @torch.no_grad()
    def copy_weights(self, block: LocalBlock) -> None:
        """Take the weights of the package's factored block: the same function then."""
        d = block.width
        for mlp, rows, last in (
            (self.gate, slice(0, d), block.gate),
            (self.message, slice(d, 2 * d), block.message),
        ):
            first = (block.from_centre, block.from_neighbour, block.from_edge)
            mlp[0].weight.copy_(torch.cat([layer.weight[rows] for layer in first], dim=1))
            mlp[0].bias.copy_(block.from_centre.bias[rows])
            mlp[2].weight.copy_(last.weight)
            mlp[2].bias.zero_() if last.bias is None else mlp[2].bias.copy_(last.bias)
        for ours, theirs in (
            (self.gate_norm, block.gate_norm),
            (self.node_norm, block.node_norm),
        ):
            ours.weight.copy_(theirs.weight)
            ours.bias.copy_(theirs.bias)
            ours.running_mean.copy_(theirs.running_mean)
            ours.running_var.copy_(theirs.running_var)


class NaiveReciprocalBlock(nn.Module):
    """Equations 8-10, the filter a full matrix."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.filter = nn.Linear(width, width, bias=False)

    def forward(self, h: torch.Tensor, data: Any) -> torch.Tensor:
        """Global features ``[N, d]`` to new ones."""
        rows = 2 * math.pi * torch.linalg.inv(data.lattice).transpose(-1, -2)
        phase = (rows[data.batch] * data.frac_coords[:, None]).sum(-1)  # [N, 3]
        wave = torch.exp(-1j * phase)[:, :, None]
        r = scatter(h[:, None] * wave, data.batch, dim=0, dim_size=len(rows), reduce="sum")
        back = (wave.conj() * r[data.batch]).sum(1).real
        return h + self.filter(back)


class NaiveReciNet(nn.Module):
    """Embeddings, blocks, mean pooling, head (section 4, appendix B.2)."""

    def __init__(self, features: torch.Tensor, width: int = 256, blocks: int = 4) -> None:
        super().__init__()
        self.register_buffer("features", features)
        self.register_buffer("centres", torch.linspace(-4.0, 4.0, 256))
        self.embed_atom = nn.Linear(features.shape[1], width)
        self.embed_edge = nn.Linear(256, width)
        self.embed_global = nn.Linear(width, width)
        self.local = nn.ModuleList(NaiveLocalBlock(width) for _ in range(blocks))
        self.reciprocal = nn.ModuleList(NaiveReciprocalBlock(width) for _ in range(blocks))
        self.head = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, data: Any) -> torch.Tensor:
        """Standardised predictions ``[B, 1]``."""
        h = self.embed_atom(self.features[data.z])
        whole = functional.silu(self.embed_global(h))
        gamma = 1.0 / (2 * (8.0 / 255) ** 2)
        basis = torch.exp(-gamma * (-0.75 / data.distance[:, None] - self.centres) ** 2)
        v = functional.softplus(self.embed_edge(basis))
        for local, reciprocal in zip(self.local, self.reciprocal, strict=True):
            whole = reciprocal(whole, data)
            h = local(h, data.edge_index, v) + whole
        return self.head(scatter(h, data.batch, dim=0, reduce="mean"))


def naive_graphs(structures: Sequence[Any], labels: Sequence[float]) -> list[Data]:
    """Full neighbour graphs as PyTorch Geometric data, one object a crystal."""
    from recinet_ase.graph.adapters import to_crystal
    from recinet_ase.graph.geometric import build_graph

    out = []
    for structure, label in zip(structures, labels, strict=True):
        g = build_graph(to_crystal(structure))
        out.append(
            Data(
                z=g.z,
                edge_index=g.edge_index,
                distance=g.edge_distance,
                frac_coords=g.frac_coords,
                lattice=g.lattice,
                y=torch.tensor([[label]], dtype=torch.float32),
                num_nodes=len(g.z),
            )
        )
    return out
