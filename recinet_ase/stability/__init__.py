"""Thermodynamic stability: distances to the convex hull of known phases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recinet_ase._lazy import exports

if TYPE_CHECKING:
    from recinet_ase.stability.hull import Component, Hull, Phase

_EXPORTS = {"Component": "hull", "Hull": "hull", "Phase": "hull"}

__all__ = ["Component", "Hull", "Phase"]

__getattr__, __dir__ = exports(__name__, _EXPORTS)
