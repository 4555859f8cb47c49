"""Structures out of dictionaries and texts that other programs wrote.

No class is made by a name in the data (pymatgen's ``MontyDecoder`` imports the module that
the text names): only numbers and element symbols are taken.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from recinet_ase.errors import ReciNetError, StructureError, reason_of
from recinet_ase.graph.dictionaries import element_of, read_dictionary, rows_of_three
from recinet_ase.io.cif import parse_cif
from recinet_ase.io.poscar import is_poscar, parse_poscar

if TYPE_CHECKING:
    from ase import Atoms

_OPTIMADE = {"lattice_vectors", "cartesian_site_positions", "species_at_sites"}


def is_structure(value: Any) -> bool:
    """Whether a json value is a structure of pymatgen's, JARVIS's or OPTIMADE's."""
    return isinstance(value, Mapping) and (
        {"lattice", "sites"} <= value.keys()
        or {"lattice_mat", "coords", "elements"} <= value.keys()
        or _attributes(value).keys() >= _OPTIMADE
    )


def _attributes(value: Mapping[Any, Any]) -> Mapping[Any, Any]:
    attributes = value.get("attributes", value)
    return attributes if isinstance(attributes, Mapping) else {}


def looks_like_structure(value: Any) -> bool:
    """Whether a table's cell or a json value seems to hold a structure."""
    if isinstance(value, bytes):
        value = value[:100_000].decode("utf-8", "replace")
    if not isinstance(value, str):
        return is_structure(value)
    head = value[:100_000]
    if head.lstrip().startswith("{"):
        return any(f'"{key}"' in head for key in ("sites", "lattice_mat", "lattice_vectors"))
    return "_atom_site" in head or "_cell_length" in head or is_poscar(head)


def is_missing(value: Any) -> bool:
    """Whether a cell is empty, as tables of several programs write it."""
    if value is None or (isinstance(value, float) and value != value):
        return True
    return isinstance(value, str) and value in ("", "null", "None", "nan")


def to_atoms(value: Any) -> Atoms:
    """The structure in a table's cell or a json value.

    Args:
        value: A dictionary of pymatgen's, JARVIS's or OPTIMADE's; or the text of one, of a CIF
            or of a POSCAR.

    Raises:
        ReciNetError: If it is none of these.
    """
    if isinstance(value, Mapping):
        if _attributes(value).keys() >= _OPTIMADE:
            return _from_optimade(_attributes(value))
        if {"lattice_mat", "elements", "sites"} & value.keys():
            return _from_dictionary(value)
        raise StructureError(
            "is no structure of pymatgen's, JARVIS's or OPTIMADE's (keys: "
            f"{', '.join(map(str, value))[:80]})"
        )
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if is_missing(value):
        raise StructureError("has no structure (null or an empty cell)")
    if not isinstance(value, str):
        raise StructureError(f"holds a value of type {type(value).__name__} instead of a structure")
    return _from_text(value)


def _from_text(text: str) -> Atoms:
    """The structure of a json, POSCAR or CIF text."""
    start = text.lstrip()[:1]
    if start in ("{", "["):
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ReciNetError(f"the structure is not valid json ({error})") from None
        if not isinstance(document, Mapping):
            raise StructureError("has a json list where a structure should be")
        return to_atoms(document)
    poscar = is_poscar(text)
    try:
        return parse_poscar(text) if poscar else parse_cif(text)
    except (ReciNetError, MemoryError):
        raise
    except Exception as error:
        what = "POSCAR" if poscar else "CIF"
        raise ReciNetError(f"its text is no {what} that can be read ({reason_of(error)})") from None


def _from_dictionary(record: Mapping[str, Any]) -> Atoms:
    from ase import Atoms

    arrays = read_dictionary(record)
    return Atoms(arrays.numbers, positions=arrays.positions, cell=arrays.lattice, pbc=arrays.pbc)


def _from_optimade(record: Mapping[str, Any]) -> Atoms:
    """A structure as the OPTIMADE specification (1.2) has it."""
    from ase import Atoms

    species = {}
    for one in record.get("species") or ():
        if not isinstance(one, Mapping) or not isinstance(one.get("chemical_symbols"), list):
            raise StructureError("the OPTIMADE species are damaged")
        name, symbols = one.get("name"), one["chemical_symbols"]
        shares = one.get("concentration") or [1.0]
        if len(symbols) != 1 or symbols[0] == "vacancy" or abs(float(shares[0]) - 1) > 0.001:
            text = ", ".join(f"{s} {x:g}" for s, x in zip(symbols, shares, strict=False))
            raise StructureError(f"species {name!r} is disordered ({text})")
        if one.get("attached") or one.get("nattached"):
            raise StructureError(f"species {name!r} has atoms attached that have no positions")
        species[name] = symbols[0]
    if record.get("assemblies"):
        raise StructureError("the OPTIMADE structure is disordered (assemblies)")
    names = record["species_at_sites"]
    if not isinstance(names, list):
        raise StructureError("the OPTIMADE species_at_sites are no list")
    numbers = [element_of(species.get(name, name), site) for site, name in enumerate(names)]
    cell = rows_of_three(record["lattice_vectors"], 3, "lattice_vectors")
    positions = rows_of_three(record["cartesian_site_positions"], len(numbers), "positions")
    periodic = [bool(flag) for flag in record.get("dimension_types") or (1, 1, 1)]
    return Atoms(numbers, positions=positions, cell=cell, pbc=periodic)
