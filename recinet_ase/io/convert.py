"""Structures out of dictionaries and texts that other programs wrote.

No class is made by a name in the data (pymatgen's ``MontyDecoder`` imports the module that
the text names): only numbers and element symbols are taken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recinet_ase.errors import ReciNetError, StructureError, reason_of
from recinet_ase.io import parse_cif

if TYPE_CHECKING:
    from ase import Atoms

    from recinet_ase.io.entries import Source

STRUCTURE_KEYS = (
    "structure",
    "atoms",
    "cif",
    "poscar",
    "final_structure",
    "relaxed_structure",
    "initial_structure",
)
"""Names of keys and columns that hold structures, the first found wins."""

ID_KEYS = ("id", "material_id", "mp_id", "jid", "entry_id", "mat_id", "cif_id", "name", "")
"""Names of keys and columns that hold identities, the first found wins (pandas leaves the
column of its index without a name)."""

SEEN = 20
"""Rows looked at to find, or to check, the column of structures."""

_CHARGED = re.compile(r"([A-Za-z]+)(\d*\.?\d*[+-])?")


def is_structure(value: Any) -> bool:
    """Whether a json value is a structure of pymatgen's or JARVIS's."""
    return isinstance(value, Mapping) and (
        {"lattice", "sites"} <= value.keys()
        or {"lattice_mat", "coords", "elements"} <= value.keys()
    )


def looks_like_structure(value: Any) -> bool:
    """Whether a table's cell or a json value seems to hold a structure."""
    if isinstance(value, bytes):
        value = value[:100_000].decode("utf-8", "replace")
    if not isinstance(value, str):
        return is_structure(value)
    head = value[:100_000]
    if head.lstrip().startswith("{"):
        return '"sites"' in head or '"lattice_mat"' in head
    return "_atom_site" in head or "_cell_length" in head or _is_poscar(head)


def check_column(source: Source, rows: Iterable[Any], names: Iterable[Any]) -> None:
    """Whether the column that the user named holds structures, as far as its first rows say.

    Texts of several lines pass: a damaged structure is a row with its error.

    Args:
        source: The input, with its column.
        rows: Its first rows; what is no dictionary with the column does not count.
        names: Names of the columns, for the error.

    Raises:
        ReciNetError: If no value looks like a structure.
    """
    cells = [
        row[source.column] for row in rows if isinstance(row, Mapping) and source.column in row
    ]
    values = [cell for cell in cells if not _is_missing(cell)]
    if not values or any(map(_may_be_structure, values)):
        return
    raise ReciNetError(
        f"{source.title}: column {source.column!r} holds no structures (first: "
        f"{str(values[0])[:40]!r}); columns: {', '.join(map(str, names))[:200]}"
    )


def _is_missing(value: Any) -> bool:
    """Whether a cell is empty, as tables of several programs write it."""
    if value is None or (isinstance(value, float) and value != value):
        return True
    return isinstance(value, str) and value in ("", "null", "None", "nan")


def _may_be_structure(value: Any) -> bool:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str) and ("\n" in value.strip() or value.lstrip().startswith("{")):
        return True
    if isinstance(value, Mapping):
        return bool({"sites", "lattice", "lattice_mat", "coords", "elements"} & value.keys())
    return looks_like_structure(value)


def structure_in(record: Mapping[Any, Any], column: str | None) -> Any:
    """The part of a record that is its structure: by the given key, by name, by content.

    Raises:
        StructureError: If there is none.
    """
    if column is not None:
        if column in record:
            return record[column]
        raise StructureError(f"has no key {column!r}")
    if is_structure(record):
        return record
    for key in STRUCTURE_KEYS:
        if key in record:
            return record[key]
    for value in record.values():
        if looks_like_structure(value):
            return value
    raise StructureError(f"has no structure (no key {', '.join(STRUCTURE_KEYS[:4])})")


def own_id(record: Mapping[Any, Any]) -> str | None:
    """The identity that a record states, by the names in `ID_KEYS`."""
    data = record.get("data")
    for place in (record, data if isinstance(data, Mapping) else {}):
        for key in ID_KEYS:
            value = place.get(key)
            if isinstance(value, int | str) and not isinstance(value, bool):
                text = str(value).strip()
                if text:
                    return text
    return None


def scalars(record: Mapping[Any, Any]) -> dict[str, Any]:
    """What stands beside the structure: numbers, flags and texts that are no structures."""
    values: dict[str, Any] = {}
    data = record.get("data")
    for place in (data if isinstance(data, Mapping) else {}, record):
        for key, value in place.items():
            if str(key).startswith("@"):
                continue
            if isinstance(value, bool | int | float) or (
                isinstance(value, str) and len(value) < 1000
            ):
                values[str(key)] = value
    return values


def to_atoms(value: Any) -> Atoms:
    """The structure in a table's cell or a json value.

    Args:
        value: A dictionary of pymatgen's or JARVIS's; or the text of one, of a CIF or of a
            POSCAR.

    Raises:
        ReciNetError: If it is none of these.
    """
    if isinstance(value, Mapping):
        if "lattice_mat" in value or "elements" in value:
            return _from_jarvis(value)
        if "sites" in value:
            return _from_pymatgen(value)
        raise StructureError(
            f"is no structure of pymatgen's or JARVIS's (keys: {', '.join(map(str, value))[:80]})"
        )
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if _is_missing(value):
        raise StructureError("has no structure (null or an empty cell)")
    if not isinstance(value, str):
        raise StructureError(f"holds a value of type {type(value).__name__} instead of a structure")
    return _from_text(value)


def _from_text(text: str) -> Atoms:
    from recinet_ase.io.text import parse

    start = text.lstrip()[:1]
    if start in ("{", "["):
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ReciNetError(f"the structure is not valid json ({error})") from None
        if not isinstance(document, Mapping):
            raise StructureError("has a json list where a structure should be")
        return to_atoms(document)
    poscar = _is_poscar(text)
    try:
        return parse(text, "vasp")[0] if poscar else parse_cif(text)
    except ReciNetError:
        raise
    except Exception as error:
        what = "POSCAR" if poscar else "CIF"
        raise ReciNetError(f"its text is no {what} that can be read ({reason_of(error)})") from None


def _is_poscar(text: str) -> bool:
    """A scaling factor, then three vectors of three numbers."""
    lines = text.lstrip("\ufeff").split("\n", 6)[1:5]
    try:
        rows = [[float(word) for word in line.split()[:3]] for line in lines]
    except ValueError:
        return False
    return [len(row) for row in rows][1:] == [3, 3, 3] and len(rows[0]) in (1, 3)


def _number(symbol: Any, site: int) -> int:
    from ase.data import atomic_numbers

    match = _CHARGED.fullmatch(str(symbol).strip())
    name = match.group(1) if match else ""
    name = {"D": "H", "T": "H"}.get(name, name)  # pymatgen's symbols of isotopes
    if not atomic_numbers.get(name):
        raise StructureError(f"atom {site} is {str(symbol)[:20]!r}, which is no element")
    return int(atomic_numbers[name])


def _from_jarvis(record: Mapping[str, Any]) -> Atoms:
    from ase import Atoms

    missing = [key for key in ("lattice_mat", "coords", "elements") if key not in record]
    if missing:
        raise StructureError(f"the JARVIS dictionary lacks {', '.join(missing)}")
    elements = record["elements"]
    if not isinstance(elements, Sequence) or isinstance(elements, str):
        raise StructureError("the JARVIS dictionary's elements are no list")
    numbers = [_number(symbol, site) for site, symbol in enumerate(elements)]
    cell = _array(record["lattice_mat"], 3, "lattice_mat")
    coords = _array(record["coords"], len(numbers), "coords")
    if record.get("cartesian", False):
        return Atoms(numbers, positions=coords, cell=cell, pbc=True)
    from recinet_ase.graph.adapters import check_fractional

    check_fractional(record, coords)
    return Atoms(numbers, positions=coords @ cell, cell=cell, pbc=True)


def _from_pymatgen(record: Mapping[str, Any]) -> Atoms:
    from ase import Atoms
    from ase.cell import Cell

    lattice, sites = record.get("lattice"), record["sites"]
    if lattice is None:
        raise StructureError(
            "a pymatgen Molecule has no periodicity; the models are trained on crystals"
        )
    if not isinstance(lattice, Mapping) or not isinstance(sites, list):
        raise StructureError("the pymatgen dictionary's lattice or sites are damaged")
    if "matrix" in lattice:
        cell = _array(lattice["matrix"], 3, "lattice matrix")
    else:
        names = ("a", "b", "c", "alpha", "beta", "gamma")
        try:
            cell = Cell.fromcellpar([float(lattice[name]) for name in names]).array
        except (KeyError, TypeError, ValueError, AssertionError) as error:
            raise StructureError(f"the lattice is incomplete ({reason_of(error)})") from None
    numbers, coords = [], []
    for index, site in enumerate(sites):
        numbers.append(_species(site, index))
        coords.append(site.get("abc"))
    if sites and all(row is None for row in coords):
        positions = _array([site.get("xyz") for site in sites], len(numbers), "coordinates")
    else:
        positions = _array(coords, len(numbers), "coordinates") @ cell
    pbc = lattice.get("pbc") or (True, True, True)
    return Atoms(numbers, positions=positions, cell=cell, pbc=pbc)


def _species(site: Any, index: int) -> int:
    species = site.get("species") if isinstance(site, Mapping) else None
    if not isinstance(species, list) or not all(isinstance(one, Mapping) for one in species):
        raise StructureError(f"site {index} of the pymatgen dictionary has no species")
    shares = [(one.get("element"), one.get("occu", 1)) for one in species]
    try:
        ordered = len(shares) == 1 and float(shares[0][1]) > 0.999
    except (TypeError, ValueError):
        ordered = False
    if not ordered:
        text = ", ".join(f"{element} {share}" for element, share in shares)
        raise StructureError(
            f"site {index} is disordered ({text}); choose an ordered arrangement first"
        )
    return _number(shares[0][0], index)


def _array(rows: Any, length: int, what: str) -> Any:
    import numpy as np

    try:
        array = np.array(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise StructureError(f"the {what} are not numbers ({reason_of(error)})") from None
    if array.shape != (length, 3) and array.size != 0:
        raise StructureError(f"the {what} have shape {array.shape}, not ({length}, 3)")
    return array.reshape(-1, 3)
