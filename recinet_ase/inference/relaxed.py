"""Predictions for relaxed crystals: what of a relaxation stands beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from recinet_ase.errors import StructureError
from recinet_ase.inference.preparation import WINDOW, Preparation, PreparedWindow, described
from recinet_ase.inference.result import Prediction
from recinet_ase.simulation.relaxation import Relaxation, RelaxationSettings, relax_many

if TYPE_CHECKING:
    from recinet_ase.inference.predictor import Predictor


def choose_calculator(relax: Any, device: Any = None) -> Any:
    """The calculator that ``relax`` means: True, a name, or a calculator itself.

    Raises:
        ReciNetError: If there is no calculator of that name, or it gives no forces.
    """
    from recinet_ase.simulation.calculators import load_calculator

    if relax is True or isinstance(relax, str):
        device = "auto" if device is None else str(device)
        return load_calculator(None if relax is True else relax, device)
    return relax


def predict_relaxed(
    predictor: Predictor,
    structures: Iterable[Any],
    calculator: Any,
    settings: RelaxationSettings | None = None,
) -> Iterator[Prediction]:
    """Relax a stream of structures, many at a time, and predict for what they became.

    Args:
        predictor: What predicts.
        structures: As for `Predictor.predict_iter`; an exception in place of one is its error.
        calculator: Any ASE calculator with forces and stress.
        settings: How crystals are relaxed; the defaults if None.
    """
    stream = iter(structures)
    while window := list(islice(stream, WINDOW)):
        found = relax_many(window, calculator, settings)
        yield from predictor.run(relaxed_window(predictor.preparation, window, found))


def relaxed_window(
    preparation: Preparation, structures: Sequence[Any], relaxations: Sequence[Relaxation]
) -> PreparedWindow:
    """Graphs of relaxed crystals, and of each what became of it in its result.

    Args:
        preparation: What makes graphs.
        structures: The structures before.
        relaxations: What `relax_many` made of them.
    """
    window = preparation([_outcome(relaxation) for relaxation in relaxations])
    results = [
        _with_relaxation(*columns)
        for columns in zip(window.results, structures, relaxations, strict=True)
    ]
    return replace(window, results=results)


def _outcome(relaxation: Relaxation) -> Any:
    """The relaxed crystal, or why there is none."""
    if relaxation.atoms is not None:
        return relaxation.atoms
    return relaxation.error or StructureError(relaxation.reason)


def _with_relaxation(result: Prediction, structure: Any, relaxation: Relaxation) -> Prediction:
    if relaxation.atoms is None:
        if not isinstance(structure, Exception):
            formula, n_atoms = described(structure)
            result = replace(result, formula=formula, n_atoms=n_atoms)
        reason = relaxation.reason
        if relaxation.error is None or relaxation.steps:
            result = replace(result, error=reason)
        return replace(result, relaxation=relaxation)
    # A crystal that the force model does not know may have come to rest anywhere.
    warnings = tuple(f"relaxation: {note}" for note in relaxation.notes)
    if not relaxation.converged:
        warnings = (relaxation.reason, *warnings)
    known = False if warnings else result.in_domain
    warnings = (*result.warnings, *warnings)
    return replace(result, relaxation=relaxation, warnings=warnings, in_domain=known)
