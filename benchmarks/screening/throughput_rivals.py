"""What `throughput.py` runs in a rival's interpreter; prints one line of json."""

from __future__ import annotations

import json
import sys
import time
import warnings
from importlib.metadata import version
from typing import Any

from ase.db import connect

WARM_UP = 8  # structures that are not timed: first calls compile and allocate


def chgnet(path: str) -> dict[str, Any]:
    """``predict_structure`` of a list, energies only, in its default batches."""
    from chgnet.model import CHGNet
    from pymatgen.io.ase import AseAtomsAdaptor

    model = CHGNet.load(use_device="cpu", verbose=False)

    def predict(limit: int | None = None) -> Any:
        rows = connect(path).select(limit=limit)
        structures = [AseAtomsAdaptor.get_structure(row.toatoms()) for row in rows]
        return model.predict_structure(structures, task="e")

    predict(WARM_UP)
    start = time.perf_counter()
    answers = predict()
    seconds = time.perf_counter() - start
    what = f"CHGNet 0.3.0 (chgnet {version('chgnet')}), energies"
    return {"what": what, "structures": len(answers), "seconds": seconds}


def megnet(path: str) -> dict[str, Any]:
    """Matgl's MEGNet (random weights), ``predict_structure`` one by one."""
    from matgl.models import MEGNet
    from pymatgen.io.ase import AseAtomsAdaptor

    model = MEGNet(cutoff=5.0).eval()

    def predict(limit: int | None = None) -> int:
        n = 0
        for row in connect(path).select(limit=limit):
            model.predict_structure(AseAtomsAdaptor.get_structure(row.toatoms()))
            n += 1
        return n

    predict(WARM_UP)
    start = time.perf_counter()
    n = predict()
    seconds = time.perf_counter() - start
    what = f"MEGNet (matgl {version('matgl')}, random weights)"
    return {"what": what, "structures": n, "seconds": seconds}


def alignn(path: str) -> dict[str, Any]:
    """ALIGNN's published size (random weights): the steps of its calculator, without forces."""
    import torch
    from alignn.ff.calculators import ase_to_atoms
    from alignn.graphs import Graph
    from alignn.models.alignn_atomwise_pure import ALIGNNAtomWisePure, ALIGNNAtomWisePureConfig

    config = ALIGNNAtomWisePureConfig(
        name="alignn_atomwise_pure", alignn_layers=4, gcn_layers=4, atom_input_features=92,
        hidden_features=256, calculate_gradient=False,
    )  # fmt: skip
    model = ALIGNNAtomWisePure(config).eval()

    @torch.no_grad()
    def predict(limit: int | None = None) -> int:
        n = 0
        for row in connect(path).select(limit=limit):
            atoms = row.toatoms()
            graph, lines = Graph.atom_dgl_multigraph(
                ase_to_atoms(atoms), neighbor_strategy="pure_torch", cutoff=8.0, max_neighbors=12,
                atom_features="cgcnn", use_canonize=True,
            )  # fmt: skip
            lattice = torch.tensor(atoms.cell.array, dtype=torch.get_default_dtype())
            model((graph, lines, lattice))
            n += 1
        return n

    predict(WARM_UP)
    start = time.perf_counter()
    n = predict()
    seconds = time.perf_counter() - start
    million = sum(p.numel() for p in model.parameters()) / 1e6
    what = f"ALIGNN {version('alignn')} ({million:.1f} M parameters, random weights)"
    return {"what": what, "structures": n, "seconds": seconds}


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    print(
        json.dumps({"chgnet": chgnet, "megnet": megnet, "alignn": alignn}[sys.argv[1]](sys.argv[2]))
    )
