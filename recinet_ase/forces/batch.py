"""Radius graphs of many cells in one set of tensors, differentiable in positions and strain.

Every atom has as many places for neighbours as the atom with most of them, so that sums over
neighbours are matrix products. The places left over hold the atom itself, far beyond any
cutoff, where the envelope and its derivatives are exactly zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from recinet_ase.errors import StructureError
from recinet_ase.graph.crystal import MINIMUM_DISTANCE, Crystal
from recinet_ase.graph.neighbours import radius_neighbours
from recinet_ase.graph.waves import half_space_waves

_FAR = 1000.0  # angstrom


@dataclass(frozen=True)
class ForceGraph:
    """One cell's neighbours and waves, as arrays (N atoms, E edges, W waves).

    Attributes:
        numbers: Atomic numbers ``[N]``.
        positions: Cartesian positions in angstrom ``[N, 3]``.
        frac_coords: Fractional coordinates ``[N, 3]``.
        lattice: Lattice vectors as rows, angstrom ``[3, 3]``.
        edge_index: Receiving and neighbouring atom of each edge ``[2, E]``, sorted.
        shift: Lattice translation of the neighbour in angstrom ``[E, 3]``.
        waves: Indices of half of the reciprocal lattice vectors within the cutoff ``[W, 3]``.
    """

    numbers: np.ndarray
    positions: np.ndarray
    frac_coords: np.ndarray
    lattice: np.ndarray
    edge_index: np.ndarray
    shift: np.ndarray
    waves: np.ndarray

    @classmethod
    def build(cls, crystal: Crystal, cutoff: float, k_max: float) -> ForceGraph:
        """The graph of a checked crystal.

        ``k_max`` should exceed the network's own cutoff a little if the cell is going to be
        strained with the graph kept.

        Raises:
            StructureError: For overlapping atoms, or an atom without neighbours in the cutoff.
        """
        found = radius_neighbours(crystal.frac_coords, crystal.lattice, cutoff)
        if len(found.distance) and found.distance.min() < MINIMUM_DISTANCE:
            at = int(found.distance.argmin())
            raise StructureError(
                f"atoms {int(found.centre[at])} and {int(found.neighbour[at])} overlap: "
                f"{found.distance[at]:.3f} A apart, less than {MINIMUM_DISTANCE} A"
            )
        lonely = np.setdiff1d(np.arange(len(crystal)), found.centre)
        if len(lonely):
            raise StructureError(
                f"atom {int(lonely[0])} is isolated: it has no neighbour within {cutoff} A, and "
                "no model here was trained on free atoms or molecules"
            )
        waves = half_space_waves(torch.from_numpy(crystal.lattice)[None], k_max)
        return cls(
            numbers=crystal.numbers,
            positions=crystal.frac_coords @ crystal.lattice,
            frac_coords=crystal.frac_coords,
            lattice=crystal.lattice,
            edge_index=np.stack((found.centre, found.neighbour)),
            shift=found.offset @ crystal.lattice,
            waves=waves.index.numpy(),
        )


@dataclass(frozen=True)
class ForceBatch:
    """Graphs of many cells (N atoms, K places for neighbours, B cells).

    Attributes:
        z: Atomic numbers ``[N]``.
        cell: Cell of each atom ``[N]``, ascending.
        n_atoms: Atoms of each cell.
        positions: Cartesian positions in angstrom ``[N, 3]``.
        frac_coords: Fractional coordinates in [0, 1) ``[N, 3]``.
        lattice: Lattice vectors as rows, angstrom ``[B, 3, 3]``.
        neighbour: Neighbours of each atom ``[N, K]``.
        shift: Lattice translations of the neighbours in angstrom ``[N, K, 3]``.
        waves: Wave indices of each cell ``[W, 3]``.
    """

    z: torch.Tensor
    cell: torch.Tensor
    n_atoms: tuple[int, ...]
    positions: torch.Tensor
    frac_coords: torch.Tensor
    lattice: torch.Tensor
    neighbour: torch.Tensor
    shift: torch.Tensor
    waves: tuple[torch.Tensor, ...]

    @property
    def volume(self) -> torch.Tensor:
        """Cell volumes in angstrom^3 ``[B]``."""
        return torch.linalg.det(self.lattice).abs()

    @classmethod
    def join(
        cls,
        graphs: Sequence[ForceGraph],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> ForceBatch:
        """Several graphs as one batch."""
        n_atoms = tuple(len(g.numbers) for g in graphs)
        starts = np.cumsum([0, *n_atoms[:-1]])
        centre, other = np.concatenate(
            [g.edge_index + start for g, start in zip(graphs, starts, strict=True)], axis=1
        )
        total = sum(n_atoms)
        count = np.bincount(centre, minlength=total)
        place = np.arange(len(centre)) - np.repeat(np.cumsum(count) - count, count)
        neighbour = np.repeat(np.arange(total)[:, None], count.max(), axis=1)
        neighbour[centre, place] = other
        shift = np.full((*neighbour.shape, 3), _FAR)
        shift[centre, place] = np.concatenate([g.shift for g in graphs])

        def whole(values: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(values).to(device)

        def real(values: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(values).to(device=device, dtype=dtype)

        return cls(
            z=whole(np.concatenate([g.numbers for g in graphs])),
            cell=whole(np.repeat(np.arange(len(graphs)), n_atoms)),
            n_atoms=n_atoms,
            positions=real(np.concatenate([g.positions for g in graphs])),
            frac_coords=real(np.concatenate([g.frac_coords for g in graphs])),
            lattice=real(np.stack([g.lattice for g in graphs])),
            neighbour=whole(neighbour),
            shift=real(shift),
            waves=tuple(real(g.waves) for g in graphs),
        )
