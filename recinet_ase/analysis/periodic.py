"""A quantity of each element on the periodic table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recinet_ase.analysis.canvas import FONT, SEQUENTIAL, canvas, colour_bar, colour_range
from recinet_ase.analysis.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_F_ROWS = {6: 8.5, 7: 9.5}  # where the lanthanides and actinides are drawn


def position(z: int) -> tuple[float, float]:
    """Column (1 to 18) and row of an element in the 18-column table."""
    lanthanide, actinide = 57 <= z <= 70, 89 <= z <= 102
    if lanthanide or actinide:
        return (z - 54 if lanthanide else z - 86), _F_ROWS[6 if lanthanide else 7]
    from recinet_ase.elements import groups_and_periods

    group, period = groups_and_periods()[z]
    return float(group), float(period)


def gate_elements(table: Table, role: str = "neighbour") -> Figure:
    """Gate and message weight, the mean over the blocks, of each element in one role."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patches import Rectangle

    from recinet_ase.elements import symbols

    figure, (panels,) = canvas(13.0, 3.4, 1, 2)
    found = table.select(role=role)
    for quantity, axes in zip(("gate", "message"), panels, strict=True):
        mean = {
            name: float(found[quantity][found["element"] == name].mean())
            for name in dict.fromkeys(found["element"].tolist())
        }
        scale = Normalize(*colour_range(list(mean.values())), clip=True)
        colours = colormaps[SEQUENTIAL]
        for z, name in enumerate(symbols()):
            if z == 0:
                continue
            x, y = position(z)
            value = mean.get(name, float("nan"))
            face = colours(scale(value)) if np.isfinite(value) else "0.93"
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=face, edgecolor="white"))
            dark = np.isfinite(value) and scale(value) < 0.55
            axes.text(
                x, y, name, ha="center", va="center", fontsize=FONT - 2,
                color="white" if dark else "black" if np.isfinite(value) else "0.6",
            )  # fmt: skip
        axes.set(xlim=(0.4, 18.6), ylim=(10.1, 0.4), aspect="equal")
        axes.axis("off")
        label = r"gate $\overline{\beta}$" if quantity == "gate" else "message weight"
        colour_bar(
            figure, ScalarMappable(scale, SEQUENTIAL), axes, f"{label} as {role}", "both", 0.75
        )
    return figure
