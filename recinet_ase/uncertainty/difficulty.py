"""A small network that predicts how large a prediction's error will be.

It is fitted to validation crystals by the likelihood of a Laplace distribution whose
scale it predicts: minimise ``log s + |r| / s`` over the residuals r. The minimum over s
is the mean absolute residual of crystals that look alike.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from recinet_ase.uncertainty.descriptors import GEOMETRY, Descriptors
from recinet_ase.uncertainty.reference import Placement

HIDDEN = 24
_STEPS, _RATE = 150, 0.02
_DECAY, _ELEMENT_DECAY = 0.5, 5.0
_CLIP = 5.0  # standard deviations beyond which a feature counts no more
_AGREED = 1e-4  # spread of an ensemble that counts as none, in units of that of the predictions
_NEAR = (0.02, 0.1)  # what is near a physical bound, in units of the spread of the predictions


def features(
    found: Descriptors, place: Placement, column: int, scale: float, minimum: float | None
) -> torch.Tensor:
    """Inputs of the difficulty model ``[B, F]``, float64.

    Args:
        found: Descriptors.
        place: The same crystals seen from the training set.
        column: Which of the model's properties.
        scale: Spread of its predictions, in its unit.
        minimum: Its physical lower bound.
    """
    output = found.output[:, column] / scale
    above = torch.zeros_like(output) if minimum is None else output - minimum / scale
    x = found.composition
    entropy = -(x * torch.log(x.clamp(min=1e-9))).sum(1)
    columns = [
        place.distance.clamp(min=1e-3).log(),
        output,
        output.abs(),
        *(torch.tanh(above / near) for near in _NEAR),
        *(torch.exp(-((above / near) ** 2)) for near in _NEAR),
        entropy,
    ]
    if found.spread.shape[1]:
        columns.append(torch.log(found.spread[:, column] / scale + _AGREED))
    geometry = found.geometry[:, GEOMETRY.index("shortest_bond") :]
    strain, deviation = place.strain[:, None], place.deviation
    signed = torch.cat((strain, deviation), dim=1)
    return torch.cat(
        (torch.stack(columns, 1), place.rarity, signed, signed.abs(), geometry, place.latent), dim=1
    )


@dataclass(frozen=True)
class Difficulty:
    """Log of the expected absolute error, from features and composition.

    Attributes:
        centre, spread: Standardisation of the features ``[F]``.
        hidden, hidden_bias: First layer ``[F, H]``, ``[H]``.
        output: Last layer ``[H]``.
        linear: Direct contribution of the features ``[F]``.
        element: Contribution of the elements, weighted by their share ``[104]``.
        bias: Scalar ``[1]``.
    """

    centre: torch.Tensor
    spread: torch.Tensor
    hidden: torch.Tensor
    hidden_bias: torch.Tensor
    output: torch.Tensor
    linear: torch.Tensor
    element: torch.Tensor
    bias: torch.Tensor

    def __call__(self, inputs: torch.Tensor, composition: torch.Tensor) -> torch.Tensor:
        """Log scale ``[B]`` in the dtype of the inputs."""
        kind = inputs.dtype
        x = ((inputs - self.centre.to(kind)) / self.spread.to(kind)).clamp(-_CLIP, _CLIP)
        curved = torch.tanh(x @ self.hidden.to(kind) + self.hidden_bias.to(kind))
        return (
            curved @ self.output.to(kind)
            + x @ self.linear.to(kind)
            + composition.to(kind) @ self.element.to(kind)
            + self.bias.to(kind)
        )

    @classmethod
    def fit(
        cls, inputs: torch.Tensor, composition: torch.Tensor, residual: torch.Tensor, seed: int = 0
    ) -> Difficulty:
        """Fit to absolute residuals.

        Args:
            inputs: Features ``[B, F]``.
            composition: Share of each element ``[B, 104]``.
            residual: Absolute residuals in units ``[B]``.
            seed: Of the starting weights.
        """
        n, width = inputs.shape
        generator = torch.Generator().manual_seed(seed)
        # Exact answers (the zero gap of a metal) must not drive the scale to zero.
        r = (residual + 0.05 * residual.mean() + 1e-12).float()
        spread = inputs.std(0)
        spread = torch.where(spread > 1e-9, spread, torch.ones_like(spread)).float()
        start = torch.randn(width, HIDDEN, generator=generator) / width**0.5
        weights = {
            "hidden": start,
            "hidden_bias": torch.zeros(HIDDEN),
            "output": torch.zeros(HIDDEN),
            "linear": torch.zeros(width),
            "element": torch.zeros(composition.shape[1]),
            "bias": r.mean().log().reshape(1),
        }
        model = cls(
            inputs.mean(0).float(), spread, **{k: w.requires_grad_() for k, w in weights.items()}
        )
        x, c = inputs.float(), composition.float()
        optimizer = torch.optim.Adam(weights.values(), lr=_RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=_STEPS)
        # Fewer crystals, stronger pull towards one scale for all.
        decay, element_decay = _DECAY / n**0.5, _ELEMENT_DECAY / n
        for _ in range(_STEPS):
            log_scale = model(x, c)
            loss = (log_scale + r * torch.exp(-log_scale)).mean()
            loss = loss + decay * sum(
                weights[key].square().sum() for key in ("hidden", "output", "linear")
            )
            loss = loss + element_decay * weights["element"].square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        return cls(**{key: value.detach() for key, value in model.__dict__.items()})

    def tensors(self) -> dict[str, torch.Tensor]:
        """The arrays by name."""
        return asdict(self)
