"""The fast form of a training step is the plain one: loss, gradients, running statistics."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from ase import Atoms
from support import kernel_batch, random_model

from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.graph.waves import Waves
from recinet_ase.inference.preparation import Preparation
from recinet_ase.nn import recinet
from recinet_ase.nn.low_rank import low_rank_basis
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
    batch = kernel_batch(list(crystals.values())[:12], basis, dtype).padded(64, 512, 512)
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


def many(crystals: dict[str, Atoms], copies: int) -> CrystalBatch:
    (batch,) = Preparation(k_max=4.0)(list(crystals.values()) * copies).batches
    (graphs,) = batch.graphs.values()
    return graphs


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("edge_update", [False, True])
def test_predictions_are_those_of_the_plain_form(
    crystals: dict[str, Atoms], norm: str, edge_update: bool
) -> None:
    """With gradients the plain operations are taken; with few edges, embeddings themselves."""
    batch = many(crystals, 8)
    network = random_model(norm=norm, edge_update=edge_update).network
    network.train()
    network(batch)  # running statistics of its own
    network.eval()
    plain = network(batch)
    with torch.no_grad():
        fast = network(batch)
    assert plain.requires_grad and not fast.requires_grad
    assert (network._span is None) == edge_update
    torch.testing.assert_close(fast, plain.detach(), rtol=2e-6, atol=2e-6)
    double = network.double()
    exact = replace(batch, **{f.name: _double(getattr(batch, f.name)) for f in fields(batch)})
    with torch.no_grad():
        torch.testing.assert_close(
            double(exact), double.requires_grad_(True)(exact), rtol=1e-12, atol=1e-12
        )


def _double(value: object) -> object:
    if isinstance(value, Waves):
        return value.to(torch.float64)
    floating = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.double() if floating else value


def test_the_span_follows_the_weights(crystals: dict[str, Atoms]) -> None:
    """New weights, loaded or trained, have another one."""
    batch, network = many(crystals, 8), random_model().network
    for change in (
        lambda: network.load_state_dict(random_model(seed=5).network.state_dict()),
        lambda: network.embed_edge.weight.data.add_(0.3 * torch.randn(64, network.config.n_basis)),
        lambda: torch.nn.init.normal_(network.embed_edge.bias),
    ):
        change()
        with torch.no_grad():
            fast = network(batch)
        torch.testing.assert_close(fast, network(batch).detach(), rtol=1e-5, atol=1e-5)


def test_an_embedding_has_few_dimensions() -> None:
    network = random_model("small").network
    span = low_rank_basis(lambda d: network.embed_edges(d.float()).detach())
    assert span.shape[0] == network.config.width and span.shape[1] < 0.8 * network.config.width
    torch.testing.assert_close(span.T @ span, torch.eye(span.shape[1], dtype=torch.float64))
    v = network.embed_edges(torch.linspace(0.5, 20, 999)).detach().double()
    assert (v - v @ span @ span.T).abs().max() < 1e-5 * v.abs().max()
