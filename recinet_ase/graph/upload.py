"""Tensors of the host on their way to a device."""

from __future__ import annotations

import torch


def upload(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """The tensor on a device; on a GPU without waiting for what is running there.

    Copies from ordinary memory wait until the device has come to them. From pinned memory they
    take their turn, and PyTorch keeps the memory until then.
    """
    if torch.device(device).type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
