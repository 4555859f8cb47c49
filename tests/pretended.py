"""A GPU that is not there: code for one, run on the CPU and watched.

Arithmetic is real. Every storage carries a device in name: what is moved to ``cuda`` is copied
and tagged, and so is everything that follows from it. Operations that would meet tensors of two
devices, kernels, and the places where the host would wait for the device are counted.
"""

from __future__ import annotations

import traceback
import types
from collections import Counter
from contextlib import ExitStack
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.nn.utils import clip_grad
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

GPU = torch.device("cuda", 0)

# Operations that launch no kernel.
_VIEWS = {
    "view", "_unsafe_view", "t", "transpose", "expand", "slice", "select", "unsqueeze", "squeeze",
    "permute", "alias", "detach", "split", "unbind", "as_strided", "_reshape_alias", "diagonal",
    "split_with_sizes", "lift_fresh", "reshape", "empty", "unfold", "empty_like", "new_empty",
    "empty_strided", "is_same_size", "sym_size", "sym_numel", "size", "flatten", "unflatten",
    "expand_as", "view_as", "chunk", "mT", "narrow", "tensor_split", "_version", "resize_",
}  # fmt: skip
# Operations whose result has a size, or is a number, that the host has to read.
_READS = {
    "_local_scalar_dense", "item", "nonzero", "bincount", "masked_select", "_unique2",
    "unique_dim", "equal", "is_nonzero",
}  # fmt: skip
# Operations that take a number of the host as a tensor without dimensions.
_TAKES_NUMBERS = {
    "copy_", "_to_copy", "add", "mul", "div", "sub", "where", "maximum", "lerp", "eq", "gt", "lt",
    "ge", "le", "add_", "mul_", "div_", "sub_", "masked_fill", "clamp", "pow", "addcmul",
}  # fmt: skip
# Operations that add with atomic operations (their largest or smallest has no order).
_ATOMICS = {
    "index_add", "index_add_", "scatter_add", "scatter_add_", "scatter_reduce", "scatter_reduce_",
}  # fmt: skip
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}


def _line() -> str:
    """Where in the package an operation was asked for."""
    stack = traceback.extract_stack()
    inside = [f for f in stack if "recinet_ase/" in f.filename]
    if inside:
        return f"{inside[-1].filename.split('recinet_ase/')[-1]}:{inside[-1].lineno}"
    last = [f for f in stack if not f.filename.endswith("pretended.py")][-1]
    return f"{last.filename[-40:]}:{last.lineno}"


class OneGpu:
    """What the trainer needs of Fabric, for one process with a GPU."""

    device = GPU
    world_size, global_rank, is_global_zero = 1, 0, True

    def setup(self, module: nn.Module, *optimizers: Any) -> tuple[Any, ...]:
        return module, *optimizers

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def broadcast(self, value: Any) -> Any:
        return value


class PretendedGpu(ExitStack):
    """A context in which ``cuda:0`` exists.

    Attributes:
        kernels: Kernels launched.
        reads: By line and kind, how often the host waits for what the device has computed.
        uploads: By line, copies to the device; those of pinned memory that need no waiting
            (``non_blocking``) apart.
        mixed: Operations on tensors of two devices, which would fail.
        atomics: Sums of floating point numbers whose order is not fixed there.
    """

    def __init__(self) -> None:
        super().__init__()
        self._device: dict[int, str | None] = {}
        self._kept: list[Any] = []  # storages, whose addresses must not be used again
        self._inside = 0
        self.reset()

    def reset(self) -> None:
        """Count from zero."""
        self.kernels = 0
        self.reads: Counter[tuple[str, str]] = Counter()
        self.uploads: Counter[tuple[str, str]] = Counter()
        self.mixed: Counter[tuple[str, ...]] = Counter()
        self.atomics: Counter[tuple[str, str]] = Counter()

    def __enter__(self) -> PretendedGpu:
        super().__enter__()
        self.enter_context(_Functions(self))
        self.enter_context(_Operations(self))
        group = clip_grad._group_tensors_by_device_and_dtype

        def grouped(lists: Any, *rest: Any) -> Any:
            """Gradients by device: the compiled part of PyTorch sees the real one."""
            return {
                (GPU if self.of(found[0][0][0]) == "cuda" else device, kind): found
                for (device, kind), found in group(lists, *rest).items()
            }

        name = "_group_tensors_by_device_and_dtype"
        self.enter_context(mock.patch.object(clip_grad, name, grouped))
        return self

    @property
    def waits(self) -> int:
        """How often the host waited for the device."""
        return self.reads.total()

    def report(self) -> str:
        """All counts, for a failed assertion or a curious reader."""
        lines = [f"{self.kernels} kernels, {self.waits} reads, {self.uploads.total()} uploads"]
        for name in ("mixed", "atomics", "reads", "uploads"):
            lines += [f"  {name} {n} x {what}" for what, n in getattr(self, name).most_common(40)]
        return "\n".join(lines)

    def of(self, tensor: torch.Tensor) -> str | None:
        """``"cuda"`` or ``"cpu"``; None for a number that belongs to neither."""
        return self._device.get(tensor.untyped_storage()._cdata, "cpu")

    def tag(self, tensor: torch.Tensor, device: str | None) -> torch.Tensor:
        """Say where a tensor is."""
        storage = tensor.untyped_storage()
        self._device[storage._cdata] = device
        self._kept.append(storage)
        return tensor


class _Operations(TorchDispatchMode):
    """What reaches a kernel."""

    def __init__(self, gpu: PretendedGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func: Any, types_: Any, args: Any = (), kwargs: Any = None) -> Any:
        gpu, kwargs = self.gpu, kwargs or {}
        name = func._schema.name.split("::")[1]
        if _is_composite(func) and name not in ("item", "_local_scalar_dense"):
            with self:
                found = func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        inputs = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
        where = [gpu.of(x) for x in inputs]
        self._look_for_mixed(name, args, inputs, where)
        out = func(*args, **kwargs)
        on_gpu = "cuda" in where
        device: str | None = "cuda" if on_gpu else "cpu"
        if not on_gpu and "cpu" not in where and (inputs or gpu._inside):
            device = None
        own = {x.untyped_storage()._cdata for x in inputs}
        for x in tree_flatten(out)[0]:
            if isinstance(x, torch.Tensor):
                key = x.untyped_storage()._cdata
                if key not in own or key not in gpu._device:
                    gpu.tag(x, device)
        if on_gpu:
            gpu.kernels += name not in _VIEWS
            self._look_for_reads(name, args, kwargs)
            if name in _ATOMICS and inputs[0].is_floating_point() and "amax" not in args:
                gpu.atomics[_line(), name] += 1
        return out

    def _look_for_mixed(self, name: str, args: Any, inputs: Any, where: Any) -> None:
        gpu = self.gpu
        pairs = [*zip(inputs, where, strict=True)]
        number = [x.dim() == 0 and at == "cpu" for x, at in pairs]
        devices = {at for at, n in zip(where, number, strict=True) if at is not None and not n}
        if len(devices) > 1:
            if name in ("copy_", "_to_copy"):
                if where[0] == "cuda":
                    gpu.uploads[_line(), "waits"] += 1
                else:
                    gpu.reads[_line(), "copy"] += 1
                return
            if name in _INDEXING and where[0] == "cuda":
                gpu.uploads[_line(), "indices of the host"] += 1
                return
            gpu.mixed[_line(), name, str(where), str([tuple(x.shape) for x in inputs])] += 1
        elif any(number) and "cuda" in devices and name not in _TAKES_NUMBERS:
            gpu.mixed[_line(), name, "a number of the host"] += 1

    def _look_for_reads(self, name: str, args: Any, kwargs: Any) -> None:
        kind = name if name in _READS else ""
        if name == "repeat_interleave" and kwargs.get("output_size") is None:
            kind = name
        if name in _INDEXING:
            masks = (i for i in args[1] if isinstance(i, torch.Tensor))
            if any(i.dtype == torch.bool for i in masks):
                kind = "mask"
        if kind:
            self.gpu.reads[_line(), kind] += 1


def _is_composite(func: Any) -> bool:
    """Whether an operation is made of others, which are what runs."""
    if func is torch.ops.aten.embedding_bag.default:
        return False
    composite: bool = torch._C._dispatch_has_kernel_for_dispatch_key(
        func.name(), "CompositeImplicitAutograd"
    )
    return composite


class _Functions(TorchFunctionMode):
    """What is asked of a tensor's device, and what is moved."""

    def __init__(self, gpu: PretendedGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func: Any, types_: Any, args: Any = (), kwargs: Any = None) -> Any:
        gpu, kwargs = self.gpu, dict(kwargs or {})
        if func == torch.Tensor.device.__get__:
            return GPU if gpu.of(args[0]) == "cuda" else torch.device("cpu")
        if func == torch.Tensor.is_cuda.__get__:
            return gpu.of(args[0]) == "cuda"
        if func is torch.Tensor.tolist:
            if gpu.of(args[0]) == "cuda":
                gpu.reads[_line(), "tolist"] += 1
            return func(*args, **kwargs)
        if func is torch.Tensor.numpy and gpu.of(args[0]) == "cuda":
            gpu.mixed[_line(), "numpy"] += 1
        if func is torch.Tensor.pin_memory:
            return args[0]
        if func in (torch.Tensor.cpu, torch.Tensor.to, torch.Tensor.cuda):
            return self._moved(func, args, kwargs)
        if getattr(func, "__name__", "") == "_parse_to":  # of a module's `to`
            return func(*args, **kwargs)
        device = kwargs.get("device")
        if not isinstance(device, torch.Tensor) and str(device).startswith("cuda"):
            kwargs["device"] = "cpu"
            out = func(*args, **kwargs)
            for x in tree_flatten(out)[0]:
                if isinstance(x, torch.Tensor):
                    gpu.tag(x, "cuda")
            gpu.kernels += 1
            return out
        if not isinstance(func, types.FunctionType):
            return func(*args, **kwargs)
        gpu._inside += 1
        try:
            return func(*args, **kwargs)
        finally:
            gpu._inside -= 1

    def _moved(self, func: Any, args: Any, kwargs: Any) -> Any:
        gpu, tensor = self.gpu, args[0]
        dtype, target = None, {torch.Tensor.cpu: "cpu", torch.Tensor.cuda: "cuda"}.get(func)
        if func is torch.Tensor.to:
            named = [kwargs[key] for key in ("device", "dtype", "other") if key in kwargs]
            for x in (*args[1:], *named):
                if isinstance(x, torch.Tensor):
                    target, dtype = gpu.of(x), x.dtype
                elif isinstance(x, str | torch.device):
                    target = str(x).split(":")[0]
                elif isinstance(x, torch.dtype):
                    dtype = x
        before = gpu.of(tensor)
        out = tensor if dtype is None else tensor.to(dtype)
        if target is None or before is None or target == before:
            return out
        out = gpu.tag(out.clone(), target)
        if target == "cpu":
            gpu.reads[_line(), "copy"] += 1
        else:
            gpu.uploads[_line(), "" if kwargs.get("non_blocking") else "waits"] += 1
        return out
