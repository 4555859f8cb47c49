"""The parts of a phonon calculation's result: bands, density of states, thermal properties."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

THZ_TO_INVERSE_CM = 33.35640951981521
"""Wave numbers (1/cm) in a THz: 1e10 over the speed of light in m/s."""


@dataclass(frozen=True)
class Segment:
    """One straight piece of the band path (n wave vectors, m = 3 N modes).

    Attributes:
        start: High-symmetry point where it begins, by seekpath's name (``"GAMMA"``, ``"X"``).
        end: Where it ends.
        qpoints: Wave vectors ``[n, 3]`` in the primitive cell's reciprocal vectors.
        distances: Length of the path so far ``[n]`` in 1/A (without 2 pi).
        frequencies: ``[n, m]`` in THz, ascending, imaginary ones negative.
    """

    start: str
    end: str
    qpoints: np.ndarray
    distances: np.ndarray
    frequencies: np.ndarray


@dataclass(frozen=True)
class DensityOfStates:
    """Phonon density of states.

    Attributes:
        frequencies: ``[n]`` in THz.
        states: States per THz and primitive cell ``[n]``; the integral is 3 N.
    """

    frequencies: np.ndarray
    states: np.ndarray


@dataclass(frozen=True)
class ThermalProperties:
    """Harmonic thermal properties at constant volume, per mole of primitive cells.

    Modes with imaginary frequencies are left out.

    Attributes:
        temperatures: ``[n]`` in K.
        free_energy: Helmholtz free energy of the vibrations ``[n]`` in kJ/mol.
        entropy: ``[n]`` in J/K/mol.
        heat_capacity: At constant volume ``[n]`` in J/K/mol.
    """

    temperatures: np.ndarray
    free_energy: np.ndarray
    entropy: np.ndarray
    heat_capacity: np.ndarray


@dataclass(frozen=True)
class ImaginaryMode:
    """The worst of the imaginary modes.

    Attributes:
        frequency: In THz, negative.
        qpoint: Wave vector ``[3]`` in the primitive cell's reciprocal vectors.
        label: Name of the high-symmetry point, or ``""``.
        exact: Whether modes are also imaginary at wave vectors that fit into the supercell,
            where nothing is interpolated.
    """

    frequency: float
    qpoint: tuple[float, float, float]
    label: str
    exact: bool

    def __str__(self) -> str:
        where = ", ".join(f"{x + 0.0:.4g}" for x in self.qpoint)
        text = (
            f"imaginary modes: the worst is {self.frequency:.3g} THz "
            f"({self.frequency * THZ_TO_INVERSE_CM:.0f} 1/cm) at q = ({where})"
            f"{f' = {self.label}' if self.label else ''}"
        )
        if self.exact:
            text += "; the structure is no minimum of the energy"
        else:
            text += "; none at wave vectors that fit into the supercell: try a larger one"
        return f"{text}. Thermal properties leave imaginary modes out"
