"""Band structure, density of states and thermal properties as pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.constants import speed_of_light

from recinet_ase.phonons.spectra import DensityOfStates, Segment, ThermalProperties

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FONT = 13
_DPI = 200
_BLUE, _ORANGE, _GREY = "#1f5a92", "#c8501e", "#6f6f6f"
_GREEK = ("GAMMA", "SIGMA", "DELTA", "LAMBDA")
_GAS_CONSTANT = 8.314462618  # J/K/mol
_INVERSE_CM = 1e10 / speed_of_light  # of a THz


def band_plot(bands: Sequence[Segment], imaginary: bool, title: str, path: Path) -> None:
    """Frequencies along the band path, imaginary ones below zero."""
    figure, axes = _canvas(7.0, 4.8)
    for segment in bands:
        axes.plot(segment.distances, segment.frequencies, color=_BLUE, linewidth=1.3)
        # Bands cross zero between wave vectors: the imaginary part is drawn over the band.
        below = np.where(segment.frequencies < 0, segment.frequencies, np.nan)
        axes.plot(segment.distances, below, color=_ORANGE, linewidth=1.8)
    places, labels = ticks(bands)
    for place in places:
        axes.axvline(place, color="0.8", linewidth=0.8, zorder=0)
    axes.set_xlim(places[0], places[-1])
    axes.set_xticks(places, labels, fontsize=_FONT)
    axes.tick_params(axis="x", length=0)
    low = min(float(segment.frequencies.min()) for segment in bands)
    high = max(float(segment.frequencies.max()) for segment in bands)
    _frequency_axis(axes, low, high, imaginary)
    axes.set_title(title, fontsize=_FONT)
    figure.savefig(path, dpi=_DPI)


def dos_plot(dos: DensityOfStates, imaginary: bool, title: str, path: Path) -> None:
    """Density of states against frequency, in THz below and in 1/cm above."""
    figure, axes = _canvas(7.0, 4.2)
    frequencies, states = dos.frequencies, dos.states
    axes.fill_between(frequencies, states, color=_BLUE, alpha=0.2, linewidth=0)
    axes.plot(frequencies, states, color=_BLUE, linewidth=1.3)
    if imaginary:
        below = frequencies < 0
        axes.fill_between(frequencies, states, where=below, color=_ORANGE, alpha=0.4, linewidth=0)
        axes.axvline(0, color=_GREY, linewidth=0.8)
    axes.set_xlim(float(frequencies[0]), float(frequencies[-1]))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("frequency (THz)" + (", imaginary negative" if imaginary else ""))
    axes.set_ylabel("states (1/THz per primitive cell)")
    second = axes.secondary_xaxis("top", functions=(_to_wave_number, _to_thz))
    second.set_xlabel("wave number (cm$^{-1}$)", fontsize=_FONT)
    second.tick_params(labelsize=_FONT - 2)
    axes.set_title(title, fontsize=_FONT)
    figure.savefig(path, dpi=_DPI)


def thermal_plot(
    thermal: ThermalProperties, primitive: Atoms, imaginary: bool, title: str, path: Path
) -> None:
    """Heat capacity and entropy, and the free energy, against temperature."""
    figure, axes = _canvas(9.6, 4.2, 2)
    left, right = axes.figure.axes[:2]
    left.plot(thermal.temperatures, thermal.heat_capacity, color=_BLUE, label="$C_V$")
    left.plot(thermal.temperatures, thermal.entropy, color=_ORANGE, label="$S$")
    limit = 3 * len(primitive) * _GAS_CONSTANT
    left.axhline(limit, color=_GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    left.annotate(
        r"$3Nk_\mathrm{B}$", (0, limit), (4, 3), textcoords="offset points", color=_GREY,
        fontsize=_FONT - 2,
    )  # fmt: skip
    left.set_ylabel("$C_V$, $S$ (J/K/mol)")
    left.set_ylim(0, 1.08 * max(limit, float(thermal.entropy.max())))
    left.legend(frameon=False, fontsize=_FONT - 1, loc="lower right")
    right.plot(thermal.temperatures, thermal.free_energy, color=_BLUE)
    right.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    right.set_ylabel("free energy $F$ (kJ/mol)")
    for panel in (left, right):
        panel.set_xlabel("temperature (K)")
        panel.set_xlim(0, float(thermal.temperatures[-1]))
    text = f"{title}; per mole of {primitive.get_chemical_formula()}"
    if imaginary:
        text += "; imaginary modes left out"
    figure.suptitle(text, fontsize=_FONT)
    figure.savefig(path, dpi=_DPI)


def ticks(bands: Sequence[Segment]) -> tuple[list[float], list[str]]:
    """Places (1/A) and names of the path's high-symmetry points; jumps as ``U|K``."""
    places: list[float] = []
    labels: list[str] = []
    end = ""
    for segment in bands:
        if not places:
            places.append(float(segment.distances[0]))
            labels.append(point_label(segment.start))
        elif segment.start != end:
            labels[-1] += f"|{point_label(segment.start)}"
        places.append(float(segment.distances[-1]))
        labels.append(point_label(segment.end))
        end = segment.end
    return places, labels


def point_label(name: str) -> str:
    r"""Seekpath's name of a point as it is printed: ``GAMMA`` is a capital gamma, ``X_1`` X₁."""
    base, _, index = name.partition("_")
    text = "\\" + base.capitalize() if base in _GREEK else re.sub(r"[^A-Za-z]", "", base)
    return rf"$\mathrm{{{text}}}{f'_{{{index}}}' if index else ''}$"


def _frequency_axis(axes: Axes, low: float, high: float, imaginary: bool) -> None:
    """Frequencies upwards, THz on the left and wave numbers on the right."""
    margin = 0.04 * (high - min(low, 0.0) or 1.0)
    axes.set_ylim(low - margin if imaginary else 0.0, high + margin)
    axes.set_ylabel("frequency (THz)")
    if imaginary:
        axes.axhline(0, color=_GREY, linewidth=0.8, zorder=1)
        axes.set_ylabel("frequency (THz), imaginary negative")
    second = axes.secondary_yaxis("right", functions=(_to_wave_number, _to_thz))
    second.set_ylabel("wave number (cm$^{-1}$)", fontsize=_FONT)
    second.tick_params(labelsize=_FONT - 2)


def _to_wave_number(thz: Any) -> Any:
    return thz * _INVERSE_CM


def _to_thz(wave_number: Any) -> Any:
    return wave_number / _INVERSE_CM


def _canvas(width: float, height: float, panels: int = 1) -> tuple[Figure, Axes]:
    """A figure of its own, on the Agg canvas, and its first axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    for axes in figure.subplots(1, panels, squeeze=False)[0]:
        axes.tick_params(labelsize=_FONT - 2)
        axes.xaxis.label.set_fontsize(_FONT)
        axes.yaxis.label.set_fontsize(_FONT)
    return figure, figure.axes[0]
