"""Sums over consecutive rows that belong together, in a fixed order.

Adding rows to their owner's place (``index_add``) is done on a GPU with atomic operations, in an
order that changes from run to run, and with it the last digits. An embedding bag reads the rows
of each owner one after the other, on every device, and is faster too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional


def first_rows(owner: torch.Tensor, n: int) -> torch.Tensor:
    """The first row of each of ``n`` owners, ``[n]``, where ``owner`` ``[M]`` is ascending."""
    return torch.searchsorted(owner, torch.arange(n, device=owner.device, dtype=owner.dtype))


def segment_sum(values: torch.Tensor, owner: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """Sum of each owner's rows, zero for one without any, ``[M, C]`` to ``[n, C]``.

    Args:
        values: Rows ``[M, C]``.
        owner: Owner of each row, ascending ``[M]``.
        first: From `first_rows` ``[n]``.
    """
    summed: torch.Tensor = _SegmentSum.apply(values, owner, first)
    return summed


class _SegmentSum(torch.autograd.Function):
    """`segment_sum`, whose gradient is a gather."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, values: torch.Tensor, owner: torch.Tensor, first: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(owner)
        rows = torch.arange(len(values), device=values.device)
        return functional.embedding_bag(rows, values, first.long(), mode="sum")

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, None, None]:
        (owner,) = ctx.saved_tensors
        return gradient.index_select(0, owner), None, None
