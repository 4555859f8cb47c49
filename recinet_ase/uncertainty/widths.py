"""From a difficulty to an interval: split-conformal half-widths.

The half-width of a prediction is ``hypot(floor, q(y) s)``: s the predicted scale of its
error, q a factor that depends continuously on the predicted value y. The common factor is
the conformal quantile of the scaled scores (Papadopoulos 2002); where that leaves a fifth
of the predicted values with too few true values inside, the factor leans towards one for
each part (Mondrian conformal prediction, Vovk 2005).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch

COVERAGE = 0.90
"""Share of crystals whose true value shall lie in the interval."""

CHANGED_COVERAGE = 0.90
"""Share wanted of strained and rattled crystals that no limit tells from ordinary ones."""

_PART_COVERAGE = 0.82
"""Share wanted in each fifth of predicted value. It cannot be 90 % in every one: the
interval of a metal holds its gap of exactly 0 more often than that, whatever its width."""

_LARGEST_COVERAGE = 0.909
_PARTS = 5
_PER_PART = 100  # crystals that a part must hold to have a factor of its own
_APART = 0.03  # distance of two knots, in units of the spread of the predictions
_EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)  # from one factor to each part's own, and on
_FLOOR = 0.2  # of the mean absolute error


@dataclass(frozen=True)
class Widths:
    """Half-width of the interval by predicted value and scale.

    Attributes:
        knots: Predicted values (unclipped), ascending ``[K]``.
        factors: Factor q at each knot, linear between, constant outside ``[K]``.
        floor: Smallest half-width ``[1]``.
    """

    knots: torch.Tensor
    factors: torch.Tensor
    floor: torch.Tensor

    def __call__(self, output: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
        """Half-widths ``[B]`` of predictions ``[B]``."""
        factor = hat_functions(output, self.knots.double()) @ self.factors.double()
        return torch.hypot(factor * log_scale.exp(), self.floor.double())

    @classmethod
    def fit(
        cls,
        output: torch.Tensor,
        log_scale: torch.Tensor,
        residual: torch.Tensor,
        spread: float,
        changed: torch.Tensor | None = None,
    ) -> Widths:
        """Choose the factors on residuals that the scale was not fitted to.

        Args:
            output: Unclipped predictions ``[B]``.
            log_scale: Cross-fitted log scales ``[B]``.
            residual: Absolute residuals ``[B]``.
            spread: Spread of the predictions.
            changed: Which are of strained or rattled crystals ``[B]``; they can only make the
                factors larger.
        """
        changed = torch.zeros_like(output, dtype=torch.bool) if changed is None else changed
        floor = _FLOOR * residual[~changed].mean()
        # With the floor taken off, a residual is inside if its score is at most q.
        score = (residual**2 - floor**2).clamp(min=0).sqrt() / log_scale.exp()
        knots = _knots(output[~changed], spread)
        basis = hat_functions(output, knots)
        far_score, far_basis = score[changed], basis[changed]
        output, score, basis = output[~changed], score[~changed], basis[~changed]
        fifth = torch.argsort(torch.argsort(output)) * _PARTS // len(output)
        many = len(output) >= _PARTS * _PER_PART

        def scaled(shape: torch.Tensor, coverage: float) -> torch.Tensor:
            """The shape times the conformal quantile of the scores relative to it."""
            factor = _conformal(score / (basis @ shape), coverage)
            if len(far_score):
                far = _conformal(far_score / (far_basis @ shape), CHANGED_COVERAGE)
                factor = torch.maximum(factor, far)
            return shape * factor.clamp(min=1e-6)

        def least(factors: torch.Tensor) -> float:
            inside = (score <= basis @ factors).double()
            return min(float(inside[fifth == k].mean()) for k in range(_PARTS))

        factors = scaled(torch.ones(len(knots), dtype=torch.float64), COVERAGE)
        if many and least(factors) < _PART_COVERAGE:
            of_parts = _part_factors(basis, score, _PART_COVERAGE)
            for exponent, coverage in product(_EXPONENTS, (COVERAGE, _LARGEST_COVERAGE)):
                factors = scaled(of_parts**exponent, coverage)
                if least(factors) >= _PART_COVERAGE:
                    break
        return cls(knots.float(), factors.float(), floor.reshape(1).float())

    def tensors(self) -> dict[str, torch.Tensor]:
        """The arrays by name."""
        return dict(self.__dict__)


def hat_functions(output: torch.Tensor, knots: torch.Tensor) -> torch.Tensor:
    """Weights of linear interpolation between knots, constant outside, ``[B, K]``."""
    if len(knots) == 1:
        return torch.ones(len(output), 1, dtype=torch.float64)
    inside = output.clamp(knots[0], knots[-1])
    left = torch.searchsorted(knots, inside, right=True).clamp(1, len(knots) - 1) - 1
    right_share = (inside - knots[left]) / (knots[left + 1] - knots[left])
    weights = torch.zeros(len(output), len(knots), dtype=torch.float64)
    weights.scatter_(1, left[:, None], (1 - right_share)[:, None])
    return weights.scatter_(1, left[:, None] + 1, right_share[:, None])


def _conformal(scores: torch.Tensor, coverage: float) -> torch.Tensor:
    """Factor below which the wanted share of as yet unseen scores lies, at least."""
    at = min(int((len(scores) + 1) * coverage + 1), len(scores)) - 1
    return scores.sort().values[at]


def _knots(output: torch.Tensor, spread: float) -> torch.Tensor:
    """Medians of the fifths of the predicted values, those too near one another left out."""
    knots: list[float] = []
    for part in output.sort().values.chunk(_PARTS):
        middle = float(part.median())
        if not knots or middle - knots[-1] > _APART * spread:
            knots.append(middle)
    return torch.tensor(knots, dtype=torch.float64)


def _part_factors(basis: torch.Tensor, score: torch.Tensor, level: float) -> torch.Tensor:
    """Factors at which each part has about the wanted share inside ``[K]``."""
    common = score.quantile(level).clamp(min=1e-6)
    logs = common.log().expand(basis.shape[1]).clone()
    part = basis / basis.sum(0)
    for step in range(60):
        inside = (score <= basis @ logs.exp()).double()
        logs += 8.0 / (4 + step) * (level - inside @ part)
        # A part of exact answers would have a factor of 0, and all its widths the floor.
        logs.clamp_(min=float(common.log()) - 1.0)
    return logs.exp()
