"""The crystal at rest, and what a calculator says of its deformed cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recinet_ase.errors import ReciNetError, StructureError
from recinet_ase.graph.adapters import to_crystal
from recinet_ase.phonons.forces import name_of, require
from recinet_ase.simulation.relaxation import relax

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True)
class CellState:
    """What a calculator says of one cell (N atoms).

    Attributes:
        energy: Energy of the cell, eV.
        forces: In eV/A ``[N, 3]``.
        stress: In eV/A^3 ``[3, 3]``, positive under tension; None if it was not asked for.
    """

    energy: float
    forces: np.ndarray
    stress: np.ndarray | None


def crystal_at_rest(
    structure: Any,
    calculator: Any,
    relaxed: bool,
    fmax: float,
    max_steps: int,
) -> Atoms:
    """The crystal in its own axes, relaxed by ASE without breaking its symmetry if wanted.

    Args:
        structure: ASE ``Atoms``, pymatgen ``Structure``, or a dictionary of pymatgen or JARVIS.
        calculator: An ASE calculator.
        relaxed: Relax positions and cell.
        fmax: Largest force left, eV/A.
        max_steps: Steps after which the relaxation is given up.

    Raises:
        StructureError: If it is no ordered crystal, periodic in three directions, or does not
            come to rest.
        ReciNetError: If the calculator gives no forces or no stress.
    """
    atoms = to_crystal(structure).to_ase()
    require(calculator, "forces", "elasticity needs")
    if relaxed:
        atoms, _ = relax(atoms, calculator, fmax=fmax, max_steps=max_steps)
    return atoms


def evaluate_cells(
    cells: Sequence[Atoms],
    calculator: Any,
    *,
    stress: bool,
    relax_ions: bool,
    fmax: float,
    max_steps: int,
    progress: Callable[[int], None] = lambda done: None,
) -> list[CellState]:
    """Energies, forces and stresses of deformed cells, with the atoms at rest in each.

    Cells whose atoms symmetry holds in place are done in one batch; the others are relaxed
    by ASE's BFGS in their fixed cell.

    Args:
        cells: The deformed cells; left as they are.
        calculator: An ASE calculator; one with a method ``many`` is asked in batches.
        stress: Ask for stresses, too.
        relax_ions: Let the atoms relax in their cell.
        fmax: Largest force left, eV/A.
        max_steps: Steps after which a relaxation is given up.
        progress: Called with the number of cells that are done.

    Raises:
        ReciNetError: If the calculator fails, or gives no finite numbers.
        StructureError: If a cell's atoms do not come to rest.
    """
    found = _states(cells, calculator, stress)
    moving = [i for i, s in enumerate(found) if relax_ions and _largest(s.forces) > fmax]
    progress(len(cells) - len(moving))
    rested = []
    for count, i in enumerate(moving, len(cells) - len(moving) + 1):
        rested.append(_relaxed_ions(cells[i], calculator, fmax, max_steps))
        progress(count)
    for i, state in zip(moving, _states(rested, calculator, stress), strict=True):
        found[i] = state
    return found


def _relaxed_ions(cell: Atoms, calculator: Any, fmax: float, max_steps: int) -> Atoms:
    """The cell with its atoms relaxed and its shape kept."""
    from ase.optimize import BFGS

    atoms = cell.copy()
    atoms.calc = calculator
    try:
        converged = BFGS(atoms, logfile=None).run(fmax=fmax, steps=max_steps)
    except ReciNetError:
        raise
    except Exception as error:
        raise _failed(calculator, error) from error
    if not converged:
        raise StructureError(
            f"the atoms of a deformed cell of {cell.get_chemical_formula()} are not relaxed to "
            f"{fmax:g} eV/A after {max_steps} steps with {name_of(calculator)}: allow more "
            "(max_steps), a larger fmax, or smaller deformations"
        )
    atoms.calc = None
    return atoms


def _states(cells: Sequence[Atoms], calculator: Any, stress: bool) -> list[CellState]:
    """Energy, forces and stress of cells, in batches where the calculator can."""
    names = ("energy", "forces", "stress") if stress else ("energy", "forces")
    copies = [cell.copy() for cell in cells]
    try:
        if hasattr(calculator, "many"):
            results = list(calculator.many(copies))
        else:
            results = [{n: calculator.get_property(n, atoms) for n in names} for atoms in copies]
    except ReciNetError:
        raise
    except Exception as error:
        raise _failed(calculator, error) from error
    return [_state(result, names, calculator) for result in results]


def _state(result: dict[str, Any], names: Sequence[str], calculator: Any) -> CellState:
    """A calculator's results, refused where they are no finite numbers."""
    from ase.stress import voigt_6_to_full_3x3_stress

    values = {name: np.array(result[name], dtype=np.float64) for name in names}
    wrong = [name for name, value in values.items() if not np.isfinite(value).all()]
    if wrong:
        raise ReciNetError(
            f"{name_of(calculator)} gives {wrong[0]} that is no finite number on a deformed cell; "
            "is the structure far from what it knows?"
        )
    stress = values.get("stress")
    full = None if stress is None else voigt_6_to_full_3x3_stress(stress)
    return CellState(float(values["energy"]), values["forces"], full)


def _largest(forces: np.ndarray) -> float:
    return float(np.linalg.norm(forces, axis=1).max())


def _failed(calculator: Any, error: Exception) -> ReciNetError:
    reason = str(error) or type(error).__name__
    return ReciNetError(f"{name_of(calculator)} fails on a deformed cell: {reason}")
