"""Labelled cells: energies, forces and stresses in ASE's units and signs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ase.units import GPa

from recinet_ase.data.mlearn import Configuration, MLearn
from recinet_ase.data.splits import SplitRule
from recinet_ase.errors import ReciNetError
from recinet_ase.forces.batch import ForceBatch, ForceGraph
from recinet_ase.forces.model import STRAIN_ROOM
from recinet_ase.forces.network import ForceNetworkConfig
from recinet_ase.forces.settings import ForceTrainingConfig
from recinet_ase.graph.adapters import from_jarvis

KBAR = 0.1 * GPa
"""A kilobar in eV/angstrom^3."""


@dataclass(frozen=True)
class LabelledCell:
    """A cell and what was computed for it.

    Attributes:
        id: Its id.
        graph: Its graph.
        energy: Total energy in eV.
        forces: ``[N, 3]`` in eV/angstrom.
        stress: ``[3, 3]`` in eV/angstrom^3, positive under tension.
    """

    id: str
    graph: ForceGraph
    energy: float
    forces: np.ndarray
    stress: np.ndarray


@dataclass(frozen=True)
class Labels:
    """Labels of a batch: ``[B]`` eV, ``[N, 3]`` eV/angstrom, ``[B, 3, 3]`` eV/angstrom^3."""

    energy: torch.Tensor
    forces: torch.Tensor
    stress: torch.Tensor


def stress_of(vasp: np.ndarray) -> np.ndarray:
    """Mlearn's six numbers as a stress tensor in eV/angstrom^3.

    The files state neither unit, sign nor order. The data do (``benchmarks/mlearn_stress.py``):
    kilobar, positive under compression as VASP prints them, in the order xx, yy, zz, xy, zx, yz.
    """
    xx, yy, zz, xy, zx, yz = -KBAR * np.asarray(vasp, dtype=np.float64)
    return np.array([[xx, xy, zx], [xy, yy, yz], [zx, yz, zz]])


def labelled(configuration: Configuration, cutoff: float, k_max: float) -> LabelledCell:
    """A configuration of mlearn, ready for training.

    Raises:
        StructureError: If it is not a valid crystal.
    """
    crystal = from_jarvis(configuration.structure)
    return LabelledCell(
        configuration.id,
        ForceGraph.build(crystal, cutoff, k_max),
        configuration.energy * len(crystal),
        configuration.forces,
        stress_of(configuration.stress),
    )


def join(cells: Sequence[LabelledCell]) -> tuple[ForceBatch, Labels]:
    """Cells as one batch with its labels."""
    batch = ForceBatch.join([cell.graph for cell in cells])
    return batch, Labels(
        torch.tensor([cell.energy for cell in cells], dtype=torch.float64),
        torch.from_numpy(np.concatenate([cell.forces for cell in cells])).float(),
        torch.from_numpy(np.stack([cell.stress for cell in cells])).float(),
    )


@dataclass(frozen=True)
class Cells:
    """Labelled cells by use."""

    train: list[LabelledCell]
    val: list[LabelledCell]
    test: list[LabelledCell]


def load_cells(
    config: ForceTrainingConfig, network: ForceNetworkConfig, data_dir: str | Path | None = None
) -> Cells:
    """The data of a run, with graphs.

    Raises:
        ReciNetError: If the data are missing or no force data.
    """
    if not config.dataset.startswith("mlearn"):
        raise ReciNetError(f"{config.dataset} holds no forces; force models train on mlearn")
    dataset = MLearn(config.dataset, data_dir)
    info = dataset.info(dataset.properties[0])
    split = dataset.split(info, SplitRule.parse("random", config.split_seed))
    k_max = network.k_max * STRAIN_ROOM
    cells = {c.id: labelled(c, network.cutoff, k_max) for c in dataset.configurations()}
    train = [cells[key] for key in split.train if key in cells]
    if config.limit is not None:
        rng = np.random.default_rng(config.seed)
        train = [train[i] for i in sorted(rng.permutation(len(train))[: config.limit])]
    return Cells(
        train,
        [cells[key] for key in split.val if key in cells],
        [cells[key] for key in split.test if key in cells],
    )
