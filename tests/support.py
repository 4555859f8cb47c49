"""What tests share: example files, small models with random weights, random crystals."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from hypothesis import assume
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch_geometric.data import Batch

from recinet_ase.graph.adapters import to_crystal
from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.graph.crystal import neighbours_of
from recinet_ase.graph.geometric import CrystalGraph, build_graph
from recinet_ase.graph.refinement import TRAINING, FlatGraphs, reduce_graphs
from recinet_ase.graph.waves import WaveBasis
from recinet_ase.models.property_model import ModelConfig, PropertyModel
from recinet_ase.nn.pooling import AttentionPooling
from recinet_ase.nn.recinet import SIZES
from recinet_ase.pretrained import model_card
from recinet_ase.properties import PROPERTIES

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples" / "crystals.json"
FIXTURES = Path(__file__).parent / "fixtures"


@lru_cache(maxsize=1)
def _fixture() -> dict[str, Any]:
    return json.loads(gzip.decompress((FIXTURES / "validation.json.gz").read_bytes()))


def validation_sample(name: str, prop: str = "") -> tuple[list[dict[str, Any]], list[float]]:
    """Crystals (JARVIS dictionaries) of a shipped model's validation set, and their labels."""
    card = model_card(name)
    dataset = card["training"]["dataset"]
    labels = _fixture()["labels"][f"{dataset}/{prop or card['properties'][0]}"]
    return [_fixture()["structures"][f"{dataset}/{key}"] for key in labels], [*labels.values()]


def graph_of(atoms: Any, dtype: torch.dtype = torch.float32) -> CrystalGraph:
    return build_graph(to_crystal(atoms), dtype=dtype)


def full_graphs(structures: Iterable[Atoms], dtype: torch.dtype = torch.float32) -> CrystalBatch:
    """Structures in one batch, every atom a node of its own."""
    return CrystalBatch.from_data(Batch.from_data_list([graph_of(a, dtype) for a in structures]))


def kernel_batch(
    structures: Sequence[Any], basis: WaveBasis, dtype: torch.dtype = torch.float32
) -> CrystalBatch:
    """Reduced graphs as training has them: with kernels, and in double precision until the end."""
    crystals = [to_crystal(a) for a in structures]
    flat = FlatGraphs.join(crystals, [neighbours_of(c) for c in crystals])
    batch = reduce_graphs(flat, basis.k_max, torch.float64, TRAINING).with_kernels(basis.double())
    real = ("distance", "atom_weight", "edge_count", "pair_kernel")
    return replace(batch, **{key: getattr(batch, key).to(dtype) for key in real})


def random_model(
    size: str = "tiny",
    properties: tuple[str, ...] = ("bandgap",),
    seed: int = 0,
    elements: tuple[int, ...] = tuple(range(1, 95)),
    **network: Any,
) -> PropertyModel:
    """A model with random weights whose outputs depend on every part of the network."""
    torch.manual_seed(seed)
    infos = [PROPERTIES[name] for name in properties]
    config = ModelConfig(
        name="random",
        properties=properties,
        units=tuple(info.unit for info in infos),
        mean=tuple(5.0 for _ in infos),
        std=tuple(2.0 for _ in infos),
        elements=elements,
        network=replace(SIZES[size], outputs=len(infos), **network),
        functional=tuple("none" for _ in infos),
    )
    model = PropertyModel(config)
    with torch.no_grad():
        for name, buffer in model.network.named_buffers():
            if "running_mean" in name:
                buffer.normal_(0, 0.3)
            elif "running_var" in name:
                buffer.uniform_(0.5, 2.0)
        for block in model.network.reciprocal_blocks:
            block.up.weight.mul_(5)  # long-range terms large enough to be seen
        if isinstance(model.network.pool, AttentionPooling):
            model.network.pool.score.weight.normal_(0, 1)  # it starts as the plain mean
    return model.eval()


def write_jarvis_folder(
    root: Path,
    atoms_list: list[Atoms],
    task: str,
    offset: int = 0,
    repeat_in_train: bool = False,
) -> None:
    """A data folder in the publishers' formats, with volume per atom for a label.

    The label is a real function of the structure, so that a network can learn it.

    Args:
        root: Data root, made if needed.
        atoms_list: The crystals.
        task: File stem of the split.
        offset: Rotate the ids before splitting them.
        repeat_in_train: Repeat a test id in the training set, as two official files do.
    """
    folder = root / "jarvis"
    (folder / "splits").mkdir(parents=True, exist_ok=True)
    records, labels = [], {}
    for i, atoms in enumerate(atoms_list):
        jid = f"JVASP-{i}"
        labels[jid] = atoms.get_volume() / len(atoms) / 10
        records.append(
            {
                "jid": jid,
                "atoms": {
                    "lattice_mat": atoms.cell.array.tolist(),
                    "coords": atoms.get_scaled_positions().tolist(),
                    "elements": atoms.get_chemical_symbols(),
                    "cartesian": False,
                },
            }
        )
    ids = [*labels][offset:] + [*labels][:offset]
    cut = int(0.7 * len(ids))
    split = {
        "train": {k: labels[k] for k in ids[:cut]},
        "val": {k: labels[k] for k in ids[cut:-3]},
        "test": dict.fromkeys(ids[-3:]),
    }
    if repeat_in_train:
        split["train"][ids[-1]] = labels[ids[-1]]
    for path, document in (
        (folder / "jdft_3d-8-18-2021.json.zip", records),
        (folder / "splits" / f"{task}.json.zip", split),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(path.name.removesuffix(".zip"), json.dumps(document))


SPECIES = (1, 3, 6, 8, 9, 11, 14, 17, 22, 26, 29, 31, 33, 38, 50, 56, 60, 74, 79, 82)


@st.composite
def random_crystals(draw: Callable[..., Any], max_atoms: int = 5) -> Atoms:
    """Random periodic structures, triclinic in general, without overlapping atoms."""
    n = draw(st.integers(1, max_atoms))
    lengths = [draw(st.floats(3.0, 7.0)) for _ in range(3)]
    angles = [draw(st.floats(60.0, 115.0)) for _ in range(3)]
    seed = draw(st.integers(0, 2**31 - 1))
    rng = np.random.default_rng(seed)
    atoms = Atoms(
        numbers=rng.choice(SPECIES, n),
        scaled_positions=rng.random((n, 3)),
        cell=[*lengths, *angles],
        pbc=True,
    )
    volume = abs(np.linalg.det(atoms.cell.array)) if np.isfinite(atoms.cell.array).all() else 0
    assume(volume > 15 * max(n, 2))
    distances = atoms.get_all_distances(mic=True)[np.triu_indices(n, 1)]
    assume(n == 1 or distances.min() > 1.0)
    return atoms


def rotated(atoms: Atoms, seed: int) -> Atoms:
    """The crystal in another orientation."""
    matrix = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    return Atoms(
        numbers=atoms.numbers,
        scaled_positions=atoms.get_scaled_positions(wrap=False),
        cell=atoms.cell.array @ matrix.T,
        pbc=True,
    )


def other_cell(atoms: Atoms, seed: int) -> Atoms:
    """The same crystal in another cell of the same volume (a unimodular change of basis)."""
    rng = np.random.default_rng(seed)
    change = np.eye(3, dtype=int)
    for _ in range(3):
        i, j = rng.choice(3, 2, replace=False)
        step = np.eye(3, dtype=int)
        step[i, j] = rng.choice([-1, 1])
        change = step @ change
    if rng.random() < 0.5:
        change = -change[[1, 0, 2]]
    changed = atoms.copy()
    changed.set_cell(change @ atoms.cell.array, scale_atoms=False)
    changed.wrap()
    return changed
