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
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from recinet_ase.errors import ReciNetError, reason_of
from recinet_ase.io.entries import (
    Chunk,
    Entry,
    InputUnavailableError,
    Piece,
    Source,
    encodable,
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
    from recinet_ase.io.find import find

    return find(patterns, selection, structure_column, stdin_format, spool, passed_over)


def chunks(sources: Iterable[Source], size: int = 512) -> Iterator[Chunk]:
    """The input in parts of ``size`` entries, in order, lazily and with constant memory."""
    number = filled = 0
    pieces: list[Piece] = []
    for source in sources:
        stream = _items(source)
        while items := list(islice(stream, size - filled)):
            pieces += _pieces(source, items)
            filled += len(items)
            if filled == size:
                yield Chunk(number, tuple(pieces))
                number, filled, pieces = number + 1, 0, []
    if pieces:
        yield Chunk(number, tuple(pieces))


def _pieces(source: Source, items: Sequence[tuple[int, Any]]) -> Iterator[Piece]:
    """Numbered items as pieces of consecutive ones."""
    for _, run in groupby(enumerate(items), lambda pair: pair[1][0] - pair[0]):
        part = [item for _, item in run]
        yield Piece(source, part[0][0], tuple(item for _, item in part))


def _items(source: Source) -> Iterator[tuple[int, Any]]:
    """The items of a source and their indices in it, of those that the user chose.

    At least one, and an error where it ends too early.
    """
    if source.fault is not None:
        yield 0, source.fault
        return
    number = 0
    try:
        stream = _family(source).items(source)
        numbered = enumerate(stream) if source.frames is None else source.frames.chosen(stream)
        for index, item in numbered:
            yield index, item
            number = index + 1
    except OSError as error:
        yield number, vanished(source, error)
    except Exception as error:
        reason = f"{reason_of(error)}; the rest of {source.title} was not read"
        yield number, ReciNetError(reason)
    else:
        if not number and source.selection is None:
            what = "holds no structure" if source.frames is None else "picks no structure"
            yield number, ReciNetError(f"{source.title} {what}")


def read_chunk(chunk: Chunk, id_key: str | None = None) -> list[Entry]:
    """Parse the entries of a chunk: one for each item, in order.

    Args:
        chunk: From `chunks`.
        id_key: Take the identity from this key of the values instead.

    Raises:
        InputUnavailableError: If a database stays locked or cannot be reached, or a file that
            everything is in is gone: waiting helps, rows of errors would not.
    """
    return list(entries_of(chunk, id_key))


def entries_of(chunk: Chunk, id_key: str | None = None) -> Iterator[Entry]:
    """`read_chunk`, one entry after another."""
    for source, pieces in groupby(chunk.pieces, lambda piece: piece.source):
        yield from _read_pieces(source, list(pieces), id_key)


def _read_pieces(source: Source, pieces: Sequence[Piece], id_key: str | None) -> Iterator[Entry]:
    """The entries of pieces of one source, which is opened once for all of them."""
    items = [pair for piece in pieces for pair in enumerate(piece.items, piece.start)]
    good = [item for _, item in items if not isinstance(item, Exception)]
    found = iter(_family(source).read(source, good)) if good else iter(())
    for index, item in items:
        name = f"{source.name}#{index}"
        if isinstance(item, Exception):
            yield Entry(name, _plain(source, item))
            continue
        key, atoms, values = next(found)
        values = _encodable_values(values)
        name = name if key is None else f"{source.prefix}{key}"
        has_key = id_key is None or _is_id(values.get(id_key))
        if id_key is not None and has_key:
            name = str(values[id_key])
        broken = isinstance(atoms, Exception)
        # A structure that could not be read need not show its key.
        yield Entry(
            encodable(name), _plain(source, atoms) if broken else atoms, has_key or broken, values
        )


def _plain(source: Source, error: Exception) -> ReciNetError:
    if not isinstance(error, ReciNetError):
        error = ReciNetError(f"the structure cannot be read ({reason_of(error)})")
    return source.told(error)


def _encodable_values(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """Texts that json wrote with lone surrogates would stop whoever writes them."""

    def plain(value: Any) -> Any:
        return encodable(value) if isinstance(value, str) else value

    return {plain(key): plain(value) for key, value in values.items()}


def _is_id(value: Any) -> bool:
    """Whether a value can be an identity: no array, list or dictionary, and no gap."""
    import numpy as np

    if value is None or isinstance(value, Mapping | list | tuple | set | np.ndarray):
        return False
    return bool(value == value and value != "")


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
        number = _number(source)
        if number is None:
            return None
        total += number
    return total


def _number(source: Source) -> int | None:
    """Number of entries of a source, where it is cheap."""
    if source.fault is not None or (source.frames is not None and source.frames.single):
        return 1
    number = source.count
    if number is None:
        number = _family(source).count(source)
    if number is None or source.frames is None:
        return number
    return source.frames.count(number)


def fingerprint(sources: Iterable[Source]) -> str:
    """A hash of names, formats, selections, sizes and times: was the input changed?

    A database behind an address counts by its number of rows; a sqlite file together with the
    changes that wait beside it.
    """
    from recinet_ase.io.databases import waiting_changes

    digest = hashlib.sha256()
    for source in sources:
        state: tuple[Any, ...] = (source.count,)
        if "://" not in source.path:
            try:
                stat = Path(source.path).stat()
                state = (stat.st_size, stat.st_mtime_ns)
                if source.kind == "db":
                    state += waiting_changes(source.path)
            except OSError:
                state = ("missing",)
        about: tuple[Any, ...] = (source.name, source.kind, source.selection, source.column, state)
        if source.frames is not None:
            about += (source.frames.text,)
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
    from recinet_ase.io.text import parse_one

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
        return ReciNetError(f"{source.title} cannot be read ({reason_of(error)})")
    if (source.alone or (source.count or 0) > 1) and not Path(source.path).exists():
        raise InputUnavailableError(
            f"{source.title} is gone ({error.strerror or reason_of(error)}); when it is back, go "
            "on with --resume"
        )
    return ReciNetError(
        f"{source.title} could not be read any more ({error.strerror or reason_of(error)})"
    )
