"""Adapters, checks, fields and batching of crystal graphs."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from bad_structures import BAD
from pymatgen.core import Lattice, Molecule, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from support import full_graphs, graph_of, random_model
from torch_geometric.loader import DataLoader

from recinet_ase import StructureError
from recinet_ase.graph.adapters import to_crystal
from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.graph.geometric import build_graph


def test_ase_pymatgen_and_jarvis_give_one_graph(crystals: dict[str, Atoms]) -> None:
    for atoms in list(crystals.values())[:15]:
        structure = AseAtomsAdaptor.get_structure(atoms)
        record = {
            "jid": "x",
            "atoms": {
                "lattice_mat": atoms.cell.array.tolist(),
                "coords": atoms.get_scaled_positions().tolist(),
                "elements": [f"{s} " for s in atoms.get_chemical_symbols()],  # JARVIS pads
                "cartesian": False,
            },
        }
        cartesian = {
            **record["atoms"],
            "coords": atoms.positions.tolist(),
            "cartesian": True,
        }
        reference = graph_of(atoms, torch.float64)
        for other in (structure, structure.copy(), record, cartesian):
            graph = build_graph(to_crystal(other), dtype=torch.float64)
            assert torch.equal(graph.z, reference.z)
            torch.testing.assert_close(
                graph.edge_distance.sort().values,
                reference.edge_distance.sort().values,
                rtol=0,
                atol=1e-9,
            )


def test_back_to_ase(crystals: dict[str, Atoms]) -> None:
    for atoms in list(crystals.values())[:5]:
        twin = to_crystal(atoms).to_ase()
        assert (twin.numbers == atoms.numbers).all() and twin.pbc.all()
        np.testing.assert_allclose(twin.get_volume(), atoms.get_volume())


def test_fields_follow_matgl(crystals: dict[str, Atoms]) -> None:
    atoms = crystals["ClNa"] if "ClNa" in crystals else next(iter(crystals.values()))
    graph = graph_of(atoms)
    n, e = len(atoms), graph.num_edges
    assert graph.frac_coords.shape == (n, 3)
    assert graph.lattice.shape == (1, 3, 3)
    assert graph.edge_index.shape == (2, e)
    assert graph.pbc_offset.shape == graph.pbc_offshift.shape == (e, 3)
    assert torch.equal(graph.node_type, graph.z - 1)
    assert torch.equal(graph.atom_weight, torch.ones(n))
    assert torch.equal(graph.edge_count, torch.ones(e))
    i, j = graph.edge_index
    vectors = graph.pos[j] + graph.pbc_offshift - graph.pos[i]
    torch.testing.assert_close(vectors.norm(dim=1), graph.edge_distance, rtol=1e-5, atol=1e-5)
    assert graph.frac_coords.dtype == torch.float32
    assert graph_of(atoms, torch.float64).edge_distance.dtype == torch.float64


def test_batches_of_pytorch_geometric(crystals: dict[str, Atoms]) -> None:
    structures = list(crystals.values())[:6]
    model = random_model()
    loader = DataLoader([graph_of(atoms) for atoms in structures], batch_size=4)
    with torch.no_grad():
        looped = torch.cat([model(CrystalBatch.from_data(data)) for data in loader])
        torch.testing.assert_close(looped, model(full_graphs(structures)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", BAD)
def test_bad_structures_are_named(name: str) -> None:
    atoms, message = BAD[name]
    with pytest.raises(StructureError, match=message):
        build_graph(to_crystal(atoms))


OCCUPANCY = {"0": {"Cu": 0.6, "Au": 0.4}}


def test_a_disordered_cif_through_ase(tmp_path: Path) -> None:
    alloy = Structure(Lattice.cubic(3.9), [{"Cu": 0.6, "Au": 0.4}], [[0, 0, 0]])
    alloy.to(filename=str(tmp_path / "alloy.cif"))
    with pytest.raises(StructureError, match="disordered"):
        to_crystal(ase.io.read(tmp_path / "alloy.cif"))
    ordered = Structure(Lattice.cubic(3.9), ["Cu"], [[0, 0, 0]])
    ordered.to(filename=str(tmp_path / "ordered.cif"))
    assert len(to_crystal(ase.io.read(tmp_path / "ordered.cif"))) == 1


def test_pymatgen_refusals() -> None:
    with pytest.raises(StructureError, match="no periodicity"):
        to_crystal(Molecule(["O", "H"], [[0, 0, 0], [0, 0, 1]]))
    alloy = Structure(Lattice.cubic(3.6), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]])
    with pytest.raises(StructureError, match="site 0 is disordered"):
        to_crystal(alloy)
    with pytest.raises(StructureError, match="Au 0.4"):
        to_crystal(Atoms("Cu", cell=[3, 3, 3], pbc=True, info={"occupancy": OCCUPANCY}))
    slab = Structure(Lattice(np.eye(3) * 4, pbc=(True, True, False)), ["Cu"], [[0, 0, 0]])
    with pytest.raises(StructureError, match="pbc=TTF"):
        to_crystal(slab)


def test_oxidation_states_are_ignored() -> None:
    plain = Structure(Lattice.cubic(4.2), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    charged = plain.copy()
    charged.add_oxidation_state_by_element({"Cs": 1, "Cl": -1})
    assert (to_crystal(plain).numbers == to_crystal(charged).numbers).all()


def test_foreign_objects() -> None:
    with pytest.raises(TypeError, match="cannot read a crystal from list"):
        to_crystal([1, 2, 3])
    with pytest.raises(StructureError, match="lacks coords, elements"):
        to_crystal({"lattice_mat": np.eye(3)})
    with pytest.raises(StructureError, match="atom 0 is 'Qq'"):
        to_crystal({"lattice_mat": np.eye(3) * 4, "coords": [[0, 0, 0]], "elements": ["Qq"]})
