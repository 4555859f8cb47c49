"""Graphs from matgl to here and back.

Both keep an edge as (centre, neighbour): messages are gathered on ``edge_index[0]``, and the
vector of an edge is ``pos[edge_index[1]] + pbc_offshift - pos[edge_index[0]]``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch_geometric.data import Data

from recinet_ase.elements import symbols
from recinet_ase.errors import StructureError, UnknownNameError
from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.graph.crystal import Crystal, GraphSettings
from recinet_ase.graph.geometric import CrystalGraph, build_graph


def atomic_numbers(element_types: Sequence[str]) -> torch.Tensor:
    """Atomic number of each element of matgl's ``element_types``, int64.

    Raises:
        UnknownNameError: For what is no element's symbol.
    """
    known = symbols()
    for symbol in element_types:
        if symbol not in known[1:]:
            raise UnknownNameError("element", str(symbol), known[1:])
    return torch.tensor([known.index(symbol) for symbol in element_types])


def crystal_batch(graph: Data, numbers: torch.Tensor) -> CrystalBatch:
    """What the network consumes, from one matgl graph or a batch of them.

    Args:
        graph: With ``lattice`` ``[B, 3, 3]`` beside matgl's own fields.
        numbers: Atomic number of each ``node_type``, from `atomic_numbers`.

    Raises:
        StructureError: If the graph has no lattice.
    """
    lattice = getattr(graph, "lattice", None)
    if lattice is None:
        raise StructureError(
            "the graph has no lattice, which the reciprocal block needs: make graphs with "
            "ReciNetGraphConverter, or set graph.lattice to the converter's second answer"
        )
    lattice = lattice.reshape(-1, 3, 3)
    crystal = getattr(graph, "batch", None)
    if crystal is None:
        crystal = torch.zeros(len(graph.frac_coords), dtype=torch.long, device=lattice.device)
    centre, neighbour = graph.edge_index.long()
    offset = graph.pbc_offset.to(lattice.dtype)
    if len(centre) > 1 and bool((centre[1:] < centre[:-1]).any()):
        order = torch.argsort(centre, stable=True)
        centre, neighbour, offset = centre[order], neighbour[order], offset[order]
    frac = graph.frac_coords.to(lattice.dtype)
    # The difference first: it keeps the digits that large coordinates would take.
    steps = frac[neighbour] - frac[centre] + offset
    vector = torch.einsum("ek,ekx->ex", steps, lattice[crystal[centre]])
    return CrystalBatch(
        z=numbers.to(lattice.device)[graph.node_type],
        crystal=crystal,
        centre=centre,
        neighbour=neighbour,
        distance=vector.norm(dim=1),
        atom_weight=torch.ones_like(frac[:, 0]),
        edge_count=torch.ones_like(offset[:, 0]),
        n_crystals=len(lattice),
        frac_coords=frac,
        lattice=lattice,
    )


def from_matgl_graph(
    graph: Data,
    lattice: torch.Tensor | None = None,
    *,
    element_types: Sequence[str],
    settings: GraphSettings | None = None,
) -> CrystalGraph:
    """A graph of one of matgl's converters as a `CrystalGraph`.

    Args:
        graph: Of one crystal, with matgl's fields ``node_type``, ``frac_coords``,
            ``edge_index`` and ``pbc_offset``.
        lattice: Lattice vectors as rows in angstrom ``[1, 3, 3]``, the converter's second
            answer; not needed where the graph holds it.
        element_types: The converter's elements, which ``node_type`` counts.
        settings: Find the edges anew by this rule (a model's ``config.graph``). By default the
            graph's own edges are kept; a shipped model was trained on its own rule, and means
            nothing on others.

    Raises:
        StructureError: If there is no lattice, more than one crystal, or no valid crystal.
        UnknownNameError: If ``element_types`` holds what is no element.
    """
    if lattice is not None:
        graph = graph.clone()
        graph.lattice = lattice
    batch = crystal_batch(graph, atomic_numbers(element_types))
    if batch.n_crystals != 1 or batch.frac_coords is None or batch.lattice is None:
        raise StructureError(f"one crystal is needed, and the graph holds {batch.n_crystals}")
    if settings is not None:
        crystal = Crystal.from_arrays(
            batch.z.cpu().numpy(),
            batch.frac_coords.double().cpu().numpy(),
            batch.lattice[0].double().cpu().numpy(),
        )
        return build_graph(crystal, settings, batch.lattice.dtype)
    # Wrapped coordinates, as every graph here has them, and offsets that go with them.
    shift = torch.floor(batch.frac_coords)
    frac = batch.frac_coords - shift
    order = torch.argsort(graph.edge_index[0].long(), stable=True)
    offset = graph.pbc_offset[order].to(frac.dtype)
    offset = offset - shift[batch.centre] + shift[batch.neighbour]
    return CrystalGraph(
        z=batch.z,
        node_type=batch.z - 1,
        frac_coords=frac,
        pos=frac @ batch.lattice[0],
        lattice=batch.lattice,
        edge_index=torch.stack((batch.centre, batch.neighbour)),
        pbc_offset=offset,
        pbc_offshift=offset @ batch.lattice[0],
        edge_distance=batch.distance,
        atom_weight=batch.atom_weight,
        edge_count=batch.edge_count,
        num_nodes=len(batch.z),
    )


def to_matgl_graph(
    graph: CrystalGraph, *, element_types: Sequence[str]
) -> tuple[Data, torch.Tensor, np.ndarray]:
    """A `CrystalGraph` as matgl's converters give it.

    Args:
        graph: The graph.
        element_types: Elements that ``node_type`` is to count; those of the matgl model.

    Returns:
        Graph (with ``pos`` and ``pbc_offshift``, which matgl's networks read, and ``lattice``),
        lattice ``[1, 3, 3]`` and state attributes, in matgl's types (int32 and float32).

    Raises:
        StructureError: If the graph has other elements.
        UnknownNameError: If ``element_types`` holds what is no element.
    """
    place = {int(z): i for i, z in enumerate(atomic_numbers(element_types))}
    unknown = sorted({int(z) for z in graph.z} - set(place))
    if unknown:
        listed = ", ".join(symbols()[z] for z in unknown)
        raise StructureError(f"element_types has no {listed}")
    lattice = graph.lattice.float()
    data = Data(
        num_nodes=len(graph.z),
        edge_index=graph.edge_index.to(torch.int32),
        pbc_offset=graph.pbc_offset.float(),
        node_type=torch.tensor([place[int(z)] for z in graph.z]),
        frac_coords=graph.frac_coords.float(),
        pos=graph.pos.float(),
        pbc_offshift=graph.pbc_offshift.float(),
        lattice=lattice,
    )
    return data, lattice, np.zeros(2, dtype=np.float32)
