"""The optimisers of a run: AdamW, or Muon for the matrices inside and AdamW for all else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import torch
from torch import nn

from recinet_ase.errors import UnknownNameError
from recinet_ase.training.config import OPTIMIZERS

# Rows or columns that stand for themselves: a step along all directions alike suits them not.
_NO_MATRICES = ("embed_", "head.3.", "head.last.", "head.heads.", "head.value.", "head.gate.")

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the iteration, from Jordan et al. 2024
_ITERATIONS = 5


def make_optimizers(
    name: str, network: nn.Module, learning_rate: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """The optimisers that together learn a network's trainable parameters.

    Args:
        name: One of `OPTIMIZERS`.
        network: The network.
        learning_rate: Peak learning rate, of all parameters.
        weight_decay: Decoupled weight decay.

    Raises:
        UnknownNameError: If there is no such optimiser.
    """
    if name not in OPTIMIZERS:
        raise UnknownNameError("optimizer", name, OPTIMIZERS)
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for key, parameter in network.named_parameters():
        if parameter.requires_grad:
            inside = name == "muon" and parameter.ndim == 2 and min(parameter.shape) > 1
            inside = inside and "filter" not in key and not key.startswith(_NO_MATRICES)
            (matrices if inside else others).append(parameter)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(others, lr=learning_rate, weight_decay=weight_decay, fused=True)
    ]
    return [*optimizers, Muon(matrices, learning_rate, weight_decay)] if matrices else optimizers


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024): steps of matrices along all directions alike.

    The running mean of a matrix' gradient is replaced by the nearest semi-orthogonal matrix, by
    five Newton-Schulz iterations in bfloat16. Steps have ``0.2 sqrt(max(rows, columns))`` times
    its size (Liu et al. 2025), that of AdamW's, so that one learning rate serves both.

    It is ``torch.optim.Muon`` with the matrices of one shape taken together, and a peak
    learning rate that means the same with any number of processes.

    Args:
        matrices: Two-dimensional parameters.
        learning_rate: Learning rate.
        weight_decay: Decoupled weight decay.
        momentum: Memory of the running mean (Nesterov's).
    """

    def __init__(
        self,
        matrices: list[nn.Parameter],
        learning_rate: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ) -> None:
        defaults = {"lr": learning_rate, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(matrices, defaults)

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Callable[[], float] | None = None
    ) -> float | None:
        """One step along the gradients that parameters have."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike: dict[torch.Size, list[torch.Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.shape].append(parameter)
            for parameters in alike.values():
                self._step(parameters, group)
        return loss

    def _step(self, parameters: list[torch.Tensor], group: dict[str, float]) -> None:
        """Update parameters of one shape ``[r, c]``."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        means = []
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["mean"] = torch.zeros_like(parameter)
            means.append(state["mean"])
        memory, rate = group["momentum"], group["lr"]
        torch._foreach_lerp_(means, gradients, 1 - memory)
        ahead = torch._foreach_lerp(gradients, means, memory)
        steps = orthogonal(torch.stack(ahead)).to(parameters[0].dtype).unbind()
        torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
        size = 0.2 * max(parameters[0].shape) ** 0.5
        torch._foreach_add_(parameters, steps, alpha=-rate * size)


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Semi-orthogonal matrices near the given ones ``[M, r, c]``, in bfloat16.

    Singular values end between 0.7 and 1.2 rather than at 1, which makes no difference to
    learning (Jordan et al. 2024).
    """
    a, b, c = _COEFFICIENTS
    size = torch.linalg.matrix_norm(matrices, keepdim=True)
    x = (matrices / (size + 1e-7)).bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    for _ in range(_ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
