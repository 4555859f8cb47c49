"""Json documents and json lines: pymatgen, JARVIS, matminer, Materials Project, OPTIMADE, ...

Kinds are the layouts of `layout`, and ``lines`` (one json object a line).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from recinet_ase.errors import ReciNetError
from recinet_ase.io.base import Found
from recinet_ase.io.compression import open_text, read_all
from recinet_ase.io.convert import is_structure, looks_like_structure
from recinet_ase.io.entries import Source
from recinet_ase.io.records import (
    SEEN,
    STRUCTURE_KEYS,
    Record,
    check_column,
    found_of,
    record_of,
    structure_in,
)

_SEEN = 100  # records looked at before a document is said to hold no structures
_LISTS = ("entries", "data", "structures", "results", "response")
_parsed: dict[tuple[Any, ...], Any] = {}  # the last document, until it is taken


def recognise(source: Source) -> Source:
    """Find the layout of a json document that is no ASE database.

    Raises:
        ReciNetError: If it is no json, or holds no structures.
    """
    document = load_document(source.path, keep=True)
    kind = layout(document, source.column)
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


def record(source: Source, item: Any) -> Record:
    """The record that an item holds, its structure not made yet."""
    if source.kind != "lines":
        key, fields = item
        return record_of(key, fields, source.column)
    try:
        return record_of(None, json.loads(item), source.column)
    except (ValueError, RecursionError) as error:
        return Record(None, ReciNetError(f"the line is not valid json ({error})"))


def read(source: Source, items: Sequence[Any]) -> Iterator[Found]:
    """Structure, identity and values of each record."""
    for item in items:
        yield found_of(record(source, item))


def count(source: Source) -> int | None:
    """Counted when the source was found; unknown for json lines."""
    return source.count


def load_document(path: str, keep: bool = False) -> Any:
    """A json document.

    Args:
        path: The file, compressed or not.
        keep: Keep it for the next call (recognising a file and reading it are two).

    Raises:
        ReciNetError: If it is not json.
        OSError: If the file cannot be read.
    """
    stat = Path(path).stat()
    key = (path, stat.st_size, stat.st_mtime_ns)
    document = _parsed.pop(key, None)
    _parsed.clear()
    if document is None:
        try:
            document = json.loads(read_all(path))
        except (ValueError, RecursionError) as error:
            if isinstance(error, ReciNetError):
                raise
            raise ReciNetError(f"{path} is not valid json ({error})") from None
    if keep:
        _parsed[key] = document
    return document


def row_ids(document: Any) -> list[int] | None:
    """The row ids of an ASE database's document, None for any other."""
    if not isinstance(document, dict):
        return None
    ids = document.get("ids", [1] if "1" in document and "nextid" in document else None)
    if isinstance(ids, dict):  # ids written as an array
        array = ids.get("__ndarray__")
        ids = array[2] if isinstance(array, list) and len(array) == 3 else None
    if isinstance(ids, list) and all(type(i) is int for i in ids):
        return ids
    return None


def layout(document: Any, column: str | None) -> str | None:
    """How a document holds structures.

    Args:
        document: The parsed json.
        column: The key that the user named, if any.

    Returns:
        ``one`` (a structure or a record of one), ``list``,
        ``mapping`` (identity to structure or record), ``split`` (``columns``, ``data`` and
        ``index``), ``columns`` (pandas: column to identity to value), ``entry`` (one
        under ``data``, as OPTIMADE answers), the key of a list, or None if there are no structures.
    """
    if isinstance(document, list):
        return "list" if _any_structure(document, column) else None
    if not isinstance(document, dict):
        return None
    if isinstance(document.get("columns"), list) and isinstance(document.get("data"), list):
        return "split"
    if is_structure(document) or {"sites", "@class"} <= document.keys():
        return "one"
    for key in (column,) if column else STRUCTURE_KEYS:
        value = document.get(key)
        if isinstance(value, Mapping) and _any_structure(value.values(), None):
            return "columns"
        if value is not None and looks_like_structure(value):
            return "one"
    for key in _LISTS:
        if isinstance(document.get(key), list) and _any_structure(document[key], column):
            return key
    if is_structure(document.get("data")):
        return "entry"
    return "mapping" if _any_structure(document.values(), column) else None


def _any_structure(values: Iterable[Any], column: str | None) -> bool:
    """Whether one of the first values is a structure or a record of one."""
    for value in islice(values, _SEEN):
        if looks_like_structure(value):
            return True
        if isinstance(value, Mapping):
            keys = (column,) if column else STRUCTURE_KEYS
            if any(key in value for key in keys):
                return True
            if column is None and any(map(looks_like_structure, value.values())):
                return True
    return False


def records(document: Any, kind: str, column: str | None) -> Iterator[Any]:
    """The records of a document: (identity or None, record), or an error in its place.

    Args:
        document: The parsed json.
        kind: From `layout`.
        column: The key that the user named, if any.
    """
    if kind == "one":
        yield None, document
    elif kind == "entry":
        yield None, document["data"]
    elif kind == "mapping":
        yield from document.items()
    elif kind == "split":
        yield from _split(document)
    elif kind == "columns":
        keys = (column,) if column else STRUCTURE_KEYS
        chosen = next(key for key in keys if isinstance(document.get(key), Mapping))
        columns = {k: v for k, v in document.items() if isinstance(v, Mapping)}
        for key in document[chosen]:
            yield key, {name: values.get(key) for name, values in columns.items()}
    else:
        for record in document if kind == "list" else document[kind]:
            yield None, record


def length(document: Any, kind: str, column: str | None) -> int:
    """Number of records."""
    if kind in ("one", "entry"):
        return 1
    return sum(1 for _ in records(document, kind, column))


def _split(document: Mapping[str, Any]) -> Iterator[Any]:
    """Matminer's and pandas's table: ``index``, ``columns`` and ``data``."""
    columns, data = document["columns"], document["data"]
    index = document.get("index")
    if not isinstance(index, list) or len(index) != len(data):
        index = range(len(data))
    for key, cells in zip(index, data, strict=True):
        if isinstance(cells, list) and len(cells) == len(columns):
            yield str(key), dict(zip(map(str, columns), cells, strict=True))
        else:
            yield str(key), ReciNetError("does not have a value for each column")
