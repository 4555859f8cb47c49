"""MEGNet and M3GNet on our radius graphs against matgl's own: relative differences.

python benchmarks/graphs/matgl_graphs.py

Random weights of six seeds, the first twelve crystals of examples/crystals.json. Both graphs
have the same edges in another order, so the answers differ by rounding alone: in single
precision as far as a near-zero answer magnifies it, in double precision hardly.
"""

from __future__ import annotations

import copy
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from ase.db import connect
from matgl.config import DEFAULT_ELEMENTS
from matgl.ext.pymatgen import Structure2Graph
from matgl.graph.converters import GraphConverter
from matgl.models import M3GNet, MEGNet
from pymatgen.io.ase import AseAtomsAdaptor

from recinet_ase.matgl import ReciNetGraphConverter

CRYSTALS = Path(__file__).parents[2] / "examples" / "crystals.json"
SEEDS, COUNT = 6, 12


def in_double(network: torch.nn.Module, converter: GraphConverter, structure: Any) -> torch.Tensor:
    """What ``predict_structure`` does, in double precision."""
    graph, lattice, state = converter.get_graph(structure)
    graph = graph.apply(lambda x: x.double() if x.is_floating_point() else x)
    graph.pos = graph.frac_coords @ lattice[0].double()
    graph.pbc_offshift = graph.pbc_offset @ lattice[0].double()
    with torch.no_grad():
        return network(graph, state_attr=torch.tensor(state).double())


def main() -> None:
    rows = islice(connect(CRYSTALS).select(), COUNT)
    structures = [AseAtomsAdaptor.get_structure(row.toatoms()) for row in rows]
    ours = ReciNetGraphConverter(DEFAULT_ELEMENTS, cutoff=5.0)
    theirs = Structure2Graph(DEFAULT_ELEMENTS, cutoff=5.0)
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        for network in (
            MEGNet(cutoff=5.0, element_types=DEFAULT_ELEMENTS).eval(),
            M3GNet(cutoff=5.0, threebody_cutoff=4.0, element_types=DEFAULT_ELEMENTS).eval(),
        ):
            single = [
                torch.stack([network.predict_structure(s, graph_converter=c) for s in structures])
                for c in (theirs, ours)
            ]
            network.feature_dict = {}  # tensors with gradients cannot be copied
            precise = copy.deepcopy(network).double()
            double = [
                torch.stack([in_double(precise, c, s) for s in structures]) for c in (theirs, ours)
            ]
            found = (float(((a - b) / a).abs().max()) for a, b in (single, double))
            print(f"seed {seed} {type(network).__name__:7}", *(f"{x:.1e}" for x in found))


if __name__ == "__main__":
    main()
