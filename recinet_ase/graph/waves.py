"""Reciprocal lattice vectors, radial functions of their length, and sums over them.

The invariant reading of the paper's equations (8)-(9): the transform runs over
*all* reciprocal lattice vectors ``G = 2 pi n L^-T`` up to a cutoff, and filters
depend on ``|G|`` alone. Such a sum does not change under rotation, translation,
wrapping, permutation of atoms, choice of cell or supercell. With Ewald's filter
it is the reciprocal part of the Ewald sum.

Since ``G`` and ``-G`` contribute the same, sums run over half of reciprocal space.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from recinet_ase.errors import StructureError, UnknownNameError
from recinet_ase.graph.segments import first_rows
from recinet_ase.graph.upload import upload

REFERENCE_VOLUME = 20.0
"""Volume per atom in angstrom^3 at which sums per volume and per atom are the same."""

WAVE_NORMS = ("volume", "atom")
"""What a lattice sum is divided by: the cell's volume, as Ewald's, or the number of atoms."""

_GRID_LIMIT = 4_000_000  # index triples looked at together
_TABLE_LIMIT = 4_000_000  # elements of an atoms-by-waves table
# Elements of a block of padded crystals: few enough to stay in a core's cache, which also
# pads less; many on a GPU, where every block is a call.
_BLOCK_LIMIT = {"cpu": 250_000}
_BLOCK_LIMIT_ELSEWHERE = 32_000_000
_LARGEST_GRID = 20_000_000  # index triples of a single cell


@dataclass(frozen=True)
class Waves:
    """Half-space wave vectors of a batch of lattices, sorted by crystal.

    Attributes:
        index: Integer indices n of each wave, ``[W, 3]`` (floating point type).
        crystal: Crystal that each wave belongs to, int64 ``[W]``.
        length: ``|G|`` in 1/angstrom, ``[W]``.
        count: Waves of each crystal, int64 ``[B]`` (zero is allowed).
    """

    index: torch.Tensor
    crystal: torch.Tensor
    length: torch.Tensor
    count: torch.Tensor

    def to(self, target: torch.device | str | torch.dtype) -> Waves:
        """The waves on another device, or of another floating point type."""
        if isinstance(target, torch.dtype):
            return replace(self, index=self.index.to(target), length=self.length.to(target))
        return Waves(*(upload(getattr(self, f.name), target) for f in fields(self)))

    def select(self, crystals: torch.Tensor) -> Waves:
        """The waves of the crystals at the given positions (int64 ``[b]``), in that order."""
        count = self.count[crystals]
        first = (torch.cumsum(self.count, 0) - self.count)[crystals]
        crystal = torch.repeat_interleave(torch.arange(len(crystals), device=count.device), count)
        start = torch.cumsum(count, 0) - count
        rows = torch.arange(len(crystal), device=count.device) + (first - start)[crystal]
        return Waves(self.index[rows], crystal, self.length[rows], count)


class WaveBasis(nn.Module):
    """Gaussians of ``|G|`` under an envelope that falls smoothly to zero at ``k_max``.

    The envelope ``(1 - x^2)^3`` has two vanishing derivatives at the cutoff, so that a
    wave enters or leaves without a jump as the cell is strained. Each function is
    multiplied by ``5 / (1 + k_r^2)``: the number of waves at length k grows as k^2, and without
    the factor the many short waves would drown the few long ones (Ewald's filter
    falls off in the same way). The 5 brings the kernels of real crystals to order one.

    Sums over waves are divided by the number of atoms. With ``norm="volume"`` every
    function is multiplied by ``20 A^3 / (volume per atom)``, which turns that into a
    division by the volume, as in Ewald's sum: what a given pair of atoms contributes
    through the continuum of short waves then no longer depends on the density.

    Args:
        size: Number of functions R.
        k_max: Cutoff in 1/angstrom.
        norm: ``"volume"`` or ``"atom"``.
    """

    centres: torch.Tensor

    def __init__(self, size: int, k_max: float, norm: str = "volume") -> None:
        super().__init__()
        if norm not in WAVE_NORMS:
            raise UnknownNameError("wave norm", norm, WAVE_NORMS)
        self.k_max, self.norm = k_max, norm
        spacing = k_max / size
        centres = spacing * torch.arange(1, size + 1, dtype=torch.get_default_dtype())
        self.register_buffer("centres", centres, persistent=False)
        self.gamma = 1.0 / (2 * spacing**2)

    def forward(self, length: torch.Tensor) -> torch.Tensor:
        """Wave-vector lengths in 1/angstrom ``[W]`` to basis values ``[W, R]``."""
        envelope = (1 - (length / self.k_max).clamp(max=1.0) ** 2) ** 3
        gauss = torch.exp(-self.gamma * (length[:, None] - self.centres) ** 2)
        return gauss * envelope[:, None] * (5.0 / (1 + self.centres**2))

    def of_waves(self, waves: Waves, atom_volume: torch.Tensor) -> torch.Tensor:
        """Basis values of the waves of a batch, for sums divided by the number of atoms.

        Args:
            waves: The waves.
            atom_volume: Volume per atom of each crystal in angstrom^3, ``[B]``.

        Returns:
            ``[W, R]``.
        """
        values: torch.Tensor = self(waves.length)
        if self.norm == "volume":
            values = values * (REFERENCE_VOLUME / atom_volume)[waves.crystal, None]
        return values


def half_space_waves(lattice: torch.Tensor, k_max: float) -> Waves:
    """All ``G != 0`` with ``|G| <= k_max``, one of each pair ``G, -G``.

    Args:
        lattice: Lattice vectors as rows, angstrom, ``[B, 3, 3]``.
        k_max: Cutoff in 1/angstrom.

    Raises:
        StructureError: If a cell is so large or skewed that its waves would not fit memory.
    """
    lengths = torch.linalg.norm(lattice, dim=-1)
    # |n_i| = |G . l_i| / 2 pi <= k_max |l_i| / 2 pi for any cell, however skewed.
    bounds = torch.floor(k_max * lengths / (2 * math.pi) + 1e-6).long()
    reciprocal = 2 * math.pi * torch.linalg.inv(lattice).transpose(-1, -2)  # rows b_i
    parts = []
    # Crystals are taken in groups, so that one long cell does not set everyone's grid.
    sizes = (bounds[:, 0] + 1) * (2 * bounds[:, 1] + 1) * (2 * bounds[:, 2] + 1)
    if int(sizes.max()) > _LARGEST_GRID:
        longest = float(lengths[sizes.argmax()].max())
        raise StructureError(
            f"the cell (longest edge {longest:.0f} A) has too many reciprocal lattice vectors; "
            "use its Niggli-reduced or primitive cell"
        )
    order = torch.argsort(sizes)
    for group in _groups(bounds[order].tolist()):
        members = order[group]
        m = bounds[members].amax(0).tolist()
        axes = [torch.arange(-m[i] if i else 0, m[i] + 1, device=lattice.device) for i in range(3)]
        grid = torch.cartesian_prod(*axes).to(lattice.dtype)
        n1, n2, n3 = grid.unbind(-1)
        half = (n1 > 0) | ((n1 == 0) & ((n2 > 0) | ((n2 == 0) & (n3 > 0))))
        grid = grid[half]
        length = torch.linalg.norm(_product(grid, reciprocal[members].mT), dim=-1)  # [b, W]
        which, wave = torch.nonzero(length <= k_max, as_tuple=True)
        parts.append((members[which], grid[wave], length[which, wave]))
    crystal = torch.cat([p[0] for p in parts])
    by_crystal = torch.argsort(crystal, stable=True)
    return Waves(
        index=torch.cat([p[1] for p in parts])[by_crystal],
        crystal=crystal[by_crystal],
        length=torch.cat([p[2] for p in parts])[by_crystal],
        count=torch.bincount(crystal, minlength=len(lattice)),
    )


def _groups(bounds: list[list[int]]) -> list[slice]:
    """Slices of a size-sorted list whose common grid stays within the memory limit."""

    def size(m: list[int]) -> int:
        return (m[0] + 1) * (2 * m[1] + 1) * (2 * m[2] + 1)

    groups, start, top = [], 0, bounds[0]
    for i, row in enumerate(bounds):
        merged = [max(pair) for pair in zip(top, row, strict=True)]
        grid = size(merged)
        # One large cell must not set the grid of many small ones either.
        wasteful = grid > 4 * size(bounds[start])
        if i > start and (wasteful or grid * (i - start + 1) > _GRID_LIMIT):
            groups.append(slice(start, i))
            start, merged = i, row
        top = merged
    groups.append(slice(start, len(bounds)))
    return groups


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


def _product(vectors: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """``vectors @ rows^T`` in full precision, ``[W, 3]`` and ``[b, 3, 3]`` to ``[b, W, 3]``."""
    total = sum(vectors[None, :, None, i] * rows[:, None, :, i] for i in range(3))
    assert isinstance(total, torch.Tensor)
    return total


def _padded(
    first: torch.Tensor, count: torch.Tensor, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask ``[b, width]`` of real entries, and their positions in the flat arrays."""
    column = torch.arange(width, device=first.device)
    mask = column < count[:, None]
    return mask, torch.where(mask, first[:, None] + column, 0)
