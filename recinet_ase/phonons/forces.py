"""Forces on displaced supercells: from any calculator, checked, kept as they come."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recinet_ase.errors import ReciNetError, StructureError
from recinet_ase.models.files import replacing, write_atomic
from recinet_ase.simulation.batch_forces import BatchForces, CalculatorForces
from recinet_ase.simulation.states import name_of

if TYPE_CHECKING:
    from ase import Atoms

BATCH_ATOMS = 4000
"""Atoms that go to a batching force model at once."""

RESIDUAL_FORCE = 0.05
"""Largest force in eV/A on an atom of a crystal that still counts as being at rest."""

_AGREEMENT = 1e-3
"""Difference that a calculator's repeated forces may show, as a share of the largest."""

_ROUNDING = 1e-4
"""The same in eV/A, where forces are small (single precision)."""


def checked_forces(model: BatchForces, structures: list[Atoms], what: str) -> list[np.ndarray]:
    """Forces of a model, refused where they are no forces.

    Args:
        model: Where they come from.
        structures: The structures.
        what: What the structures are, for messages.

    Returns:
        Forces ``[N, 3]`` in eV/A, float64.

    Raises:
        ReciNetError: If the calculator fails, or gives NaN or another number of forces.
    """
    name = name_of(getattr(model, "calculator", model))
    try:
        found = [np.asarray(forces, dtype=np.float64) for forces in model.forces_of(structures)]
    except ReciNetError:
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ReciNetError(f"{name} gives no forces on {what}: {reason}") from error
    if len(found) != len(structures):
        raise ReciNetError(
            f"{name} gives {len(found)} sets of forces on {len(structures)} ({what})"
        )
    for atoms, forces in zip(structures, found, strict=True):
        if forces.shape != (len(atoms), 3):
            raise ReciNetError(
                f"{name} gives forces of shape {forces.shape} on {len(atoms)} atoms ({what})"
            )
        if not np.isfinite(forces).all():
            raise ReciNetError(
                f"{name} gives {np.count_nonzero(~np.isfinite(forces))} forces on {what} that are "
                "no finite numbers; is the structure far from what it knows?"
            )
    return found


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


class SavedForces:
    """What an interrupted calculation finds again: the relaxed cell and the forces so far.

    Args:
        folder: Where they are kept; None keeps nothing.
        settings: What the forces depend on. Those of other settings are not used.
        overwrite: Delete what other settings left.

    Raises:
        ReciNetError: If the folder belongs to another calculation.
    """

    def __init__(
        self, folder: Path | None, settings: Mapping[str, Any], overwrite: bool = False
    ) -> None:
        self.folder = folder
        if folder is None:
            return
        path = folder / "settings.json"
        if path.is_file():
            earlier = json.loads(path.read_text(encoding="utf-8"))
            differences = [k for k, v in settings.items() if earlier.get(k) != v]
            if not differences:
                return
            if not overwrite:
                raise ReciNetError(
                    f"{folder.parent} holds another calculation (other {', '.join(differences)}); "
                    "choose another folder, or overwrite it (overwrite=True, --overwrite)"
                )
            # A summary must not stand beside forces that it does not belong to.
            (folder.parent / "phonons.json").unlink(missing_ok=True)
            for old in (*folder.glob("[0-9]*.npy"), folder / "unitcell.json", path):
                old.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(dict(settings), indent=1).encode())

    def unitcell(self) -> tuple[Atoms, int | None] | None:
        """The crystal at rest and the steps that led there, if there is one yet."""
        from ase import Atoms

        if self.folder is None or not (self.folder / "unitcell.json").is_file():
            return None
        data = json.loads((self.folder / "unitcell.json").read_text(encoding="utf-8"))
        steps = data.pop("steps")
        return Atoms(**data, pbc=True), steps

    def save_unitcell(self, atoms: Atoms, steps: int | None) -> None:
        """Keep the crystal at rest, to the last digit."""
        if self.folder is not None:
            data = {
                "numbers": atoms.numbers.tolist(),
                "cell": atoms.cell.array.tolist(),
                "positions": atoms.positions.tolist(),
                "steps": steps,
            }
            write_atomic(self.folder / "unitcell.json", json.dumps(data).encode())

    def load(self, number: int) -> np.ndarray | None:
        """Forces ``[N, 3]`` in eV/A of a displacement, if they are there."""
        if self.folder is None or not self._path(number).is_file():
            return None
        return np.load(self._path(number), allow_pickle=False)

    def save(self, number: int, forces: np.ndarray) -> None:
        """Keep the forces of a displacement."""
        if self.folder is not None:
            with replacing(self._path(number)) as part, part.open("wb") as handle:
                np.save(handle, forces)

    def _path(self, number: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{number:05d}.npy"


def displaced_forces(
    model: BatchForces,
    supercells: Sequence[Atoms],
    saved: SavedForces,
    progress: Callable[[int], None] = lambda done: None,
) -> list[np.ndarray]:
    """Forces on all displaced supercells; those already saved are not computed again.

    Args:
        model: Where forces come from, asked in batches of `BATCH_ATOMS` atoms.
        supercells: The displaced supercells.
        saved: Forces of an earlier run; new ones are added as they come.
        progress: Called with the number of supercells that are done.

    Returns:
        Forces ``[N, 3]`` in eV/A for each supercell.

    Raises:
        ReciNetError: If forces are unusable, or saved ones are another calculator's.
    """
    done = {i: f for i in range(len(supercells)) if (f := saved.load(i)) is not None}
    if done:
        _check_same_calculator(model, supercells, done, saved)
    progress(len(done))
    for batch in _batches([i for i in range(len(supercells)) if i not in done], supercells, model):
        what = f"displaced supercell {batch[0] + 1} of {len(supercells)}"
        found = checked_forces(model, [supercells[i].copy() for i in batch], what)
        for number, forces in zip(batch, found, strict=True):
            saved.save(number, forces)
            done[number] = forces
        progress(len(done))
    return [done[i] for i in range(len(supercells))]


def _batches(
    numbers: list[int], supercells: Sequence[Atoms], model: BatchForces
) -> Iterator[list[int]]:
    """Together what a batching model takes at once; one by one otherwise, to lose nothing."""
    batching = not isinstance(model, CalculatorForces)
    size = max(1, BATCH_ATOMS // len(supercells[0])) if batching else 1
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]


def _check_same_calculator(
    model: BatchForces, supercells: Sequence[Atoms], done: dict[int, np.ndarray], saved: SavedForces
) -> None:
    """A name does not tell two calculators apart (a model trained again); their forces do."""
    number = min(done)
    (now,) = checked_forces(model, [supercells[number].copy()], "a displaced supercell")
    earlier = done[number]
    if now.shape == earlier.shape:
        allowed = max(_AGREEMENT * float(np.abs(earlier).max()), _ROUNDING)
        if float(np.abs(now - earlier).max()) <= allowed:
            return
    where = saved.folder.parent if saved.folder else "the folder"
    name = name_of(getattr(model, "calculator", model))
    raise ReciNetError(
        f"the forces saved in {where} are not those of {name} as it is now; "
        "choose another folder, or overwrite it (overwrite=True, --overwrite)"
    )


def digest(atoms: Atoms) -> str:
    """A hash of elements, cell and positions."""
    state = hashlib.sha256()
    for array in (atoms.numbers.astype(np.int64), atoms.cell.array, atoms.positions):
        state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()[:16]
