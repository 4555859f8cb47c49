"""Fitting a calibration, and measuring it on crystals that it was not fitted to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from recinet_ase.errors import ReciNetError
from recinet_ase.uncertainty.calibration import (
    JUDGED,
    Calibration,
    PropertyCalibration,
    judged_by,
    outside,
    placed,
)
from recinet_ase.uncertainty.descriptors import Descriptors
from recinet_ase.uncertainty.difficulty import Difficulty, features
from recinet_ase.uncertainty.reference import Placement, Reference
from recinet_ase.uncertainty.strain import Copies, StrainEstimate
from recinet_ase.uncertainty.widths import COVERAGE, Widths

FOLDS = 5
_INNER_FOLDS = 5
MINIMUM_CRYSTALS = 40
"""Validation crystals below which no calibration is attempted."""

_FLAGGED = 0.09  # share of validation crystals that the limits together leave outside
_SHARES = {  # how that is divided: tail below the lower limit and above the upper one
    "distance": (0, 2),
    "log_volume": (1, 4),
    "shortest_bond": (1, 0.5),
    "mean_bond": (1, 1),
    "loneliest_bond": (0.5, 0.5),
    "mean_coordination": (0.5, 0.5),
    "strain": (12, 12),
}
_MARGIN = 0.01  # of the range between two limits, added to both
_PARTS = 5

STRAINS = {"volume within 4 %": (0.0, 0.04), "4 to 8 %": (0.04, 0.08), "8 to 12 %": (0.08, 0.13)}
"""Log ratios of volumes, by which the figures of strained copies are told apart."""


def fit_calibration(
    train: Descriptors,
    held_out: Descriptors,
    values: torch.Tensor,
    names: tuple[str, ...],
    minimum: tuple[float | None, ...],
    model: str,
    train_copies: Copies | None = None,
    copies: Mapping[str, Copies] | None = None,
) -> Calibration:
    """A model's calibration from a sample of its training crystals and its validation set.

    Args:
        train: Descriptors of training crystals (no labels are used).
        held_out: Descriptors of the validation crystals.
        values: True values of these ``[B, P]``, NaN where one is not known.
        names: The model's properties.
        minimum: Their physical lower bounds.
        model: Fingerprint of the model.
        train_copies: Strained copies of the training crystals; without them no strain is told.
        copies: Changed copies of validation crystals by kind; without them the intervals are
            those of relaxed crystals alone.

    Returns:
        The calibration, with its cross-fitted figures.

    Raises:
        ReciNetError: If there are too few validation crystals.
    """
    reference = Reference.fit(train)
    strain = _fit_strain(reference, train, train_copies)
    place = placed(held_out, reference, strain)
    judged = judged_by(held_out, place)
    limits = fit_limits(judged)
    figures: dict[str, Any] = {
        "coverage_wanted": COVERAGE,
        "folds": FOLDS,
        "flagged": _cross_fitted_flags(judged).double().mean().item(),
        "properties": {},
    }
    changed = {
        kind: (each, placed(each.found, reference, strain)) for kind, each in (copies or {}).items()
    }
    properties = {}
    for column, name in enumerate(names):
        data = _Data(held_out, place, column, values[:, column], minimum[column], limits, changed)
        if len(data.ordinary) < MINIMUM_CRYSTALS:
            raise ReciNetError(
                f"{len(data.ordinary)} validation crystals with {name} are too few to calibrate "
                f"with (at least {MINIMUM_CRYSTALS})"
            )
        properties[name] = data.fit(data.everyone)
        figures["properties"][name] = data.figures()
    return Calibration(reference, strain, limits, properties, minimum, model, figures)


def _fit_strain(reference: Reference, train: Descriptors, copies: Copies | None) -> StrainEstimate:
    deviation = reference.place(train).deviation
    if copies is None:
        inputs = sum(x.shape[1] for x in (train.geometry, deviation, train.latent))
        return StrainEstimate.none(inputs + train.composition.shape[1])
    return StrainEstimate.fit(train, deviation, copies, reference.place(copies.found).deviation)


class _Data:
    """One property's residuals on the validation crystals and on changed copies of them.

    Attributes:
        ordinary: Rows of the crystals as they are.
        everyone: All rows.
        origin: Crystal of each row.
        changed: Whether a row is a copy.
        flagged: Whether a row is outside the domain.
    """

    def __init__(
        self,
        held_out: Descriptors,
        held_out_place: Placement,
        column: int,
        values: torch.Tensor,
        minimum: float | None,
        limits: torch.Tensor,
        copies: Mapping[str, tuple[Copies, Placement]],
    ) -> None:
        known = ~values.isnan()
        kept = {kind: known[each.origin] for kind, (each, _) in copies.items()}
        found = Descriptors.join(
            [held_out[known], *(each.found[kept[kind]] for kind, (each, _) in copies.items())]
        )
        place = Placement.join(
            [held_out_place[known], *(p[kept[kind]] for kind, (_, p) in copies.items())]
        )
        origins = [each.origin[kept[kind]] for kind, (each, _) in copies.items()]
        self.origin = torch.cat((known.nonzero()[:, 0], *origins))
        self.strain = torch.cat(
            (
                torch.zeros(int(known.sum()), dtype=torch.float64),
                *(each.strain[kept[kind]] for kind, (each, _) in copies.items()),
            )
        )
        self.everyone = torch.arange(len(found))
        self.ordinary = self.everyone[: int(known.sum())]
        self.changed = self.everyone >= len(self.ordinary)
        self.kinds = dict(
            zip(copies, self.everyone[self.changed].split([len(o) for o in origins]), strict=True)
        )
        self.flagged = outside(judged_by(found, place), limits)
        self.crystals = len(known)
        self.output = found.output[:, column]
        self.composition = found.composition
        self.minimum = minimum
        self.values = values[self.origin].double()
        self.predicted = self.output if minimum is None else self.output.clamp(min=minimum)
        self.residual = (self.predicted - self.values).abs()
        output = self.output[self.ordinary]
        self.scale = max(float((output - output.mean()).abs().mean()), 1e-6)
        self.inputs = features(found, place, column, self.scale, minimum)

    def fit(self, rows: torch.Tensor) -> PropertyCalibration:
        """Fit to some of the rows: factors on cross-fitted scales, then one scale model."""
        log_scale = torch.zeros(len(rows), dtype=torch.float64)
        folds = _folds(self.crystals, _INNER_FOLDS)[self.origin[rows]]
        for k in range(_INNER_FOLDS):
            inside, apart = rows[folds != k], folds == k
            model = self._difficulty(inside)
            log_scale[apart] = model(self.inputs[rows[apart]], self.composition[rows[apart]])
        # A copy that is flagged needs no interval that holds.
        counts = ~(self.changed & self.flagged)[rows]
        some = rows[counts]
        widths = Widths.fit(
            self.output[some],
            log_scale[counts],
            self.residual[some],
            self.scale,
            self.changed[some],
        )
        return PropertyCalibration(self._difficulty(rows), widths, torch.tensor([self.scale]))

    def _difficulty(self, rows: torch.Tensor) -> Difficulty:
        return Difficulty.fit(self.inputs[rows], self.composition[rows], self.residual[rows])

    def cross_fitted(self) -> torch.Tensor:
        """Half-width of every row by a calibration that never saw its crystal ``[B]``."""
        half = torch.zeros_like(self.residual)
        folds = _folds(self.crystals, FOLDS, seed=1)[self.origin]
        for k in range(FOLDS):
            part, rows = self.fit(self.everyone[folds != k]), self.everyone[folds == k]
            log_scale = part.difficulty(self.inputs[rows], self.composition[rows])
            half[rows] = part.widths(self.output[rows], log_scale)
        return half

    def figures(self) -> dict[str, Any]:
        """Coverage, overall and by fifth of predicted value, and how good the widths are."""
        from scipy.stats import spearmanr

        every_half = self.cross_fitted()
        low = -math.inf if self.minimum is None else self.minimum
        lower = (self.predicted - every_half).clamp(min=low)
        upper = self.predicted + every_half
        every_inside = ((self.values >= lower) & (self.values <= upper)).double()
        n = len(self.ordinary)
        half, inside, residual = every_half[:n], every_inside[:n], self.residual[:n]
        width = (upper - lower)[:n]
        # Ties (gaps clipped to 0) are told apart by the unclipped value.
        parts = torch.argsort(self.output[:n], stable=True).chunk(_PARTS)
        by_width = torch.argsort(half, stable=True).chunk(_PARTS)
        return {
            "crystals": n,
            "coverage": inside.mean().item(),
            "coverage_by_fifth": [inside[p].mean().item() for p in parts],
            "median_width": width.median().item(),
            "mean_width": width.mean().item(),
            "error_by_fifth_of_width": [residual[p].mean().item() for p in by_width],
            "rank_correlation": float(spearmanr(half.numpy(), residual.numpy())[0]),
            "changed": {
                name: self._of_copies(rows, every_inside) for name, rows in self._groups().items()
            },
        }

    def _groups(self) -> dict[str, torch.Tensor]:
        """Rows of the copies, strained ones by their strain."""
        groups = dict(self.kinds)
        strained = groups.pop("strained", self.everyone[:0])
        size = self.strain[strained].abs()
        bins = {
            name: strained[(size >= low) & (size < high)] for name, (low, high) in STRAINS.items()
        }
        return {name: rows for name, rows in {**bins, **groups}.items() if len(rows)}

    def _of_copies(self, rows: torch.Tensor, inside: torch.Tensor) -> dict[str, float]:
        """How copies fare: error, flags, and the coverage of those that are not flagged."""
        unflagged = rows[~self.flagged[rows]]
        return {
            "crystals": len(rows),
            "error": self.residual[rows].mean().item(),
            "flagged": self.flagged[rows].double().mean().item(),
            "coverage_unflagged": inside[unflagged].mean().item() if len(unflagged) else 1.0,
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
        share = outside(judged, limits).double().mean()
        low, high = (middle, high) if share <= _FLAGGED else (low, middle)
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
        flags[folds == k] = outside(judged[folds == k], limits)
    return flags
