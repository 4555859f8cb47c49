"""Our neighbour rules as one of matgl's graph converters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data

from recinet_ase.elements import symbols
from recinet_ase.errors import ReciNetError, StructureError
from recinet_ase.graph.adapters import to_crystal
from recinet_ase.graph.crystal import MINIMUM_DISTANCE, GraphSettings, neighbours_of
from recinet_ase.graph.neighbours import radius_neighbours
from recinet_ase.matgl._base import DEFAULT_ELEMENTS, GraphConverter


class ReciNetGraphConverter(GraphConverter):
    """Crystals to graphs for matgl's data sets, loaders and networks.

    Without a cutoff the graph is ReciNet's (whole shells of neighbours); with one it is matgl's
    own (everything within a radius).

    >>> converter = ReciNetGraphConverter(element_types)
    >>> MGLDataset(structures=structures, labels=labels, converter=converter)

    Beside matgl's fields a graph holds its ``lattice`` ``[1, 3, 3]``, which the reciprocal
    block needs and matgl's networks ignore.

    Args:
        element_types: Elements that ``node_type`` counts; they must be those of the network.
        cutoff: Radius in angstrom.
        settings: Rule of the shells, if there is no cutoff; the shipped models' by default.

    Attributes:
        cutoff: The radius; without one, minus neighbours and tolerance of the shells (a number
            only so that matgl's cache of a data set tells one rule from another).

    Raises:
        ReciNetError: If both rules are given, or the radius is not positive.
    """

    def __init__(
        self,
        element_types: Sequence[str] = DEFAULT_ELEMENTS,
        cutoff: float | None = None,
        settings: GraphSettings | None = None,
    ) -> None:
        if cutoff is not None and (settings is not None or not cutoff > 0):
            raise ReciNetError("give a positive cutoff or the settings of shells, not both")
        self.element_types = tuple(element_types)
        self.settings = None if cutoff else settings or GraphSettings()
        if self.settings is None:
            self.cutoff = float(cutoff or 0.0)
        else:
            self.cutoff = -(self.settings.neighbours + self.settings.tolerance)

    def get_graph(self, structure: Any) -> tuple[Data, torch.Tensor, np.ndarray]:
        """The graph of a crystal.

        Args:
            structure: pymatgen ``Structure``, ASE ``Atoms``, or another accepted structure.

        Returns:
            Graph, lattice ``[1, 3, 3]`` and state attributes (zeros), as matgl's converters do.

        Raises:
            StructureError: If it is no valid crystal, or has an element outside
                ``element_types``.
        """
        crystal = to_crystal(structure)
        names = [symbols()[z] for z in crystal.numbers]
        unknown = sorted(set(names) - set(self.element_types))
        if unknown:
            raise StructureError(f"the converter's element_types lack {', '.join(unknown)}")
        if self.settings is not None:
            found = neighbours_of(crystal, self.settings)
        else:
            found = radius_neighbours(crystal.frac_coords, crystal.lattice, self.cutoff)
            if len(found.distance) and found.distance.min() < MINIMUM_DISTANCE:
                raise StructureError(f"atoms overlap: {found.distance.min():.3f} A apart")
        graph, lattice, state = self.get_graph_from_processed_structure(
            crystal.to_ase(),
            found.centre,
            found.neighbour,
            found.offset,
            crystal.lattice[None],
            self.element_types,
            crystal.frac_coords,
            is_atoms=True,
        )
        graph.lattice = lattice
        return graph, lattice, state
