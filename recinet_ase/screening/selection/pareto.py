"""The rows that no other row beats."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np


def pareto_front(costs: np.ndarray) -> np.ndarray:
    """Which points are not dominated when every coordinate is to be small.

    A point is dominated by one that is nowhere larger and somewhere smaller; equal points do
    not dominate each other. One and two coordinates cost a sort, three a sweep in
    O(n log n) (Kung, Luccio and Preparata 1975), more a comparison with the front.

    Args:
        costs: Points ``[n, d]``; a point with a NaN is never part of the front.

    Returns:
        Bool ``[n]``.
    """
    front = np.zeros(len(costs), dtype=bool)
    rows = np.flatnonzero(~np.isnan(costs).any(axis=1))
    if not len(rows) or not costs.shape[1]:
        return front
    # In lexicographic order no point is dominated by a later one.
    rows = rows[np.lexsort(costs[rows].T[::-1])]
    points = costs[rows]
    new = np.ones(len(points), dtype=bool)
    new[1:] = (points[1:] != points[:-1]).any(axis=1)
    distinct = points[new]
    if costs.shape[1] == 1:
        kept = np.arange(len(distinct)) == 0
    elif costs.shape[1] == 2:
        best = np.minimum.accumulate(distinct[:, 1])
        kept = np.append(True, distinct[1:, 1] < best[:-1])
    elif costs.shape[1] == 3:
        kept = _sweep(distinct)
    else:
        kept = _against_front(distinct)
    front[rows] = kept[np.cumsum(new) - 1]
    return front


def _sweep(points: np.ndarray) -> np.ndarray:
    """Three coordinates: the front so far, seen along the first, is a staircase in the others."""
    kept = np.zeros(len(points), dtype=bool)
    seconds: list[float] = []  # ascending
    thirds: list[float] = []  # descending
    for i, (second, third) in enumerate(points[:, 1:].tolist()):
        at = bisect_right(seconds, second)
        if at and thirds[at - 1] <= third:
            continue
        kept[i] = True
        start = at - 1 if at and seconds[at - 1] == second else at
        end = at
        while end < len(thirds) and thirds[end] >= third:
            end += 1
        seconds[start:end], thirds[start:end] = [second], [third]
    return kept


def _against_front(points: np.ndarray) -> np.ndarray:
    kept = np.zeros(len(points), dtype=bool)
    remaining = np.arange(len(points))
    while len(remaining):
        first, rest = remaining[0], remaining[1:]
        kept[first] = True
        remaining = rest[(points[rest] < points[first]).any(axis=1)]
    return kept
