"""The pictures of an analysis, each drawn from the table that is written beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recinet_ase.analysis.bonding import UNDEFINED
from recinet_ase.analysis.canvas import (
    COLOURS,
    DIVERGING,
    FONT,
    SEQUENTIAL,
    Scale,
    block_title,
    canvas,
    colour_bar,
)
from recinet_ase.analysis.observe import MEAN, RECIPROCAL, WAVES
from recinet_ase.analysis.sample import FAMILIES
from recinet_ase.analysis.spectrum import RANK_SHARES
from recinet_ase.analysis.tables import ALL, QUARTILES, UNTRAINED, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WAVE_NUMBER = r"wave number $|\mathbf{G}|$ ($\mathrm{\AA}^{-1}$)"
FILTER = r"filter $\varphi_c(|\mathbf{G}|)$"
_LOW, _MIDDLE, _HIGH = QUARTILES
_PANEL = 2.9  # inches
_PART_LABELS = {
    RECIPROCAL: "whole block",
    WAVES: r"waves ($\mathbf{G} \neq 0$)",
    MEAN: r"mean ($\mathbf{G} = 0$)",
}
_MANY_ELEMENTS = 50
_FEW_EDGES = 1e-3  # share of the edges below which a mean over a bin is not drawn
_NO_GROUP = (FAMILIES[-1], UNDEFINED)
_NEARLY_ALL = 0.9995  # of the energy: what follows is not drawn


def filter_curves(table: Table) -> Figure:
    """Median and quartiles over the channels, and single channels, against ``|G|``."""
    blocks = table.values("block")
    figure, (panels,) = canvas(_PANEL * len(blocks), 2.7, 1, len(blocks))
    for block, axes in zip(blocks, panels, strict=True):
        curves = dict.fromkeys(table.select(block=block)["curve"].tolist())
        found = {key: table.select(block=block, curve=key) for key in curves}
        x = found[_MIDDLE]["wave number (1/A)"]
        y = {key: columns["filter"] for key, columns in found.items()}
        for key in y:
            if key not in QUARTILES and key not in UNTRAINED:
                axes.plot(x, y[key], color="0.65", linewidth=0.8, label="_")
        axes.fill_between(
            x, y[_LOW], y[_HIGH], color=COLOURS[0], alpha=0.3, linewidth=0, label="quartiles"
        )
        axes.plot(x, y[_MIDDLE], color=COLOURS[0], linewidth=1.8, label="median")
        for key, label in zip(UNTRAINED, ("quartiles before training", "_"), strict=True):
            axes.plot(
                x, y[key], color=COLOURS[1], linewidth=1.1, linestyle=(0, (4, 2)), label=label
            )
        axes.axhline(0, color="0.4", linewidth=0.6)
        axes.set_xlim(x[0], x[-1])
        axes.set_xlabel(WAVE_NUMBER)
        block_title(axes, block)
    panels[0].plot([], [], color="0.65", linewidth=0.8, label="largest channels")
    panels[0].set_ylabel(FILTER)
    panels[0].legend(frameon=False, fontsize=FONT - 2)
    return figure


def filter_matrices(table: Table) -> Figure:
    """All channels of the filters as maps of wave number and channel."""
    blocks = table.values("block")
    figure, (panels,) = canvas(_PANEL * len(blocks), 2.9, 1, len(blocks), sharey=True)
    for block, axes in zip(blocks, panels, strict=True):
        found = table.select(block=block)
        grid = np.unique(found["wave number (1/A)"])
        values = found["filter"].reshape(-1, len(grid)).T  # [L, C]
        top = np.abs(values).max() or 1.0
        shown = axes.imshow(
            values, origin="lower", aspect="auto", cmap=DIVERGING, vmin=-top, vmax=top,
            extent=(0.5, values.shape[1] + 0.5, grid[0], grid[-1]), interpolation="nearest",
        )  # fmt: skip
        axes.set_xlabel("channel (sorted)")
        block_title(axes, block)
        colour_bar(figure, shown, axes, FILTER if block == blocks[-1] else "")
    panels[0].set_ylabel(WAVE_NUMBER)
    return figure


def singular_values(table: Table) -> Figure:
    """Cumulative energy against the number of components, a panel for each matrix."""
    from matplotlib.ticker import MaxNLocator

    matrices = table.values("matrix")
    figure, (panels,) = canvas(_PANEL * len(matrices), 2.9, 1, len(matrices), sharey=True)
    for matrix, axes in zip(matrices, panels, strict=True):
        whole = table.select(matrix=matrix)
        drawn = whole["component"][whole["cumulative energy"] < _NEARLY_ALL]
        axes.set_xlim(0, 2 + max(drawn, default=0))
        for block in table.values("block"):
            found = table.select(block=block, matrix=matrix)
            axes.plot(
                found["component"], found["cumulative energy"], marker=".", markersize=3,
                linewidth=1.2, color=COLOURS[(block - 1) % len(COLOURS)], label=f"block {block}",
            )  # fmt: skip
        for share in RANK_SHARES:
            axes.axhline(share, color="0.6", linewidth=0.8, linestyle=(0, (4, 3)))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.set_xlabel("singular values kept")
        axes.set_title(matrix, fontsize=FONT, loc="left")
        axes.set_ylim(top=1.02)
    panels[0].set_ylabel("cumulative energy (eq. 29)")
    panels[-1].legend(frameon=False, fontsize=FONT - 2)
    return figure


def update_ratio(table: Table) -> Figure:
    """Median and quartiles of the ratio in each block; left its parts, right the families."""
    figure, (panels,) = canvas(7.6, 3.1, 1, 2, sharey=True)
    parts = table.values("part")
    _ratios(panels[0], [(_PART_LABELS[p], table.select(part=p, division=ALL)) for p in parts])
    families = dict.fromkeys(table.select(division="crystal family")["group"].tolist())
    families.pop(FAMILIES[-1], None)
    _ratios(
        panels[1],
        [(f, table.select(part=RECIPROCAL, division="crystal family", group=f)) for f in families],
    )
    panels[0].set_ylabel("reciprocal update / local update")
    return figure


def _ratios(axes: Axes, series: list[tuple[str, dict[str, np.ndarray]]]) -> None:
    """Medians and quartiles by block, one colour a series, the series beside one another."""
    for i, (label, found) in enumerate(series):
        middle = found[_MIDDLE]
        shift = 0.6 * ((i + 0.5) / len(series) - 0.5)
        # A part that vanishes everywhere has no place on a logarithmic axis.
        spread = np.abs(np.stack((middle - found[_LOW], found[_HIGH] - middle)))
        axes.errorbar(
            found["block"] + shift, middle, yerr=spread, fmt="o", markersize=4, linewidth=1.2,
            color=COLOURS[i % len(COLOURS)], label=label,
        )  # fmt: skip
    axes.set_yscale("log")
    axes.axhline(1, color="0.6", linewidth=0.8, zorder=0)
    axes.set_xticks(sorted({int(b) for _, found in series for b in found["block"]}))
    axes.set_xlabel("block")
    axes.legend(frameon=False, fontsize=FONT - 3, ncols=2)


def switched_off(table: Table) -> Figure:
    """Mean absolute change of the predictions by group, a row of panels for each property."""
    properties = table.values("property")
    divisions = [d for d in table.values("division") if d != ALL]
    figure, panels = canvas(7.6, 2.9 * len(properties), len(properties), len(divisions))
    for row, prop in zip(panels, properties, strict=True):
        for axes, division in zip(row, divisions, strict=True):
            parts = table.values("without")
            for i, part in enumerate(parts):
                found = table.select(property=prop, without=part, division=division)
                drawn = ~np.isin(found["group"], _NO_GROUP)
                found = {key: column[drawn] for key, column in found.items()}
                place = np.arange(len(found["group"]))
                axes.barh(
                    place + 0.8 * ((i + 0.5) / len(parts) - 0.5), found["mean absolute change"],
                    height=0.8 / len(parts), color=COLOURS[i],
                    label=f"without {_PART_LABELS[part]}",
                )  # fmt: skip
                names = zip(found["group"], found["crystals"], strict=True)
                axes.set_yticks(place, [f"{name} ({n})" for name, n in names])
            unit = str(table.select(property=prop)["unit"][0])
            axes.set_xlabel("mean |change|" + (f" ({unit})" if unit else ""))
        if len(properties) > 1:
            row[0].set_title(prop, fontsize=FONT, loc="left")
        row[-1].legend(frameon=False, fontsize=FONT - 2)
    return figure


def gate_distance(table: Table) -> Figure:
    """Gate and message weight against the length of an edge."""
    figure, (panels,) = canvas(7.0, 2.9, 1, 2)
    labels = (r"gate $\overline{\beta}$", "message weight")
    for quantity, label, axes in zip(("gate", "message"), labels, panels, strict=True):
        for i, block in enumerate(table.values("block")):
            found = table.select(block=block)
            weight = found["edges an atom, summed over crystals"]
            drawn = weight >= _FEW_EDGES * weight.sum()
            axes.plot(
                found["distance (A)"][drawn], found[quantity][drawn],
                color=COLOURS[i % len(COLOURS)], linewidth=1.4, marker=".", markersize=4,
                label=f"block {block}",
            )  # fmt: skip
        axes.set_xlabel(r"distance ($\mathrm{\AA}$)")
        axes.set_ylabel(label)
    panels[0].legend(frameon=False, fontsize=FONT - 2)
    return figure


def gate_pairs(table: Table) -> Figure:
    """Mean gate and message weight over the blocks, by centre and neighbour element."""
    from recinet_ase.elements import symbols

    order = {symbol: z for z, symbol in enumerate(symbols())}
    every = table.select()
    elements = sorted({*every["centre"].tolist(), *every["neighbour"].tolist()}, key=order.get)  # type: ignore[arg-type]
    place = {symbol: i for i, symbol in enumerate(elements)}
    width = 10.0 if len(elements) <= _MANY_ELEMENTS else 16.0
    figure, (panels,) = canvas(width, 0.48 * width, 1, 2)
    size = max(3.0, min(FONT - 1.0, 25 * width / len(elements)))
    for quantity, axes in zip(("gate", "message"), panels, strict=True):
        mean = np.full((len(elements), len(elements)), np.nan)
        blocks = len(table.values("block"))
        for a, b, value in zip(every["centre"], every["neighbour"], every[quantity], strict=True):
            at = place[a], place[b]
            mean[at] = (0 if np.isnan(mean[at]) else mean[at]) + value / blocks
        scale = Scale.of(quantity, mean)
        shown = axes.imshow(
            mean - scale.zero, origin="lower", cmap=scale.colours, vmin=scale.low,
            vmax=scale.high, interpolation="nearest",
        )  # fmt: skip
        axes.set_facecolor("0.85")  # pairs that the crystals do not hold
        axes.set_xticks(range(len(elements)), elements, fontsize=size, rotation=90)
        axes.set_yticks(range(len(elements)), elements, fontsize=size)
        axes.tick_params(length=0)
        axes.set_xlabel("neighbour")
        axes.set_ylabel("centre")
        colour_bar(figure, shown, axes, scale.label, "both" if scale.zero else "max")
    return figure


def expert_frequencies(table: Table) -> Figure:
    """Selection frequency by property and expert."""
    properties, experts = table.values("property"), table.values("expert")
    width = 2.5 + 0.38 * len(experts)
    figure, ((axes,),) = canvas(width, 1.3 + 0.38 * len(properties))
    values = np.stack([table.select(property=p)["selection frequency"] for p in properties])
    shown = axes.imshow(values, cmap=SEQUENTIAL, vmin=0, aspect="auto")
    axes.set_xticks(range(len(experts)), experts)
    axes.set_yticks(range(len(properties)), properties)
    axes.set_xlabel("expert")
    colour_bar(figure, shown, axes, "selection frequency")
    return figure


def task_similarity(table: Table, label: str) -> Figure:
    """The matrix of similarities with its numbers."""
    properties = table.values("property")
    n = len(properties)
    figure, ((axes,),) = canvas(3.0 + 0.6 * n, 2.0 + 0.55 * n)
    values = table.select()["similarity"].reshape(n, n)
    shown = axes.imshow(values, cmap=SEQUENTIAL, vmin=min(0.0, float(np.nanmin(values))), vmax=1)
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "black" if value > 0.6 else "white"
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=FONT, color=colour)
    axes.set_xticks(range(n), properties, rotation=30, ha="right")
    axes.set_yticks(range(n), properties)
    colour_bar(figure, shown, axes, label)
    return figure


def composition(table: Table) -> Figure:
    """Share of each class, beside the paper's where it has one."""
    figure, ((axes,),) = canvas(4.2, 2.9)
    rows = [row for row in table.rows if isinstance(row[3], float) and np.isfinite(row[3])]
    place = np.arange(len(rows))
    theirs = [row[5] for row in rows]
    both = all(share != "" for share in theirs)
    width = 0.4 if both else 0.7
    axes.bar(
        place - (width / 2 if both else 0), [100 * row[3] for row in rows], width,
        color=COLOURS[0], label="this data",
    )  # fmt: skip
    if both:
        axes.bar(
            place + width / 2, [100 * share for share in theirs], width, color=COLOURS[4],
            label="paper, table 15",
        )  # fmt: skip
        axes.legend(frameon=False, fontsize=FONT - 2)
    axes.set_xticks(place, [row[0] for row in rows])
    axes.set_ylabel("crystals (%)")
    return figure
