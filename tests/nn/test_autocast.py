"""Training in bfloat16 on a GPU: shapes and types alone, under the autocast rules of CUDA."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from ase import Atoms
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from recinet_ase.data.conversion import build_store
from recinet_ase.data.store import StoreSettings
from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.nn.recinet import SIZES, ReciNet

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


def _fake_network(**options: Any) -> ReciNet:
    net = ReciNet(replace(SIZES["small"], **options))
    for module in net.modules():
        for key, value in module._parameters.items():
            if value is not None:
                module._parameters[key] = torch.nn.Parameter(_on_cuda(value), requires_grad=False)
        for key, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[key] = _on_cuda(buffer)
    return net


@pytest.fixture(scope="module")
def batch(crystals: dict[str, Atoms]) -> CrystalBatch:
    return build_store(crystals.items(), StoreSettings()).batch(torch.arange(20))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pooling": "attention", "composition": True},
        {"pooling": "peak"},
        {"norm": "layer", "edge_update": True},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_bfloat16_on_cuda(
    batch: CrystalBatch, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeTensorMode(), fake_cuda(monkeypatch):
        net = _fake_network(**options).train()
        tensors = {
            f.name: _on_cuda(value)
            for f in fields(batch)
            if isinstance(value := getattr(batch, f.name), torch.Tensor)
        }
        fake = replace(batch, **tensors)
        products = _Products(len(fake.distance))
        with _Autocast("cuda"), products:
            v = net.embed_edges(fake.distance)
            out = net(fake)
    assert v.dtype == torch.bfloat16
    assert out.device.type == "cuda" and out.shape == (20, 1)
    # Whatever is done an edge is in half precision.
    assert products.kinds[torch.bfloat16] >= 12
    assert products.kinds[torch.float32] == 0, products.kinds
