"""The reciprocal block: long-range message passing through the lattice (eq. 7-10).

Five readings are available:

* ``"lattice"`` (default): filters of ``|G|`` over all reciprocal lattice vectors up to a
  cutoff, plus the ``G = 0`` term; invariant to every description of the same crystal;
* ``"mean"``: the ``G = 0`` term alone, a virtual node;
* ``"literal"``: equations (8)-(9) as printed, with the three basis vectors for k and the
  phase ``k.f``. Neither rotation nor choice of cell leaves it unchanged; it exists for
  comparison and must not be shipped;
* ``"ewald"``: Ewald message passing over a box of indices (`recinet_ase.nn.ewald`), which
  the choice of cell does not leave unchanged either; for comparison;
* ``"none"``: no block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.graph.segments import first_rows, segment_sum
from recinet_ase.graph.upload import upload
from recinet_ase.graph.wave_sums import CellTables, Members, Sizes, filtered_sum, pair_kernels
from recinet_ase.graph.waves import WaveBasis
from recinet_ase.nn.ewald import EwaldSum

MODES = ("lattice", "mean", "literal", "ewald", "none")
FULL_GRAPHS = ("literal", "ewald")
"""Readings that depend on every atom's own coordinates: symmetry must not merge atoms."""

# Above this size the two matrix products of the wave sum cost less than all pairs of atoms;
# both are the same function. Waves go crystal by crystal, pairs all at once, which suits GPUs.
_PAIR_ATOMS = {"cpu": 12}
_PAIR_ATOMS_ELSEWHERE = 32

# Cosines and sines of large crystals kept for the layers of a batch, and those of them in one
# padded group: on a CPU each crystal by itself, on a GPU where every group is some calls.
_TABLE_LIMIT = {"cpu": 16_000_000}
_TABLE_LIMIT_ELSEWHERE = 500_000_000
_GROUP_LIMIT = {"cpu": 0}
_GROUP_LIMIT_ELSEWHERE = 64_000_000


def crystal_mean(values: torch.Tensor, batch: CrystalBatch) -> torch.Tensor:
    """Weighted mean over the atoms of each crystal, ``[N, C]`` to ``[B, C]``."""
    weight = batch.atom_weight[:, None].to(values.dtype)
    total = segment_sum(values * weight, batch.crystal, batch.first_node)
    return total / segment_sum(weight, batch.crystal, batch.first_node)


@dataclass(frozen=True)
class LargeCells:
    """Crystals whose waves are summed themselves: one, or several of like size (b of them).

    Attributes:
        node_at: Positions of their nodes in the batch ``[n]``, or filled up ``[b, n]``.
        n_atoms: Number of their atoms, or ``[b, 1, 1]``.
        radial: Radial basis values ``[w, R]`` or ``[b, w, R]``.
        table: `wave_table` of the nodes, ``[n, 2 w]`` or ``[b, n, 2 w]``.
        total: Its sum over the atoms of each node (the same where these are one).
    """

    node_at: torch.Tensor
    n_atoms: torch.Tensor | int
    radial: torch.Tensor
    table: torch.Tensor
    total: torch.Tensor

    @classmethod
    def build(cls, cells: CellTables, some: slice, radial: torch.Tensor) -> LargeCells:
        """Those of the cells that are at the given places."""
        block = cells.block(some)
        if some.stop - some.start == 1:
            return cls(
                block.node_at[0], int(cells.sizes.atoms[some.start]), radial[block.wave_at[0]],
                block.table[0], block.total[0],
            )  # fmt: skip
        total = block.total
        if cells.members is None:
            total = total * block.node_mask[..., None]
        return cls(
            block.node_at,
            block.n_atoms[:, None, None],
            radial[block.wave_at] * block.wave_mask[..., None],
            block.table,
            total,
        )

    def apply(self, values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """The filtered sums of all node features ``[N, C]``, ``[n, C]`` or ``[b n, C]``."""
        filters = self.radial @ weights
        some = values[self.node_at].to(filters.dtype)
        update = torch.cat((filters, filters), dim=-2) * (self.total.mT @ some)
        return (2 * (self.table @ update) / self.n_atoms).flatten(0, -2)


@dataclass(frozen=True)
class HugeCell:
    """A crystal whose wave table is too large to keep.

    Attributes:
        nodes: Its place in the batch.
        n_atoms: Number of its atoms.
        frac_coords: Fractional coordinates of the nodes ``[N, 3]``.
        members: All its atoms, where nodes stand for several.
        index: Wave indices ``[W, 3]``.
        radial: Radial basis values ``[W, R]``.
    """

    nodes: slice
    n_atoms: int
    frac_coords: torch.Tensor
    members: Members | None
    index: torch.Tensor
    radial: torch.Tensor

    def apply(self, values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """The filtered sum ``[n, C]`` of all node features ``[N, C]``."""
        filters = self.radial @ weights
        some = values[self.nodes].to(filters.dtype)
        summed = filtered_sum(self.frac_coords, self.index, filters, some, self.members)
        return summed / self.n_atoms


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
        row: Where the sum of each node is: in that of the small crystals ``[N]``, or in one of
            the large ones, which follow ``[N]``; None if there are none of these.
    """

    pair_centre: torch.Tensor
    pair_neighbour: torch.Tensor
    pair_kernel: torch.Tensor
    large: tuple[LargeCells | HugeCell, ...] = ()
    row: torch.Tensor | None = None

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
        waves, radial, sizes, members = terms.waves, terms.radial, terms.sizes, terms.members
        frac_coords, kind = batch.frac_coords, batch.z.device.type
        assert frac_coords is not None
        small = sizes.nodes <= _PAIR_ATOMS.get(kind, _PAIR_ATOMS_ELSEWHERE)
        chosen = np.flatnonzero(small)
        pairs = pair_kernels(frac_coords, waves, sizes, radial, members, chosen)
        rest = np.flatnonzero(~small & (sizes.waves > 0))
        if not len(rest):
            return cls(*pairs)
        entries = 4 * sizes.atoms[rest] * sizes.waves[rest]
        limit = _GROUP_LIMIT.get(kind, _GROUP_LIMIT_ELSEWHERE)
        if limit:
            order = np.argsort(entries, kind="stable")
            rest, entries = rest[order], entries[order]
        kept = np.cumsum(entries) <= _TABLE_LIMIT.get(kind, _TABLE_LIMIT_ELSEWHERE)
        cells = CellTables(frac_coords, waves, sizes, members, rest[kept])
        large: list[LargeCells | HugeCell] = [
            LargeCells.build(cells, some, radial) for some in _groups(cells.sizes, limit)
        ]
        first = [np.cumsum(count) - count for count in sizes]
        row, end = np.arange(len(batch.z)), len(batch.z)
        for some in _groups(cells.sizes, limit):
            width = int(cells.sizes.nodes[some].max())
            for b in rest[kept][some]:
                n = int(sizes.nodes[b])
                row[first[0][b] : first[0][b] + n] = end + np.arange(n)
                end += width
        for b in rest[~kept]:
            nodes, atoms, found = (
                slice(int(begin[b]), int(begin[b] + count[b]))
                for begin, count in zip(first, sizes, strict=True)
            )
            own = None
            if members is not None:
                own = Members(members.frac_coords[atoms], members.node[atoms] - nodes.start)
            n_atoms = int(sizes.atoms[b])
            large.append(
                HugeCell(nodes, n_atoms, frac_coords[nodes], own, waves.index[found], radial[found])
            )
            row[nodes] = end + np.arange(sizes.nodes[b])
            end += int(sizes.nodes[b])
        return cls(*pairs, tuple(large), upload(torch.from_numpy(row), frac_coords.device))

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
        if self.row is None:
            return out
        with torch.autocast(values.device.type, enabled=False):
            sums = [cells.apply(values, weights).to(out.dtype) for cells in self.large]
            return torch.cat((out, *sums)).index_select(0, self.row)


def _groups(sizes: Sizes, limit: int) -> Iterator[slice]:
    """Runs of large crystals whose padded tables have at most ``limit`` entries together."""
    start = 0
    for stop in range(1, len(sizes.nodes) + 1):
        whole = slice(start, stop + 1)
        entries = 4 * int(sizes.atoms[whole].max()) * int(sizes.waves[whole].max())
        if stop == len(sizes.nodes) or entries * (stop + 1 - start) > limit:
            yield slice(start, stop)
            start = stop


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
        self.box = EwaldSum(channels) if mode == "ewald" else None
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
