"""From predicted formation energies to predicted distances to the hull."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recinet_ase.elements import symbols
from recinet_ase.errors import ReciNetError
from recinet_ase.inference.result import Prediction
from recinet_ase.stability.composition import parse_formula
from recinet_ase.stability.hull import Hull
from recinet_ase.stability.references import SHIPPED, references_for

if TYPE_CHECKING:
    from recinet_ase.models.property_model import ModelConfig

SELF = "self"
"""In place of a file: the screened crystals themselves, with the shipped elements."""

OWN = "the screened crystals"
"""Name of these references."""

SOURCE, DISTANCE = "formation_energy", "ehull"

References = Hull | str | Path | Sequence[Hull | str | Path]
"""A hull, the name of shipped references, a file of one's own, or a list of these."""


def choose_hull(
    given: References | None, functional: str, model: str, wanted: bool = True
) -> Hull | None:
    """The hull that a model's formation energies are compared with.

    Args:
        given: What the user named; None for the shipped references of the model's level of theory.
        functional: Level of theory of the model's formation energies.
        model: The model's name, for messages.
        wanted: Whether the distance is asked for; else None is returned where there is none.

    Raises:
        ReciNetError: If there are no references of this level of theory, those given are of
            another one, or a file cannot be used.
    """
    if given is None:
        name = references_for(functional)
        if name is not None:
            return Hull.load(name)
        if not wanted:
            return None
        theory = f"{functional!r}" if functional else "a level of theory that is not stated"
        shipped = " and ".join(f"{known} ({name})" for name, known in SHIPPED.items())
        raise ReciNetError(
            f"{model} predicts formation energies at {theory}, and the package has references for "
            f"{shipped} only; give some of that level (--hull FILE)"
        )
    parts = [given] if isinstance(given, Hull | str | Path) else list(given)
    hulls = [
        part
        if isinstance(part, Hull)
        else _elements(functional)
        if str(part) == SELF
        else named_hull(str(part))
        for part in parts
    ]
    for hull in hulls:
        if hull.functional and functional and hull.functional != functional:
            raise ReciNetError(
                f"{hull.name or 'the references'} are formation energies at the level of "
                f"{hull.functional}, {model} predicts at that of {functional}: the two must not "
                "be compared"
            )
    first, *others = hulls
    for other in others:
        first = first.joined(other)
    return first


def has_references(config: ModelConfig, given: Sequence[str] = ()) -> bool:
    """Whether a model's formation energies have something to be compared with."""
    if SOURCE not in config.properties or DISTANCE in config.properties:
        return False
    return bool(given) or references_for(config.functional_of(SOURCE)) is not None


def _elements(functional: str) -> Hull:
    """The shipped elements of a level of theory, to which screened crystals are added.

    Of no other use than to measure energies from, so that no pair of elements lacks here.
    """
    name = references_for(functional)
    elements = [p for p in Hull.load(name) if len(p.amounts) == 1] if name else []
    return Hull(elements, functional, OWN, map(frozenset, combinations(symbols()[1:], 2)))


@lru_cache(maxsize=8)
def named_hull(name: str) -> Hull:
    """Shipped references by name, or those in a file.

    Raises:
        UnknownNameError: If there are neither.
        ReciNetError: If the file cannot be used.
    """
    return Hull.load(name) if name in SHIPPED else Hull.read(name)


class HullDistance:
    """Adds the distance to the hull to predictions that have a formation energy.

    The interval is that of the formation energy, shifted: the hull is taken as exact.

    Args:
        hull: The hull.
        model: Name of the model, for warnings.
        decomposition: Give the competing phases, too.
        asked: Whether the distance was asked for by name. Then it is given with a warning where
            the references lack something; else it is left out there, and what was asked for
            stays as it is.
    """

    def __init__(
        self, hull: Hull, model: str, decomposition: bool = True, asked: bool = True
    ) -> None:
        self.hull, self.model, self.decomposition, self.asked = hull, model, decomposition, asked
        self._lacking: dict[frozenset[str], str] = {}

    def __call__(self, results: Sequence[Prediction]) -> list[Prediction]:
        """The predictions with what is known of their stability."""
        found = list(results)
        places = [i for i, result in enumerate(found) if SOURCE in result.values]
        if not places:
            return found
        amounts = [_amounts(found[i].formula) for i in places]
        mixtures: Sequence[Any]
        if self.decomposition:
            energies, mixtures = self.hull.solved(amounts)
        else:
            energies, mixtures = self.hull.energies_of(amounts), [()] * len(places)
        columns = zip(places, amounts, energies.tolist(), mixtures, strict=True)
        for i, composition, energy, mixture in columns:
            found[i] = self._extended(found[i], composition, energy, mixture)
        return found

    def _extended(
        self, result: Prediction, amounts: Mapping[str, float], energy: float, mixture: Any
    ) -> Prediction:
        lacks = self.lacking(amounts)
        if lacks and not self.asked:
            return replace(result, lacks=lacks)
        intervals = dict(result.intervals)
        if SOURCE in intervals:
            low, high = intervals[SOURCE]
            intervals[DISTANCE] = (low - energy, high - energy)
        spreads = dict(result.spreads)
        if SOURCE in spreads:
            spreads[DISTANCE] = spreads[SOURCE]
        warning = (self.warning(lacks),)
        return replace(
            result,
            values={**result.values, DISTANCE: result.values[SOURCE] - energy},
            intervals=intervals,
            spreads=spreads,
            decomposition=mixture,
            lacks=lacks,
            warnings=(*result.warnings, *warning) if lacks else result.warnings,
            in_domain=False if lacks else result.in_domain,
        )

    def warning(self, lacks: str) -> str:
        """What is said where references lack something."""
        return f"{self.model}: {DISTANCE} cannot be trusted, {self._name} lack: {lacks}"

    def lacking(self, amounts: Mapping[str, float]) -> str:
        """What the references lack for a composition; ``""`` for nothing."""
        elements = frozenset(amounts)
        said = self._lacking.get(elements)
        if said is None:
            said = self._lacking[elements] = "; ".join(self.hull.missing(amounts))
        return said

    @property
    def described(self) -> str:
        """The references in words."""
        theory = f" ({self.hull.functional})" if self.hull.functional else ""
        return f"{self._name}{theory}, {len(self.hull):,} phases"

    @property
    def _name(self) -> str:
        return f"references {self.hull.name}" if self.hull.name else "the references"


@lru_cache(maxsize=1 << 14)
def _amounts(formula: str) -> Mapping[str, float]:
    return parse_formula(formula)
