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
from recinet_ase.graph.wave_sums import wave_table
from recinet_ase.graph.waves import WaveBasis
from recinet_ase.models.files import strict_fields
from recinet_ase.nn.radial import PotentialBasis

_HARMONICS = (3, 5, 7)  # components for l = 1, 2, 3
_STRAIN_ROOM = 1.02

WaveTable = tuple[torch.Tensor, torch.Tensor]
"""Cosines, sines and a one of a group's atoms and waves ``[b, A, 2 W + 1]``, and the radial
functions of these waves with the factor of the sum ``[b, 2 W + 1, R]``."""


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
        products: Multiply what arrives at an atom by functions of the atom itself, and moments of
            different channels with one another.
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
    products: bool = False

    @property
    def wave_cutoff(self) -> float:
        """Waves are listed up to here, 1/angstrom; 0 for none.

        This is a little beyond the cutoff, where they count nothing, so that a graph stays good
        under the small strains that stresses are derivatives by.
        """
        return _STRAIN_ROOM * self.k_max if self.channels else 0.0

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
        if config.products:
            self.gate = nn.Linear(d, d + len(_HARMONICS) * a)
            self.pairs = nn.Parameter(torch.randn(len(_HARMONICS), a, a) / math.sqrt(a))
        with torch.no_grad():
            self.radial.weight.mul_(2.0)
            if config.products:
                self.pairs.mul_(0.5).add_(torch.eye(a))

    def forward(
        self,
        h: torch.Tensor,
        basis: torch.Tensor,
        directions: torch.Tensor,
        batch: ForceBatch,
        tables: list[WaveTable],
    ) -> torch.Tensor:
        """New node features ``[N, d]``.

        Args:
            h: Node features ``[N, d]``.
            basis: Radial functions times the envelope ``[N, K, n_basis]``.
            directions: `harmonics` of the edges ``[N, K, 15]``.
            batch: The graphs.
            tables: The waves of the cells, group by group.
        """
        d, a = self.config.width, self.config.angular
        scale = 1 / math.sqrt(self.config.neighbours)
        sources = self.sources(h).index_select(0, batch.neighbour.flatten())
        sources = sources.view(*batch.neighbour.shape, d + a)
        # The sum over neighbours before the weights of the radial functions: [N, n_basis, d].
        sums = torch.bmm(basis.mT, sources[..., :d])
        total = (sums * self.radial.weight[:d].T).sum(1) * scale
        radial = functional.linear(basis, self.radial.weight[d:])
        amounts = radial.unflatten(-1, (len(_HARMONICS), a)) * sources[..., None, d:]
        invariants = []
        start = 0
        for i, size in enumerate(_HARMONICS):
            moment = torch.bmm(directions[..., start : start + size].mT, amounts[:, :, i]) * scale
            other = moment @ self.pairs[i] if self.config.products else moment
            invariants.append((moment * other).sum(1))
            start += size
        arrived = torch.cat((total, *invariants), dim=-1)
        if self.config.products:
            arrived = arrived * (1 + self.gate(h))
        inputs = [h, arrived]
        if self.down is not None:
            inputs.append(self._lattice_sum(functional.silu(self.down(h)), batch, tables))
        update: torch.Tensor = self.out(functional.silu(self.mix(torch.cat(inputs, dim=-1))))
        return h + update

    def _lattice_sum(
        self, u: torch.Tensor, batch: ForceBatch, tables: list[WaveTable]
    ) -> torch.Tensor:
        parts = []
        for group, (table, radial) in zip(batch.waves, tables, strict=True):
            cells, c = len(table), u.shape[1]
            own = u.new_zeros(cells * group.size, c).index_copy(0, group.place, u[group.atoms])
            sums = torch.bmm(table.mT, own.view(cells, group.size, c))
            found = torch.bmm(table, (radial @ self.filter) * sums)
            parts.append(found.flatten(0, 1).index_select(0, group.place))
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
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Energy of each atom ``[N]``, in units of the model's scale, and its features ``[N, d]``.

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
        return self.head(h).squeeze(-1), h

    def _tables(
        self, batch: ForceBatch, positions: torch.Tensor, deform: torch.Tensor
    ) -> list[WaveTable]:
        """Wave tables and filters of each group; ``G = 0`` is the last column."""
        inverse = torch.linalg.inv(batch.lattice)  # [B, 3, 3]
        # The value comes from exact fractional coordinates, the derivative from the positions.
        moved = torch.bmm(
            (positions - positions.detach())[:, None], inverse.index_select(0, batch.cell)
        ).squeeze(1)
        frac = batch.frac_coords + moved
        back = torch.linalg.inv(deform)
        volume = batch.volume * determinant(deform)
        found = []
        for group in batch.waves:
            cells = len(group.index)
            own = frac.new_zeros(cells * group.size, 3).index_copy(
                0, group.place, frac[group.atoms]
            )
            table = wave_table(own.view(cells, group.size, 3), group.index)
            table = torch.cat((table, table.new_ones(*table.shape[:2], 1)), dim=-1)
            g = 2 * math.pi * group.index @ (back[group.cells] @ inverse[group.cells]).mT
            length = torch.linalg.vector_norm(g, dim=-1)
            length = torch.cat((length, length.new_zeros(cells, 1)), dim=1)
            radial = self.wave_basis(length.flatten()).unflatten(0, length.shape)
            # Both halves of reciprocal space for the waves, once for G = 0; 20 A^3 an atom.
            factor = (20.0 / volume[group.cells])[:, None, None]
            waves, zero = radial[:, :-1] * (2 * factor), radial[:, -1:] * factor
            found.append((table, torch.cat((waves, waves, zero), dim=1)))
        return found


def determinant(matrix: torch.Tensor) -> torch.Tensor:
    """Determinants of ``[B, 3, 3]`` by the rule of Sarrus, twice differentiable in any mode.

    The derivative of ``torch.linalg.det`` makes an identity matrix of torch's default type.
    """
    a, b, c = matrix.unbind(1)
    return (a * torch.linalg.cross(b, c)).sum(-1)
