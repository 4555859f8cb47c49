"""Json records: pymatgen, JARVIS, matminer and Materials Project files, and json lines.

Kinds are the layouts of `documents.layout`, and ``lines`` (one json object a line).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from recinet_ase.errors import ReciNetError, StructureError
from recinet_ase.io import Found
from recinet_ase.io.convert import (
    SEEN,
    check_column,
    own_id,
    scalars,
    structure_in,
    to_atoms,
)
from recinet_ase.io.documents import layout, length, load_document, records
from recinet_ase.io.entries import Source
from recinet_ase.io.opening import open_text


def recognise(source: Source) -> Source:
    """Find the layout of a json document (an ASE database's source comes back as one).

    Raises:
        ReciNetError: If it is no json, or holds no structures.
    """
    document = load_document(source.path, keep=True)
    kind = layout(document, source.column)
    if kind == "database":
        from recinet_ase.io import databases

        return databases.recognise(replace(source, family="databases", kind="json"))
    if kind is None:
        named = f" under the key {source.column!r}" if source.column else ""
        raise ReciNetError(
            f"{source.title} is no ASE database and has no structures of pymatgen's or JARVIS's"
            f"{named or ' (name their key with --structure-column if it is an unusual one)'}"
        )
    if source.column is not None:
        pairs = islice(records(document, kind, source.column), SEEN)
        _check_column(source, [pair[1] for pair in pairs if isinstance(pair, tuple)])
    return replace(source, kind=kind, count=length(document, kind, source.column))


def recognise_lines(source: Source) -> Source:
    """Check that the first lines hold a structure.

    Raises:
        ReciNetError: If none of them does.
    """
    with open_text(source.path) as lines:
        good = _with_structures(islice((line for line in lines if line.strip()), 100), source)
        first = list(islice(good, 1 if source.column is None else SEEN))
    if first:
        if source.column is not None:
            _check_column(source, first)
        return source
    raise ReciNetError(
        f"{source.title} has no structures in its first lines (json objects, one a line)"
    )


def _with_structures(lines: Iterable[str], source: Source) -> Iterator[Mapping[Any, Any]]:
    for line in lines:
        try:
            record = json.loads(line)
            if isinstance(record, Mapping):
                structure_in(record, source.column)
                yield record
        except (ValueError, RecursionError):
            continue


def _check_column(source: Source, first: Iterable[Any]) -> None:
    rows = [record for record in first if isinstance(record, Mapping)]
    check_column(source, rows, dict.fromkeys(name for record in rows for name in record))


def items(source: Source) -> Iterator[Any]:
    """(identity, record) of each record; the text of each line."""
    if source.kind == "lines":
        with open_text(source.path) as lines:
            yield from (line for line in lines if line.strip())
    else:
        yield from records(load_document(source.path), source.kind, source.column)


def read(source: Source, items: Sequence[Any]) -> Iterator[Found]:
    """Structure, identity and values of each record."""
    for item in items:
        key: Any = None
        try:
            key, record = (None, json.loads(item)) if source.kind == "lines" else item
        except (ValueError, RecursionError) as error:
            yield Found(None, ReciNetError(f"the line is not valid json ({error})"), {})
        else:
            yield found_in(key, record, source.column)


def found_in(key: Any, record: Any, column: str | None) -> Found:
    """What a record says.

    Args:
        key: The identity that stands outside of it, or None.
        record: A dictionary with a structure, or a structure (dictionary or text).
        column: The key of the structure, if the user named one.
    """
    name = None if key is None else str(key)
    values: dict[str, Any] = {}
    try:
        structure = record
        if isinstance(record, Mapping):
            name = name or own_id(record)
            values = scalars(record)
            structure = structure_in(record, column)
            values = {k: v for k, v in values.items() if v is not structure}
        elif record is None:
            raise StructureError("has no structure (null)")
        return Found(name, to_atoms(structure), values)
    except Exception as error:
        return Found(name, error, values)


def count(source: Source) -> int | None:
    """Counted when the source was found; unknown for json lines."""
    return source.count
