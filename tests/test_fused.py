"""The fast form of a training step is the plain one: loss, gradients, running statistics."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from ase import Atoms
from support import random_model

from recinet_ase.graph.adapters import to_crystal
from recinet_ase.graph.batch import CrystalBatch, collate
from recinet_ase.graph.geometric import reduced_graph
from recinet_ase.nn import recinet
from recinet_ase.nn.recinet import ReciNet


def one_step(network: ReciNet, batch: CrystalBatch, bfloat16: bool = False) -> torch.Tensor:
    """Gradients of all parameters in one vector, loss and running statistics at its end."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        output = network(batch)
    target = torch.linspace(-1, 1, batch.n_crystals)[:, None]
    loss = (output.to(batch.distance.dtype) - target).abs().mean()
    loss.backward()
    parameters = [p.grad for p in network.parameters() if p.grad is not None]
    statistics = [b for name, b in network.named_buffers() if "running" in name]
    return torch.cat([x.detach().double().flatten() for x in (*parameters, *statistics, loss)])


def both_ways(
    crystals: dict[str, Atoms], dtype: torch.dtype, bfloat16: bool, monkeypatch: pytest.MonkeyPatch
) -> tuple[torch.Tensor, torch.Tensor]:
    basis = random_model().network.wave_basis.double()
    structures = list(crystals.values())[:12]
    graphs = [reduced_graph(to_crystal(a), basis, dtype=dtype) for a in structures]
    batch = collate(graphs).padded(64, 512, 512)
    found = []
    for fast in (True, False):
        if not fast:
            none = type("None_", (), {"build": staticmethod(lambda *_: None)})
            monkeypatch.setattr(recinet, "EdgeIndex", none)
        network = random_model().network.to(dtype).train()
        found.append(one_step(network, replace(batch), bfloat16))
    return found[0], found[1]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=str
)
def test_loss_gradients_and_statistics(
    crystals: dict[str, Atoms],
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    fast, plain = both_ways(crystals, dtype, False, monkeypatch)
    assert (fast - plain).norm() < tolerance * plain.norm()
    assert abs(fast[-1] - plain[-1]) < tolerance * plain[-1]


def test_bfloat16_is_as_close_to_float32_as_the_plain_form(
    crystals: dict[str, Atoms], monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, plain = both_ways(crystals, torch.float32, True, monkeypatch)
    monkeypatch.undo()
    exact, _ = both_ways(crystals, torch.float32, False, monkeypatch)
    assert (fast - exact).norm() < 1.2 * (plain - exact).norm() < 0.1 * exact.norm()
