"""Figures in one style, drawn without touching matplotlib's global state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FONT = 10
DPI = 150
FORMATS = ("png", "pdf", "svg")

SEQUENTIAL, DIVERGING = "cividis", "PuOr"
"""Colour maps that colour-blind readers can read."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6f6f6f")
"""Okabe and Ito's colours."""


def canvas(width: float, height: float, rows: int = 1, columns: int = 1, **shared: Any) -> Any:
    """A figure of its own, on the Agg canvas, and its axes ``[rows][columns]``.

    Args:
        width: In inches.
        height: In inches.
        rows: Rows of panels.
        columns: Columns of panels.
        **shared: Of ``Figure.subplots`` (``sharex``, ``sharey``).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False, **shared)
    for axes in panels.flat:
        axes.tick_params(labelsize=FONT - 1)
        axes.xaxis.label.set_fontsize(FONT)
        axes.yaxis.label.set_fontsize(FONT)
    return figure, panels


def block_title(axes: Axes, block: int) -> None:
    """Say which block a panel shows."""
    axes.set_title(f"block {block}", fontsize=FONT, loc="left")


def colour_bar(
    figure: Figure, shown: Any, axes: Any, label: str, extend: str = "neither", shrink: float = 1.0
) -> None:
    """A labelled colour bar beside one or several panels."""
    bar = figure.colorbar(shown, ax=axes, pad=0.02, fraction=0.05, extend=extend, shrink=shrink)
    bar.set_label(label, fontsize=FONT)
    bar.ax.tick_params(labelsize=FONT - 1)


@dataclass(frozen=True)
class Scale:
    """How gates or message weights become colours.

    Gates differ little from one another: what is shown is the difference from their mean, no
    difference in the neutral colour. Message weights begin at 0.
    """

    label: str
    colours: str
    zero: float
    low: float
    high: float

    @classmethod
    def of(cls, quantity: str, values: npt.ArrayLike) -> Scale:
        """The scale of a quantity; a few outliers must not flatten all others."""
        known = np.asarray(values, dtype=np.float64)
        known = known[np.isfinite(known)]
        if quantity == "gate":
            mean = float(known.mean())
            reach = float(np.percentile(abs(known - mean), 98)) or 1.0
            label = rf"gate $\overline{{\beta}}$, difference from {mean:.2f}"
            return cls(label, DIVERGING, mean, -reach, reach)
        return cls("message weight", SEQUENTIAL, 0.0, 0.0, float(np.percentile(known, 98)))


def save(figure: Figure, folder: Path, name: str, formats: Sequence[str]) -> list[Path]:
    """Write a figure in every format, without a date, so that the same figure is the same file."""
    import matplotlib

    paths = []
    with matplotlib.rc_context({"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": name}):
        for suffix in formats:
            dated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
            paths.append(folder / f"{name}.{suffix}")
            figure.savefig(paths[-1], dpi=DPI, metadata=dated.get(suffix))
    return paths
