"""A GPU without contents: shapes, types and devices alone, under the autocast rules of CUDA.

Whatever would read a value of the device is an error there. Derivatives cannot be taken: the
engine of PyTorch's CPU build asks for the driver.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from ase import Atoms
from ase.build import bulk
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from recinet_ase.data.conversion import build_store
from recinet_ase.data.store import StoreSettings
from recinet_ase.forces.batch import ForceBatch
from recinet_ase.graph.adapters import to_crystal
from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.nn.recinet import SIZES, ReciNet
from recinet_ase.pretrained import load_force_model

_PRODUCTS = {"mm", "addmm", "addmm_", "bmm", "baddbmm", "linear", "embedding_bag", "_embedding_bag"}


class _Products(TorchDispatchMode):
    """The types that operations on as many rows as there are edges work in."""

    def __init__(self, edges: int) -> None:
        super().__init__()
        self.edges, self.kinds = edges, {torch.float32: 0, torch.bfloat16: 0}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[1]
        tensors = [x for x in args if isinstance(x, torch.Tensor) and x.is_floating_point()]
        # A product with a single row is a batch statistic, which shall be in single precision.
        rows = {len(x) for x in tensors if x.dim()}
        if name in _PRODUCTS and self.edges in rows and 1 not in rows:
            for x in tensors:
                self.kinds[x.dtype] += 1
        return func(*args, **(kwargs or {}))


class _Autocast:
    """``torch.autocast``, which refuses CUDA on a machine without it."""

    def __init__(self, device: str, enabled: bool = True) -> None:
        self.enabled = enabled

    def __enter__(self) -> None:
        self.before = torch.is_autocast_enabled("cuda")
        torch.set_autocast_enabled("cuda", self.enabled)

    def __exit__(self, *exc: object) -> None:
        torch.set_autocast_enabled("cuda", self.before)


def _item(x: torch.Tensor, key: Any) -> torch.Tensor:
    """``x[key]`` by plain operations: PyTorch's own would look for the device."""
    keys = key if isinstance(key, tuple) else (key,)
    if isinstance(keys[0], torch.Tensor):
        out = torch.ops.aten.index.Tensor(x, [keys[0]])
        return out.unsqueeze(1) if keys[1:] == (None,) else out
    given = sum(k is not None and k is not Ellipsis for k in keys)
    dim = 0
    for k in keys:
        if k is Ellipsis:
            dim = x.dim() - given
        elif k is None:
            x, dim = x.unsqueeze(dim), dim + 1
        elif isinstance(k, int):
            x, given = x.select(dim, k), given - 1
        else:
            x, dim = torch.ops.aten.slice.Tensor(x, dim, k.start, k.stop, k.step or 1), dim + 1
            given -= 1
    return x


@contextmanager
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fake tensors may live on ``cuda``, and autocast there means bfloat16."""
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "__getitem__", _item)
        patch.setattr(torch, "autocast", _Autocast)
        before = torch.get_autocast_dtype("cuda")
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        try:
            yield
        finally:
            torch.set_autocast_dtype("cuda", before)


def _on_cuda(x: torch.Tensor) -> torch.Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device="cuda")


def _faked(module: torch.nn.Module) -> None:
    """Weights and buffers of a module without contents, on ``cuda``."""
    for part in module.modules():
        for key, value in part._parameters.items():
            if value is not None:
                part._parameters[key] = torch.nn.Parameter(_on_cuda(value), requires_grad=False)
        for key, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[key] = _on_cuda(buffer)


def _fake_network(**options: Any) -> ReciNet:
    net = ReciNet(replace(SIZES["small"], **options))
    _faked(net)
    return net


def _fake_batch(batch: Any) -> Any:
    tensors = {
        f.name: _on_cuda(value)
        for f in fields(batch)
        if isinstance(value := getattr(batch, f.name), torch.Tensor)
    }
    return replace(batch, **tensors)


class _Results(TorchDispatchMode):
    """The kinds and devices of all that comes out of operations."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: set[torch.dtype] = set()
        self.devices: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in tree_flatten(out)[0]:
            if isinstance(x, torch.Tensor):
                self.devices.add(x.device.type)
                if x.is_floating_point():
                    self.kinds.add(x.dtype)
        return out


@pytest.fixture(scope="module")
def batch(crystals: dict[str, Atoms]) -> CrystalBatch:
    return build_store(crystals.items(), StoreSettings()).batch(torch.arange(20))


networks = pytest.mark.parametrize(
    "options",
    [
        {},
        {"pooling": "attention", "composition": True},
        {"pooling": "peak"},
        {"norm": "layer", "edge_update": True},
    ],
    ids=lambda options: "-".join(options) or "plain",
)


@networks
def test_bfloat16_on_cuda(
    batch: CrystalBatch, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeTensorMode(), fake_cuda(monkeypatch):
        net = _fake_network(**options).train()
        fake = _fake_batch(batch)
        products = _Products(len(fake.distance))
        with _Autocast("cuda"), products:
            v = net.embed_edges(fake.distance)
            out = net(fake)
    assert v.dtype == torch.bfloat16
    assert out.device.type == "cuda" and out.shape == (20, 1)
    # Whatever is done an edge is in half precision.
    assert products.kinds[torch.bfloat16] >= 12
    assert products.kinds[torch.float32] == 0, products.kinds


@networks
def test_predictions_on_cuda(
    batch: CrystalBatch, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeTensorMode(), fake_cuda(monkeypatch):
        net, fake = _fake_network(**options).eval(), _fake_batch(batch)
        results = _Results()
        with torch.no_grad(), results:
            out = net(fake)
    assert out.shape == (20, 1) and out.dtype == torch.float32
    assert results.devices == {"cuda"} and results.kinds == {torch.float32}


def test_energies_of_the_force_network_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_force_model("mlearn-pes")
    cells = [bulk("Si", cubic=True), bulk("Ge").repeat((2, 1, 1))]
    batch = ForceBatch.join([model.graph(to_crystal(atoms)) for atoms in cells])
    with FakeTensorMode(), fake_cuda(monkeypatch):
        _faked(model)
        fake = replace(_fake_batch(batch), waves=tuple(_fake_batch(group) for group in batch.waves))
        strain = torch.empty(2, 3, 3, device="cuda")
        results = _Results()
        with torch.no_grad(), results:
            energies, features = model.network(fake, fake.positions, strain)
            novelty = model.novelty(features, fake.z)
    assert energies.shape == novelty.shape == (12,)
    assert results.devices == {"cuda"} and results.kinds == {torch.float32}
