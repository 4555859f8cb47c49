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
from dataclasses import dataclass, fields, replace

import torch
from torch import nn

from recinet_ase.errors import StructureError, UnknownNameError
from recinet_ase.graph.upload import upload

REFERENCE_VOLUME = 20.0
"""Volume per atom in angstrom^3 at which sums per volume and per atom are the same."""

WAVE_NORMS = ("volume", "atom")
"""What a lattice sum is divided by: the cell's volume, as Ewald's, or the number of atoms."""

_GRID_LIMIT = 4_000_000  # index triples looked at together
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


def _product(vectors: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """``vectors @ rows^T`` in full precision, ``[W, 3]`` and ``[b, 3, 3]`` to ``[b, W, 3]``."""
    total = sum(vectors[None, :, None, i] * rows[:, None, :, i] for i in range(3))
    assert isinstance(total, torch.Tensor)
    return total
