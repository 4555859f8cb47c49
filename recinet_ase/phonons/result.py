"""What a phonon calculation gives, in the field's terms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from recinet_ase.errors import UnknownNameError
from recinet_ase.phonons.structure import SpaceGroup, formula

if TYPE_CHECKING:
    from ase import Atoms
    from phonopy import Phonopy

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


@dataclass(frozen=True)
class Phonons:
    """Phonons of a crystal.

    Attributes:
        phonopy: phonopy's own object, with force constants, for all else that phonopy does.
        structure: The relaxed crystal, conventional standard cell (A).
        primitive: Its primitive cell, in whose reciprocal vectors wave vectors are given (A).
        space_group: Its space group.
        supercell: Repetitions of ``structure``.
        points: Wave vectors of the high-symmetry points by seekpath's names.
        bands: Frequencies along the seekpath path.
        dos: Density of states.
        thermal: Thermal properties.
        gamma: Frequencies at Gamma ``[3 N]`` in THz, ascending.
        imaginary: The worst imaginary mode, or None.
        residual_force: Largest force on an atom of ``structure``, eV/A.
        pressure: Pressure on ``structure`` in GPa; None without a stress.
        steps: Steps of the relaxation; None if there was none.
        calculator: Name of the calculator.
        settings: What the calculation was asked for.
        warnings: Sentences for the user.
    """

    phonopy: Phonopy
    structure: Atoms
    primitive: Atoms
    space_group: SpaceGroup
    supercell: tuple[int, int, int]
    points: dict[str, np.ndarray]
    bands: tuple[Segment, ...]
    dos: DensityOfStates
    thermal: ThermalProperties
    gamma: np.ndarray
    imaginary: ImaginaryMode | None
    residual_force: float
    pressure: float | None
    steps: int | None
    calculator: str
    settings: dict[str, Any]
    warnings: tuple[str, ...]

    @property
    def formula(self) -> str:
        """The reduced formula."""
        return formula(self.structure)

    @property
    def highest_frequency(self) -> float:
        """The highest frequency along the path, THz."""
        return max(float(segment.frequencies.max()) for segment in self.bands)

    def frequencies(self, qpoints: npt.ArrayLike) -> np.ndarray:
        """Frequencies at any wave vectors.

        Args:
            qpoints: ``[n, 3]``, or one ``[3]``, in the primitive cell's reciprocal vectors.

        Returns:
            ``[n, 3 N]`` in THz, ascending, imaginary ones negative.
        """
        return np.array(
            self.phonopy.run_qpoints(
                np.atleast_2d(np.asarray(qpoints, dtype=np.float64))
            ).frequencies
        )

    def at(self, point: str) -> np.ndarray:
        """Frequencies ``[3 N]`` in THz at a high-symmetry point, e.g. ``"X"`` or ``"GAMMA"``.

        Raises:
            UnknownNameError: If the path has no such point.
        """
        if point not in self.points:
            spellings = {known.lower(): known for known in self.points}
            raise UnknownNameError("high-symmetry point", point, self.points, spellings)
        return self.frequencies(self.points[point])[0]

    def write(self, folder: str | Path) -> Path:
        """Write phonopy.yaml, plots, tables and a summary into a folder, and return it."""
        from recinet_ase.phonons.files import write_folder

        return write_folder(self, Path(folder))
