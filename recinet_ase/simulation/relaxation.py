"""Relaxation that keeps the space group."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from recinet_ase.errors import ReciNetError, StructureError
from recinet_ase.phonons.forces import checked_forces, name_of, require

if TYPE_CHECKING:
    from ase import Atoms

    from recinet_ase.simulation.batch_forces import BatchForces

RESIDUAL_FORCE = 0.05
"""Largest force in eV/A on an atom of a crystal that still counts as being at rest."""


def relax(
    atoms: Atoms,
    calculator: Any,
    *,
    cell: bool = True,
    fmax: float = 1e-3,
    max_steps: int = 500,
    symprec: float = 1e-2,
    progress: Callable[[int], None] = lambda step: None,
) -> tuple[Atoms, int]:
    """Relax positions, and the cell unless told otherwise, without breaking the symmetry.

    ASE's BFGS with ``FixSymmetry``, and ``FrechetCellFilter`` for the cell.

    Args:
        atoms: The crystal; left as it is.
        calculator: An ASE calculator with forces, and stress for the cell.
        cell: Relax the cell, too.
        fmax: Largest force left on an atom, eV/A (and the filter's measure of stress).
        max_steps: Steps after which it is given up.
        symprec: Tolerance of the space group in angstrom.
        progress: Called with the number of steps.

    Returns:
        The relaxed crystal without calculator, and the number of steps.

    Raises:
        ReciNetError: If the calculator lacks forces or stress, or fails.
        StructureError: If the crystal is not relaxed after ``max_steps``.
    """
    from ase.constraints import FixSymmetry
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS
    from ase.units import GPa

    require(calculator, "forces", "a relaxation needs")
    if cell:
        require(
            calculator,
            "stress",
            "relaxing the cell needs (relax_cell=False, --fixed-cell, relaxes positions only)",
        )
    relaxed = atoms.copy()
    relaxed.calc = calculator
    relaxed.set_constraint(FixSymmetry(relaxed, symprec=symprec))
    optimiser = BFGS(FrechetCellFilter(relaxed) if cell else relaxed, logfile=None)
    optimiser.attach(lambda: progress(optimiser.nsteps))
    try:
        converged = optimiser.run(fmax=fmax, steps=max_steps)
    except ReciNetError:
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ReciNetError(
            f"{name_of(calculator)} cannot relax {atoms.get_chemical_formula()}: {reason}"
        ) from error
    force = float(np.linalg.norm(relaxed.get_forces(apply_constraint=False), axis=1).max())
    if not converged or not np.isfinite(relaxed.positions).all() or not np.isfinite(force):
        left = f"largest force {force:.3g} eV/A"
        if cell:
            stress = np.abs(relaxed.get_stress(apply_constraint=False)).max() / GPa
            left += f", largest stress {stress:.3g} GPa"
        raise StructureError(
            f"{atoms.get_chemical_formula()} is not relaxed to {fmax:g} eV/A"
            f"{' and the stress that belongs to it' if cell else ''} after {optimiser.nsteps} "
            f"step{'' if optimiser.nsteps == 1 else 's'} with {name_of(calculator)} ({left}): "
            "allow more (max_steps), a larger fmax, or start closer to rest"
        )
    relaxed.set_constraint()
    relaxed.calc = None
    return relaxed, optimiser.nsteps


def residual_force(model: BatchForces, unitcell: Atoms) -> float:
    """The largest force on an atom of the crystal at rest, eV/A.

    Raises:
        StructureError: If it is not at rest: phonons are waves about an equilibrium.
    """
    (forces,) = checked_forces(model, [unitcell.copy()], unitcell.get_chemical_formula())
    largest = float(np.linalg.norm(forces, axis=1).max())
    if largest > RESIDUAL_FORCE:
        raise StructureError(
            f"{unitcell.get_chemical_formula()} is not at rest: the largest force on an atom is "
            f"{largest:.3g} eV/A (limit {RESIDUAL_FORCE:g}). Relax it (leave out relax=False, "
            "--no-relax), with the calculator that gives the phonons"
        )
    return largest


def pressure_of(calculator: Any, unitcell: Atoms) -> float | None:
    """The pressure on the crystal in GPa; None where the calculator gives no stress."""
    from ase.units import GPa

    if "stress" not in getattr(calculator, "implemented_properties", []):
        return None
    atoms = unitcell.copy()
    atoms.calc = calculator
    return float(-np.mean(atoms.get_stress()[:3]) / GPa)
