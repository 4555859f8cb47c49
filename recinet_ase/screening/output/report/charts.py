"""Histograms and the points of the scatter plot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from recinet_ase.screening.output.statistics import label_of
from recinet_ase.screening.selection.table import RowTable, property_columns

SCATTER_POINTS = 20_000
"""Points drawn at most; more are sampled."""

_BINS = 48
_WIDTH, _HEIGHT = 460, 214
_LEFT, _RIGHT, _TOP, _BASE, _BOTTOM = 46, 452, 10, 138, 182  # of the plot, in its own units


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram, in units of the drawing, on a linear and a logarithmic axis."""

    x: float
    width: float
    linear: tuple[float, float]
    logarithmic: tuple[float, float]
    title: str


@dataclass(frozen=True)
class Histogram:
    """One property: all rows upwards, the shortlist downwards.

    Attributes:
        name: Column.
        label: With the unit.
        bars: All rows.
        chosen: The shortlist.
        ticks: Position and text on the value axis.
        counts: Position and text on the linear count axis.
        log_counts: The same on the logarithmic one.
        peak: Largest count in the shortlist.
        note: What is not shown as it is.
        skewed: Whether one bar dwarfs the others, so that counts are better read as logarithms.
    """

    name: str
    label: str
    bars: list[Bar]
    chosen: list[Bar]
    ticks: list[tuple[float, str]]
    counts: list[tuple[float, str]]
    log_counts: list[tuple[float, str]]
    peak: int
    note: str
    skewed: bool
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = _LEFT
    right: int = _RIGHT
    base: int = _BASE
    bottom: int = _BOTTOM


def ticks(low: float, high: float, wanted: int = 6) -> list[float]:
    """Round numbers between two ends."""
    span = high - low
    if not span > 0:
        return [low]
    raw = span / wanted
    power = 10.0 ** np.floor(np.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = np.ceil(low / step - 1e-9)
    count = int(np.floor(high / step - first + 1e-9)) + 1
    return [float(round((first + i) * step, 12)) + 0.0 for i in range(count)]


def axis_label(name: str, unit: str) -> str:
    """A column in plain language with its unit."""
    return f"{label_of(name)} ({unit})" if unit else label_of(name)


def histogram(name: str, unit: str, values: np.ndarray, chosen: np.ndarray) -> Histogram | None:
    """Counts of a property.

    Args:
        name: Column.
        unit: Its unit.
        values: Of all rows, NaN for missing ``[n]``.
        chosen: Of the shortlist ``[k]``.

    Returns:
        The drawing, or None without any value.
    """
    values, chosen = values[np.isfinite(values)], chosen[np.isfinite(chosen)]
    if not len(values):
        return None
    low, high = float(values.min()), float(values.max())
    note = ""
    far_low, far_high = np.percentile(values, [0.1, 99.9])
    if len(values) >= 1000 and far_high - far_low < 0.6 * (high - low):
        low, high = float(far_low), float(far_high)
        beyond = int(((values < low) | (values > high)).sum())
        note = f"{beyond:,} values beyond the axis are counted in the bars at its ends"
    if not high > low:
        low, high = low - 0.5, high + 0.5
    marks = ticks(low, high)
    edges = np.linspace(low, high, _BINS + 1)
    tall = np.histogram(np.clip(values, low, high), edges)[0]
    small = np.histogram(np.clip(chosen, low, high), edges)[0]
    scale = (_RIGHT - _LEFT) / (high - low)
    top = int(tall.max())
    up, down = _BASE - _TOP, _BOTTOM - _BASE - 2

    def bars(counts: np.ndarray, peak: int, size: float, upward: bool) -> list[Bar]:
        """The bars of one histogram, above or below the line."""
        found = []
        for count, start, end in zip(counts, edges[:-1], edges[1:], strict=True):
            if not count:
                continue
            spans = []
            for share in (count / peak, np.log10(1 + count) / np.log10(1 + peak)):
                length = max(1.0, float(share) * size)
                spans.append((_BASE - length if upward else _BASE + 1, length))
            title = f"{start:.3g} to {end:.3g} {unit}: {count:,}"
            x = _LEFT + (start - low) * scale
            width = max(1.0, (end - start) * scale - 1)
            found.append(Bar(float(x), float(width), spans[0], spans[1], title))
        return found

    linear = [c for c in ticks(0, top, 4) if c == int(c)]
    decades = [10.0**k for k in range(int(np.log10(top)) + 1)]
    return Histogram(
        name,
        axis_label(name, unit),
        bars(tall, top, up, True),
        bars(small, max(1, int(small.max(initial=0))), down, False),
        [(_LEFT + (t - low) * scale, f"{t:g}") for t in marks],
        [(_BASE - c / top * up, f"{int(c):,}") for c in linear],
        [(_BASE - np.log10(1 + c) / np.log10(1 + top) * up, f"{int(c):,}") for c in decades],
        int(small.max(initial=0)),
        note,
        bool(top > 10 * np.sort(tall)[-2]),
    )


def scatter(
    table: RowTable, indices: np.ndarray | None, favourites: list[str]
) -> dict[str, Any] | None:
    """The points of the scatter plot, by column; the shortlist is always among them.

    Args:
        table: All rows.
        indices: The shortlist, None if there is none.
        favourites: Columns to show first.

    Returns:
        Plain lists, numbers to five digits, or None if fewer than one point has a value.
    """
    names = property_columns(table.columns, table.units)
    axes = [*names, *(["natoms"] if "natoms" in table.columns else [])]
    if len(axes) < 2:
        return None
    columns = {name: np.asarray(table.column(name), dtype=np.float64) for name in axes}
    drawable = sum(np.isfinite(columns[name]).astype(int) for name in axes) >= 2
    drawable &= np.any([np.isfinite(columns[name]) for name in names], axis=0)
    rows = np.flatnonzero(drawable)
    if not len(rows):
        return None
    total = len(rows)
    rank = np.zeros(len(table), dtype=np.int64)
    if indices is not None:
        rank[indices] = np.arange(1, len(indices) + 1)
    if total > SCATTER_POINTS:
        # The best of the shortlist, then a fixed random choice of the others.
        first = rows[rank[rows] > 0]
        first = first[np.argsort(rank[first])][: SCATTER_POINTS // 2]
        others = np.setdiff1d(rows, first, assume_unique=True)
        picked = np.random.default_rng(0).choice(
            len(others), SCATTER_POINTS - len(first), replace=False
        )
        rows = np.sort(np.concatenate([first, others[picked]]))
    flags = table.column("in_domain")[rows] if "in_domain" in table.columns else None
    order = list(dict.fromkeys([n for n in favourites if n in axes] + axes))
    return {
        "total": total,
        "axes": [{"name": n, "label": label_of(n), "unit": table.units.get(n, "")} for n in axes],
        "x": order[0],
        "y": order[1],
        "id": [str(value) for value in table.column("id")[rows]],
        "formula": [str(value or "") for value in table.column("formula")[rows]],
        "rank": rank[rows].tolist() if indices is not None else None,
        # Outside the domain 0, inside 1, unknown 2.
        "inside": None
        if flags is None
        else "".join("2" if flag is None else "1" if flag else "0" for flag in flags),
        "values": {name: _short(columns[name][rows]) for name in axes},
    }


def _short(values: np.ndarray) -> list[float | int | None]:
    """Numbers to five digits, whole ones without a point, None for missing."""
    rounded = [float(f"{value:.5g}") if np.isfinite(value) else None for value in values]
    return [int(v) if v is not None and v == int(v) else v for v in rounded]
