"""Structures from every kind of input, in chunks that workers read on their own.

A family of formats is a module with three functions:

    items(source)        in the main process: one picklable item an entry, lazily
    read(source, items)  in a worker: what each item stands for, as `Found`
    count(source)        the number of entries where it is cheap, or None

The items are cheap to make; parsing is done by ``read``. A structure that cannot be read
is handed on as an error, never as an end.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from recinet_ase.errors import ReciNetError, reason_of
from recinet_ase.screening.entries import (
    Chunk,
    Entry,
    InputUnavailableError,
    Piece,
    Source,
)

if TYPE_CHECKING:
    from ase import Atoms

_COUNTING = 2.0  # seconds that may be spent on small files


class Found(NamedTuple):
    """What an item stands for.

    Attributes:
        key: The input's own identity for it, or None.
        atoms: The structure, or the error met while reading it.
        values: What stands beside the structure.
    """

    key: str | None
    atoms: Atoms | Exception
    values: Mapping[str, Any]


class Family(Protocol):
    """The functions of a family's module."""

    def items(self, source: Source) -> Iterator[Any]:
        """One item an entry; an exception stands for an entry that cannot be had."""

    def read(self, source: Source, items: Sequence[Any]) -> Iterable[Found]:
        """As many results as items, none of which is an exception."""

    def count(self, source: Source) -> int | None:
        """Number of entries, where it is cheap."""


def _family(source: Source) -> Family:
    return cast(Family, import_module(f"{__name__}.{source.family}"))


def find_sources(
    patterns: Iterable[str],
    selection: str | None = None,
    structure_column: str | None = None,
    stdin_format: str | None = None,
    spool: Path | None = None,
    passed_over: Iterable[str] = (),
) -> list[Source]:
    """Expand patterns and recognise the format of every input, before any work starts.

    A file named twice is read once. A file that a pattern or a folder brought in and that
    cannot be read becomes an entry with its error; one that was named is a wrong call.

    Args:
        patterns: Files, folders, patterns, database addresses; ``-`` is standard input.
        selection: ASE selection string such as ``"natoms<20,Li"``, for databases.
        structure_column: Column or key that holds the structures, for tables and records.
        stdin_format: Format of standard input: a suffix such as ``extxyz`` or ``cif.gz``.
        spool: File that standard input is copied to, so that it can be read again.
        passed_over: Files that folders and patterns do not bring in: what a screen writes.

    Raises:
        ReciNetError: For a missing file, a pattern without files, an unreadable format, or
            an option that does not fit the inputs.
    """
    from recinet_ase.screening.sources.find import find

    return find(patterns, selection, structure_column, stdin_format, spool, passed_over)


def chunks(sources: Iterable[Source], size: int = 512) -> Iterator[Chunk]:
    """The input in parts of ``size`` entries, in order, lazily and with constant memory."""
    number = filled = 0
    pieces: list[Piece] = []
    for source in sources:
        stream = _items(source)
        start = 0
        while items := tuple(islice(stream, size - filled)):
            pieces.append(Piece(source, start, items))
            start += len(items)
            filled += len(items)
            if filled == size:
                yield Chunk(number, tuple(pieces))
                number, filled, pieces = number + 1, 0, []
    if pieces:
        yield Chunk(number, tuple(pieces))


def _items(source: Source) -> Iterator[Any]:
    """The items of a source; at least one, and an error where it ends too early."""
    if source.fault is not None:
        yield source.fault
        return
    empty = True
    try:
        for item in _family(source).items(source):
            yield item
            empty = False
    except OSError as error:
        yield vanished(source, error)
    except Exception as error:
        yield ReciNetError(f"{reason_of(error)}; the rest of {source.name} was not read")
    else:
        if empty and source.selection is None:
            yield ReciNetError(f"{source.name} holds no structure")


def read_chunk(chunk: Chunk, id_key: str | None = None) -> list[Entry]:
    """Parse the entries of a chunk: one for each item, in order.

    Args:
        chunk: From `chunks`.
        id_key: Take the identity from this key of the values instead.

    Raises:
        InputUnavailableError: If a database stays locked or cannot be reached, or a file that
            everything is in is gone: waiting helps, rows of errors would not.
    """
    return [entry for piece in chunk.pieces for entry in _read_piece(piece, id_key)]


def _read_piece(piece: Piece, id_key: str | None) -> Iterator[Entry]:
    source = piece.source
    good = [item for item in piece.items if not isinstance(item, Exception)]
    found = iter(_family(source).read(source, good)) if good else iter(())
    for index, item in enumerate(piece.items, piece.start):
        name = f"{source.name}#{index}"
        if isinstance(item, Exception):
            yield Entry(name, item)
            continue
        key, atoms, values = next(found)
        if isinstance(atoms, Exception) and not isinstance(atoms, ReciNetError):
            atoms = ReciNetError(f"the structure cannot be read ({reason_of(atoms)})")
        name = name if key is None else f"{source.prefix}{key}"
        has_key = id_key is None or id_key in values
        if id_key is not None and has_key:
            name = str(values[id_key])
        # A structure that could not be read need not show its key.
        yield Entry(name, atoms, has_key or isinstance(atoms, Exception), values)


def read_entries(sources: Sequence[Source], id_key: str | None = None) -> Iterator[Entry]:
    """All structures of all sources, in order, lazily.

    Args:
        sources: From `find_sources`.
        id_key: Take the identity from this key of the values instead.
    """
    for chunk in chunks(sources, 128):
        yield from read_chunk(chunk, id_key)


def count_entries(sources: Iterable[Source]) -> int | None:
    """Number of entries where it is cheap to know (databases, lists of files), else None."""
    total = 0
    end = time.monotonic() + _COUNTING
    for source in sources:
        if time.monotonic() > end:
            return None
        number = 1 if source.fault is not None else source.count
        if number is None:
            number = _family(source).count(source)
        if number is None:
            return None
        total += number
    return total


def fingerprint(sources: Iterable[Source]) -> str:
    """A hash of names, formats, selections, sizes and times: was the input changed?

    A database behind an address counts by its number of rows.
    """
    digest = hashlib.sha256()
    for source in sources:
        state: tuple[Any, ...] = (source.count,)
        if "://" not in source.path:
            try:
                stat = Path(source.path).stat()
                state = (stat.st_size, stat.st_mtime_ns)
            except OSError:
                state = ("missing",)
        about = (source.name, source.kind, source.selection, source.column, state)
        digest.update(repr(about).encode())
    return digest.hexdigest()


def read_structure(path: Path) -> Atoms:
    """The one structure of a file.

    Raises:
        ReciNetError: If the file cannot be read, or holds none or several.
    """
    entries = list(islice(read_entries(find_sources([str(path)])), 2))
    return _only([entry.atoms for entry in entries], path.name)


def parse_cif(text: str) -> Atoms:
    """The one structure of a CIF given as text.

    Raises:
        ReciNetError: If it cannot be read, or holds none or several.
    """
    from recinet_ase.screening.sources.text import parse_one

    return _only([parse_one(text, "cif")], "the CIF")


def _only(structures: Sequence[Any], name: str) -> Atoms:
    if len(structures) != 1:
        raise ReciNetError(f"{name} holds {'several' if structures else 'no'} structures, not one")
    (atoms,) = structures
    if isinstance(atoms, Exception):
        raise atoms
    return atoms


def vanished(source: Source, error: OSError) -> ReciNetError:
    """A file that was there when the work began and cannot be read now.

    Readers also raise such errors, without a number, for what is no file of their format.

    Raises:
        InputUnavailableError: If it is the whole input or a database of many rows, and gone: rows
            of errors would not help, and when it is back the screen can go on.
    """
    if error.errno is None:
        return ReciNetError(f"{source.name} cannot be read ({reason_of(error)})")
    if (source.alone or (source.count or 0) > 1) and not Path(source.path).exists():
        raise InputUnavailableError(
            f"{source.name} is gone ({error.strerror or reason_of(error)}); when it is back, go "
            "on with --resume"
        )
    return ReciNetError(
        f"{source.name} could not be read any more ({error.strerror or reason_of(error)})"
    )
