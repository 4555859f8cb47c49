"""Fitting a calibration, and measuring it on crystals that it was not fitted to."""

from __future__ import annotations

import math
from typing import Any

import torch

from recinet_ase.errors import ReciNetError
from recinet_ase.uncertainty.calibration import (
    JUDGED,
    Calibration,
    PropertyCalibration,
    judged_by,
)
from recinet_ase.uncertainty.descriptors import Descriptors
from recinet_ase.uncertainty.difficulty import Difficulty, features
from recinet_ase.uncertainty.reference import Placement, Reference
from recinet_ase.uncertainty.widths import COVERAGE, Widths

FOLDS = 5
_INNER_FOLDS = 5
MINIMUM_CRYSTALS = 40
"""Validation crystals below which no calibration is attempted."""

_FLAGGED = 0.038  # share of validation crystals that the limits together leave outside
_SHARES = {  # how that is divided: tail below the lower limit and above the upper one
    "distance": (0, 2),
    "log_volume": (1, 4),
    "shortest_bond": (1, 0.5),
    "mean_bond": (1, 1),
    "loneliest_bond": (0.5, 0.5),
    "mean_coordination": (0.5, 0.5),
}
_MARGIN = 0.01  # of the range between two limits, added to both
_PARTS = 5


def fit_calibration(
    train: Descriptors,
    held_out: Descriptors,
    values: torch.Tensor,
    names: tuple[str, ...],
    minimum: tuple[float | None, ...],
    model: str,
) -> Calibration:
    """A model's calibration from a sample of its training crystals and its validation set.

    Args:
        train: Descriptors of training crystals (no labels are used).
        held_out: Descriptors of the validation crystals.
        values: True values of these ``[B, P]``, NaN where one is not known.
        names: The model's properties.
        minimum: Their physical lower bounds.
        model: Fingerprint of the model.

    Returns:
        The calibration, with its cross-fitted figures.

    Raises:
        ReciNetError: If there are too few validation crystals.
    """
    reference = Reference.fit(train)
    place = reference.place(held_out)
    judged = judged_by(held_out, place)
    limits = fit_limits(judged)
    figures: dict[str, Any] = {
        "coverage_wanted": COVERAGE,
        "folds": FOLDS,
        "flagged": _cross_fitted_flags(judged).double().mean().item(),
        "properties": {},
    }
    properties = {}
    for column, name in enumerate(names):
        known = ~values[:, column].isnan()
        data = _Data(held_out[known], place[known], column, values[known, column], minimum[column])
        if len(data.all) < MINIMUM_CRYSTALS:
            raise ReciNetError(
                f"{len(data.all)} validation crystals with {name} are too few to calibrate with "
                f"(at least {MINIMUM_CRYSTALS})"
            )
        properties[name] = data.fit(data.all)
        figures["properties"][name] = data.figures()
    return Calibration(reference, limits, properties, minimum, model, figures)


class _Data:
    """One property's residuals on the validation crystals."""

    def __init__(
        self,
        found: Descriptors,
        place: Placement,
        column: int,
        values: torch.Tensor,
        minimum: float | None,
    ) -> None:
        self.output = found.output[:, column]
        self.composition = found.composition
        self.minimum = minimum
        self.values = values.double()
        predicted = self.output if minimum is None else self.output.clamp(min=minimum)
        self.residual = (predicted - self.values).abs()
        self.predicted = predicted
        mean = self.output.mean()
        self.scale = max(float((self.output - mean).abs().mean()), 1e-6)
        self.inputs = features(found, place, column, self.scale, minimum)
        self.all = torch.arange(len(values))

    def fit(self, rows: torch.Tensor) -> PropertyCalibration:
        """Fit to some of the crystals: factors on cross-fitted scales, then one scale model."""
        log_scale = torch.zeros(len(rows), dtype=torch.float64)
        folds = _folds(len(rows), _INNER_FOLDS)
        for k in range(_INNER_FOLDS):
            inside, outside = rows[folds != k], folds == k
            model = self._difficulty(inside)
            log_scale[outside] = model(self.inputs[rows[outside]], self.composition[rows[outside]])
        widths = Widths.fit(self.output[rows], log_scale, self.residual[rows], self.scale)
        return PropertyCalibration(self._difficulty(rows), widths, torch.tensor([self.scale]))

    def _difficulty(self, rows: torch.Tensor) -> Difficulty:
        return Difficulty.fit(self.inputs[rows], self.composition[rows], self.residual[rows])

    def cross_fitted(self) -> torch.Tensor:
        """Half-width of every crystal by a calibration that never saw it ``[B]``."""
        half = torch.zeros_like(self.residual)
        folds = _folds(len(half), FOLDS, seed=1)
        for k in range(FOLDS):
            part, rows = self.fit(self.all[folds != k]), self.all[folds == k]
            log_scale = part.difficulty(self.inputs[rows], self.composition[rows])
            half[rows] = part.widths(self.output[rows], log_scale)
        return half

    def figures(self) -> dict[str, Any]:
        """Coverage, overall and by fifth of predicted value, and how good the widths are."""
        from scipy.stats import spearmanr

        half = self.cross_fitted()
        low = -math.inf if self.minimum is None else self.minimum
        lower, upper = (self.predicted - half).clamp(min=low), self.predicted + half
        inside = ((self.values >= lower) & (self.values <= upper)).double()
        width = upper - lower
        # Ties (gaps clipped to 0) are told apart by the unclipped value.
        parts = torch.argsort(self.output, stable=True).chunk(_PARTS)
        by_width = torch.argsort(half, stable=True).chunk(_PARTS)
        return {
            "crystals": len(self.all),
            "coverage": inside.mean().item(),
            "coverage_by_fifth": [inside[p].mean().item() for p in parts],
            "median_width": width.median().item(),
            "mean_width": width.mean().item(),
            "error_by_fifth_of_width": [self.residual[p].mean().item() for p in by_width],
            "rank_correlation": float(spearmanr(half.numpy(), self.residual.numpy())[0]),
        }


def _folds(n: int, folds: int, seed: int = 0) -> torch.Tensor:
    """Fold of each of n crystals, int64 ``[n]``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(n, generator=generator) % folds


def fit_limits(judged: torch.Tensor) -> torch.Tensor:
    """Limits that together leave `_FLAGGED` of the crystals outside.

    Args:
        judged: Values of `judged_by` ``[B, J]``.

    Returns:
        Lower and upper limits ``[J, 2]``.
    """
    shares = torch.tensor([_SHARES[name] for name in JUDGED], dtype=torch.float64)
    low, high = 0.0, 0.1
    for _ in range(30):
        middle = (low + high) / 2
        limits = _limits(judged, middle * shares)
        outside = ((judged < limits[:, 0]) | (judged > limits[:, 1])).any(1).double().mean()
        low, high = (middle, high) if outside <= _FLAGGED else (low, middle)
    return _limits(judged, low * shares).float()


def _limits(judged: torch.Tensor, tails: torch.Tensor) -> torch.Tensor:
    """Lower and upper limit of what the domain is judged by ``[J, 2]``."""
    columns = zip(judged.T, tails, strict=True)
    rows = [torch.stack((c.quantile(t[0]), c.quantile(1 - t[1]))) for c, t in columns]
    limits = torch.stack(rows)
    # Close-packed crystals have the largest coordination number there is: whether they are
    # inside must not be a matter of rounding.
    margin = _MARGIN * (limits[:, 1:] - limits[:, :1])
    limits = torch.cat((limits[:, :1] - margin, limits[:, 1:] + margin), dim=1)
    limits[JUDGED.index("distance"), 0] = 0.0
    return limits


def _cross_fitted_flags(judged: torch.Tensor) -> torch.Tensor:
    """Whether each crystal is outside limits that were fitted without it ``[B]``."""
    folds, flags = _folds(len(judged), FOLDS), torch.zeros(len(judged), dtype=torch.bool)
    for k in range(FOLDS):
        limits = fit_limits(judged[folds != k]).double()
        mine = judged[folds == k]
        flags[folds == k] = ((mine < limits[:, 0]) | (mine > limits[:, 1])).any(1)
    return flags
