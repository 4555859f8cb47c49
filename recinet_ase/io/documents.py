"""Json documents: what they hold, and each parsed once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from recinet_ase.errors import ReciNetError
from recinet_ase.io.convert import (
    STRUCTURE_KEYS,
    is_structure,
    looks_like_structure,
)
from recinet_ase.io.opening import read_all

_SEEN = 100  # records looked at before a document is said to hold no structures
_LISTS = ("entries", "data", "structures", "results", "response")
_parsed: dict[tuple[Any, ...], Any] = {}  # the last document, until it is taken


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
        ``database`` (ASE's), ``one`` (a structure or a record of one), ``list``,
        ``mapping`` (identity to structure or record), ``split`` (``columns``, ``data`` and
        ``index``), ``columns`` (pandas: column to identity to value), the key of a list, or
        None if there are no structures.
    """
    if isinstance(document, list):
        return "list" if _any_structure(document, column) else None
    if not isinstance(document, dict):
        return None
    if row_ids(document) is not None:
        return "database"
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
    return "mapping" if _any_structure(document.values(), column) else None


def _any_structure(values: Iterable[Any], column: str | None) -> bool:
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
    if kind == "one":
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
            yield ReciNetError(f"row {key} does not have a value for each column")
