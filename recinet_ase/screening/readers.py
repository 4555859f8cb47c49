"""Structure files, one structure at a time, with an identity for each.

Everything that ASE reads, several files and patterns. A structure that cannot be
read is handed on as an error, never as an end: databases are read row by row, CIF and
extended xyz files block by block.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recinet_ase.errors import ReciNetError

if TYPE_CHECKING:
    from ase import Atoms
    from ase.db.row import AtomsRow

_REFUSED_FORMATS = {"python", "py", "bundletrajectory"}  # run or unpickle what they read
_DATABASES = {".db": "db", ".json": "json"}
_BLOCK = 200  # database rows read at once


@dataclass(frozen=True)
class Source:
    """An input file and how to read it.

    Attributes:
        path: The file.
        kind: ASE's name of its format; ``"db"`` and ``"json"`` are ASE databases.
        fault: Why it cannot be read (its one entry is this error), or None.
    """

    path: Path
    kind: str
    fault: ReciNetError | None = None


@dataclass(frozen=True)
class Entry:
    """One structure of an input.

    Attributes:
        id: Row id of a database, else ``file#index``; or the value of the user's id key.
        atoms: The structure, or the error met while reading it.
        has_key: Whether the user's id key was found.
        values: ``info`` of a file's structure, key-value pairs and data of a database row.
    """

    id: str
    atoms: Atoms | Exception
    has_key: bool = True
    values: Mapping[str, Any] = field(default_factory=dict)


def find_sources(patterns: Iterable[str]) -> list[Source]:
    """Expand patterns and recognise the format of every file, before any work starts.

    A file named twice is read once. A file that a pattern brought in and that cannot be
    read becomes an entry with its error; one that was named is a wrong call.

    Raises:
        ReciNetError: For a missing file, a pattern without files or an unreadable format.
    """
    sources: dict[Path, Source] = {}
    for pattern in patterns:
        named = Path(pattern).exists()
        # glob, not Path.glob: a pattern may be absolute.
        paths = [pattern] if named else sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
        if not paths:
            what = "no file matches" if glob.has_magic(pattern) else "no such file:"
            raise ReciNetError(f"{what} {pattern}")
        for path in map(Path, paths):
            try:
                source = Source(path, _recognise(path))
            except ReciNetError as error:
                if named:
                    raise
                source = Source(path, "", error)
            sources.setdefault(path.resolve(), source)
    return list(sources.values())


def _recognise(path: Path) -> str:
    from ase.io.formats import UnknownFileTypeError, filetype, get_ioformat

    if path.is_dir():
        raise ReciNetError(f"{path} is a folder; name its files, e.g. '{path}/*.cif'")
    if path.stat().st_size == 0:
        raise ReciNetError(f"{path} is empty")
    if path.suffix.lower() in _DATABASES:
        kind = _DATABASES[path.suffix.lower()]
        _check_database(path, kind)
        return kind
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
    return kind


def _check_database(path: Path, kind: str) -> None:
    """An ASE database can be opened and has rows."""
    if kind == "json":
        _load_json(path)
        return
    from ase.db import connect

    try:
        connect(path, type=kind).count()
    except Exception as error:
        raise ReciNetError(f"{path} cannot be opened as an ASE database ({error})") from None


def _load_json(path: Path) -> tuple[dict[str, Any], list[int]]:
    """The rows of a json database as plain json, and their ids.

    Raises:
        ReciNetError: If it is not json, or no ASE database.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ReciNetError(f"{path} is not valid json ({error})") from None
    if isinstance(document, dict):
        ids = document.get("ids", [1] if "1" in document else None)
        if isinstance(ids, dict):  # ids written as an array
            ids = ids.get("__ndarray__", [None, None, None])[2]
        if isinstance(ids, list) and all(isinstance(i, int) for i in ids):
            return document, ids
    raise ReciNetError(
        f"{path} is no ASE database (a json file with 'ids' and numbered rows); "
        "ase.db.connect(...) writes one"
    )


def read_entries(sources: Sequence[Source], id_key: str | None = None) -> Iterator[Entry]:
    """All structures of all sources, in order, lazily.

    Args:
        sources: From `find_sources`.
        id_key: Take the identity from this key of ``info`` / ``key_value_pairs`` instead.
    """
    several = len(sources) > 1
    for source in sources:
        path = source.path
        if source.fault is not None:
            yield Entry(f"{path}#0", source.fault)
        elif source.kind in _DATABASES.values():
            yield from _read_database(source, id_key, several)
        else:
            for index, atoms in enumerate(_read_file(source)):
                info = {} if isinstance(atoms, Exception) else atoms.info
                yield _entry(f"{path}#{index}", atoms, info, id_key)


def read_structure(path: Path) -> Atoms:
    """The one structure of a file.

    Raises:
        ReciNetError: If the file cannot be read, or holds none or several.
    """
    entries = list(islice(read_entries([Source(path, _recognise(path))]), 2))
    return _only((entry.atoms for entry in entries), path.name)


def parse_cif(text: str) -> Atoms:
    """The one structure of a CIF given as text.

    Raises:
        ReciNetError: If it cannot be read, or holds none or several.
    """
    return _only(_parsed(iter([text]), "cif"), "the CIF")


def _only(found: Iterable[Atoms | Exception], name: str) -> Atoms:
    structures = list(found)
    if len(structures) != 1:
        raise ReciNetError(f"{name} holds {'several' if structures else 'no'} structures, not one")
    (atoms,) = structures
    if isinstance(atoms, Exception):
        raise atoms
    return atoms


def _entry(
    name: str, atoms: Atoms | Exception, values: Mapping[str, Any], id_key: str | None
) -> Entry:
    if id_key is None or isinstance(atoms, Exception):
        return Entry(name, atoms, values=values)
    if id_key in values:
        return Entry(str(values[id_key]), atoms, values=values)
    return Entry(name, atoms, has_key=False, values=values)


def _read_database(source: Source, id_key: str | None, several: bool) -> Iterator[Entry]:
    rows = _json_rows(source.path) if source.kind == "json" else _sqlite_rows(source.path)
    for key, row in rows:
        name = f"{source.path}#{key}" if several else str(key)
        try:
            if isinstance(row, Exception):
                raise row
            atoms, values = row.toatoms(), {**row.get("data", {}), **row.key_value_pairs}
        except Exception as error:
            yield Entry(name, error)
        else:
            yield _entry(name, atoms, values, id_key)


def _json_rows(path: Path) -> Iterator[tuple[int, AtomsRow | Exception]]:
    """Rows of a json database, each decoded on its own: a bad one must not hide the rest.

    (``Database.get`` reads the whole file for every row.)
    """
    from ase.db.row import AtomsRow
    from ase.io.jsonio import decode

    document, ids = _load_json(path)
    for key in ids:
        try:
            row = decode(json.dumps(document.pop(str(key))))
            yield key, AtomsRow({**row, "id": key})
        except Exception as error:
            yield key, error


def _sqlite_rows(path: Path) -> Iterator[tuple[int, AtomsRow | Exception]]:
    """Rows of a sqlite database in blocks, one by one where a block holds a bad row."""
    from ase.db import connect

    database = connect(path, type="db")
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


def _read_file(source: Source) -> Iterator[Atoms | Exception]:
    """The structures of a file, or the errors in their place; at least one of either."""
    if source.kind == "cif":
        parts = _parsed(_cif_blocks(source.path), "cif")
    elif source.kind == "extxyz":
        parts = _parsed(_xyz_frames(source.path), "extxyz")
    else:
        parts = _streamed(source)
    empty = True
    for part in parts:
        empty = False
        yield part
    if empty:
        yield ReciNetError(f"{source.path} holds no structure that ASE can read")


def _parsed(texts: Iterator[str | Exception], kind: str) -> Iterator[Atoms | Exception]:
    """Each text on its own, so that a broken one costs no other."""
    import ase.io

    for text in texts:
        if isinstance(text, Exception):
            yield text
            continue
        try:
            yield from ase.io.read(StringIO(text), index=":", format=kind)
        except Exception as error:
            yield error


def _cif_blocks(path: Path) -> Iterator[str | Exception]:
    """The data blocks of a CIF that hold atoms."""
    lines: list[str] = []
    with path.open(encoding="utf-8", errors="replace") as handle:
        for line in handle:
            if line.lower().startswith("data_") and lines:
                yield from _with_atoms(lines)
                lines = []
            lines.append(line)
    yield from _with_atoms(lines)


def _with_atoms(lines: list[str]) -> list[str]:
    text = "".join(lines)
    return [text] if "_atom_site" in text.lower() else []


def _xyz_frames(path: Path) -> Iterator[str | Exception]:
    """The frames of an xyz file, by their atom counts."""
    with path.open(encoding="utf-8", errors="replace") as handle:
        for number in count(1):
            head = handle.readline()
            if not head.strip():
                # Blank lines may end the file, or stand between frames.
                if not head:
                    return
                continue
            if not head.strip().isdecimal():
                yield ReciNetError(
                    f"line {head.strip()[:40]!r} (frame {number}) should be a number of atoms; "
                    "the rest of the file was not read"
                )
                return
            body = list(islice(handle, int(head) + 1))
            yield head + "".join(body)


def _streamed(source: Source) -> Iterator[Atoms | Exception]:
    """Any other format through ASE, which cannot go on after a broken structure."""
    import ase.io

    stream = ase.io.iread(
        str(source.path), index=":", format=source.kind, do_not_split_by_at_sign=True
    )
    while True:
        try:
            atoms = next(stream)
        except StopIteration:
            return
        except Exception as error:
            yield ReciNetError(f"{error} ({type(error).__name__}); the rest was not read")
            return
        yield atoms
