"""Thermodynamic stability: distances to the convex hull of known phases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recinet_ase._lazy import exports

if TYPE_CHECKING:
    from recinet_ase.stability.hull import Hull
from recinet_ase.stability.phases import Component, Phase, describe

_EXPORTS = {"Component": "phases", "Hull": "hull", "Phase": "phases", "describe": "phases"}

__all__ = ["Component", "Hull", "Phase", "describe"]

__getattr__, __dir__ = exports(__name__, _EXPORTS)
