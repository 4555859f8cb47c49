"""Measures of error, with the spread that the choice of crystals alone would give them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recinet_ase.errors import ReciNetError
from recinet_ase.evaluation.table import FloatArray

RESAMPLES = 2_000
_BLOCK = 4_000_000  # numbers drawn at once: 32 MB


@dataclass(frozen=True)
class Metrics:
    """Errors of n predictions, in the property's unit.

    Attributes:
        n: Number of crystals with target and prediction.
        mae: Mean absolute error.
        mae_low, mae_high: Bootstrap 95 % interval of the MAE over crystals.
        rmse: Root of the mean squared error.
        median_absolute_error: Half of the crystals are better than this.
        max_error: Largest absolute error.
        mean_error: Mean of prediction minus target (bias).
        mad: Mean absolute deviation of the targets from their mean, the MAE of "always the
            mean".
        mad_mae_ratio: ``mad / mae``, NaN if the MAE is 0: how much better than "always the
            mean", and comparable across properties.
        r2: Coefficient of determination, NaN where the targets are all alike.
    """

    n: int
    mae: float
    mae_low: float
    mae_high: float
    rmse: float
    median_absolute_error: float
    max_error: float
    mean_error: float
    mad: float
    mad_mae_ratio: float
    r2: float


def regression_metrics(
    targets: npt.ArrayLike, predictions: npt.ArrayLike, resamples: int = RESAMPLES, seed: int = 0
) -> Metrics:
    """Errors of predictions ``[n]`` against targets ``[n]``, all finite.

    Raises:
        ReciNetError: If there is none, their numbers differ, or one is not finite.
    """
    true, predicted = _pair(targets, predictions)
    signed = predicted - true
    error = np.abs(signed)
    mae = float(error.mean())
    low, high = bootstrap_interval(error, resamples, seed)
    mad = float(np.abs(true - true.mean()).mean())
    variance = float(((true - true.mean()) ** 2).sum())
    return Metrics(
        n=len(true),
        mae=mae,
        mae_low=low,
        mae_high=high,
        rmse=math.sqrt(float((error**2).mean())),
        median_absolute_error=float(np.median(error)),
        max_error=float(error.max()),
        mean_error=float(signed.mean()),
        mad=mad,
        mad_mae_ratio=mad / mae if mae else math.nan,
        r2=1 - float((error**2).sum()) / variance if variance else math.nan,
    )


def log10_error(targets: npt.ArrayLike, predictions: npt.ArrayLike) -> tuple[float, int]:
    """Mean absolute error of the decimal logarithm, and the number of crystals that have one.

    NaN and 0 if no crystal has both numbers above zero.
    """
    true, predicted = _pair(targets, predictions)
    known = (true > 0) & (predicted > 0)
    if not known.any():
        return math.nan, 0
    return float(np.abs(np.log10(predicted[known] / true[known])).mean()), int(known.sum())


def bootstrap_interval(
    values: npt.ArrayLike, resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of ``values`` ``[n]`` (Efron 1979).

    The same values, in the same order, with the same seed give the same interval.
    """
    data: FloatArray = np.asarray(values, dtype=np.float64)
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(1, _BLOCK // len(data))
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        means[start:stop] = data[
            generator.integers(len(data), size=(stop - start, len(data)))
        ].mean(1)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


@dataclass(frozen=True)
class GapClassification:
    """Whether metals and non-metals are told apart, at a threshold on the gap.

    A crystal counts as non-metal where its gap is above the threshold.

    Attributes:
        threshold: Threshold in eV.
        metal_as_metal, metal_as_nonmetal: Metals by what was predicted.
        nonmetal_as_metal, nonmetal_as_nonmetal: Non-metals by what was predicted.
    """

    threshold: float
    metal_as_metal: int
    metal_as_nonmetal: int
    nonmetal_as_metal: int
    nonmetal_as_nonmetal: int

    @property
    def accuracy(self) -> float:
        """Share of crystals on the right side."""
        wrong = self.metal_as_nonmetal + self.nonmetal_as_metal
        right = self.metal_as_metal + self.nonmetal_as_nonmetal
        return right / (right + wrong)


def gap_classification(
    targets: npt.ArrayLike, predictions: npt.ArrayLike, threshold: float = 0.1
) -> GapClassification:
    """Confusion of metals and non-metals for gaps in eV.

    Raises:
        ReciNetError: As `regression_metrics`.
    """
    true, predicted = (values > threshold for values in _pair(targets, predictions))
    return GapClassification(
        threshold,
        int((~true & ~predicted).sum()),
        int((~true & predicted).sum()),
        int((true & ~predicted).sum()),
        int((true & predicted).sum()),
    )


def _pair(targets: npt.ArrayLike, predictions: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Targets and predictions as arrays of equal length; refused where one is missing."""
    true: FloatArray = np.asarray(targets, dtype=np.float64).reshape(-1)
    predicted: FloatArray = np.asarray(predictions, dtype=np.float64).reshape(-1)
    if len(true) != len(predicted):
        raise ReciNetError(f"{len(true)} targets but {len(predicted)} predictions")
    if not len(true):
        raise ReciNetError("no crystal has both a target and a prediction")
    if not (np.isfinite(true).all() and np.isfinite(predicted).all()):
        raise ReciNetError("targets and predictions must be finite; leave out missing ones")
    return true, predicted
