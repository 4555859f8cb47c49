"""Relaxation of many crystals together, or of one, with any calculator.

Every crystal goes its own way downhill by L-BFGS in its positions and its strain; what is done
together is the evaluation of energies, forces and stresses, which a network does for dozens of
small crystals in the time of a few. (FIRE, as torch-sim has it, comes to the same minima with
three times as many evaluations: `benchmarks/forces/relaxation.py --fire 20`.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from recinet_ase.errors import ReciNetError, StructureError, reason_of
from recinet_ase.graph.adapters import to_crystal
from recinet_ase.simulation.lbfgs import Lbfgs
from recinet_ase.simulation.states import State, evaluate, name_of, require
from recinet_ase.simulation.symmetry import Symmetry

if TYPE_CHECKING:
    from ase import Atoms

_LENGTH = 2.0  # angstrom: strains times this and the root of the atoms are as stiff as positions
_LONGEST_MOVE = 0.2  # angstrom, of an atom in a step
_LARGEST_STRAIN = 0.05  # in a step
_TOGETHER = 256  # crystals on their way at once; others follow as these come to rest
_VOLUMES = (0.4, 2.5)  # of the first volume, between which a crystal is still the same


@dataclass(frozen=True)
class RelaxationSettings:
    """How crystals are relaxed.

    Attributes:
        fmax: Largest force left on an atom in eV/A, and largest row of stress times volume an
            atom in eV (the measure of ASE's cell filters).
        max_steps: Steps after which a crystal is given up.
        cell: Relax the cell, too.
        symmetry: Keep the space group.
        symprec: Tolerance of the space group in angstrom.
    """

    fmax: float = 0.02
    max_steps: int = 300
    cell: bool = True
    symmetry: bool = True
    symprec: float = 1e-2

    def __post_init__(self) -> None:
        if not (np.isfinite(self.fmax) and self.fmax > 0):
            raise ReciNetError(f"fmax must be a positive number of eV/A, not {self.fmax:g}")
        if self.max_steps < 0:
            raise ReciNetError(f"the number of steps must not be negative ({self.max_steps})")


@dataclass(frozen=True)
class Relaxation:
    """What became of a crystal.

    Attributes:
        atoms: The crystal as it was left, without a calculator; None where there is none that
            means anything: it was refused, exploded or collapsed.
        converged: Whether it is at rest.
        steps: Steps that were taken.
        energy: Energy of the cell as it was left, eV; None where there is none.
        volume_change: Its volume divided by that of the input, less one.
        reason: Why it is not at rest, ``""`` if it is.
        error: The calculator's error, where that is the reason.
        notes: What of the crystal as it was left lies outside all that the calculator knows,
            where it says so.
    """

    atoms: Atoms | None = None
    converged: bool = False
    steps: int = 0
    energy: float | None = None
    volume_change: float | None = None
    reason: str = ""
    error: Exception | None = None
    notes: tuple[str, ...] = ()

    def columns(self) -> dict[str, float | bool | None]:
        """Its columns in a table."""
        steps = self.steps if self.energy is not None else None
        return {
            "volume_change": self.volume_change,
            "relax_steps": steps,
            "relaxed": self.converged,
        }


def relax_many(
    structures: Sequence[Any],
    calculator: Any,
    settings: RelaxationSettings | None = None,
    progress: Callable[[int], None] = lambda done: None,
    beginning: Callable[[int], None] = lambda active: None,
) -> list[Relaxation]:
    """Relax crystals, many a step.

    Args:
        structures: ASE ``Atoms``, pymatgen ``Structure``, or dictionaries of pymatgen or JARVIS;
            left as they are. An exception in place of one is its reason.
        calculator: Any ASE calculator with forces (and stress, for the cell).
        settings: How; the defaults if None.
        progress: Called with the number of crystals that are done.
        beginning: Called before each step with the number of crystals that take it.

    Returns:
        What became of each, in order. Companions change a result by rounding alone.

    Raises:
        ReciNetError: If the calculator says that it gives no forces or no stress.
    """
    settings = settings or RelaxationSettings()
    require(calculator, "forces", "a relaxation needs")
    if settings.cell:
        require(
            calculator,
            "stress",
            "relaxing the cell needs (relax_cell=False, --fixed-cell, relaxes positions only)",
        )
    results: list[Relaxation] = [Relaxation()] * len(structures)
    active: dict[int, _Descent] = {}
    waiting = deque(enumerate(structures))
    while waiting or active:
        while waiting and len(active) < _TOGETHER:
            i, structure = waiting.popleft()
            try:
                if isinstance(structure, Exception):
                    raise structure
                active[i] = _Descent(structure, settings)
            except Exception as error:  # one bad structure must not cost the others theirs
                results[i] = Relaxation(reason=reason_of(error), error=error)
        beginning(len(active))
        cells = [descent.atoms for descent in active.values()]
        states = evaluate(cells, calculator, stress=settings.cell)
        for (i, descent), state in zip(list(active.items()), states, strict=True):
            found = descent.advance(state, calculator)
            if found is not None:
                results[i] = found
                del active[i]
        progress(len(structures) - len(active) - len(waiting))
    return results


class _Descent:
    """One crystal on its way.

    A step moves the atoms in their cell and strains it by a symmetric tensor, so that the crystal
    does not turn.
    """

    def __init__(self, structure: Any, settings: RelaxationSettings) -> None:
        crystal = to_crystal(structure)
        self.settings = settings
        self.numbers, self.frac_coords = crystal.numbers, crystal.frac_coords
        self.lattice = crystal.lattice
        self.volume = crystal.volume
        self.symmetry: Symmetry | None = None
        if settings.symmetry:
            self.symmetry = Symmetry(self.numbers, self.frac_coords, self.lattice, settings.symprec)
            self.frac_coords = self.symmetry.frac_coords
            if settings.cell:
                self.lattice = self.symmetry.lattice
        self.optimizer = Lbfgs()
        self.steps = 0

    @property
    def atoms(self) -> Atoms:
        """The crystal as it is now."""
        from ase import Atoms

        return Atoms(self.numbers, scaled_positions=self.frac_coords, cell=self.lattice, pbc=True)

    def advance(self, state: State | Exception, calculator: Any) -> Relaxation | None:
        """Take a step, or say what became of the crystal if there is none to take."""
        if isinstance(state, Exception):
            reason = reason_of(state)
            if self.steps:
                reason = f"the relaxation broke off after {_count(self.steps)}: {reason}"
            return Relaxation(steps=self.steps, reason=reason, error=state)
        n = len(self.numbers)
        volume = abs(float(np.linalg.det(self.lattice)))
        forces = state.forces
        # Minus the derivative of the energy by the strain, eV.
        pull = np.zeros((3, 3)) if state.stress is None else -volume * state.stress
        if self.symmetry is not None:
            forces, pull = self.symmetry.of_vectors(forces), self.symmetry.of_tensor(pull)
        ratio = volume / self.volume
        largest = float(np.linalg.norm(forces, axis=1).max())
        strained = float(np.linalg.norm(pull, axis=1).max()) / n
        found = Relaxation(
            self.atoms, False, self.steps, state.energy, ratio - 1, notes=state.notes
        )
        if not _VOLUMES[0] < ratio < _VOLUMES[1]:
            what = "collapsed" if ratio < 1 else "exploded"
            return replace(
                found,
                atoms=None,
                reason=f"it {what} while it was relaxed with {name_of(calculator)}: after "
                f"{_count(self.steps)} its volume is {ratio:.2f} times the first",
            )
        if max(largest, strained) <= self.settings.fmax:
            return replace(found, converged=True)
        if self.steps >= self.settings.max_steps:
            left = f"largest force {largest:.3g} eV/A"
            if self.settings.cell:
                left += f", largest stress {_gigapascal(np.abs(pull).max() / volume):.3g} GPa"
            return replace(
                found,
                reason=f"not relaxed to {self.settings.fmax:g} eV/A after {_count(self.steps)} "
                f"with {name_of(calculator)} ({left})",
            )
        self._move(forces, pull)
        return None

    def _move(self, forces: np.ndarray, pull: np.ndarray) -> None:
        scale = _LENGTH * np.sqrt(len(self.numbers))
        step = self.optimizer.step(np.concatenate((forces.ravel(), pull.ravel() / scale)))
        move, strain = step[:-9].reshape(-1, 3), step[-9:].reshape(3, 3) / scale
        largest = (
            float(np.linalg.norm(move, axis=1).max()) / _LONGEST_MOVE,
            float(np.linalg.norm(strain)) / _LARGEST_STRAIN,
        )
        factor = 1 / max(1.0, *largest)
        self.optimizer.take(factor * step)
        self.frac_coords = self.frac_coords + factor * move @ np.linalg.inv(self.lattice)
        self.lattice = self.lattice @ (np.eye(3) + factor * strain)
        self.steps += 1


def relax(
    atoms: Atoms,
    calculator: Any,
    settings: RelaxationSettings | None = None,
    progress: Callable[[int], None] = lambda step: None,
) -> Relaxation:
    """Relax one crystal that is to come to rest.

    Args:
        atoms: The crystal; left as it is.
        calculator: An ASE calculator with forces, and stress for the cell.
        settings: How; the defaults if None.
        progress: Called with the number of the step.

    Raises:
        ReciNetError: If the calculator lacks forces or stress, or fails.
        StructureError: If the crystal does not come to rest.
    """
    count: Iterator[int] = iter(range(10**9))
    (found,) = relax_many(
        [atoms], calculator, settings, beginning=lambda active: progress(next(count))
    )
    if found.converged:
        return found
    formula = atoms.get_chemical_formula()
    if found.error is None:
        raise StructureError(
            f"{formula}: {found.reason}: allow more (max_steps), a larger fmax, or start "
            "closer to rest"
        )
    if isinstance(found.error, ReciNetError):
        raise found.error
    reason = str(found.error) or type(found.error).__name__
    raise ReciNetError(f"{name_of(calculator)} cannot relax {formula}: {reason}") from found.error


def _count(steps: int) -> str:
    return f"{steps} step{'' if steps == 1 else 's'}"


def _gigapascal(stress: float) -> float:
    from ase.units import GPa

    return float(stress / GPa)
