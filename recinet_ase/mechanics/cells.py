"""The crystal at rest, and what a calculator says of its deformed cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from recinet_ase.errors import ReciNetError, StructureError
from recinet_ase.graph.adapters import to_crystal
from recinet_ase.simulation.relaxation import RelaxationSettings, relax, relax_many
from recinet_ase.simulation.states import State, evaluate, name_of, require

if TYPE_CHECKING:
    from ase import Atoms


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
        found = relax(atoms, calculator, RelaxationSettings(fmax, max_steps))
        assert found.atoms is not None
        atoms = found.atoms
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
) -> list[State]:
    """Energies, forces and stresses of deformed cells, with the atoms at rest in each.

    Cells whose atoms symmetry holds in place are done with the first evaluation; the others
    are relaxed together, in their fixed cells.

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
    moving = [i for i, s in enumerate(found) if relax_ions and s.largest_force > fmax]
    waiting = len(cells) - len(moving)
    progress(waiting)
    # A small strain is within the tolerance of a symmetry, and would be undone by it.
    settings = RelaxationSettings(fmax, max_steps, cell=False, symmetry=False)
    moved = relax_many(
        [cells[i] for i in moving], calculator, settings, lambda done: progress(waiting + done)
    )
    for result in moved:
        if result.error is not None:
            raise _failed(calculator, result.error)
        if not result.converged:
            raise StructureError(
                f"a deformed cell of {cells[0].get_chemical_formula()}: {result.reason}: allow "
                "more (max_steps), a larger fmax, or smaller deformations"
            )
    rested = [result.atoms for result in moved if result.atoms is not None]
    for i, state in zip(moving, _states(rested, calculator, stress), strict=True):
        found[i] = state
    return found


def _states(cells: Sequence[Atoms], calculator: Any, stress: bool) -> list[State]:
    """What the calculator says of cells; its first error is raised."""
    found = []
    for state in evaluate(cells, calculator, stress=stress):
        if isinstance(state, Exception):
            raise _failed(calculator, state)
        found.append(state)
    return found


def _failed(calculator: Any, error: Exception) -> ReciNetError:
    if isinstance(error, ReciNetError):
        return error
    reason = str(error) or type(error).__name__
    return ReciNetError(f"{name_of(calculator)} fails on a deformed cell: {reason}")
