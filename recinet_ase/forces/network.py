"""The force network: potential energies that are smooth in positions and cell.

The property network's ideas in a form whose derivatives can be trusted: radius graphs with
an envelope that vanishes with two derivatives at the cutoff instead of neighbour shells, no
normalisation that couples structures, smooth activations, and a lattice sum that includes
``G = 0`` with the filter's own value there, which makes it a convolution of finite range:
energies add up over cells, supercells and distant parts.

Distances alone cannot tell a bent chain of neighbours from a straight one, so every block
also forms the moments of the neighbours' directions (spherical harmonics up to l = 3) and
takes their rotation-invariant lengths.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from recinet_ase.elements import N_FEATURES, element_features
from recinet_ase.forces.batch import ForceBatch
from recinet_ase.graph.waves import WaveBasis, wave_table
from recinet_ase.models.files import strict_fields
from recinet_ase.nn.radial import PotentialBasis

_HARMONICS = (3, 5, 7)  # components for l = 1, 2, 3


@dataclass(frozen=True)
class ForceNetworkConfig:
    """Architecture of a force network.

    Attributes:
        width: Node feature width d.
        blocks: Number of blocks.
        cutoff: Radius of the graph in angstrom.
        n_basis: Gaussians of ``-0.75/d``.
        shortest: Distance in angstrom where the first Gaussian sits.
        angular: Channels of the directional moments.
        channels: Channels of the lattice sum; 0 for none.
        k_max: Cutoff of the wave vectors in 1/angstrom.
        n_waves: Radial functions of the reciprocal filter.
        neighbours: Neighbours of an average atom, which scales sums over them.
    """

    width: int = 64
    blocks: int = 3
    cutoff: float = 5.0
    n_basis: int = 20
    shortest: float = 1.4
    angular: int = 16
    channels: int = 16
    k_max: float = 3.0
    n_waves: int = 8
    neighbours: float = 40.0

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ForceNetworkConfig:
        """From a dictionary as `to_dict` gives it.

        Raises:
            ReciNetError: If it has keys that this version does not know.
        """
        return strict_fields(cls, data, "the force network")


def envelope(distance: torch.Tensor, cutoff: float) -> torch.Tensor:
    """``(1 - (d/r)^2)^3`` inside the cutoff, else 0: two vanishing derivatives at the cutoff."""
    return (1 - (distance / cutoff).clamp(max=1.0) ** 2) ** 3


def harmonics(direction: torch.Tensor) -> torch.Tensor:
    """Real spherical harmonics of unit vectors for l = 1, 2, 3, ``[..., 3]`` to ``[..., 15]``.

    Scaled so that the squares of each l add up to one.
    """
    x, y, z = direction.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    r3, r6, r10, r15 = (math.sqrt(n) for n in (3, 6, 10, 15))
    return torch.stack(
        (
            x, y, z,
            r3 * x * y, r3 * y * z, 0.5 * (3 * zz - 1), r3 * x * z, 0.5 * r3 * (xx - yy),
            r10 / 4 * y * (3 * xx - yy), r15 * x * y * z, r6 / 4 * y * (5 * zz - 1),
            0.5 * z * (5 * zz - 3), r6 / 4 * x * (5 * zz - 1), 0.5 * r15 * z * (xx - yy),
            r10 / 4 * x * (xx - 3 * yy),
        ),
        dim=-1,
    )  # fmt: skip


class ForceBlock(nn.Module):
    """One update of the node features from neighbours, their directions, and the lattice.

    Args:
        config: The architecture.
    """

    def __init__(self, config: ForceNetworkConfig) -> None:
        super().__init__()
        self.config = config
        d, a, c = config.width, config.angular, config.channels
        self.sources = nn.Linear(d, d + a)
        self.radial = nn.Linear(config.n_basis, d + len(_HARMONICS) * a, bias=False)
        self.down = nn.Linear(d, c) if c else None
        self.filter = nn.Parameter(torch.randn(config.n_waves, c) / math.sqrt(config.n_waves))
        self.mix = nn.Linear(2 * d + len(_HARMONICS) * a + c, d)
        self.out = nn.Linear(d, d)
        with torch.no_grad():
            self.radial.weight.mul_(2.0)

    def forward(
        self,
        h: torch.Tensor,
        basis: torch.Tensor,
        directions: torch.Tensor,
        batch: ForceBatch,
        tables: list[tuple[torch.Tensor, torch.Tensor]],
    ) -> torch.Tensor:
        """New node features ``[N, d]``.

        Args:
            h: Node features ``[N, d]``.
            basis: Radial functions times the envelope ``[N, K, n_basis]``.
            directions: `harmonics` of the edges ``[N, K, 15]``.
            batch: The graphs.
            tables: For each cell, its wave table ``[n, 2 W + 1]`` and the radial functions of
                the waves with the factor of the sum ``[2 W + 1, R]``.
        """
        d, a = self.config.width, self.config.angular
        scale = 1 / math.sqrt(self.config.neighbours)
        radial = self.radial(basis)
        sources = self.sources(h).index_select(0, batch.neighbour.flatten())
        sources = sources.view(*batch.neighbour.shape, d + a)
        total = (radial[..., :d] * sources[..., :d]).sum(1) * scale
        amounts = radial[..., d:].unflatten(-1, (len(_HARMONICS), a)) * sources[..., None, d:]
        invariants = []
        start = 0
        for i, size in enumerate(_HARMONICS):
            moment = torch.bmm(directions[..., start : start + size].mT, amounts[:, :, i]) * scale
            invariants.append((moment**2).sum(1))
            start += size
        inputs = [h, total, *invariants]
        if self.down is not None:
            inputs.append(self._lattice_sum(functional.silu(self.down(h)), batch, tables))
        update: torch.Tensor = self.out(functional.silu(self.mix(torch.cat(inputs, dim=-1))))
        return h + update

    def _lattice_sum(
        self,
        u: torch.Tensor,
        batch: ForceBatch,
        tables: list[tuple[torch.Tensor, torch.Tensor]],
    ) -> torch.Tensor:
        parts = [
            table @ ((radial @ self.filter) * (table.T @ own))
            for own, (table, radial) in zip(u.split(batch.n_atoms), tables, strict=True)
        ]
        return torch.cat(parts)


class ForceNetwork(nn.Module):
    """Energies of atoms in their neighbourhood and lattice.

    Args:
        config: The architecture.
    """

    element_table: torch.Tensor

    def __init__(self, config: ForceNetworkConfig) -> None:
        super().__init__()
        self.config = config
        table = torch.tensor(element_features(), dtype=torch.get_default_dtype())
        self.register_buffer("element_table", table, persistent=False)
        self.embed = nn.Linear(N_FEATURES, config.width)
        self.edge_basis = PotentialBasis(
            config.n_basis, -0.75 / config.shortest, -0.75 / config.cutoff, 1.0
        )
        self.wave_basis = WaveBasis(config.n_waves, config.k_max)
        self.blocks = nn.ModuleList(ForceBlock(config) for _ in range(config.blocks))
        self.head = nn.Sequential(
            nn.Linear(config.width, config.width), nn.SiLU(), nn.Linear(config.width, 1)
        )

    def forward(
        self, batch: ForceBatch, positions: torch.Tensor, strain: torch.Tensor
    ) -> torch.Tensor:
        """Energy of each atom ``[N]``, in units of the model's scale.

        Args:
            batch: The graphs.
            positions: Cartesian positions in angstrom ``[N, 3]``, by which energies can be
                differentiated.
            strain: Strain of each cell ``[B, 3, 3]``, zero; the same.
        """
        deform = torch.eye(3, dtype=strain.dtype, device=strain.device) + 0.5 * (strain + strain.mT)
        ends = positions.index_select(0, batch.neighbour.flatten()).view(batch.shift.shape)
        vectors = ends + batch.shift - positions[:, None]
        vectors = torch.bmm(vectors, deform.mT.index_select(0, batch.cell))
        distance = torch.linalg.vector_norm(vectors, dim=-1)
        directions = harmonics(vectors / distance[..., None])
        basis = self.edge_basis(distance.flatten()).view(*distance.shape, -1)
        basis = basis * envelope(distance, self.config.cutoff)[..., None]
        tables = self._tables(batch, positions, deform) if self.config.channels else []
        h = self.embed(self.element_table[batch.z])
        for block in self.blocks:
            h = block(h, basis, directions, batch, tables)
        energy: torch.Tensor = self.head(h).squeeze(-1)
        return energy

    def _tables(
        self, batch: ForceBatch, positions: torch.Tensor, deform: torch.Tensor
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Wave tables and filters of each cell; ``G = 0`` is their last column."""
        inverse = torch.linalg.inv(batch.lattice)  # [B, 3, 3]
        # The value comes from exact fractional coordinates, the derivative from the positions.
        moved = (positions - positions.detach()).split(batch.n_atoms)
        frac = batch.frac_coords.split(batch.n_atoms)
        back = torch.linalg.inv(deform)
        volume = batch.volume * torch.linalg.det(deform)
        zero = positions.new_zeros(1)
        found = []
        for b, index in enumerate(batch.waves):
            table = wave_table(frac[b] + moved[b] @ inverse[b], index)
            table = torch.cat((table, table.new_ones(len(table), 1)), dim=-1)
            g = 2 * math.pi * index @ inverse[b].mT @ back[b].mT
            length = torch.cat((torch.linalg.vector_norm(g, dim=-1), zero))
            radial = self.wave_basis(length)
            # Both halves of reciprocal space for the waves, once for G = 0; 20 A^3 an atom.
            factor = torch.cat((2 * torch.ones_like(length[:-1]), zero + 1)) * (20.0 / volume[b])
            weighted = radial * factor[:, None]
            found.append((table, torch.cat((weighted[:-1], weighted[:-1], weighted[-1:]))))
        return found
