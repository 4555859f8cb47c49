"""The reciprocal block: long-range message passing through the lattice (eq. 7-10).

Four readings are available:

* ``"lattice"`` (default): filters of ``|G|`` over all reciprocal lattice vectors up to a
  cutoff, plus the ``G = 0`` term; invariant to every description of the same crystal;
* ``"mean"``: the ``G = 0`` term alone, a virtual node;
* ``"literal"``: equations (8)-(9) as printed, with the three basis vectors for k and the
  phase ``k.f``. Neither rotation nor choice of cell leaves it unchanged; it exists for
  comparison and must not be shipped;
* ``"none"``: no block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from recinet_ase.graph.crystal import CrystalBatch
from recinet_ase.graph.waves import (
    WaveBasis,
    Waves,
    filtered_sum,
    half_space_waves,
    pair_kernels,
    wave_table,
)

MODES = ("lattice", "mean", "literal", "none")

# Above this size the two matrix products of the wave sum cost less than all pairs of atoms;
# both are the same function. Waves go crystal by crystal, pairs all at once, which suits GPUs.
_PAIR_ATOMS = {"cpu": 12}
_PAIR_ATOMS_ELSEWHERE = 32

_TABLE_LIMIT = 16_000_000  # cosines and sines kept for the layers of a batch


def crystal_mean(values: torch.Tensor, batch: CrystalBatch) -> torch.Tensor:
    """Weighted mean over the atoms of each crystal, ``[N, C]`` to ``[B, C]``."""
    weight = batch.atom_weight[:, None].to(values.dtype)
    shape = (batch.n_crystals, values.shape[1])
    total = values.new_zeros(shape).index_add(0, batch.crystal, values * weight)
    norm = values.new_zeros(shape[0], 1).index_add(0, batch.crystal, weight)
    return total / norm


@dataclass(frozen=True)
class LargeCell:
    """A crystal whose waves are summed themselves.

    Attributes:
        atoms: Its place in the batch.
        frac_coords: Fractional coordinates ``[N, 3]``.
        index: Wave indices ``[W, 3]``.
        radial: Radial basis values ``[W, R]``.
        table: Its `wave_table`, shared by all layers, unless it is too large to keep.
    """

    atoms: slice
    frac_coords: torch.Tensor
    index: torch.Tensor
    radial: torch.Tensor
    table: torch.Tensor | None


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
        assert batch.frac_coords is not None and batch.lattice is not None
        waves = half_space_waves(batch.lattice, basis.k_max)
        n_atoms = torch.bincount(batch.crystal, minlength=batch.n_crystals)
        radial = basis.of_waves(waves, torch.linalg.det(batch.lattice).abs() / n_atoms)
        small = n_atoms <= _PAIR_ATOMS.get(batch.z.device.type, _PAIR_ATOMS_ELSEWHERE)
        if bool(small.all()):
            return cls(*pair_kernels(batch.frac_coords, waves, n_atoms, radial))
        last_atom, last_wave = torch.cumsum(n_atoms, 0), torch.cumsum(waves.count, 0)
        large, room = [], _TABLE_LIMIT
        for b in torch.nonzero(~small).flatten().tolist():
            atoms = slice(int(last_atom[b] - n_atoms[b]), int(last_atom[b]))
            found = slice(int(last_wave[b] - waves.count[b]), int(last_wave[b]))
            cell = (batch.frac_coords[atoms], waves.index[found])
            entries = 2 * len(cell[0]) * len(cell[1])
            table = wave_table(*cell) if entries <= room else None
            room -= 0 if table is None else entries
            large.append(LargeCell(atoms, *cell, radial[found], table))
        atom_at = torch.nonzero(small[batch.crystal]).flatten()
        wave_at = torch.nonzero(small[waves.crystal]).flatten()
        some = Waves(
            waves.index[wave_at], waves.crystal[wave_at], waves.length[wave_at], waves.count[small]
        )
        if bool(small.any()):
            i, j, kernel = pair_kernels(
                batch.frac_coords[atom_at], some, n_atoms[small], radial[wave_at]
            )
            i, j = atom_at[i], atom_at[j]
        else:
            i = j = atom_at
            kernel = radial.new_zeros(0, radial.shape[1])
        return cls(i, j, kernel, tuple(large))

    def __call__(self, values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """``(2/N) sum_half phi_c(|G|) [cos_i A_c + sin_i B_c]`` with ``phi_c = sum_r w_rc psi_r``.

        Args:
            values: Atom features ``[N, C]``.
            weights: Filter weights ``[R, C]``.

        Returns:
            ``[N, C]``; exactly zero for a crystal without waves in range.
        """
        messages = (self.pair_kernel @ weights) * values.index_select(0, self.pair_neighbour)
        out = torch.zeros_like(values).index_add(0, self.pair_centre, messages)
        with torch.autocast(values.device.type, enabled=False):
            for cell in self.large:
                filters = cell.radial @ weights
                update = filtered_sum(
                    cell.frac_coords, cell.index, filters, values[cell.atoms], cell.table
                )
                out[cell.atoms] = update / len(cell.frac_coords)
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
        total = weighted.new_zeros(batch.n_crystals, *weighted.shape[1:])
        total = total.index_add(0, batch.crystal, weighted)
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
        mode: ``"lattice"``, ``"mean"`` or ``"literal"``.
    """

    def __init__(self, width: int, channels: int, n_radial: int, mode: str) -> None:
        super().__init__()
        self.mode = mode
        self.norm = nn.LayerNorm(width)
        self.down = nn.Linear(width, channels)
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
        mean = crystal_mean(u, batch)[batch.crystal]
        if self.mode == "mean":
            return self.up(mean)
        assert lattice_sum is not None
        return self.up(torch.cat((lattice_sum(u, self.filter), mean), dim=-1))
