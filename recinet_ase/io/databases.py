"""ASE databases, row by row: sqlite files, json files and servers (ase-db-backends).

Kinds are ASE's: ``db``, ``json``, ``postgresql``, ``mysql``. Files are opened read-only.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from recinet_ase.errors import ReciNetError, UnknownNameError, reason_of
from recinet_ase.io.ase_json import decode
from recinet_ase.io.base import Found, unread, vanished
from recinet_ase.io.entries import InputUnavailableError, Source
from recinet_ase.io.json_documents import load_document, row_ids

if TYPE_CHECKING:
    from ase.db.row import AtomsRow

SERVERS = {
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
}
"""Schemes of addresses, and ASE's name of the kind."""

PATIENCE = 60.0
"""Seconds to wait for a database that another program has locked."""

_TABLES = ("systems", "species", "keys", "text_key_values", "number_key_values", "information")
_EXTERNAL = "SELECT value FROM information WHERE name = 'external_table_name'"
_BREATH = 100_000  # steps of sqlite's machine after which Python looks for signals
_BLANKS = re.compile(r"\s*(<=|>=|!=|<|>|=)\s*")  # around the operators of a selection
_BLOCK = 2000  # row ids asked for at once
_SPARSE = 4  # ids spread wider than this are read one by one


def masked(address: str) -> str:
    """An address without its password."""
    parts = urlsplit(address)
    if parts.password is None:
        return address
    return address.replace(f":{parts.password}@", ":***@", 1)


def recognise(source: Source) -> Source:
    """Check that the database can be opened, and count its rows (the selected ones).

    Raises:
        ReciNetError: If it cannot be opened or ASE does not understand the selection.
    """
    if source.kind == "json":
        document, ids = _document(source.path, keep=True)
        count = len(ids)
        if source.selection is not None:
            count = sum(1 for _ in _json_items(source, document, ids))
        return replace(source, count=count)
    try:
        return replace(source, count=_wait(source, lambda: _count(source)))
    except ReciNetError:
        raise
    except ImportError as error:
        raise ReciNetError(
            f"{source.title} needs the package {error.name or 'ase-db-backends'}: "
            "pip install 'recinet-ase[databases]'"
        ) from None
    except Exception as error:
        raise ReciNetError(
            f"{source.title} cannot be opened as an ASE database ({masked(reason_of(error))})"
        ) from None


def no_rows(source: Source) -> ReciNetError:
    """Why the selection picked nothing: an unknown key, most often."""
    from ase.db.core import get_key_descriptions

    if source.kind == "json":
        document, ids = _document(source.path, keep=True)
        known = {key for i in ids for key in _keys_of(document.get(str(i)))}
    else:
        database = _connect(source.path, source.kind)
        known = set(_wait(source, database.get_all_key_names))
    known |= {*get_key_descriptions(), "ctime", "mtime", "forces", "strain", "constraints"}
    keys, comparisons = conditions(source.selection)
    for key in [*keys, *(c[0] for c in comparisons)]:
        if isinstance(key, str) and key.lstrip("-") not in known:
            return UnknownNameError("selection key", key, known)
    return ReciNetError(f"the selection {source.selection!r} matches no row of {source.title}")


def items(source: Source) -> Iterator[Any]:
    """Row ids; for json, id and text of each row."""
    if source.kind == "json":
        document, ids = _document(source.path)
        yield from _json_items(source, document, ids)
        return
    last: int | None = None
    while True:
        block = _wait(source, partial(_ids, source, last))
        yield from block
        if len(block) < _BLOCK:
            return
        last = block[-1]


def read(source: Source, items: Sequence[Any]) -> list[Found]:
    """The rows: decoded from json, or read by id in one block."""
    if source.kind == "json":
        return [_decoded(key, text) for key, text in items]
    rows = _rows(source, items)
    entries = []
    for key in items:
        row = rows.get(key)
        if row is None:
            row = ReciNetError(f"row {key} is not in {source.title} any more")
        entries.append(_found(key, row))
    return entries


def count(source: Source) -> int | None:
    """Counted when the source was found."""
    return source.count


def _found(key: int, row: AtomsRow | Exception) -> Found:
    values: dict[str, Any] = {}
    try:
        if isinstance(row, Exception):
            raise row
        values = {**row.get("data", {}), **row.key_value_pairs}
        return Found(str(key), row.toatoms(), values)
    except Exception as error:
        return Found(str(key), error, values)


# Selections: always ASE's own reading of them.


def conditions(selection: str | None) -> tuple[list[str], list[tuple[Any, str, Any]]]:
    """A selection as ASE understands it: keys that must be there, and comparisons.

    Raises:
        ReciNetError: If ASE does not understand it.
    """
    from ase.db.core import parse_selection

    try:
        parsed = parse_selection(selection)
        if any(key == "" for key in [*parsed[0], *(c[0] for c in parsed[1])]):
            raise ValueError("a comparison without a key")
    except Exception as error:
        raise ReciNetError(
            f"the selection {selection!r} is none that ASE understands ({reason_of(error)}); "
            "examples: 'natoms<20,Li', 'bandgap>1', 'formula=NaCl'"
        ) from None
    words = [*parsed[0], *(word for c in parsed[1] for word in (c[0], c[2]))]
    if any(isinstance(word, str) and word != word.strip() for word in words):
        tight = _BLANKS.sub(r"\1", selection or "")
        raise ReciNetError(
            f"in the selection {selection!r} ASE takes the blanks for a part of a name; "
            f"write {tight!r}"
        )
    return parsed


# sqlite and servers


@lru_cache(maxsize=1)
def _read_only_class() -> type:
    """ASE's class for sqlite, opened without a right to write."""
    from ase.db.sqlite import SQLite3Database

    class ReadOnly(SQLite3Database):
        """Never creates a file or tables, as ASE's own class would."""

        def _connect(self) -> sqlite3.Connection:
            address = f"file:{quote(os.fsencode(self.filename))}?mode=ro"
            connection = sqlite3.connect(address, uri=True, timeout=PATIENCE / 4)
            connection.set_progress_handler(_breathe, _BREATH)
            return connection

        def _initialize(self, con: sqlite3.Connection) -> None:
            """Refuse views in place of tables before ASE looks at any."""
            tables = {
                name.lower(): kind == "table" and bool(page)
                for name, kind, page in con.execute(
                    "SELECT name, type, rootpage FROM sqlite_master WHERE type IN ('table', 'view')"
                )
            }
            if "systems" not in tables:
                raise ValueError("it has no table 'systems'")
            more: list[str] = []
            if tables.get("information"):
                more = [str(name) for (name,) in con.execute(_EXTERNAL)]
            # A view, or a virtual table, may have no end; ASE takes the names of further tables
            # as they stand in the file.
            for name in (*(name for name in _TABLES if name in tables), *more):
                if not (name.isidentifier() and tables.get(name.lower())):
                    raise ValueError(
                        f"its {name[:40]!r} is no table but a view, which ASE never makes"
                    )
            super()._initialize(con)

    return ReadOnly


def _breathe() -> int:
    """Called by sqlite now and then, so that an interrupt ends a query that takes long."""
    return 0


def waiting_changes(path: str) -> tuple[int, ...]:
    """What is committed to a sqlite file but stands in the file beside it (mode WAL).

    Size, time and head (its salts are new whenever it is used again from its beginning) tell
    two states apart without a look at any row. None, or an empty one as readers make it, is
    nothing. A program that moves its changes into the database changes the database's time.
    """
    wal = Path(f"{os.path.realpath(path)}-wal")
    try:
        stat = wal.stat()
        if not stat.st_size:
            return ()
        with wal.open("rb") as handle:
            return (stat.st_size, stat.st_mtime_ns, *handle.read(32))
    except FileNotFoundError:
        return ()


def _connect(path: str, kind: str) -> Any:
    if kind == "db":
        if not Path(path).exists():
            raise FileNotFoundError(2, "No such file", path)
        return _read_only_class()(str(Path(path).absolute()), use_lock_file=False)
    from ase.db import connect

    return connect(path, type=kind, use_lock_file=False)


def _wait(source: Source, work: Callable[[], Any]) -> Any:
    """Do it again while another program holds the database.

    Raises:
        KeyboardInterrupt: Where a signal came while sqlite was at work (it drops exceptions).
        InputUnavailableError: If it stays locked or unreachable.
        Exception: Any other that the work meets.
    """
    end = time.monotonic() + PATIENCE
    pause = 0.05
    while True:
        try:
            return work()
        except Exception as error:
            if isinstance(error, sqlite3.OperationalError) and str(error) == "interrupted":
                raise KeyboardInterrupt from None
            if not _temporary(error):
                raise
            if time.monotonic() > end:
                raise InputUnavailableError(
                    f"{source.title} stays locked or unreachable ({masked(reason_of(error))}); "
                    "wait for the program that uses it, or copy the file"
                ) from None
        time.sleep(pause)
        pause = min(2 * pause, 2.0)


def _temporary(error: Exception) -> bool:
    """Nothing wrong with a row: locked, or a server that does not answer."""
    if isinstance(error, sqlite3.Error):
        return bool(re.search("locked|busy|interrupted", str(error)))
    # The drivers of servers share the class's name.
    return type(error).__name__ in ("OperationalError", "InterfaceError")


def _query(source: Source, database: Any, what: str, after: int | None) -> tuple[str, list[Any]]:
    """The SQL of a selection, of the rows behind an id."""
    keys, comparisons = conditions(source.selection)
    if after is not None:
        comparisons = [*comparisons, ("id", ">", after)]
    try:
        return database.create_select_statement(keys, comparisons, what=what)
    except Exception as error:
        raise ReciNetError(
            f"the selection {source.selection!r} cannot be applied ({reason_of(error)})"
        ) from None


def _count(source: Source) -> int:
    database = _connect(source.path, source.kind)
    with database.managed_connection() as connection:
        cursor = connection.cursor()
        cursor.execute(*_query(source, database, "COUNT(*)", None))
        return int(cursor.fetchone()[0])


def _ids(source: Source, after: int | None) -> list[int]:
    database = _connect(source.path, source.kind)
    with database.managed_connection() as connection:
        cursor = connection.cursor()
        sql, arguments = _query(source, database, "systems.id", after)
        cursor.execute(f"{sql}\n  ORDER BY systems.id LIMIT {_BLOCK}", arguments)
        return [row[0] for row in cursor.fetchall()]


def _rows(source: Source, keys: Sequence[int]) -> dict[int, AtomsRow | Exception]:
    """Rows by id: in one query where it works, one by one where a row is damaged."""

    def block() -> dict[int, AtomsRow | Exception]:
        """All rows in one query, or each by itself."""
        database = _connect(source.path, source.kind)
        between = [("id", ">=", keys[0]), ("id", "<=", keys[-1])]
        with database:
            if keys[-1] - keys[0] < _SPARSE * len(keys):
                try:
                    return {row.id: row for row in database.select(between)}
                except Exception as error:
                    if _temporary(error):
                        raise
            return {key: one(database, key) for key in keys}

    def one(database: Any, key: int) -> AtomsRow | Exception:
        try:
            return database[key]
        except Exception as error:
            if _temporary(error):
                raise
            return error

    try:
        return _wait(source, block)
    except InputUnavailableError:
        raise
    except OSError as error:
        return dict.fromkeys(keys, vanished(source, error))
    except Exception as error:
        return dict.fromkeys(keys, unread(error, f"{source.title}: {reason_of(error)}"))


# json


def _document(path: str, keep: bool = False) -> tuple[dict[str, Any], list[int]]:
    document = load_document(path, keep)
    ids = row_ids(document)
    if ids is None:
        raise ReciNetError(f"{path} is no ASE database (any more)")
    return document, ids


def _keys_of(row: Any) -> Iterator[str]:
    pairs = row.get("key_value_pairs") if isinstance(row, dict) else None
    yield from pairs if isinstance(pairs, dict) else ()


def _json_items(
    source: Source, document: dict[str, Any], ids: Sequence[int]
) -> Iterator[tuple[int, str] | Exception]:
    for key in ids:
        text = json.dumps(document.get(str(key)))
        if source.selection is None or _selected(source, key, text):
            yield key, text


def _selected(source: Source, key: int, text: str) -> bool:
    """Whether ASE selects a row; one that cannot be judged is kept, to be reported."""
    from ase.db.jsondb import JSONDatabase

    keys, comparisons = conditions(source.selection)
    try:
        decode(text)
        database = JSONDatabase(StringIO(f'{{"{key}": {text}, "ids": [{key}], "nextid": 0}}'))
        return any(True for _ in database._select(keys, comparisons))
    except Exception:
        return True


def _decoded(key: int, text: str) -> Found:
    """A row of a json database, decoded with checks."""
    from ase.db.row import AtomsRow

    try:
        fields = decode(text)
        if not isinstance(fields, dict):
            raise ReciNetError(f"row {key} is missing or no json object")
        row = AtomsRow({**fields, "id": key})
    except Exception as error:
        return Found(str(key), error, {})
    return _found(key, row)
