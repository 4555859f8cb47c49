"""Forces on many structures at once: the one thing that mechanics and phonons ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms


@runtime_checkable
class BatchForces(Protocol):
    """Forces on many structures at once.

    A calculator that has this method beside ASE's own is asked in batches.
    """

    def forces_of(self, structures: list[Atoms]) -> list[np.ndarray]:
        """Forces ``[N, 3]`` in eV/A on each structure, in order."""
        ...


class CalculatorForces:
    """Any ASE calculator as a `BatchForces`, one structure after the other.

    Args:
        calculator: An ASE calculator.
    """

    def __init__(self, calculator: Any) -> None:
        self.calculator = calculator

    def forces_of(self, structures: list[Atoms]) -> list[np.ndarray]:
        """Forces ``[N, 3]`` in eV/A on each structure, in order."""
        return [
            np.array(self.calculator.get_property("forces", atoms), dtype=np.float64)
            for atoms in structures
        ]
