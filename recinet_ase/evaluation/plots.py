"""Pictures of a run and of an evaluation, drawn without touching matplotlib's global state."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from recinet_ase.errors import ReciNetError
from recinet_ase.properties import PropertyInfo

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FONT = 13
_DPI = 200
_BLUE, _ORANGE, _GREY = "#1f5a92", "#c8501e", "#6f6f6f"
_MANY = 300  # crystals from which a density says more than points


def parity_plot(
    targets: npt.ArrayLike, predictions: npt.ArrayLike, info: PropertyInfo, path: Path
) -> None:
    """Predictions against true values, coloured by density, with the error beside them.

    Args:
        targets: True values ``[n]`` in the property's unit.
        predictions: Predictions ``[n]``.
        info: Names and unit for the axes.
        path: Image file; its suffix chooses the format.

    Raises:
        ReciNetError: If there is nothing to draw.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    true = np.asarray(targets, dtype=np.float64).reshape(-1)
    predicted = np.asarray(predictions, dtype=np.float64).reshape(-1)
    known = np.isfinite(true) & np.isfinite(predicted)
    true, predicted = true[known], predicted[known]
    if not len(true):
        raise ReciNetError(f"nothing to draw in {path}: no crystal has target and prediction")
    figure, axes = _canvas(6.0, 5.2)
    low = float(min(true.min(), predicted.min()))
    high = float(max(true.max(), predicted.max()))
    margin = 0.04 * (high - low or 1.0)
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, color=_GREY, linewidth=1, zorder=1)
    if len(true) < _MANY:
        axes.scatter(true, predicted, s=18, color=_BLUE, alpha=0.7, linewidths=0, zorder=2)
    else:
        cells = axes.hexbin(
            true,
            predicted,
            gridsize=70,
            extent=(*limits, *limits),
            norm=LogNorm(vmin=1),
            mincnt=1,
            cmap="viridis_r",
            linewidths=0.1,
            zorder=2,
        )
        bar = figure.colorbar(cells, ax=axes, pad=0.02, fraction=0.046)
        bar.set_label("crystals", fontsize=_FONT)
        bar.ax.tick_params(labelsize=_FONT - 2)
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    error = np.abs(predicted - true)
    unit = f" {info.unit}" if info.unit else ""
    axes.text(
        0.04,
        0.96,
        f"MAE {error.mean():.3g}{unit}\nRMSE {math.sqrt((error**2).mean()):.3g}{unit}\n"
        f"{len(true):,} crystals",
        transform=axes.transAxes,
        va="top",
        fontsize=_FONT - 1,
        linespacing=1.4,
    )
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.set_xlabel(f"true {info.column}")
    axes.set_ylabel(f"predicted {info.column}")
    figure.savefig(path, dpi=_DPI, bbox_inches="tight")


def learning_curve(metrics_csv: Path, path: Path, info: PropertyInfo) -> None:
    """Training and validation error of a run against the epoch, with the learning rate.

    The training error is that of the weights as they move, with dropout; the validation
    error that of their moving average.

    Args:
        metrics_csv: A run's ``metrics.csv`` (columns ``epoch,train_mae,val_mae,learning_rate``).
        path: Image file; its suffix chooses the format.
        info: Names and unit for the axes.

    Raises:
        ReciNetError: If the file is no such table or has no epoch yet.
    """
    epoch, train, validation, rate = _read_metrics(metrics_csv)
    figure, axes = _canvas(7.0, 4.6)
    axes.plot(epoch, train, color=_GREY, linewidth=1.8, label="training")
    at = np.isfinite(validation)
    axes.plot(
        epoch[at],
        validation[at],
        color=_BLUE,
        linewidth=1.8,
        marker="o" if at.sum() < 2 else None,
        label="validation",
    )
    axes.set_yscale("log")
    _plain_log_ticks(axes)
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"MAE of the {info.column}")
    axes.grid(which="major", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.02)
    second = axes.twinx()
    second.plot(epoch, rate, color=_ORANGE, linewidth=1.2, linestyle=(0, (4, 2)))
    second.set_ylabel("learning rate", color=_ORANGE, fontsize=_FONT)
    second.tick_params(axis="y", labelsize=_FONT - 2, colors=_ORANGE)
    second.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
    second.yaxis.get_offset_text().set_fontsize(_FONT - 2)
    second.set_ylim(bottom=0)
    second.spines["top"].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    handles += second.get_lines()
    axes.legend(
        handles,
        [*labels, "learning rate"],
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=3,
        frameon=False,
        fontsize=_FONT - 1,
    )
    figure.savefig(path, dpi=_DPI, bbox_inches="tight")


def _read_metrics(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Epoch, training error, validation error (NaN between validations), learning rate."""
    if not path.is_file():
        raise ReciNetError(f"no such file: {path}")
    with path.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    if not rows:
        raise ReciNetError(f"{path} has no epoch to draw yet")
    try:
        columns = [
            np.array([float(row[name] or "nan") for row in rows])
            for name in ("epoch", "train_mae", "val_mae", "learning_rate")
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ReciNetError(f"{path} is no table of a training run ({error!r})") from None
    epoch, train, validation, rate = columns
    return epoch, train, validation, rate


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of its own, on the Agg canvas, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.tick_params(labelsize=_FONT - 2)
    axes.xaxis.label.set_fontsize(_FONT)
    axes.yaxis.label.set_fontsize(_FONT)
    axes.spines["top"].set_visible(False)
    axes.spines["right"].set_visible(False)
    return figure, axes


def _plain_log_ticks(axes: Axes) -> None:
    """Numbers rather than powers of ten, which a range of one decade would hardly show."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_ylim()
    steps: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
    for range_, fewer in ((6, (1.0, 2.0, 5.0)), (50, (1.0, 3.0)), (500, (1.0,))):
        if high / low > range_:
            steps = fewer
    axes.yaxis.set_major_locator(LogLocator(subs=steps))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
