"""A quantity of each element on the periodic table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recinet_ase.analysis.canvas import FONT, Scale, canvas, colour_bar
from recinet_ase.analysis.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def gate_elements(table: Table, role: str = "neighbour") -> Figure:
    """Gate and message weight, the mean over the blocks, of each element in one role."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patches import Rectangle

    from recinet_ase.elements import symbols, table_position

    figure, (panels,) = canvas(13.0, 3.4, 1, 2)
    found = table.select(role=role)
    for quantity, axes in zip(("gate", "message"), panels, strict=True):
        mean = {
            name: float(found[quantity][found["element"] == name].mean())
            for name in dict.fromkeys(found["element"].tolist())
        }
        chosen = Scale.of(quantity, list(mean.values()))
        scale = Normalize(chosen.low, chosen.high, clip=True)
        colours = colormaps[chosen.colours]
        for z, name in enumerate(symbols()):
            if z == 0:
                continue
            x, row = table_position(z)
            y = row + 0.5 * (row > 7)
            known = name in mean
            face = colours(scale(mean[name] - chosen.zero)) if known else (0.93, 0.93, 0.93, 1)
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=face, edgecolor="white"))
            dark = np.dot(face[:3], (0.3, 0.6, 0.1)) < 0.45
            axes.text(
                x, y, name, ha="center", va="center", fontsize=FONT - 2,
                color="white" if dark else "black" if known else "0.6",
            )  # fmt: skip
        axes.set(xlim=(0.4, 18.6), ylim=(10.1, 0.4), aspect="equal")
        axes.axis("off")
        extend = "both" if chosen.zero else "max"
        bar = ScalarMappable(scale, chosen.colours)
        colour_bar(figure, bar, axes, f"as {role}: {chosen.label}", extend, 0.75)
    return figure
