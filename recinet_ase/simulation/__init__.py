"""What moves atoms: calculators by name, and relaxation with any of them.

>>> from recinet_ase.simulation import relax_many
>>> [result.volume_change for result in relax_many(candidates, ReciNetForceCalculator())]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recinet_ase._lazy import exports

if TYPE_CHECKING:
    from recinet_ase.simulation.calculators import load_calculator
    from recinet_ase.simulation.relaxation import (
        Relaxation,
        RelaxationSettings,
        relax,
        relax_many,
    )

_EXPORTS = {
    "Relaxation": "relaxation",
    "RelaxationSettings": "relaxation",
    "load_calculator": "calculators",
    "relax": "relaxation",
    "relax_many": "relaxation",
}

__all__ = ["Relaxation", "RelaxationSettings", "load_calculator", "relax", "relax_many"]

__getattr__, __dir__ = exports(__name__, _EXPORTS)
