"""The reciprocal block: long-range message passing through the lattice (eq. 7-10).

Five readings are available:

* ``"lattice"`` (default): filters of ``|G|`` over all reciprocal lattice vectors up to a
  cutoff, plus the ``G = 0`` term; invariant to every description of the same crystal;
* ``"mean"``: the ``G = 0`` term alone, a virtual node;
* ``"literal"``: equations (8)-(9) as printed, with the three basis vectors for k and the
  phase ``k.f``. Neither rotation nor choice of cell leaves it unchanged; it exists for
  comparison and must not be shipped;
* ``"ewald"``: Ewald message passing over a box of indices (`recinet_ase.nn.index_box`), which
  the choice of cell does not leave unchanged either; for comparison;
* ``"none"``: no block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.graph.segments import first_rows, segment_sum
from recinet_ase.graph.waves import (
    Members,
    WaveBasis,
    filtered_sum,
    pair_kernels,
    wave_table,
)
from recinet_ase.nn.index_box import IndexBoxSum

MODES = ("lattice", "mean", "literal", "ewald", "none")
FULL_GRAPHS = ("literal", "ewald")
"""Readings that depend on every atom's own coordinates: symmetry must not merge atoms."""

# Above this size the two matrix products of the wave sum cost less than all pairs of atoms;
# both are the same function. Waves go crystal by crystal, pairs all at once, which suits GPUs.
_PAIR_ATOMS = {"cpu": 12}
_PAIR_ATOMS_ELSEWHERE = 32

_TABLE_LIMIT = 16_000_000  # cosines and sines kept for the layers of a batch


def crystal_mean(values: torch.Tensor, batch: CrystalBatch) -> torch.Tensor:
    """Weighted mean over the atoms of each crystal, ``[N, C]`` to ``[B, C]``."""
    weight = batch.atom_weight[:, None].to(values.dtype)
    total = segment_sum(values * weight, batch.crystal, batch.first_node)
    return total / segment_sum(weight, batch.crystal, batch.first_node)


@dataclass(frozen=True)
class LargeCell:
    """A crystal whose waves are summed themselves.

    Attributes:
        nodes: Its place in the batch.
        n_atoms: Number of its atoms.
        frac_coords: Fractional coordinates of the nodes ``[N, 3]``.
        members: All its atoms, where nodes stand for several.
        index: Wave indices ``[W, 3]``.
        radial: Radial basis values ``[W, R]``.
        tables: For all layers, unless they are too large to keep: the `wave_table` of the
            nodes, and its sum over the atoms of each node (the same where these are one).
    """

    nodes: slice
    n_atoms: int
    frac_coords: torch.Tensor
    members: Members | None
    index: torch.Tensor
    radial: torch.Tensor
    tables: tuple[torch.Tensor, torch.Tensor] | None

    @classmethod
    def build(
        cls,
        nodes: slice,
        frac_coords: torch.Tensor,
        members: Members | None,
        index: torch.Tensor,
        radial: torch.Tensor,
        room: int,
    ) -> LargeCell:
        """Prepare a crystal, with its tables if they have at most ``room`` entries."""
        n, m = len(frac_coords), len(frac_coords if members is None else members.frac_coords)
        tables = None
        if 4 * m * len(index) <= room:
            table = total = wave_table(frac_coords, index)
            if members is not None:
                every = wave_table(members.frac_coords, index)
                total = segment_sum(every, members.node, first_rows(members.node, n))
            tables = (table, total)
        return cls(nodes, m if members else n, frac_coords, members, index, radial, tables)

    def apply(self, values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """The filtered sum ``[N, C]`` of node features ``[N, C]``."""
        filters = self.radial @ weights
        if self.tables is not None:
            table, total = self.tables
            update = 2 * (table @ (filters.repeat(2, 1) * (total.T @ values)))
        else:
            update = filtered_sum(self.frac_coords, self.index, filters, values, self.members)
        return update / self.n_atoms


class LatticeSums:
    """The lattice sums of one batch, built once for all networks of one wave basis.

    Args:
        batch: The crystals.
    """

    def __init__(self, batch: CrystalBatch) -> None:
        self.batch = batch
        self._built: dict[tuple[object, ...], LatticeOperator] = {}

    def of(self, basis: WaveBasis) -> LatticeOperator:
        """The sums for a basis."""
        key = (len(basis.centres), basis.k_max, basis.norm)
        if key not in self._built:
            self._built[key] = LatticeOperator.build(self.batch, basis)
        return self._built[key]


@dataclass(frozen=True)
class LatticeOperator:
    """The filtered lattice sum of a batch, ready to be applied once a layer.

    Attributes:
        pair_centre, pair_neighbour, pair_kernel: Kernels of the small crystals
            (``[P]``, ``[P]``, ``[P, R]``).
        large: The large crystals of the batch.
    """

    pair_centre: torch.Tensor
    pair_neighbour: torch.Tensor
    pair_kernel: torch.Tensor
    large: tuple[LargeCell, ...] = ()

    @classmethod
    def build(cls, batch: CrystalBatch, basis: WaveBasis) -> LatticeOperator:
        """Enumerate the waves of a batch and prepare its kernels, always in full precision."""
        if batch.pair_kernel is not None:
            assert batch.pair_centre is not None and batch.pair_neighbour is not None
            return cls(batch.pair_centre, batch.pair_neighbour, batch.pair_kernel)
        with torch.autocast(batch.z.device.type, enabled=False):
            return cls._build(batch, basis)

    @classmethod
    def _build(cls, batch: CrystalBatch, basis: WaveBasis) -> LatticeOperator:
        terms = batch.lattice_terms(basis)
        waves, radial, members = terms.waves, terms.radial, terms.members
        n_nodes, n_atoms, frac_coords = terms.n_nodes, terms.n_atoms, batch.frac_coords
        assert frac_coords is not None
        small = n_nodes <= _PAIR_ATOMS.get(batch.z.device.type, _PAIR_ATOMS_ELSEWHERE)
        if bool(small.all()):
            return cls(*pair_kernels(frac_coords, waves, n_nodes, radial, members))
        last = [torch.cumsum(count, 0) for count in (n_nodes, n_atoms, waves.count)]
        large, room = [], _TABLE_LIMIT
        for b in torch.nonzero(~small).flatten().tolist():
            nodes, atoms, found = (
                slice(int(end[b] - count[b]), int(end[b]))
                for end, count in zip(last, (n_nodes, n_atoms, waves.count), strict=True)
            )
            own = None
            if members is not None:
                own = Members(
                    members.frac_coords[atoms],
                    members.node[atoms] - nodes.start,
                    n_atoms[b : b + 1],
                )
            cell = LargeCell.build(
                nodes, frac_coords[nodes], own, waves.index[found], radial[found], room
            )
            room -= 0 if cell.tables is None else 4 * int(n_atoms[b]) * len(cell.index)
            large.append(cell)
        if not bool(small.any()):
            none = torch.nonzero(small[batch.crystal]).flatten()
            return cls(none, none, radial.new_zeros(0, radial.shape[1]), tuple(large))
        chosen = torch.nonzero(small).flatten()
        some = batch.select(chosen)
        of_small = None
        if some.member is not None and some.member_coords is not None:
            of_small = Members(some.member_coords, some.member, n_atoms[small])
        assert some.frac_coords is not None
        few = waves.select(chosen)
        i, j, kernel = pair_kernels(
            some.frac_coords, few, n_nodes[small], radial[small[waves.crystal]], of_small
        )
        node_at = torch.nonzero(small[batch.crystal]).flatten()
        return cls(node_at[i], node_at[j], kernel, tuple(large))

    def __call__(self, values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """``(2/N) sum_half phi_c(|G|) [cos_i A_c + sin_i B_c]`` with ``phi_c = sum_r w_rc psi_r``.

        Args:
            values: Atom features ``[N, C]``.
            weights: Filter weights ``[R, C]``.

        Returns:
            ``[N, C]``; exactly zero for a crystal without waves in range.
        """
        messages = (self.pair_kernel @ weights) * values.index_select(0, self.pair_neighbour)
        first = first_rows(self.pair_centre, len(values))
        out = segment_sum(messages.to(values.dtype), self.pair_centre, first)
        with torch.autocast(values.device.type, enabled=False):
            for cell in self.large:
                some = values[cell.nodes].to(cell.radial.dtype)
                out[cell.nodes] = cell.apply(some, weights).to(out.dtype)
        return out


def literal_sum(values: torch.Tensor, batch: CrystalBatch) -> torch.Tensor:
    """Equations (8)-(9) as printed, k the three basis vectors and the phase ``k.f``.

    Returns:
        Real part of ``sum_k exp(i k.f_i) r_k``, ``[N, C]``.
    """
    if batch.frac_coords is None or batch.lattice is None:
        raise ValueError("the literal reciprocal block needs full graphs (reduce=False)")
    rows = 2 * math.pi * torch.linalg.inv(batch.lattice).transpose(-1, -2)  # [B, 3, 3]
    angle = (rows[batch.crystal] * batch.frac_coords[:, None]).sum(-1)  # [N, 3]
    out = torch.zeros_like(values)
    for trig in (torch.cos(angle), torch.sin(angle)):
        weighted = trig[:, :, None] * values[:, None, :]  # [N, 3, C]
        total = segment_sum(weighted.flatten(1), batch.crystal, batch.first_node)
        total = total.view(-1, *weighted.shape[1:])
        out = out + (trig[:, :, None] * total[batch.crystal]).sum(1)
    return out


class ReciprocalBlock(nn.Module):
    """One long-range update of the node features (eq. 7-10), without the residual.

    Features are normalised, mapped down to a few channels with an activation (eq. 5,
    applied in every block, since the integrated features of section 4.4 enter here),
    summed over the lattice, and mapped up again.

    Args:
        width: Node feature width d.
        channels: Channels C of the transform.
        n_radial: Radial functions R of the filter.
        mode: ``"lattice"``, ``"mean"``, ``"literal"`` or ``"ewald"``.
    """

    def __init__(self, width: int, channels: int, n_radial: int, mode: str) -> None:
        super().__init__()
        self.mode = mode
        self.norm = nn.LayerNorm(width)
        self.down = nn.Linear(width, channels)
        self.box = IndexBoxSum(channels) if mode == "ewald" else None
        # "literal" has its G-dependence in the waves themselves and W_filter in `up`.
        self.filter = nn.Parameter(torch.randn(n_radial, channels) / math.sqrt(n_radial))
        if mode != "lattice":
            self.filter.requires_grad_(False)
        terms = 2 if mode == "lattice" else 1
        self.up = nn.Linear(terms * channels, width)
        with torch.no_grad():
            self.up.weight.mul_(0.3)  # starts as a small correction to the local update
            self.up.bias.zero_()

    def forward(
        self, h: torch.Tensor, batch: CrystalBatch, lattice_sum: LatticeOperator | None
    ) -> torch.Tensor:
        """Long-range update ``[N, d]`` of node features ``[N, d]``."""
        u = functional.silu(self.down(self.norm(h))).to(h.dtype)
        if self.mode == "literal":
            return self.up(literal_sum(u, batch))
        if self.box is not None:
            return self.up(self.box(u, batch))
        mean = crystal_mean(u, batch)[batch.crystal]
        if self.mode == "mean":
            return self.up(mean)
        assert lattice_sum is not None
        return self.up(torch.cat((lattice_sum(u, self.filter), mean), dim=-1))
