"""Rows of people's own files: an identity, values, and a structure to be read when needed.

Whatever is read here is read by the readers of the screening, with the same identities; an
entry without one of its own has its number in a table, and ``file#index`` elsewhere. The
suffix of a compression is no part of it, so that a split is the same for both.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from recinet_ase.data.labels import as_number
from recinet_ase.errors import ReciNetError, reason_of
from recinet_ase.io import json_documents, tables
from recinet_ase.io.compression import COMPRESSIONS
from recinet_ase.io.convert import is_structure, to_atoms
from recinet_ase.io.entries import Entry, Source
from recinet_ase.io.find import find_sources
from recinet_ase.io.reading import numbered_items, read_entries, read_structure
from recinet_ase.io.records import ID_KEYS, Record, flat, own_id

ENERGY_KEY = "energy_per_atom"
"""ASE's energy, which is that of the whole cell in eV, divided by the number of atoms."""

ID_PROP = "id_prop.csv"
_VALUE = "value"  # the label in an id_prop.csv without a header
_SUFFIXES = {".cif", ".vasp", ".poscar", ".xyz", ".extxyz", ".traj", ".json", ".xsf", ".res"}
_AMBIGUOUS = "name"  # an identity where it is one, and the name of a compound where it repeats


@dataclass(frozen=True)
class Row:
    """One row of a source.

    Attributes:
        id: Its identity.
        where: Where it stands, ``"file:row"``, for messages.
        values: Everything in it that could be a label, by key.
        read: Gives the structure, or raises.
        fault: Why the row cannot be used, where that is known without reading the structure.
    """

    id: str
    where: str
    values: Mapping[str, Any]
    read: Callable[[], Any]
    fault: str = ""


def read_rows(path: Path) -> tuple[list[Row], list[Path]]:
    """All rows of a file or folder, and the files that they come from.

    Raises:
        ReciNetError: If it is of no known layout, or empty.
    """
    if path.is_dir():
        rows, files = folder_rows(path)
    else:
        (source,) = find_sources([str(path)])
        files = [path]
        rows = _record_rows(source) if source.family in _RECORDS else _ase_rows(source)
    if all(row.fault and not row.values for row in rows):
        listed = "; ".join(f"{row.where}: {row.fault}" for row in rows[:3])
        raise ReciNetError(f"{path} has no rows that can be read{f' ({listed})' if rows else ''}")
    return rows, files


_RECORDS: dict[str, Callable[[Source, Any], Record]] = {
    "json_documents": json_documents.record,
    "tables": tables.record,
}
"""Families whose entries have an identity and values before their structure is made."""


def _record_rows(source: Source) -> list[Row]:
    records = [
        Record(None, item) if isinstance(item, Exception) else _RECORDS[source.family](source, item)
        for _, item in numbered_items(source)
    ]
    return rows_of(records, _plain_name(source))


def rows_of(records: Iterable[Record], name: str) -> list[Row]:
    """Rows of records; those without an identity are numbered from 1.

    Args:
        records: In order.
        name: The file's name.
    """
    records = list(records)
    keys = _id_keys([record.fields for record in records])
    rows = []
    for number, record in enumerate(records, 1):
        fields, structure = record.fields, record.structure
        key = record.key
        if keys is not ID_KEYS and key is not None and key == own_id(fields, (_AMBIGUOUS,)):
            key = own_id(fields, keys)
        values = {
            name.strip(): value
            for name, value in flat(fields).items()
            if value is not structure and name.strip() not in ID_KEYS
        }
        fault = reason_of(structure) if isinstance(structure, Exception) else ""
        rows.append(
            Row(key or str(number), f"{name}:{number}", values, partial(_read, structure), fault)
        )
    return rows


def _id_keys(fields: Sequence[Mapping[Any, Any]]) -> Sequence[str]:
    """Keys of identities: names that repeat are none."""
    names = Counter(own_id(one, (_AMBIGUOUS,)) for one in fields)
    del names[None]
    repeated = any(count > 1 for count in names.values())
    return tuple(key for key in ID_KEYS if key != _AMBIGUOUS) if repeated else ID_KEYS


def _read(structure: Any) -> Any:
    """The structure as `recinet_ase.graph.adapters.to_crystal` takes it.

    (It takes dictionaries of pymatgen's and JARVIS's, four times as fast as by way of ASE.)
    """
    if isinstance(structure, Exception):
        raise structure
    if is_structure(structure) and {"sites", "lattice_mat"} & structure.keys():
        return structure
    return to_atoms(structure)


def _ase_rows(source: Source) -> list[Row]:
    """Rows of an ASE database, or the structures of a file.

    Values are ``info`` or the key-value pairs, and `ENERGY_KEY` where an energy is stored.
    """
    entries = list(read_entries([source]))
    keys = _id_keys([entry.values for entry in entries])
    return [_ase_row(_plain_name(source), entry, keys) for entry in entries]


def _ase_row(name: str, entry: Entry, keys: Sequence[str]) -> Row:
    """The row of an entry, with its energy per atom where one is stored."""
    place = entry.id.rsplit("#", 1)[-1]
    where, atoms = f"{name}:{place}", entry.atoms
    key = f"{name}#{place}" if "#" in entry.id else place
    if isinstance(atoms, Exception):
        return Row(key, where, {}, partial(_read, atoms), reason_of(atoms))
    values = {k: v for k, v in entry.values.items() if k not in ID_KEYS}
    energy = atoms.calc.results.get("energy") if atoms.calc is not None else None
    if isinstance(energy, int | float) and len(atoms):
        values.setdefault(ENERGY_KEY, energy / len(atoms))
    return Row(own_id(entry.values, keys) or key, where, values, lambda: atoms)


def _plain_name(source: Source) -> str:
    """The file's name without the suffix of a compression."""
    path = Path(source.name)
    return path.stem if path.suffix.lower() in COMPRESSIONS else path.name


# Folders


def folder_rows(folder: Path) -> tuple[list[Row], list[Path]]:
    """Rows of a folder of structure files with ``id_prop.csv``, and all files used.

    A line of that file is a file name (with or without suffix) and a value; a header names
    the columns, of which there may be more.

    Raises:
        ReciNetError: If there is no such file.
    """
    listing = folder / ID_PROP
    if not listing.is_file():
        raise ReciNetError(
            f"{folder} has no {ID_PROP}: write a line 'file name,value' for each structure"
        )
    files = {p.name: p for p in sorted(folder.iterdir()) if p.is_file() and p != listing}
    by_base: dict[str, list[Path]] = defaultdict(list)
    for path in files.values():
        by_base[_base(path.name)].append(path)
    lines = [row for row in _csv_lines(listing) if not row[0].startswith("#")]
    width = max(map(len, lines), default=0)
    header = ["id", _VALUE] if width < 3 else ["id", *(f"{_VALUE}{i}" for i in range(1, width))]
    first = [cell.strip() for cell in lines[0]] if lines else []
    named = first and first[0] not in files and first[0] not in by_base
    if named and all(isinstance(as_number(cell), str) for cell in first[1:]):
        header, lines = first, lines[1:]
    rows, sources = [], [listing]
    for number, line in enumerate(lines, 1):
        cells = [cell.strip() for cell in line]
        name, where = cells[0], f"{ID_PROP}:{number}"
        candidates = [files[name]] if name in files else by_base.get(name, [])
        fault = ""
        if len(candidates) != 1:
            listed = ", ".join(path.name for path in candidates)
            fault = (
                f"{name!r} could be any of {listed}" if candidates else f"there is no file {name!r}"
            )
        values = dict(zip(header[1:], cells[1:], strict=False))
        read = partial(_read, ReciNetError(fault))
        if candidates and not fault:
            sources.append(candidates[0])
            read = partial(read_structure, candidates[0])
        rows.append(Row(_base(name), where, values, read, fault))
    return rows, list(dict.fromkeys(sources))


def _base(name: str) -> str:
    """A file name without a structure file's suffix (``mp-1.5`` keeps its dot)."""
    return Path(name).stem if Path(name).suffix.lower() in _SUFFIXES else name


def _csv_lines(path: Path) -> list[list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            return [row for row in csv.reader(handle) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReciNetError(f"{path} is not a readable csv file ({error})") from None
