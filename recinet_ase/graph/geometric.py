"""`CrystalGraph`: a neighbour graph as a PyTorch Geometric ``Data`` object.

Its fields have the names of matgl's graphs where matgl has one. Predictions and training do
without it, since importing PyTorch Geometric takes as long as importing torch.
"""

from __future__ import annotations

import numpy as np
import torch
from torch_geometric.data import Data

from recinet_ase.graph.crystal import Crystal, GraphSettings, neighbours_of


class CrystalGraph(Data):  # type: ignore[misc]
    """Neighbour graph of one crystal, a PyTorch Geometric ``Data``.

    ``edge_index[0]`` is the receiving atom ``i`` (matgl's central atom) and
    ``edge_index[1]`` its neighbour ``j``; the vector of an edge is
    ``pos[j] + pbc_offshift - pos[i]``. Edges are sorted by receiving atom.

    Fields (N atoms, E edges):
        z: Atomic numbers, int64 ``[N]``.
        node_type: ``z - 1``, the index into the periodic table, int64 ``[N]``.
        frac_coords: Fractional coordinates in [0, 1), ``[N, 3]``.
        pos: Cartesian coordinates in angstrom, ``[N, 3]``.
        lattice: Lattice vectors as rows in angstrom, ``[1, 3, 3]``.
        edge_index: Receiving and neighbouring atom, int64 ``[2, E]``.
        pbc_offset: Lattice translation of the neighbour, ``[E, 3]``.
        pbc_offshift: The same in angstrom, ``[E, 3]``.
        edge_distance: Edge lengths in angstrom, ``[E]``.
        atom_weight: Atoms that each node stands for: ones, ``[N]``.
        edge_count: Edges that each edge stands for: ones, ``[E]``.
    """


def build_graph(
    crystal: Crystal,
    settings: GraphSettings | None = None,
    dtype: torch.dtype = torch.float32,
) -> CrystalGraph:
    """The neighbour graph of a crystal.

    Args:
        crystal: A checked crystal.
        settings: Neighbour rule; the model's own (`GraphSettings`) by default.
        dtype: Type of coordinates and distances (the search itself runs in float64).

    Raises:
        StructureError: For overlapping or isolated atoms.
    """
    shells = neighbours_of(crystal, settings)
    n_atoms, n_edges = len(crystal), len(shells.centre)
    z = torch.from_numpy(crystal.numbers)
    kind = np.float64 if dtype == torch.float64 else np.float32  # numpy casts small arrays faster
    floats = {
        "frac_coords": crystal.frac_coords,
        "pos": crystal.frac_coords @ crystal.lattice,
        "lattice": crystal.lattice[None],
        "pbc_offset": shells.offset,
        "pbc_offshift": shells.offset @ crystal.lattice,
        "edge_distance": shells.distance,
    }
    return CrystalGraph(
        z=z,
        node_type=z - 1,
        edge_index=torch.from_numpy(np.stack((shells.centre, shells.neighbour))),
        atom_weight=torch.ones(n_atoms, dtype=dtype),
        edge_count=torch.ones(n_edges, dtype=dtype),
        num_nodes=n_atoms,
        **{key: torch.from_numpy(value.astype(kind)) for key, value in floats.items()},
    )
