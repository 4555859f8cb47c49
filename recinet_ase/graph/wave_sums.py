"""Sums over reciprocal lattice vectors, by crystal or for whole batches of padded crystals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from recinet_ase.graph.segments import first_rows
from recinet_ase.graph.upload import upload
from recinet_ase.graph.waves import Waves

_TABLE_LIMIT = 4_000_000  # elements of an atoms-by-waves table

# Elements of a block of padded crystals: few enough to stay in a core's cache, which also
# pads less; many on a GPU, where every block is a call.
_BLOCK_LIMIT = {"cpu": 250_000}

_BLOCK_LIMIT_ELSEWHERE = 32_000_000


def phases(frac_coords: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """``2 pi n.f`` for atoms ``[..., N, 3]`` and waves ``[..., W, 3]``, shape ``[..., N, W]``.

    Whole turns are dropped before the multiplication with 2 pi, which keeps float32
    phases good for high waves. No matrix product is used: those run in reduced precision
    under autocast and ``torch.set_float32_matmul_precision``.
    """
    turns = sum(frac_coords[..., :, None, i] * index[..., None, :, i] for i in range(3))
    assert isinstance(turns, torch.Tensor)
    return 2 * math.pi * (turns - torch.round(turns))


def wave_table(frac_coords: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Cosines, then sines, of all phases, ``[..., N, 2 W]``."""
    angle = phases(frac_coords, index)
    return torch.cat((torch.cos(angle), torch.sin(angle)), dim=-1)


@dataclass(frozen=True)
class Members:
    """The atoms behind nodes that stand for several atoms each.

    Attributes:
        frac_coords: Fractional coordinates of all atoms ``[M, 3]``.
        node: Node that each belongs to, int64, ascending ``[M]``.
    """

    frac_coords: torch.Tensor
    node: torch.Tensor


class Sizes(NamedTuple):
    """How many rows each crystal of a batch has, as the host knows it; int64 ``[B]`` each.

    A GPU that had to be asked would have to finish all its work first.
    """

    nodes: np.ndarray
    atoms: np.ndarray
    waves: np.ndarray

    @classmethod
    def of(cls, waves: Waves, nodes: torch.Tensor, atoms: torch.Tensor | None = None) -> Sizes:
        """From counts as tensors; every node is an atom if no atoms are given."""
        counts = torch.stack((nodes, nodes if atoms is None else atoms, waves.count))
        return cls(*counts.cpu().numpy())


class PaddedCells(NamedTuple):
    """Some crystals of a batch, filled up to one size (b crystals, n nodes, m atoms, w waves).

    Attributes:
        node_at: Positions of their nodes in the batch ``[b, n]``.
        node_mask: Which of them are there ``[b, n]``.
        n_atoms: Number of their atoms ``[b]``.
        wave_at, wave_mask: The same for their waves ``[b, w]``.
        table: `wave_table` of the nodes ``[b, n, 2 w]``.
        total: Its sum over the atoms of each node (the same where these are one).
    """

    node_at: torch.Tensor
    node_mask: torch.Tensor
    n_atoms: torch.Tensor
    wave_at: torch.Tensor
    wave_mask: torch.Tensor
    table: torch.Tensor
    total: torch.Tensor


class CellTables:
    """Wave tables of crystals of a batch, in blocks of like size.

    Args:
        frac_coords: Fractional coordinates of all nodes ``[N, 3]``.
        waves: Waves of the crystals.
        sizes: Sizes of all crystals.
        members: All atoms, where nodes stand for several.
        crystals: Those that are wanted, in order.
    """

    def __init__(
        self,
        frac_coords: torch.Tensor,
        waves: Waves,
        sizes: Sizes,
        members: Members | None,
        crystals: np.ndarray,
    ) -> None:
        self.frac_coords, self.waves, self.members = frac_coords, waves, members
        self.sizes = Sizes(*(count[crystals] for count in sizes))
        first = [(np.cumsum(count) - count)[crystals] for count in sizes]
        layout = torch.from_numpy(np.stack((*first, *self.sizes)))
        self._layout = upload(layout, frac_coords.device)
        self._first_member = None
        if members is not None:
            self._first_member = first_rows(members.node, len(frac_coords))

    def block(self, some: slice) -> PaddedCells:
        """Those at the given places."""
        n, m, w = (max(1, int(count[some].max())) for count in self.sizes)
        first_node, first_atom, first_wave, n_nodes, n_atoms, n_waves = self._layout[:, some]
        mask, node_at = _padded(first_node, n_nodes, n)
        wave_mask, wave_at = _padded(first_wave, n_waves, w)
        index = self.waves.index[wave_at]
        table = total = wave_table(self.frac_coords[node_at], index)
        if self.members is not None:
            assert self._first_member is not None
            atom_mask, atom_at = _padded(first_atom, n_atoms, m)
            every = wave_table(self.members.frac_coords[atom_at], index)
            # A node's atoms follow one another; nodes that only fill up have none.
            row = m * torch.arange(len(mask), device=mask.device)[:, None]
            start = self._first_member[node_at] - first_atom[:, None] + row
            total = functional.embedding_bag(
                torch.arange(every.shape[0] * m, device=mask.device),
                every.flatten(0, 1),
                torch.where(mask, start, row + m).flatten(),
                mode="sum",
                per_sample_weights=atom_mask.flatten().to(every.dtype),
            ).view_as(table)
        return PaddedCells(node_at, mask, n_atoms, wave_at, wave_mask, table, total)


def filtered_sum(
    frac_coords: torch.Tensor,
    index: torch.Tensor,
    filter_values: torch.Tensor,
    values: torch.Tensor,
    members: Members | None = None,
) -> torch.Tensor:
    """``2 sum_half phi(|G|) [cos_i A + sin_i B]`` for one crystal (eq. 8-9, made invariant).

    ``A = sum_j cos_j u_j`` and ``B = sum_j sin_j u_j`` are the structure factors. The
    result is not divided by the number of atoms.

    Args:
        frac_coords: Fractional coordinates ``[N, 3]``.
        index: Half-space wave indices ``[W, 3]``.
        filter_values: Filter of each wave and channel ``[W, C]`` (or ``[W, 1]``).
        values: Atom features ``[N, C]``.
        members: All atoms, where each of the N stands for several.

    Returns:
        ``[N, C]``; exactly zero if there are no waves.
    """
    out = torch.zeros_like(values)
    sources = frac_coords if members is None else members.frac_coords
    spread = values if members is None else values[members.node]
    # Blocks of waves keep the table of atoms by waves small for cells of any size.
    step = max(1, _TABLE_LIMIT // len(sources))
    for start in range(0, len(index), step):
        block = slice(start, start + step)
        from_all = wave_table(sources, index[block])
        to_nodes = from_all if members is None else wave_table(frac_coords, index[block])
        out = out + to_nodes @ (filter_values[block].repeat(2, 1) * (from_all.T @ spread))
    return 2 * out


def pair_kernels(
    frac_coords: torch.Tensor,
    waves: Waves,
    sizes: Sizes,
    basis: torch.Tensor,
    members: Members | None = None,
    chosen: np.ndarray | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Real-space kernels ``K_r(i, j) = (2/N) sum_half psi_r(|G|) cos(G.(r_i - r_j))``.

    For a filter ``phi_c = sum_r w_rc psi_r`` the filtered sum is
    ``sum_j sum_r w_rc K_r(i, j) u_jc``: the waves are needed once a crystal, not
    once a layer. Where nodes stand for several atoms, j runs over the nodes and the kernel
    is summed over the atoms of each.

    Args:
        frac_coords: Fractional coordinates of all nodes ``[N, 3]``.
        waves: Waves of the crystals.
        sizes: Sizes of the crystals.
        basis: Radial functions at each wave ``[W, R]``.
        members: All atoms, where nodes stand for several.
        chosen: The crystals that are wanted, ascending; all of them by default.

    Returns:
        ``(i, j, K)``: node pairs ``[P]``, ``[P]`` (all pairs of each crystal, sorted by
        ``i``) and kernels ``[P, R]``.
    """
    n_radial, device = basis.shape[1], frac_coords.device
    chosen = np.arange(len(sizes.nodes)) if chosen is None else chosen
    # Crystals of like size share padded blocks.
    rank = np.argsort((sizes.waves * sizes.atoms)[chosen], kind="stable")
    cells = CellTables(frac_coords, waves, sizes, members, chosen[rank])
    limit = _BLOCK_LIMIT.get(device.type, _BLOCK_LIMIT_ELSEWHERE)
    parts: list[torch.Tensor] = []
    base, width = np.zeros(len(chosen), np.int64), np.zeros(len(chosen), np.int64)
    rows = 0
    for block in _kernel_blocks(cells.sizes, n_radial, limit):
        n = int(cells.sizes.nodes[block].max())
        b = block.stop - block.start
        if len(basis):
            _, _, n_atoms, wave_at, wave_mask, trig, total = cells.block(block)
            w = wave_at.shape[1]
            # cos(G.r_i) cos(G.r_j) + sin(G.r_i) sin(G.r_j), summed over the atoms of node j
            cosines = trig[:, :, None, :w] * total[:, None, :, :w]
            cross = torch.addcmul(cosines, trig[:, :, None, w:], total[:, None, :, w:])
            weight = basis[wave_at] * wave_mask[..., None]  # [b, w, R]
            kernel = (cross.flatten(1, 2) @ weight) * (2.0 / n_atoms.to(weight))[:, None, None]
            parts.append(kernel.flatten(0, 1))
        else:
            parts.append(frac_coords.new_zeros(b * n * n, n_radial))
        width[rank[block]] = n
        base[rank[block]] = rows + n * n * np.arange(b)
        rows += b * n * n
    # Which row of the padded blocks each pair is, in the order of crystals and nodes.
    count = sizes.nodes[chosen]
    first = (np.cumsum(sizes.nodes) - sizes.nodes)[chosen]
    start = np.cumsum(count**2) - count**2
    places = upload(torch.from_numpy(np.stack((count, first, start, base, width))), device)
    n_pairs = int((count**2).sum())
    owner = torch.repeat_interleave(places[0] ** 2, output_size=n_pairs)
    n_of, first_node, start_of, base_of, width_of = places[:, owner]
    place = torch.arange(n_pairs, device=device) - start_of
    i = place // n_of
    j = place - i * n_of
    kernels = torch.cat(parts) if parts else frac_coords.new_zeros(0, n_radial)
    return first_node + i, first_node + j, kernels[base_of + i * width_of + j]


def _kernel_blocks(sizes: Sizes, n_radial: int, limit: int) -> Iterator[slice]:
    """Runs of crystals whose padded tables and kernels fit a block together."""
    nodes, atoms, waves = (count.tolist() for count in sizes)
    start = n = m = w = 0
    for stop in range(len(nodes)):
        more = max(n, nodes[stop]), max(m, atoms[stop]), max(w, waves[stop])
        size = max(more[0] ** 2 * max(more[2], n_radial), 2 * more[1] * more[2])
        if stop > start and (stop - start + 1) * size > limit:
            yield slice(start, stop)
            start, more = stop, (nodes[stop], atoms[stop], waves[stop])
        n, m, w = more
    if nodes:
        yield slice(start, len(nodes))


def _padded(
    first: torch.Tensor, count: torch.Tensor, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask ``[b, width]`` of real entries, and their positions in the flat arrays."""
    column = torch.arange(width, device=first.device)
    mask = column < count[:, None]
    return mask, torch.where(mask, first[:, None] + column, 0)
