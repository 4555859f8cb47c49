"""Ordered arrangements of disordered crystals, by pymatgen.

A network needs one element on every site. ``order="ewald"`` takes the arrangement of lowest
electrostatic energy in the cell as given (pymatgen's
``OrderDisorderedStructureTransformation``): one well-defined representative, not an average over
the disorder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from recinet_ase.errors import StructureError, UnknownNameError

if TYPE_CHECKING:
    from pymatgen.core import Composition, IStructure, Structure

ORDERINGS = ("ewald",)
"""Accepted values of ``order``."""

MAXIMUM_SITES = 200
"""Sites of a cell above which no arrangement is searched (the Ewald matrix is dense)."""

MAXIMUM_ARRANGEMENTS = 200_000
"""Arrangements above which none is searched (about 5 s)."""

_TOLERANCE = 0.01
"""Occupancy per site that may be rounded off (CIFs hold 0.33 for a third)."""

_LARGEST_MULTIPLE = 24


def check_ordering(order: str | None) -> None:
    """Refuse an unknown ``order``.

    Raises:
        UnknownNameError: If it is neither None nor one of `ORDERINGS`.
    """
    if order is not None and order not in ORDERINGS:
        raise UnknownNameError("ordering", str(order), ORDERINGS)


def ordered(structure: Any, order: str | None) -> Any:
    """An ordered arrangement of a disordered structure; anything else as it is.

    Args:
        structure: Any accepted structure. Disordered may be pymatgen's ``Structure`` or its
            dictionary, and ASE ``Atoms`` as ASE's CIF reader returns them.
        order: ``"ewald"``, or None to leave the structure alone (it is then refused later).

    Returns:
        A pymatgen ``Structure`` where the input was disordered.

    Raises:
        UnknownNameError: For an unknown ``order``.
        StructureError: If the occupancies do not fit the cell, oxidation states cannot be
            guessed, elements of equal charge share a site, or there are too many sites or
            arrangements.
    """
    check_ordering(order)
    if order is None:
        return structure
    disordered = _as_disordered(structure)
    return structure if disordered is None else _lowest_ewald_energy(disordered)


def _as_disordered(structure: Any) -> IStructure | None:
    """The structure as pymatgen's if it has disordered sites, else None."""
    if isinstance(structure, Mapping) and "sites" in structure:
        from pymatgen.core import Structure

        structure = Structure.from_dict(dict(structure))
    elif hasattr(structure, "info") and "spacegroup_kinds" in getattr(structure, "arrays", {}):
        structure = _from_ase(structure)
    if hasattr(structure, "lattice") and getattr(structure, "is_ordered", True) is False:
        return structure
    return None


def _from_ase(atoms: Any) -> Any:
    """ASE keeps partial occupancies apart from the atoms, by kind of site."""
    from pymatgen.core import Structure

    occupancy = atoms.info.get("occupancy")
    if not isinstance(occupancy, Mapping):
        return atoms
    species = [
        occupancy.get(str(kind), {symbol: 1.0})
        for kind, symbol in zip(
            atoms.arrays["spacegroup_kinds"], atoms.get_chemical_symbols(), strict=True
        )
    ]
    return Structure(atoms.cell.array, species, atoms.get_scaled_positions())


def _lowest_ewald_energy(structure: IStructure) -> Structure:
    """Pymatgen's arrangement of lowest Ewald energy, refused where there are too many."""
    from pymatgen.core import DummySpecies, Structure
    from pymatgen.transformations.standard_transformations import (
        OrderDisorderedStructureTransformation,
    )

    for specie in structure.composition:
        if isinstance(specie, DummySpecies):
            raise StructureError(f"the structure holds {specie.symbol!r}, which is no element")
    if len(structure) > MAXIMUM_SITES:
        raise StructureError(
            f"{len(structure)} sites are too many to be ordered here (limit {MAXIMUM_SITES}); "
            "order the structure first, or give its primitive cell"
        )
    groups = _groups(structure)
    _check_occupancies(groups)
    count = _arrangements(groups)
    if count > MAXIMUM_ARRANGEMENTS:
        raise StructureError(
            f"the disordered sites can be filled in {count:.3g} ways, more than are searched here "
            f"(limit {MAXIMUM_ARRANGEMENTS:,}); use a smaller cell, or order the structure first"
        )
    charged = _with_charges(Structure.from_sites(list(structure)))
    for i, site in enumerate(charged):
        if not site.is_ordered and len(site.species) == 1 and site.species.num_atoms > 0.99:
            charged[i] = next(iter(site.species))  # pymatgen's search fails on 0.999 of an atom
    if charged.is_ordered:
        return charged
    _check_ranking(_groups(charged))
    method = OrderDisorderedStructureTransformation()
    return method.apply_transformation(charged)  # type: ignore[no-any-return]


def _groups(structure: IStructure) -> list[list[Composition]]:
    """Species of the disordered sites, those of equal occupancies together (as pymatgen does)."""
    groups: list[list[Composition]] = []
    for site in structure:
        if not site.is_ordered:
            for group in groups:
                if site.species.almost_equals(group[0]):
                    group.append(site.species)
                    break
            else:
                groups.append([site.species])
    return groups


def _totals(group: list[Composition]) -> dict[str, float]:
    totals: dict[str, float] = {}
    for composition in group:
        for specie, share in composition.items():
            totals[str(specie)] = totals.get(str(specie), 0.0) + share
    return totals


def _check_occupancies(groups: list[list[Composition]]) -> None:
    """Refuse cells too small for their occupancies, which pymatgen would round off."""

    def fits(multiple: int) -> bool:
        return all(
            abs(total * multiple - round(total * multiple)) <= _TOLERANCE * len(group) * multiple
            and round(total * multiple) > 0
            for group in groups
            for total in _totals(group).values()
        )

    if fits(1):
        return
    multiple = next((m for m in range(2, _LARGEST_MULTIPLE + 1) if fits(m)), None)
    advice = (
        f"make a supercell of {multiple} cells first"
        if multiple
        else "round the occupancies or make a large supercell first"
    )
    shares = "; ".join(
        f"{len(group)} x ({', '.join(f'{s} {c:g}' for s, c in group[0].items())})"
        for group in groups
    )
    raise StructureError(
        f"the occupancies do not fill this cell with whole atoms: {shares}; {advice}"
    )


def _arrangements(groups: list[list[Composition]]) -> int:
    """In how many ways the species can be put on the sites."""
    count = 1
    for group in groups:
        left = len(group)
        for total in _totals(group).values():
            taken = min(round(total), left)
            count *= math.comb(left, taken)
            left -= taken
    return count


def _check_ranking(groups: list[list[Composition]]) -> None:
    """Refuse equal charges on one site: exchanging them leaves the Ewald energy as it is."""
    for group in groups:
        named: dict[float, str] = {}
        if sum(group[0].values()) < 1 - _TOLERANCE:
            named[0.0] = "vacancy"
        for specie in group[0]:
            charge = float(specie.oxi_state)
            if charge in named:
                raise StructureError(
                    f"{named[charge]} and {specie.symbol} share sites with the same charge "
                    f"({charge:+g}), so that the Ewald energy cannot rank their arrangements; "
                    "order the structure first"
                )
            named[charge] = specie.symbol


def _with_charges(structure: Structure) -> Structure:
    """The structure with oxidation states, guessed from the composition if it has none."""
    from pymatgen.core import Composition

    species = {specie for site in structure for specie in site.species}
    if all(getattr(specie, "oxi_state", None) is not None for specie in species):
        return structure
    structure.remove_oxidation_states()
    whole = Composition({s: round(n) for s, n in structure.composition.items()})
    guesses = whole.reduced_composition.oxi_state_guesses()
    charges = guesses[0] if guesses else {}
    if not any(charges.values()):
        raise StructureError(
            f"no oxidation states can be guessed for {whole.reduced_formula}, so that the Ewald "
            "energy cannot rank its arrangements; add them (pymatgen's "
            "add_oxidation_state_by_element) or order the structure first"
        )
    structure.add_oxidation_state_by_element(charges)
    return structure
