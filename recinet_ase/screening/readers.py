"""Structure files, one structure at a time, with an identity for each.

Everything that ASE reads, several files and patterns. A structure that cannot be
read is handed on as an error, never as an end.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recinet_ase.errors import ReciNetError

if TYPE_CHECKING:
    from ase import Atoms
    from ase.db.row import AtomsRow

_REFUSED_FORMATS = {"python", "py", "bundletrajectory"}  # run or unpickle what they read
_DATABASES = (".db", ".json")
_BLOCK = 200  # database rows read at once


@dataclass(frozen=True)
class Source:
    """An input file and how to read it.

    Attributes:
        path: The file.
        database: Whether it is an ASE database (otherwise an ASE format is read).
    """

    path: Path
    database: bool


@dataclass(frozen=True)
class Entry:
    """One structure of an input.

    Attributes:
        id: Row id of a database, else ``file#index``; or the value of ``--id-key``.
        atoms: The structure, or the error met while reading it.
    """

    id: str
    atoms: Atoms | Exception


def find_sources(patterns: Iterable[str]) -> list[Source]:
    """Expand patterns and recognise the format of every file, before any work starts.

    Raises:
        ReciNetError: For a missing file, an empty pattern or an unreadable format.
    """
    sources = []
    for pattern in patterns:
        if Path(pattern).exists():
            paths = [Path(pattern)]
        else:
            # glob, not Path.glob: a pattern may be absolute.
            found = glob.glob(pattern, recursive=True)  # noqa: PTH207
            paths = [Path(name) for name in sorted(found)]
        if not paths:
            what = "no file matches" if glob.has_magic(pattern) else "no such file:"
            raise ReciNetError(f"{what} {pattern}")
        sources += [_recognise(path) for path in paths]
    return sources


def _recognise(path: Path) -> Source:
    from ase.io.formats import UnknownFileTypeError, filetype, get_ioformat

    if path.is_dir():
        raise ReciNetError(f"{path} is a folder; name its files, e.g. '{path}/*.cif'")
    if path.stat().st_size == 0:
        raise ReciNetError(f"{path} is empty")
    if path.suffix in _DATABASES:
        _check_database(path)
        return Source(path, database=True)
    try:
        kind = filetype(str(path))
        if not get_ioformat(kind).can_read:
            raise UnknownFileTypeError(kind)
    except (UnknownFileTypeError, OSError, UnicodeDecodeError) as error:
        raise ReciNetError(
            f"cannot tell the format of {path} ({type(error).__name__}); give it a suffix that "
            "ASE knows (.cif, .vasp, .extxyz, .traj, .db, .json)"
        ) from None
    if kind in _REFUSED_FORMATS:
        raise ReciNetError(f"{path}: files of format {kind!r} can run code and are not read")
    return Source(path, database=False)


def _check_database(path: Path) -> None:
    """An ASE database can be opened and counted."""
    from ase.db import connect

    if path.suffix == ".json":
        try:
            with path.open(encoding="utf-8") as handle:
                document = json.load(handle)
        except ValueError as error:
            raise ReciNetError(f"{path} is not valid json ({error})") from None
        if not isinstance(document, dict) or not {"ids", "1"} & set(document):
            raise ReciNetError(
                f"{path} is no ASE database (a json file with 'ids' and numbered rows); "
                "ase.db.connect(...) writes one"
            )
        return
    try:
        connect(path).count()
    except Exception as error:
        raise ReciNetError(f"{path} cannot be opened as an ASE database ({error})") from None


def read_entries(sources: Sequence[Source], id_key: str | None = None) -> Iterator[Entry]:
    """All structures of all sources, in order, lazily.

    Args:
        sources: From `find_sources`.
        id_key: Take the identity from this key of ``info`` / ``key_value_pairs`` instead.
    """
    several = len(sources) > 1
    for source in sources:
        if source.database:
            yield from _read_database(source.path, id_key, several)
        else:
            yield from _read_file(source.path, id_key)


def _read_database(path: Path, id_key: str | None, several: bool) -> Iterator[Entry]:
    rows = _json_rows(path) if path.suffix == ".json" else _sqlite_rows(path)
    for key, row in rows:
        name = f"{path}#{key}" if several else str(key)
        try:
            if isinstance(row, Exception):
                raise row
            atoms = row.toatoms()
            if id_key is not None:
                name = _own_id({**row.get("data", {}), **row.key_value_pairs}, id_key, name)
        except Exception as error:
            yield Entry(name, error)
        else:
            yield Entry(name, atoms)


def _json_rows(path: Path) -> Iterator[tuple[int, AtomsRow | Exception]]:
    """Rows of a json database, each made on its own: a bad one must not hide the rest.

    (``Database.get`` reads the whole file for every row.)
    """
    from ase.db.row import AtomsRow
    from ase.io.jsonio import decode

    document = decode(path.read_text(encoding="utf-8"))
    for key in [int(i) for i in document.get("ids", [1])]:
        try:
            yield key, AtomsRow({**document[key], "id": key})
        except Exception as error:
            yield key, error


def _sqlite_rows(path: Path) -> Iterator[tuple[int, AtomsRow | Exception]]:
    """Rows of a sqlite database in blocks, one by one where a block holds a bad row."""
    from ase.db import connect

    database = connect(path)
    with database.managed_connection() as connection:
        found = connection.cursor().execute("SELECT id FROM systems ORDER BY id").fetchall()
    keys = [row[0] for row in found]
    for start in range(0, len(keys), _BLOCK):
        block = keys[start : start + _BLOCK]
        try:
            rows = {r.id: r for r in database.select(f"id>={block[0]},id<={block[-1]}")}
        except Exception:
            rows = {}
        for key in block:
            if key in rows:
                yield key, rows[key]
                continue
            try:
                yield key, database[key]
            except Exception as error:
                yield key, error


def _read_file(path: Path, id_key: str | None) -> Iterator[Entry]:
    import ase.io

    stream = ase.io.iread(str(path), index=":")
    for index in count():
        name = f"{path}#{index}"
        try:
            atoms = next(stream)
        except StopIteration:
            if index == 0:
                yield Entry(name, ReciNetError(f"{path} holds no structure that ASE can read"))
            return
        except Exception as error:
            # A text format has no way to find the next structure after a broken one.
            yield Entry(name, error)
            return
        yield Entry(name if id_key is None else _own_id(atoms.info, id_key, name), atoms)


def _own_id(values: dict[str, Any], key: str, fallback: str) -> str:
    return str(values[key]) if key in values else fallback
