"""Elastic constants and equations of state, with any calculator that gives stresses.

>>> from ase.build import bulk
>>> from recinet_ase import ReciNetForceCalculator
>>> from recinet_ase.mechanics import elastic_constants, equation_of_state
>>> found = elastic_constants(bulk("Si"), ReciNetForceCalculator("mlearn-pes"))
>>> found.tensor, found.bulk_modulus, found.stable, found.warnings  # GPa
>>> equation_of_state(bulk("Si"), ReciNetForceCalculator("mlearn-pes")).bulk_modulus

`cells` finds the crystal at rest and evaluates deformed cells, in batches where the
calculator can (``many``); `elastic` and `equation` fit what comes out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recinet_ase._lazy import exports

if TYPE_CHECKING:
    from recinet_ase.mechanics.elastic import ElasticResult, elastic_constants
    from recinet_ase.mechanics.equation import EquationOfStateResult, equation_of_state

_EXPORTS = {
    "ElasticResult": "elastic",
    "EquationOfStateResult": "equation",
    "elastic_constants": "elastic",
    "equation_of_state": "equation",
}

__all__ = ["ElasticResult", "EquationOfStateResult", "elastic_constants", "equation_of_state"]

__getattr__, __dir__ = exports(__name__, _EXPORTS)
