"""Symmetry-reduced graphs give the same numbers, losses and gradients as full ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, make_supercell
from support import full_graphs, kernel_batch, random_model

from recinet_ase.models.property_model import PropertyModel
from recinet_ase.nn.pooling import POOLINGS

# Built from exact coordinates: files with five decimals are symmetric to about 1e-4 only.
SYMMETRIC = {
    "rocksalt": bulk("NaCl", "rocksalt", a=5.64, cubic=True),
    "diamond supercell": make_supercell(bulk("Si", "diamond", a=5.43), np.diag([2, 2, 1])),
    "fcc": bulk("Cu", "fcc", a=3.61, cubic=True),
    "wurtzite": bulk("ZnO", "wurtzite", a=3.25, c=5.2, u=0.382),
    "fluorite": bulk("CaF2", "fluorite", a=5.46),
    "perovskite": Atoms(
        "SrTiO3",
        scaled_positions=[
            [0, 0, 0],
            [0.5, 0.5, 0.5],
            [0.5, 0.5, 0],
            [0.5, 0, 0.5],
            [0, 0.5, 0.5],
        ],
        cell=[3.905] * 3,
        pbc=True,
    ),
}


def batches(model: PropertyModel, structures: list[Atoms]):  # type: ignore[no-untyped-def]
    dtype = next(model.parameters()).dtype
    basis = model.network.wave_basis.double()
    full = full_graphs(structures, dtype)
    reduced = kernel_batch(structures, basis, dtype)
    model.to(dtype)
    return full, reduced


def test_the_graphs_are_smaller_and_count_the_same() -> None:
    structures = list(SYMMETRIC.values())
    full, reduced = batches(random_model(), structures)
    assert len(reduced.centre) < len(full.centre) / 3
    assert reduced.atom_weight.sum() == len(full.z)
    total = (reduced.edge_count * reduced.atom_weight[reduced.centre]).sum()
    assert total == len(full.centre)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_values(pooling: str, dtype: torch.dtype) -> None:
    model = random_model(pooling=pooling).to(dtype)
    full, reduced = batches(model, list(SYMMETRIC.values()))
    with torch.no_grad():
        tolerance = 1e-5 if dtype == torch.float32 else 1e-9
        torch.testing.assert_close(model(full), model(reduced), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "network",
    [
        {},
        {"norm": "layer"},
        {"pooling": "attention"},
        {"pooling": "peak"},
        {"envelope": 4.0, "gate": True},
    ],
    ids=["batch", "layer", "attention", "peak", "envelope and gate"],
)
def test_loss_and_gradients_in_training(network: dict[str, Any]) -> None:
    structures = list(SYMMETRIC.values())
    target = torch.linspace(-1, 1, len(structures), dtype=torch.float64)[:, None]
    results = []
    for which in (0, 1):
        model = random_model(**network).double().train()
        batch = batches(model, structures)[which]
        loss = (model.network(batch) - target).abs().mean()
        loss.backward()
        gradients = torch.cat([p.grad.ravel() for p in model.parameters() if p.grad is not None])
        statistics = torch.cat([b.ravel() for b in model.network.buffers()])
        results.append((loss.detach(), gradients, statistics))
    for full, reduced in zip(*results, strict=True):
        torch.testing.assert_close(full, reduced, rtol=1e-7, atol=1e-9)


def test_real_crystals_with_rounded_coordinates(crystals: dict[str, Atoms]) -> None:
    """Five-decimal coordinates break symmetry by 1e-4 A; the answer moves accordingly."""
    model = random_model(properties=("formation_energy",))
    structures = list(crystals.values())
    full, reduced = batches(model, structures)
    with torch.no_grad():
        difference = (model(full) - model(reduced)).abs().ravel()
    assert difference.median() < 1e-5
    assert difference.max() < 5e-4


@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_changes_nothing(pooling: str) -> None:
    model = random_model(pooling=pooling)
    _, reduced = batches(model, list(SYMMETRIC.values()))
    padded = reduced.padded(64, 512, 512)
    assert len(padded.z) % 64 == len(padded.centre) % 512 == len(padded.pair_kernel) % 512 == 0
    with torch.no_grad():
        torch.testing.assert_close(model(reduced), model(padded), rtol=1e-6, atol=1e-6)
    model.train()
    torch.testing.assert_close(model.network(reduced), model.network(padded), rtol=1e-5, atol=1e-5)
