"""Normalisation that treats a merged node like the nodes it stands for."""

from __future__ import annotations

import torch
from torch import nn


class WeightedBatchNorm(nn.Module):
    """Batch normalisation with a weight for each row.

    With integer weights the result equals ``nn.BatchNorm1d`` on the rows repeated that
    often, so that a symmetry-reduced graph trains exactly like the full one. Data-parallel
    processes share the statistics of the whole batch. In evaluation mode it is a fixed
    affine map and couples no structures.

    Args:
        width: Number of features.
        momentum: Share of the running statistics replaced by a step.
        eps: Added to the variance.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, width: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))
        self.momentum, self.eps = momentum, eps

    @torch.no_grad()
    def update_running(self, mean: torch.Tensor, var: torch.Tensor) -> None:
        """Let the statistics of a batch, both ``[width]``, into the running ones."""
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_(var.to(self.running_var), self.momentum)

    def forward(self, x: torch.Tensor, row_weight: torch.Tensor) -> torch.Tensor:
        """Normalise ``x`` ``[M, width]`` with row weights ``[M]``."""
        if self.training:
            # Statistics stay out of autocast: bfloat16 is too coarse for a variance.
            with torch.autocast(x.device.type, enabled=False):
                full = x.to(row_weight.dtype)
                sums = (row_weight @ full, row_weight @ (full * full), row_weight.sum()[None])
                first, second, weight = over_processes(torch.cat(sums)).split(
                    (full.shape[1], full.shape[1], 1)
                )
                mean = first / weight
                var = (second / weight - mean * mean).clamp(min=0.0)
            self.update_running(mean, var)
            scale = self.weight * torch.rsqrt(var + self.eps)
            shift = self.bias - mean * scale
        else:
            scale, shift = self.fixed_map()
        return torch.addcmul(shift, x.to(scale.dtype), scale)

    def fixed_map(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and shift of the evaluation mode, both ``[width]``."""
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return scale, self.bias - self.running_mean * scale


def over_processes(sums: torch.Tensor) -> torch.Tensor:
    """Sums over the parts of a batch that data-parallel processes hold."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return sums
    from torch.distributed.nn.functional import all_reduce

    total: torch.Tensor = all_reduce(sums)
    return total


class RowNorm(nn.LayerNorm):
    """Layer normalisation with the signature of `WeightedBatchNorm` (weights unused)."""

    def forward(  # type: ignore[override]
        self, x: torch.Tensor, row_weight: torch.Tensor
    ) -> torch.Tensor:
        """Normalise each row of ``x`` ``[M, width]`` by itself."""
        return super().forward(x)


NORMS: dict[str, type[nn.Module]] = {"batch": WeightedBatchNorm, "layer": RowNorm}
"""``"batch"`` is the paper's; ``"layer"`` shares no statistics between structures."""
