"""Many small linear programs at once: the energy of the convex hull at many compositions.

The hull at a composition ``x`` is the lowest energy of any mixture of phases that has it:
minimise ``sum_i f_i e_i`` subject to ``sum_i f_i x_i = x`` and ``f >= 0``, with at most six unknown
multipliers a problem. The revised simplex method is run on all of them together, one array
operation a step: a problem costs microseconds, where a general solver's call costs a millisecond.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from recinet_ase.errors import ReciNetError

_OPTIMAL = 1e-11  # eV/atom that a step must promise
_PIVOT = 1e-9
_PATIENCE = 40  # steps, after which cycles are broken by Bland's rule
_STEPS = 2_000


class Mixtures(NamedTuple):
    """The lowest mixtures of B problems with n elements.

    Attributes:
        energy: Energy of each ``[B]``.
        columns: Phases in it, columns of the problem ``[B, n]``.
        fractions: Share of atoms in each of these ``[B, n]``, at least 0.
    """

    energy: np.ndarray
    columns: np.ndarray
    fractions: np.ndarray


def lowest_mixtures(target: np.ndarray, points: np.ndarray, energy: np.ndarray) -> Mixtures:
    """Solve B problems of n elements and m phases.

    Args:
        target: Compositions, as shares of atoms ``[B, n]``.
        points: Compositions of the phases ``[B, m, n]``; the first n are the elements.
        energy: Their energies in eV/atom ``[B, m]``; infinite where there is no phase.

    Raises:
        ReciNetError: If the method does not end, which rounding alone could bring about.
    """
    problems, n = target.shape
    every = np.arange(problems)
    columns = np.tile(np.arange(n), (problems, 1))
    inverse = np.tile(np.eye(n), (problems, 1, 1))
    amounts = target.astype(np.float64).copy()
    active = every
    for step in range(_STEPS):
        at = active[:, None]
        prices = np.einsum(
            "bn,bnk->bk", energy[at, columns[active]], inverse[active], optimize=False
        )
        gain = energy[active] - (points[active] @ prices[:, :, None])[:, :, 0]
        entering = gain.argmin(1) if step < _PATIENCE else (gain < -_OPTIMAL).argmax(1)
        going = gain[np.arange(len(active)), entering] < -_OPTIMAL
        if not going.all():
            active, entering = active[going], entering[going]
            if not len(active):
                break
        _exchange(active, entering, points, columns, inverse, amounts, step >= _PATIENCE)
    else:
        raise ReciNetError("a convex hull could not be found; are the energies sensible?")
    basis = points[every[:, None], columns].swapaxes(1, 2)
    fractions = np.maximum(np.linalg.solve(basis, target[:, :, None])[:, :, 0], 0.0)
    chosen = energy[every[:, None], columns]
    return Mixtures((fractions * chosen).sum(1), columns, fractions)


def _exchange(
    active: np.ndarray,
    entering: np.ndarray,
    points: np.ndarray,
    columns: np.ndarray,
    inverse: np.ndarray,
    amounts: np.ndarray,
    careful: bool,
) -> None:
    """Let a phase into each active mixture in place of the first that it uses up."""
    rows = np.arange(len(active))
    basis = inverse[active]
    direction = (basis @ points[active, entering][:, :, None])[:, :, 0]
    stock = amounts[active]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(direction > _PIVOT, np.maximum(stock, 0.0) / direction, np.inf)
    if careful:
        least = ratio.min(1, keepdims=True)
        leaving = np.where(ratio <= least + 1e-15, columns[active], np.iinfo(np.int64).max).argmin(
            1
        )
    else:
        leaving = ratio.argmin(1)
    share = ratio[rows, leaving]
    stock = stock - share[:, None] * direction
    stock[rows, leaving] = share
    pivot = basis[rows, leaving] / direction[rows, leaving][:, None]
    basis = basis - direction[:, :, None] * pivot[:, None, :]
    basis[rows, leaving] = pivot
    inverse[active], amounts[active] = basis, stock
    columns[active, leaving] = entering


def facets(points: Sequence[Sequence[float]], energy: Sequence[float]) -> list[tuple[int, int]]:
    """The edges of the hull of a ternary system: which two of its corners are joined.

    Args:
        points: Composition of each corner ``[m, 3]``.
        energy: Energy of each in eV/atom ``[m]``.
    """
    from scipy.spatial import ConvexHull, QhullError

    shares = np.asarray(points, dtype=np.float64)
    heights = np.asarray(energy, dtype=np.float64)
    table = np.column_stack((shares[:, :2], heights))
    # A point high above the others closes the hull from above; its facets are left out.
    lid = np.array([[1 / 3, 1 / 3, max(heights.max(), 0.0) + 10.0]])
    try:
        hull = ConvexHull(np.concatenate((table, lid)), qhull_options="QJ")
    except QhullError:
        return []
    edges = set()
    for triangle, normal in zip(hull.simplices.tolist(), hull.equations, strict=True):
        if len(table) in triangle or normal[2] > -1e-9:
            continue
        for i, j in ((0, 1), (1, 2), (0, 2)):
            a, b = sorted((triangle[i], triangle[j]))
            edges.add((a, b))
    return sorted(edges)
