"""Phonons of crystals with any calculator that gives forces, through phonopy.

>>> from ase.build import bulk
>>> from recinet_ase.phonons import load_calculator, phonons
>>> result = phonons(bulk("Cu"), load_calculator("emt"))
>>> result.at("X")  # frequencies at a high-symmetry point, THz
>>> result.write("copper")  # phonopy.yaml, plots, tables

The road: `structure` (checks, symmetry, supercell), `forces` (of the displaced
supercells, kept as they come), `harmonic` (force constants and what phonopy makes of them),
`spectra` and `result` (what comes out), `files` and `plots` (what is written); `calculation` puts
it all together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recinet_ase._lazy import exports

if TYPE_CHECKING:
    from recinet_ase.phonons.calculation import phonons
    from recinet_ase.phonons.result import Phonons
    from recinet_ase.simulation.batch_forces import BatchForces
    from recinet_ase.simulation.calculators import load_calculator

_EXPORTS = {
    "phonons": "calculation",
    "load_calculator": "recinet_ase.simulation.calculators",
    "BatchForces": "recinet_ase.simulation.batch_forces",
    "Phonons": "result",
}

__all__ = ["BatchForces", "Phonons", "load_calculator", "phonons"]

__getattr__, __dir__ = exports(__name__, _EXPORTS)
