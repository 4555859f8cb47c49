"""Ionic, polar, covalent, elemental: the composition of a data set (paper, table 15)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from recinet_ase.elements import pauling_electronegativities

IONIC, POLAR, COVALENT, ELEMENT = "ionic", "polar", "covalent", "element"
UNDEFINED = "undefined"

BONDING = (IONIC, POLAR, COVALENT, ELEMENT, UNDEFINED)
"""The classes; ``undefined`` are compounds of elements without an electronegativity."""

RULES = {
    IONIC: "difference above 1.7",
    POLAR: "difference 0.5 to 1.7",
    COVALENT: "difference below 0.5",
    ELEMENT: "one element",
    UNDEFINED: "compounds of He, Ne, Ar",
}

POLAR_FROM, IONIC_ABOVE = 0.5, 1.7

PAPER: dict[str, dict[str, int]] = {
    "jarvis": {IONIC: 18_539, POLAR: 28_246, COVALENT: 8_137, ELEMENT: 777},
}
"""Counts that the paper prints, by data set."""

_DECIMALS = 6  # the tabulated values have two


def electronegativity_difference(numbers: Iterable[int]) -> float:
    """Largest difference of Pauling electronegativities among the elements of a crystal.

    NaN if an element has none (up to lawrencium: He, Ne and Ar), 0 for a single element.

    Args:
        numbers: Atomic numbers.
    """
    present = set(numbers)
    if len(present) == 1:
        return 0.0
    values = [pauling_electronegativities()[z] for z in present]
    # Rounded, so that 2.55 - 2.05 is one half whatever the last bit says; NaN stays NaN.
    return (
        round(max(values) - min(values), _DECIMALS) if sum(values) == sum(values) else sum(values)
    )


def bonding_class(numbers: Iterable[int]) -> str:
    """The class of a crystal in `BONDING`.

    Args:
        numbers: Atomic numbers.
    """
    present = set(numbers)
    if len(present) == 1:
        return ELEMENT
    difference = electronegativity_difference(present)
    if difference > IONIC_ABOVE:
        return IONIC
    if difference >= POLAR_FROM:
        return POLAR
    return COVALENT if difference < POLAR_FROM else UNDEFINED


@dataclass(frozen=True)
class Composition:
    """How many crystals of a data set are in each class.

    Attributes:
        data: The data's name.
        counts: Crystals by class, in the order of `BONDING`.
        on_the_line: Crystals whose difference is exactly 0.5.
    """

    data: str
    counts: Mapping[str, int]
    on_the_line: int

    @property
    def total(self) -> int:
        """Number of crystals."""
        return sum(self.counts.values())

    @property
    def classified(self) -> int:
        """Number of crystals that have a class."""
        return self.total - self.counts[UNDEFINED]

    @property
    def paper(self) -> Mapping[str, int]:
        """The paper's counts for the same data, empty if it has none."""
        return PAPER.get(self.data, {})

    def share(self, name: str) -> float:
        """Share of a class among all crystals (among the classified, as the paper has it)."""
        return self.counts[name] / self.classified if self.classified else 0.0


class Tally:
    """Counts crystals as they come by.

    Args:
        data: The data's name.
    """

    def __init__(self, data: str) -> None:
        self.data = data
        self.systems: Counter[frozenset[int]] = Counter()

    def add(self, numbers: Iterable[int]) -> None:
        """Count a crystal, given by its atomic numbers."""
        self.systems[frozenset(numbers)] += 1

    def result(self) -> Composition:
        """The composition so far."""
        counts = dict.fromkeys(BONDING, 0)
        on_the_line = 0
        for system, number in self.systems.items():
            counts[bonding_class(system)] += number
            if electronegativity_difference(system) == POLAR_FROM:
                on_the_line += number
        return Composition(self.data, counts, on_the_line)
