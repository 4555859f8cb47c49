"""Rows of people's own files: an identity, values, and a structure to be read when needed.

One reader for each layout; what ASE reads goes through the readers of the screening.
Nothing is unpickled or run, and a row that cannot be read costs no other.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any

from recinet_ase.data.labels import as_number
from recinet_ase.data.splits import read_json_zip
from recinet_ase.errors import ReciNetError, reason_of
from recinet_ase.io import find_sources, parse_cif, read_entries
from recinet_ase.io import read_structure as read_structure_file
from recinet_ase.io.entries import Entry

ID_KEYS = ("id", "material_id", "mp_id", "jid", "cif_id")
STRUCTURE_KEYS = ("structure", "atoms", "cif")
ENERGY_KEY = "energy_per_atom"
"""ASE's energy, which is that of the whole cell in eV, divided by the number of atoms."""

ID_PROP = "id_prop.csv"
_VALUE = "value"  # the label in an id_prop.csv without a header
_SUFFIXES = {".cif", ".vasp", ".poscar", ".xyz", ".extxyz", ".traj", ".json", ".xsf", ".res"}


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
    name = path.name.lower()
    sources = [path]
    if path.is_dir():
        rows, sources = folder_rows(path)
    elif name.endswith(".csv"):
        rows = csv_rows(path)
    elif name.endswith((".json", ".json.gz", ".json.zip")):
        document = read_json(path)
        if isinstance(document, dict) and {"columns", "data"} <= set(document):
            rows = split_rows(document, path.name)
        elif isinstance(document, list):
            rows = record_rows(document, path.name)
        elif name.endswith(".json"):
            rows = ase_rows(path)
        else:
            raise ReciNetError(
                f"{path} is neither a list of records nor a table with 'columns' and 'data'"
            )
    else:
        rows = ase_rows(path)
    if not rows:
        raise ReciNetError(f"{path} has no rows")
    return rows, sources


def read_json(path: Path) -> Any:
    """A json document, plain, gzipped or in a zip.

    Raises:
        ReciNetError: If the file is missing or broken.
    """
    if path.name.lower().endswith(".zip"):
        return read_json_zip(path)
    try:
        raw = path.read_bytes()
        return json.loads(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)
    except (OSError, EOFError, ValueError) as error:
        raise ReciNetError(f"{path} is not readable json ({error})") from None


def ase_rows(path: Path) -> list[Row]:
    """Rows of an ASE database, or the structures of any file that ASE reads.

    Values are ``info`` or the key-value pairs, and `ENERGY_KEY` where an energy is stored.
    """
    return [_ase_row(path, entry) for entry in read_entries(find_sources([str(path)]))]


def _ase_row(path: Path, entry: Entry) -> Row:
    place = entry.id.rsplit("#", 1)[-1]
    where, atoms = f"{path.name}:{place}", entry.atoms
    key = f"{path.name}#{place}" if "#" in entry.id else place
    if isinstance(atoms, Exception):
        return Row(key, where, {}, partial(_raise, atoms), reason_of(atoms))
    values = {k: v for k, v in entry.values.items() if k not in ID_KEYS}
    energy = atoms.calc.results.get("energy") if atoms.calc is not None else None
    if isinstance(energy, int | float) and len(atoms):
        values.setdefault(ENERGY_KEY, energy / len(atoms))
    return Row(_own_id(entry.values) or key, where, values, lambda: atoms)


def csv_rows(path: Path) -> list[Row]:
    """Rows of a csv file with a column of structures (CIF or json texts).

    The column is called ``structure``, ``atoms`` or ``cif``, or is the one that holds CIFs.

    Raises:
        ReciNetError: If there is no such column.
    """
    records = _csv_records(path)
    if not records:
        return []
    header, body = [name.strip() for name in records[0]], records[1:]
    if len(set(header)) != len(header):
        raise ReciNetError(f"{path}: two columns have the same name")
    rows = []
    for number, cells in enumerate(body, 1):
        fault = ""
        if len(cells) != len(header):
            fault = f"has {len(cells)} fields where the header has {len(header)}"
        rows.append((number, dict(zip(header, cells, strict=False)), fault))
    return _table_rows(path.name, rows)


def record_rows(records: Sequence[Any], name: str) -> list[Row]:
    """Rows of a list of json objects, as jarvis-tools and ALIGNN write them.

    Args:
        records: Objects with a structure under ``atoms``, ``structure`` or ``cif``.
        name: The file's name.

    Raises:
        ReciNetError: If no object has a structure.
    """
    rows = []
    for number, record in enumerate(records, 1):
        good = isinstance(record, Mapping)
        rows.append((number, record if good else {}, "" if good else "is no json object"))
    return _table_rows(name, rows)


def split_rows(document: Mapping[str, Any], name: str) -> list[Row]:
    """Rows of matminer's json: ``index``, ``columns`` and ``data``.

    Args:
        document: The parsed file.
        name: The file's name.

    Raises:
        ReciNetError: If it is malformed or has no column of structures.
    """
    columns, data = document["columns"], document["data"]
    index = document.get("index", range(len(data)))
    if not isinstance(columns, list) or not isinstance(data, list) or len(index) != len(data):
        raise ReciNetError(f"{name}: 'index', 'columns' and 'data' do not fit together")
    rows = []
    for number, (key, cells) in enumerate(zip(index, data, strict=True), 1):
        good = isinstance(cells, list) and len(cells) == len(columns)
        record = dict(zip(columns, cells, strict=True)) if good else {}
        fault = "" if good else "does not have a value for each column"
        rows.append((number, {"id": key, **record}, fault))
    return _table_rows(name, rows)


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
    records = [row for row in _csv_records(listing) if not row[0].startswith("#")]
    width = max(map(len, records), default=0)
    header = ["id", _VALUE] if width < 3 else ["id", *(f"{_VALUE}{i}" for i in range(1, width))]
    first = [cell.strip() for cell in records[0]] if records else []
    named = first and first[0] not in files and first[0] not in by_base
    if named and all(isinstance(as_number(cell), str) for cell in first[1:]):
        header, records = first, records[1:]
    rows, sources = [], [listing]
    for number, record in enumerate(records, 1):
        cells = [cell.strip() for cell in record]
        name, where = cells[0], f"{ID_PROP}:{number}"
        found = [files[name]] if name in files else by_base.get(name, [])
        fault = ""
        if len(found) != 1:
            listed = ", ".join(path.name for path in found)
            fault = f"{name!r} could be any of {listed}" if found else f"there is no file {name!r}"
        values = dict(zip(header[1:], cells[1:], strict=False))
        read = partial(_raise, ReciNetError(fault))
        if found and not fault:
            sources.append(found[0])
            read = partial(read_structure_file, found[0])
        rows.append(Row(_base(name), where, values, read, fault))
    return rows, list(dict.fromkeys(sources))


def structure_of(cell: Any) -> Any:
    """The structure in a table's cell: a dictionary, or the text of a CIF or a dictionary.

    Raises:
        ReciNetError: If it is none of these.
    """
    if isinstance(cell, Mapping):
        return cell
    text = str(cell).strip() if cell is not None else ""
    if text.startswith("{"):
        try:
            return json.loads(text)
        except ValueError as error:
            raise ReciNetError(f"the structure is not valid json ({error})") from None
    if not text:
        raise ReciNetError("has no structure")
    try:
        return parse_cif(text)
    except ReciNetError:
        raise
    except Exception as error:
        raise ReciNetError(f"its text is no CIF that can be read ({reason_of(error)})") from None


def _table_rows(name: str, records: Iterable[tuple[int, Mapping[Any, Any], str]]) -> list[Row]:
    """Rows of a table: number, cells by column, and a fault."""
    records = list(records)
    key = _structure_key(record for _, record, _ in records)
    if records and key is None:
        raise ReciNetError(
            f"{name} has no column of structures: call it 'structure', 'atoms' or 'cif'"
        )
    rows = []
    for number, record, fault in records:
        values = {str(k): v for k, v in record.items() if k != key and k not in (*ID_KEYS, "")}
        rows.append(
            Row(
                _own_id(record) or str(number),
                f"{name}:{number}",
                values,
                partial(_raise, ReciNetError(fault))
                if fault
                else partial(structure_of, record.get(key)),
                fault,
            )
        )
    return rows


def _structure_key(records: Iterable[Mapping[Any, Any]]) -> str | None:
    """The column of structures: by its name, else by what the first full rows hold."""
    for seen, record in enumerate(records):
        named = {str(k).strip().lower(): k for k in record}
        for key in STRUCTURE_KEYS:
            if key in named:
                return str(named[key])
        for key, cell in record.items():
            if isinstance(cell, Mapping) and {"sites", "lattice_mat"} & set(cell):
                return str(key)
            if isinstance(cell, str) and "_atom_site" in cell:
                return str(key)
        if seen == 100:
            break
    return None


def _own_id(record: Mapping[Any, Any]) -> str:
    for key in (*ID_KEYS, ""):
        value = record.get(key)
        if isinstance(value, Integral | str) and str(value).strip():
            return str(value).strip()
    return ""


def _base(name: str) -> str:
    """A file name without a structure file's suffix (``mp-1.5`` keeps its dot)."""
    return Path(name).stem if Path(name).suffix.lower() in _SUFFIXES else name


@contextmanager
def _long_fields() -> Iterator[None]:
    """The csv module's limit of 128 kB a field is less than a large cell's CIF."""
    before = csv.field_size_limit(1 << 30)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _csv_records(path: Path) -> list[list[str]]:
    try:
        with _long_fields(), path.open(encoding="utf-8-sig", newline="") as handle:
            return [row for row in csv.reader(handle) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReciNetError(f"{path} is not a readable csv file ({error})") from None


def _raise(error: Exception) -> Any:
    raise error
