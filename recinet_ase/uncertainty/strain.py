"""By how much a crystal's volume differs from that of the same crystal at rest.

A network of one hidden layer tells it from what the model saw of the crystal. It learns from
relaxed training crystals, whose strain is 0, and from compressed and expanded copies of them; no
label is needed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from recinet_ase.uncertainty.descriptors import Descriptors

_HIDDEN = 64
_EPOCHS, _BATCH, _RATE, _DECAY = 40, 256, 3e-3, 1e-2
_DROPPED = 0.1  # share of the hidden units left out in a step
_CLIP = 5.0  # standard deviations beyond which an input counts no more


@dataclass(frozen=True)
class Copies:
    """Crystals that were changed, beside the same crystals unchanged.

    Attributes:
        found: Descriptors of the copies.
        origin: Row of each copy's crystal in the descriptors of the unchanged ones ``[M]``.
        strain: Log ratio of the copy's volume to its crystal's ``[M]``.
    """

    found: Descriptors
    origin: torch.Tensor
    strain: torch.Tensor

    def __len__(self) -> int:
        return len(self.origin)


@dataclass(frozen=True)
class StrainEstimate:
    """Estimates the log ratio of a crystal's volume to its volume at rest; float16 arrays.

    Attributes:
        centre, spread: Standardisation of the inputs ``[F]``.
        hidden, hidden_bias: First layer ``[F, H]``, ``[H]``.
        output: Last layer ``[H]``.
        bias: Scalar ``[1]``.
    """

    centre: torch.Tensor
    spread: torch.Tensor
    hidden: torch.Tensor
    hidden_bias: torch.Tensor
    output: torch.Tensor
    bias: torch.Tensor

    def __call__(self, found: Descriptors, deviation: torch.Tensor) -> torch.Tensor:
        """The estimates ``[B]``, float64.

        Args:
            found: Descriptors of the crystals.
            deviation: Their sizes against what the composition suggests (`Placement`).
        """
        x = self._scaled(_inputs(found, deviation))
        hidden = torch.nn.functional.silu(x @ self.hidden.double() + self.hidden_bias.double())
        return hidden @ self.output.double() + self.bias.double()

    def _scaled(self, inputs: torch.Tensor) -> torch.Tensor:
        scaled = (inputs - self.centre.double()) / self.spread.double()
        return scaled.clamp(-_CLIP, _CLIP)

    @classmethod
    def none(cls, inputs: int) -> StrainEstimate:
        """One that takes every crystal to be at rest, where there are no copies to learn from."""
        zero = torch.zeros(inputs, dtype=torch.float16)
        one, few = torch.ones_like(zero), zero[:1]
        return cls(zero, one, zero[:, None], few, few, few)

    @classmethod
    def fit(
        cls,
        found: Descriptors,
        deviation: torch.Tensor,
        copies: Copies,
        copies_deviation: torch.Tensor,
        seed: int = 0,
    ) -> StrainEstimate:
        """Fit to relaxed crystals and compressed and expanded copies of them."""
        inputs = torch.cat((_inputs(found, deviation), _inputs(copies.found, copies_deviation)))
        strain = torch.cat((torch.zeros(len(found)), copies.strain.float()))
        centre, spread = inputs.mean(0).half(), inputs.std(0).clamp(min=1e-3).half()
        generator = torch.Generator().manual_seed(seed)
        n, width = inputs.shape

        def start(*shape: int) -> torch.Tensor:
            values = torch.randn(*shape, generator=generator) / shape[0] ** 0.5
            return values.requires_grad_()

        weights = {
            "hidden": start(width, _HIDDEN),
            "hidden_bias": torch.zeros(_HIDDEN, requires_grad=True),
            "output": start(_HIDDEN),
            "bias": torch.zeros(1, requires_grad=True),
        }
        scaled = cls(centre, spread, *(w.detach() for w in weights.values()))._scaled(inputs)
        x, batch = scaled.float(), min(_BATCH, n)
        optimizer = torch.optim.AdamW(weights.values(), lr=_RATE, weight_decay=_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, _RATE, total_steps=_EPOCHS * (n // batch)
        )
        for _ in range(_EPOCHS):
            order = torch.randperm(n, generator=generator)
            for rows in order[: n // batch * batch].view(-1, batch):
                hidden = x[rows] @ weights["hidden"] + weights["hidden_bias"]
                kept = torch.rand(hidden.shape, generator=generator) >= _DROPPED
                hidden = torch.nn.functional.silu(hidden) * kept / (1 - _DROPPED)
                told = hidden @ weights["output"] + weights["bias"]
                optimizer.zero_grad()
                (told - strain[rows]).abs().mean().backward()
                optimizer.step()
                schedule.step()
        return cls(centre, spread, *(w.detach().half() for w in weights.values()))

    def tensors(self) -> dict[str, torch.Tensor]:
        """The arrays by name."""
        return asdict(self)


def _inputs(found: Descriptors, deviation: torch.Tensor) -> torch.Tensor:
    """What the strain is told from ``[B, F]``, float64."""
    return torch.cat((found.geometry, deviation, found.latent, found.composition), dim=1)
