"""Phases from and to pymatgen's phase diagrams."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from recinet_ase.elements import symbols
from recinet_ase.errors import ReciNetError
from recinet_ase.stability.phases import Phase

if TYPE_CHECKING:
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram


FORMATION, ASSUMED = "energy of formation", "no phase is known"
"""Attributes of entries whose energy is measured from the elements already, and of elements that
only a phase diagram needs."""


def to_entries(phases: Iterable[Phase]) -> list[PDEntry]:
    """``PDEntry`` of each phase, with energies of formation, named by id."""
    from pymatgen.analysis.phase_diagram import PDEntry
    from pymatgen.core import Composition

    return [
        PDEntry(Composition(phase.amounts), phase.energy * phase.atoms, phase.id or None, FORMATION)
        for phase in phases
    ]


def to_diagram(phases: Sequence[Phase], system: Sequence[str]) -> PhaseDiagram:
    """``PhaseDiagram`` of a system's phases; elements without a phase have the energy 0."""
    from pymatgen.analysis.phase_diagram import PhaseDiagram

    known = {next(iter(p.amounts)) for p in phases if len(p.amounts) == 1}
    assumed = to_entries(Phase.of(symbol, 0.0) for symbol in system if symbol not in known)
    for entry in assumed:
        entry.attribute = ASSUMED
    return PhaseDiagram(to_entries(phases) + assumed)


def phases_of_entries(source: Any) -> list[Phase]:
    """Phases of a ``PhaseDiagram`` or of entries that make one, energies of formation.

    Args:
        source: A ``PhaseDiagram``, or entries (``PDEntry``, ``ComputedEntry``...) with total
            energies of one level of theory, every element among them; or those of `to_entries`,
            whose energies are kept as they are.

    Raises:
        ReciNetError: If an element has no entry of its own to measure formation energies from.
    """
    entries = list(getattr(source, "all_entries", source))
    lowest: dict[str, float] = {}
    if all(getattr(entry, "attribute", None) in (FORMATION, ASSUMED) for entry in entries):
        entries = [entry for entry in entries if entry.attribute == FORMATION]
        lowest = dict.fromkeys(symbols(), 0.0)
    for entry in entries if not lowest else ():
        if len(entry.composition.elements) == 1:
            symbol = entry.composition.elements[0].symbol
            lowest[symbol] = min(lowest.get(symbol, float("inf")), entry.energy_per_atom)
    phases = []
    for i, entry in enumerate(entries):
        amounts = entry.composition.get_el_amt_dict()
        lacking = [symbol for symbol in amounts if symbol not in lowest]
        if lacking:
            raise ReciNetError(
                f"entry {i} ({entry.composition.reduced_formula}): no entry of elemental "
                f"{', '.join(lacking)}, from which its formation energy could be measured"
            )
        zero = sum(lowest[s] * n for s, n in amounts.items()) / entry.composition.num_atoms
        name = getattr(entry, "entry_id", None) or getattr(entry, "name", "") or ""
        if name == entry.composition.reduced_formula:
            name = ""  # PDEntry's default
        phases.append(Phase.of(entry, entry.energy_per_atom - zero, str(name)))
    return phases
