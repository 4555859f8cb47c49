"""What the uncertainty of a prediction is judged by: intensive, invariant descriptors.

Every descriptor is the same for any description of one crystal (cell, supercell, order of
atoms, rotation) to float32 precision, because it is a mean, a minimum or a maximum over
atoms, or a ratio of lengths.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

import torch

from recinet_ase.elements import MAX_Z, covalent_radii
from recinet_ase.graph.batch import CrystalBatch

GEOMETRY = (
    "log_volume",
    "shortest_bond",
    "mean_bond",
    "loneliest_bond",
    "mean_coordination",
    "lowest_coordination",
    "highest_coordination",
    "mean_shell",
    "tightest_shell",
)
"""Names of the geometric descriptors, the columns of `Descriptors.geometry`."""


@dataclass(frozen=True)
class Descriptors:
    """Descriptors of a batch of crystals, float64 on the CPU.

    Attributes:
        latent: The network's crystal representation ``[B, d]``.
        output: Predictions in units before they are clipped to a physical bound ``[B, P]``.
        geometry: Geometric descriptors ``[B, len(GEOMETRY)]``: log of the volume per atom
            (angstrom^3); bond lengths in units of the sum of covalent radii (shortest bond
            of all, mean and largest of the atoms' own shortest); effective coordination
            numbers (mean, lowest, highest), the sum of ``(d_min / d)^6`` over an atom's
            neighbours; log of the volume per atom inside the neighbour shells over that of
            the cell (mean, lowest), which is low where a crystal has voids or vacuum.
        composition: Share of each element, by atomic number ``[B, 104]``.
        spread: Standard deviation of an ensemble's members, in units ``[B, P]``; of a single
            network ``[B, 0]``.
    """

    latent: torch.Tensor
    output: torch.Tensor
    geometry: torch.Tensor
    composition: torch.Tensor
    spread: torch.Tensor

    def __len__(self) -> int:
        return len(self.latent)

    def __getitem__(self, rows: torch.Tensor | slice) -> Descriptors:
        """The chosen crystals."""
        return Descriptors(*(getattr(self, f.name)[rows] for f in fields(self)))

    @classmethod
    def join(cls, parts: list[Descriptors]) -> Descriptors:
        """Several batches as one."""
        return cls(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(cls)))


@lru_cache(maxsize=1)
def _radii() -> torch.Tensor:
    return torch.tensor(covalent_radii())


def composition_of(batch: CrystalBatch) -> torch.Tensor:
    """Share of each element in the crystals of a batch, by atomic number ``[B, 104]``."""
    weight, n = batch.atom_weight.double(), batch.n_crystals
    place = batch.crystal * (MAX_Z + 1) + batch.z
    counts = weight.new_zeros(n * (MAX_Z + 1)).index_add(0, place, weight).reshape(n, -1)
    return counts / counts.sum(1, keepdim=True)


def geometry_of(batch: CrystalBatch) -> torch.Tensor:
    """The geometric descriptors of the crystals of a batch, ``[B, len(GEOMETRY)]``.

    Args:
        batch: Graphs with their lattices, which give the volume.
    """
    if batch.lattice is None:
        raise ValueError("descriptors need full graphs (reduce=False)")
    weight, crystal, n = batch.atom_weight.double(), batch.crystal, batch.n_crystals
    z, distance = batch.z, batch.distance.double()
    n_atoms = weight.new_zeros(n).index_add(0, crystal, weight)

    def atoms_to_crystal(values: torch.Tensor, how: str) -> torch.Tensor:
        if how == "mean":
            return values.new_zeros(n).index_add(0, crystal, values * weight) / n_atoms
        return values.new_zeros(n).scatter_reduce(0, crystal, values, how, include_self=False)

    def edges_to_atom(values: torch.Tensor, how: str) -> torch.Tensor:
        if how == "sum":
            return values.new_zeros(len(z)).index_add(0, batch.centre, values)
        zeros = values.new_zeros(len(z))
        return zeros.scatter_reduce(0, batch.centre, values, how, include_self=False)

    volume = torch.linalg.det(batch.lattice.double()).abs() / n_atoms
    radius = _radii()[z]
    bond = edges_to_atom(distance / (radius[batch.centre] + radius[batch.neighbour]), "amin")
    nearest, farthest = edges_to_atom(distance, "amin"), edges_to_atom(distance, "amax")
    count = batch.edge_count.double()
    coordination = edges_to_atom(count * (nearest[batch.centre] / distance) ** 6, "sum")
    shell = farthest**3 / edges_to_atom(count, "sum")
    shell = torch.log(4.18879 * shell / volume[crystal])
    columns = [
        torch.log(volume),
        *(atoms_to_crystal(bond, how) for how in ("amin", "mean", "amax")),
        *(atoms_to_crystal(coordination, how) for how in ("mean", "amin", "amax")),
        *(atoms_to_crystal(shell, how) for how in ("mean", "amin")),
    ]
    return torch.stack(columns, dim=1)
