"""Energy, forces and stress of many structures from any calculator, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recinet_ase.errors import ReciNetError

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True)
class State:
    """What a calculator says of one structure (N atoms).

    Attributes:
        energy: Energy of the cell, eV.
        forces: In eV/A ``[N, 3]``.
        stress: In eV/A^3 ``[3, 3]``, positive under tension; None if it was not asked for.
        notes: What of the structure lies outside all that the calculator knows, where it says so.
    """

    energy: float
    forces: np.ndarray
    stress: np.ndarray | None
    notes: tuple[str, ...] = ()

    @property
    def largest_force(self) -> float:
        """Of the forces on the atoms, in eV/A."""
        return float(np.linalg.norm(self.forces, axis=1).max())


def evaluate(
    structures: Sequence[Atoms], calculator: Any, *, stress: bool = True
) -> list[State | Exception]:
    """What a calculator says of each structure, or the error it met there.

    Args:
        structures: The structures; left as they are.
        calculator: An ASE calculator. One with a method ``many`` that takes ``strict`` (as
            `recinet_ase.forces.calculator.ReciNetForceCalculator`) is asked for all at once.
        stress: Ask for stresses, too.
    """
    names = ("energy", "forces", "stress") if stress else ("energy", "forces")
    if hasattr(calculator, "many"):
        results = list(calculator.many(structures, strict=False))
    else:
        results = [_results(calculator, atoms.copy(), names) for atoms in structures]
    pairs = zip(structures, results, strict=True)
    return [_state(atoms, result, names, calculator) for atoms, result in pairs]


def _results(calculator: Any, atoms: Atoms, names: Sequence[str]) -> Mapping[str, Any] | Exception:
    try:
        return {name: calculator.get_property(name, atoms) for name in names}
    except Exception as error:  # one structure must not cost the others theirs
        return error


def _state(
    atoms: Atoms, result: Mapping[str, Any] | Exception, names: Sequence[str], calculator: Any
) -> State | Exception:
    """A calculator's results, refused where they are not what they should be."""
    from ase.stress import voigt_6_to_full_3x3_stress

    if isinstance(result, Exception):
        return result
    name = name_of(calculator)
    values = {key: np.array(result[key], dtype=np.float64) for key in names}
    if values["forces"].shape != (len(atoms), 3):
        return ReciNetError(
            f"{name} gives forces of shape {values['forces'].shape} on {len(atoms)} atoms"
        )
    for key, value in values.items():
        if not np.isfinite(value).all():
            return ReciNetError(
                f"{name} gives {key} that is no finite number; is the structure far from what it "
                "knows?"
            )
    stress = values.get("stress")
    if stress is not None and stress.shape != (3, 3):  # which CHGNet's and others are
        if stress.shape != (6,):
            return ReciNetError(f"{name} gives a stress of shape {stress.shape}, not of 6 or 3 x 3")
        stress = voigt_6_to_full_3x3_stress(stress)
    notes = tuple(result.get("notes", ()))
    return State(float(values["energy"]), values["forces"], stress, notes)


def name_of(calculator: Any) -> str:
    """What messages and records call a calculator."""
    name, kind = getattr(calculator, "name", None), type(calculator).__name__
    # ASE's default is the class in lower case, which reads badly.
    return name if isinstance(name, str) and name and name != kind.lower() else kind


def require(calculator: Any, prop: str, purpose: str) -> None:
    """Refuse what is no calculator, or one that says it cannot give what is needed.

    Raises:
        ReciNetError: If it is a name, a class or the like, or ``prop`` (``"forces"``,
            ``"stress"``) is none of its properties.
    """
    if isinstance(calculator, type) or not any(
        hasattr(calculator, method) for method in ("get_property", "forces_of", "many")
    ):
        raise ReciNetError(
            f"pass an ASE calculator, not {calculator!r}: ReciNetForceCalculator('mlearn-pes'), or "
            "recinet_ase.phonons.load_calculator(NAME) for one by name"
        )
    if prop in getattr(calculator, "implemented_properties", [prop]):
        return
    raise ReciNetError(
        f"{name_of(calculator)} gives no {prop}, which {purpose}; use a shipped force model or a "
        "calculator of your own"
    )
