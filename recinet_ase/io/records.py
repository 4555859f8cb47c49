"""Records: dictionaries with a structure, an identity and values, whatever file they stand in.

The names of keys and columns are here, once for screening and training.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any, NamedTuple

from recinet_ase.errors import ReciNetError, StructureError
from recinet_ase.io.base import Found
from recinet_ase.io.convert import is_missing, is_structure, looks_like_structure, to_atoms
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
    values = [cell for cell in cells if not is_missing(cell)]
    if not values or any(map(_may_be_structure, values)):
        return
    raise ReciNetError(
        f"{source.title}: column {source.column!r} holds no structures (first: "
        f"{str(values[0])[:40]!r}); columns: {', '.join(map(str, names))[:200]}"
    )


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


def own_id(record: Mapping[Any, Any], keys: Sequence[str] = ID_KEYS) -> str | None:
    """The identity that a record states, by the first of some keys that has one."""
    data = record.get("data")
    for place in (record, data if isinstance(data, Mapping) else {}):
        for key in keys:
            value = place.get(key)
            if isinstance(value, Integral | str) and not isinstance(value, bool):
                text = str(value).strip()
                if text:
                    return text
    return None


def scalars(record: Mapping[Any, Any]) -> dict[str, Any]:
    """What stands beside the structure: numbers, flags and texts that are no structures."""
    return {
        key: value
        for key, value in flat(record).items()
        if isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) < 1000)
    }


def flat(record: Mapping[Any, Any]) -> dict[str, Any]:
    """The fields of a record and of what it keeps under ``data`` or ``attributes``."""
    fields: dict[str, Any] = {}
    for nested in ("data", "attributes"):
        if isinstance(record.get(nested), Mapping):
            fields |= {str(key): value for key, value in record[nested].items()}
    fields |= {str(key): value for key, value in record.items()}
    return {key: value for key, value in fields.items() if not key.startswith("@")}


class Record(NamedTuple):
    """An entry whose structure is not made yet.

    Attributes:
        key: Its identity, or None.
        structure: The structure as it stands there, or the error in its place.
        fields: All fields; of a structure alone, none.
    """

    key: str | None
    structure: Any
    fields: Mapping[Any, Any] = {}


def record_of(key: Any, record: Any, column: str | None) -> Record:
    """What a record says.

    Args:
        key: The identity that stands outside of it, or None.
        record: A dictionary with a structure, a structure (dictionary or text), or the error in
            its place.
        column: The key of the structure, if the user named one.
    """
    name = None if key is None else str(key)
    if record is None:
        return Record(name, StructureError("has no structure (null)"))
    if not isinstance(record, Mapping):
        return Record(name, record)
    name = name or own_id(record)
    try:
        return Record(name, structure_in(record, column), record)
    except StructureError as error:
        return Record(name, error, record)


def found_of(record: Record) -> Found:
    """A record with its structure made."""
    values: dict[str, Any] = {}
    try:
        values = scalars(record.fields)
        if isinstance(record.structure, Exception):
            raise record.structure
        values = {k: v for k, v in values.items() if v is not record.structure}
        return Found(record.key, to_atoms(record.structure), values)
    except Exception as error:
        return Found(record.key, error, values)
