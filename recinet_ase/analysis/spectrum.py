"""Singular values and effective rank of a learned matrix (paper, appendix D, eq. 28-29)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recinet_ase.errors import ReciNetError

RANK_SHARES = (0.90, 0.95)
"""Shares of the energy at which the paper gives the effective rank."""

_ROUNDING = 1e-12  # a share that rounding alone keeps below the limit counts as reached


def singular_values(matrix: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Singular values in descending order, ``[min(rows, columns)]`` (eq. 28).

    Raises:
        ReciNetError: If the matrix is empty, not two-dimensional or not finite.
    """
    values = np.asarray(matrix, dtype=np.float64)
    if values.ndim != 2 or values.size == 0:
        raise ReciNetError(f"an array of shape {values.shape} is no matrix with singular values")
    if not np.isfinite(values).all():
        raise ReciNetError("the matrix holds non-finite numbers and has no singular values")
    return np.linalg.svd(values, compute_uv=False).astype(np.float64)


def cumulative_energy(singular: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Share of ``sum sigma^2`` in the first k singular values, k = 1, 2, ..., ``[n]``.

    All ones for a matrix of zeros, which no component adds anything to.
    """
    energy = np.cumsum(np.asarray(singular, dtype=np.float64) ** 2)
    return energy / energy[-1] if energy[-1] > 0 else np.ones_like(energy)


def effective_rank(singular: npt.ArrayLike, share: float) -> int:
    """Fewest singular values that hold ``share`` of the energy (eq. 29).

    Args:
        singular: Singular values in descending order ``[n]``.
        share: Between 0 and 1; 0.9 for the paper's Rank 90 %.

    Returns:
        The rank; 0 for a matrix of zeros.

    Raises:
        ReciNetError: If the share is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise ReciNetError(f"the share of the energy must lie in (0, 1], not {share}")
    values = np.asarray(singular, dtype=np.float64)
    if not values.any():
        return 0
    return int(np.argmax(cumulative_energy(values) >= share - _ROUNDING)) + 1


@dataclass(frozen=True)
class Spectrum:
    """Singular values of one matrix of one block.

    Attributes:
        block: Number of the block, from 1.
        matrix: Which of its matrices.
        shape: Rows and columns.
        singular: Singular values in descending order.
        random_ranks: Mean effective ranks of the same matrix with random weights, one for each
            of `RANK_SHARES`: what the learned ranks are to be compared with.
    """

    block: int
    matrix: str
    shape: tuple[int, int]
    singular: npt.NDArray[np.float64]
    random_ranks: tuple[float, ...]

    @property
    def ranks(self) -> tuple[int, ...]:
        """Effective ranks, one for each of `RANK_SHARES`."""
        return tuple(effective_rank(self.singular, share) for share in RANK_SHARES)
