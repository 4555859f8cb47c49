"""Energy against volume, and the bulk modulus from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recinet_ase.errors import ReciNetError, StructureError
from recinet_ase.mechanics.cells import crystal_at_rest, evaluate_cells
from recinet_ase.simulation.calculators import load_calculator
from recinet_ase.simulation.states import require

if TYPE_CHECKING:
    from ase import Atoms

_LEAST_POINTS = 5
_ROUGH = 0.02  # rms departure from the curve, as a share of the range of energies


@dataclass(frozen=True)
class EquationOfStateResult:
    """A fitted equation of state (of the cell as given).

    Attributes:
        volumes: Volumes, A^3, ascending ``[n]``.
        energies: Energies, eV ``[n]``.
        volume: Volume at the minimum, A^3.
        energy: Energy there, eV.
        bulk_modulus: Bulk modulus there, GPa.
        derivative: Derivative of the bulk modulus by pressure.
        atoms: The crystal at that volume, shape and relative positions as at rest.
        warnings: What speaks against the numbers, one sentence each.
    """

    volumes: np.ndarray
    energies: np.ndarray
    volume: float
    energy: float
    bulk_modulus: float
    derivative: float
    atoms: Atoms
    warnings: tuple[str, ...] = ()

    def energy_at(self, volume: float | np.ndarray) -> Any:
        """Energy on the curve, eV, at volumes in A^3."""
        from ase.eos import birchmurnaghan
        from ase.units import GPa

        return birchmurnaghan(
            volume, self.energy, self.bulk_modulus * GPa, self.derivative, self.volume
        )

    def plot(self, path: str | Path) -> Path:
        """Write points and curve as a picture (``.png``, ``.pdf``, ``.svg``)."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5, 3.5), layout="constrained")
        axes = figure.add_subplot()
        n = len(self.atoms)
        line = np.linspace(self.volumes[0], self.volumes[-1], 200)
        axes.plot(line / n, (self.energy_at(line) - self.energy) / n, lw=1.5)
        axes.plot(self.volumes / n, (self.energies - self.energy) / n, "o", ms=4)
        axes.set_xlabel("volume (Å$^3$/atom)")
        axes.set_ylabel("energy (eV/atom)")
        axes.set_title(f"{self.atoms.get_chemical_formula()}: B = {self.bulk_modulus:.1f} GPa")
        figure.savefig(path, dpi=150)
        return Path(path)


def equation_of_state(
    structure: Any,
    calculator: Any = None,
    *,
    relax: bool = True,
    relax_ions: bool = True,
    span: float = 0.06,
    points: int = 11,
    fmax: float = 1e-3,
    max_steps: int = 500,
    progress: Callable[[int], None] = lambda done: None,
) -> EquationOfStateResult:
    """Energy against volume, fitted by Birch and Murnaghan's third-order curve (``ase.eos``).

    The cell keeps its shape; of crystals that are not cubic the modulus is Voigt's, therefore.

    Args:
        structure: ASE ``Atoms``, pymatgen ``Structure``, or a dictionary of pymatgen or JARVIS.
        calculator: An ASE calculator with forces (and stress for ``relax``); by default the
            shipped force model for every element.
        relax: Relax cell and positions first, which puts the minimum in the middle.
        relax_ions: Let the atoms relax at each volume.
        span: Largest change of the volume as a share of it, both ways.
        points: Number of volumes.
        fmax: Largest force left on an atom, eV/A.
        max_steps: Steps after which a relaxation is given up.
        progress: Called with the number of volumes that are done.

    Raises:
        StructureError: If the structure is no ordered crystal, does not come to rest, or has no
            minimum among the volumes.
        ReciNetError: If the calculator lacks what is needed, or fails; for a useless span.
    """
    from ase.eos import EquationOfState
    from ase.units import GPa

    if points < _LEAST_POINTS or not 0 < span <= 0.3:
        raise ReciNetError(
            f"an equation of state needs at least {_LEAST_POINTS} points and a span of volumes up "
            f"to 0.3 (30 %), not {points} and {span}"
        )
    if calculator is None:
        calculator = load_calculator()
    if relax:
        require(calculator, "stress", "relaxing the cell needs (relax=False keeps it)")
    rest = crystal_at_rest(structure, calculator, relax, fmax, max_steps)
    cells = []
    for ratio in np.linspace(1 - span, 1 + span, points):
        cell = rest.copy()
        cell.set_cell(rest.cell.array * ratio ** (1 / 3), scale_atoms=True)
        cells.append(cell)
    states = evaluate_cells(
        cells,
        calculator,
        stress=False,
        relax_ions=relax_ions,
        fmax=fmax,
        max_steps=max_steps,
        progress=progress,
    )
    volumes = np.array([cell.get_volume() for cell in cells])
    energies = np.array([state.energy for state in states])
    formula = rest.get_chemical_formula()
    if energies.argmin() in (0, points - 1):
        side = "smaller" if energies.argmin() == 0 else "larger"
        raise StructureError(
            f"{formula} has its lowest energy at the end of the volumes tried "
            f"({volumes[0]:.2f} to {volumes[-1]:.2f} A^3): relax it first (relax=True), or start "
            f"from a {side} cell"
        )
    fit = EquationOfState(volumes, energies, eos="birchmurnaghan")
    try:
        volume, energy, modulus = fit.fit(warn=False)
    except (RuntimeError, ValueError) as error:
        raise StructureError(f"no equation of state fits {formula} ({error})") from None
    rough = float(np.std(energies - fit.func(volumes, *fit.eos_parameters)))
    doubts = []
    if rough > _ROUGH * np.ptp(energies):
        doubts.append(
            f"the energies lie {1e3 * rough / len(rest):.2g} meV/atom (rms) off the curve: a "
            "change of phase, or a calculator that is not smooth here"
        )
    minimum = rest.copy()
    minimum.set_cell(rest.cell.array * (volume / rest.get_volume()) ** (1 / 3), scale_atoms=True)
    return EquationOfStateResult(
        volumes=volumes,
        energies=energies,
        volume=float(volume),
        energy=float(energy),
        bulk_modulus=float(modulus / GPa),
        derivative=float(fit.eos_parameters[2]),
        atoms=minimum,
        warnings=tuple(doubts),
    )
