"""Two models on the same crystals: is one better, or were its crystals kinder?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recinet_ase.errors import ReciNetError
from recinet_ase.evaluation.metrics import RESAMPLES, bootstrap_interval
from recinet_ase.evaluation.table import PredictionTable

_SAME_TARGET = 1e-3  # published files round their targets


@dataclass(frozen=True)
class Comparison:
    """Paired comparison of absolute errors on the crystals that both models answer.

    Attributes:
        other: What the first model is compared with.
        n: Number of common crystals.
        mae, other_mae: MAE of either on them.
        difference: ``mae - other_mae``; negative where the first model is better.
        difference_low, difference_high: Bootstrap 95 % interval of the difference.
        improved, worsened: Share of crystals where the first model is closer, or farther.
        wilcoxon_p: Two-sided p of the Wilcoxon signed-rank test on the errors.
        sign_p: Two-sided p of the sign test.
    """

    other: str
    n: int
    mae: float
    other_mae: float
    difference: float
    difference_low: float
    difference_high: float
    improved: float
    worsened: float
    wilcoxon_p: float
    sign_p: float


def compare(
    table: PredictionTable,
    other: PredictionTable,
    name: str,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare the errors of ``table`` with those of ``other`` on their common ids.

    Args:
        table: Predictions with the targets that both are judged by.
        other: Predictions to compare with; its own targets, where it has any, must agree.
        name: What to call the other.
        resamples: Bootstrap samples.
        seed: Seed of the bootstrap.

    Raises:
        ReciNetError: If no crystal is common to both, or their targets differ.
    """
    position = {key: i for i, key in enumerate(other.ids)}
    ours = table.scored()
    theirs = np.array([position.get(key, -1) for key in ours.ids], dtype=np.int64)
    found = theirs >= 0
    found[found] = ~other.refused[theirs[found]]
    ours, theirs = ours.select(found), theirs[found]
    if not len(ours):
        raise ReciNetError(
            f"{name} has no prediction for any of the labelled crystals evaluated here; is it of "
            "another dataset or split?"
        )
    _check_targets(ours, other, theirs, name)
    mine = ours.absolute_errors
    yours = np.abs(other.predictions[theirs] - ours.targets)
    difference = mine - yours
    low, high = bootstrap_interval(difference, resamples, seed)
    better, worse = int((difference < 0).sum()), int((difference > 0).sum())
    wilcoxon_p, sign_p = _tests(difference, better, worse)
    return Comparison(
        other=name,
        n=len(ours),
        mae=float(mine.mean()),
        other_mae=float(yours.mean()),
        difference=float(difference.mean()),
        difference_low=low,
        difference_high=high,
        improved=better / len(ours),
        worsened=worse / len(ours),
        wilcoxon_p=wilcoxon_p,
        sign_p=sign_p,
    )


def _check_targets(
    ours: PredictionTable, other: PredictionTable, at: np.ndarray, name: str
) -> None:
    """Both must mean the same property.

    Raises:
        ReciNetError: Naming the first id whose targets differ.
    """
    theirs = other.targets[at]
    apart = np.abs(theirs - ours.targets) > _SAME_TARGET * np.maximum(1, np.abs(ours.targets))
    if apart.any():
        i = int(np.flatnonzero(apart)[0])
        raise ReciNetError(
            f"{name} states another target for {int(apart.sum())} of {len(ours)} common crystals "
            f"({ours.ids[i]}: {theirs[i]:g}, here {ours.targets[i]:g}); it is of another property, "
            "unit or release"
        )


def _tests(difference: np.ndarray, better: int, worse: int) -> tuple[float, float]:
    """Two-sided p values of Wilcoxon's signed-rank test and of the sign test; ties left out."""
    from scipy.stats import binomtest, wilcoxon

    if not better + worse:
        return 1.0, 1.0  # the same errors everywhere: nothing speaks for a difference
    signed_rank = wilcoxon(difference, zero_method="wilcox").pvalue
    return float(signed_rank), float(binomtest(better, better + worse).pvalue)
