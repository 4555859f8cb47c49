"""Radius graphs of many cells in one set of tensors, differentiable in positions and strain.

Every atom has as many places for neighbours as the atom with most of them, so that sums over
neighbours are matrix products. The places left over hold the atom itself, far beyond any
cutoff, where the envelope and its derivatives are exactly zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from recinet_ase.errors import StructureError
from recinet_ase.graph.crystal import MINIMUM_DISTANCE, Crystal
from recinet_ase.graph.neighbours import radius_neighbours
from recinet_ase.graph.upload import upload
from recinet_ase.graph.waves import half_space_waves

_FAR = 1000.0  # angstrom
_FAR_WAVE = 997.0  # turns: far beyond any cutoff, with phases as good as any
_WASTE, _SMALL = 2, 20_000  # a group may be filled up to so many times its atoms times waves


@dataclass(frozen=True)
class ForceGraph:
    """One cell's neighbours, as arrays (N atoms, E edges).

    Attributes:
        numbers: Atomic numbers ``[N]``.
        positions: Cartesian positions in angstrom ``[N, 3]``.
        frac_coords: Fractional coordinates ``[N, 3]``.
        lattice: Lattice vectors as rows, angstrom ``[3, 3]``.
        edge_index: Receiving and neighbouring atom of each edge ``[2, E]``, sorted.
        shift: Lattice translation of the neighbour in angstrom ``[E, 3]``.
        k_max: Reciprocal lattice vectors up to here are listed, 1/angstrom; 0 for none.
    """

    numbers: np.ndarray
    positions: np.ndarray
    frac_coords: np.ndarray
    lattice: np.ndarray
    edge_index: np.ndarray
    shift: np.ndarray
    k_max: float

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
        return cls(
            numbers=crystal.numbers,
            positions=crystal.frac_coords @ crystal.lattice,
            frac_coords=crystal.frac_coords,
            lattice=crystal.lattice,
            edge_index=np.stack((found.centre, found.neighbour)),
            shift=found.offset @ crystal.lattice,
            k_max=k_max,
        )


@dataclass(frozen=True)
class WaveGroup:
    """Cells of a batch whose waves are taken together, filled up to the largest of them.

    Attributes:
        cells: Which cells of the batch.
        atoms: Which atoms of the batch.
        place: Place of each of these atoms among ``b A``, cell by cell, int64 ``[n]``.
        size: Places for atoms in a cell, A.
        index: Indices of half of the reciprocal lattice vectors, ``[b, W, 3]``. What fills up is
            far beyond any cutoff, where filters and their derivatives are exactly zero.
    """

    cells: slice
    atoms: slice
    place: torch.Tensor
    size: int
    index: torch.Tensor


def wave_groups(lattice: torch.Tensor, n_atoms: Sequence[int], k_max: float) -> list[WaveGroup]:
    """The waves of a batch's cells, in groups that waste little.

    Args:
        lattice: Lattice vectors as rows, angstrom ``[B, 3, 3]``.
        n_atoms: Atoms of each cell.
        k_max: Cutoff in 1/angstrom.

    Raises:
        StructureError: If a cell is so large or skewed that its waves would not fit memory.
    """
    waves = half_space_waves(lattice, k_max)
    count = waves.count.tolist()
    first = np.cumsum([0, *n_atoms])
    from_wave = np.cumsum([0, *count])
    groups, start = [], 0
    atoms = rows = used = 0
    for cell, (n, w) in enumerate(zip(n_atoms, count, strict=True)):
        filled = (cell + 1 - start) * max(atoms, n) * max(rows, w, 1)
        if cell > start and filled > _WASTE * (used + n * max(w, 1)) + _SMALL:
            groups.append((start, cell))
            start, atoms, rows, used = cell, 0, 0, 0
        atoms, rows, used = max(atoms, n), max(rows, w), used + n * max(w, 1)
    groups.append((start, len(count)))
    found = []
    for a, b in groups:
        size, rows = max(n_atoms[a:b]), max(count[a:b])
        index = lattice.new_full((b - a, rows, 3), _FAR_WAVE)
        own = np.repeat(np.arange(b - a), count[a:b])
        at = np.arange(from_wave[a], from_wave[b]) - from_wave[a:b][own]
        index[own, at] = waves.index[from_wave[a] : from_wave[b]]
        of_atom = np.repeat(np.arange(b - a), n_atoms[a:b])
        place = np.arange(first[a], first[b]) - first[a:b][of_atom] + size * of_atom
        where = torch.from_numpy(place).to(lattice.device)
        found.append(
            WaveGroup(slice(a, b), slice(int(first[a]), int(first[b])), where, size, index)
        )
    return found


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
        waves: Waves of the cells, in the order of the batch; none where the network has no sum.
    """

    z: torch.Tensor
    cell: torch.Tensor
    n_atoms: tuple[int, ...]
    positions: torch.Tensor
    frac_coords: torch.Tensor
    lattice: torch.Tensor
    neighbour: torch.Tensor
    shift: torch.Tensor
    waves: tuple[WaveGroup, ...]

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

        k_max = max(g.k_max for g in graphs)
        exact = torch.from_numpy(np.stack([g.lattice for g in graphs]))
        waves = wave_groups(exact, n_atoms, k_max) if k_max else []

        def whole(values: np.ndarray) -> torch.Tensor:
            return upload(torch.from_numpy(values), device)

        def real(values: np.ndarray) -> torch.Tensor:
            return upload(torch.from_numpy(values).to(dtype), device)

        return cls(
            z=whole(np.concatenate([g.numbers for g in graphs])),
            cell=whole(np.repeat(np.arange(len(graphs)), n_atoms)),
            n_atoms=n_atoms,
            positions=real(np.concatenate([g.positions for g in graphs])),
            frac_coords=real(np.concatenate([g.frac_coords for g in graphs])),
            lattice=real(np.stack([g.lattice for g in graphs])),
            neighbour=whole(neighbour),
            shift=real(shift),
            waves=tuple(
                replace(
                    group,
                    index=upload(group.index.to(dtype), device),
                    place=upload(group.place, device),
                )
                for group in waves
            ),
        )
