"""Structures from every kind of input, in chunks that workers read on their own."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recinet_ase.errors import ReciNetError, reason_of
from recinet_ase.io.base import family_of, unread, vanished
from recinet_ase.io.entries import Chunk, Entry, Piece, Source, encodable
from recinet_ase.io.find import find_sources

if TYPE_CHECKING:
    from ase import Atoms

_COUNTING = 2.0  # seconds that may be spent on small files


def chunks(sources: Iterable[Source], size: int = 512) -> Iterator[Chunk]:
    """The input in parts of ``size`` entries, in order, lazily and with constant memory."""
    number = filled = 0
    pieces: list[Piece] = []
    for source in sources:
        stream = numbered_items(source)
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


def numbered_items(source: Source) -> Iterator[tuple[int, Any]]:
    """The items of a source and their indices in it, of those that the user chose.

    At least one, and an error where it ends too early.
    """
    if source.fault is not None:
        yield 0, source.fault
        return
    number = 0
    try:
        stream = family_of(source).items(source)
        numbered = enumerate(stream) if source.frames is None else source.frames.chosen(stream)
        for index, item in numbered:
            yield index, item
            number = index + 1
    except OSError as error:
        yield number, vanished(source, error)
    except Exception as error:
        reason = f"{reason_of(error)}; the rest of {source.title} was not read"
        yield number, unread(error, reason)
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
    parsed = iter(family_of(source).read(source, good)) if good else iter(())
    for index, item in items:
        name = f"{source.name}#{index}"
        if isinstance(item, Exception):
            yield Entry(name, _plain(source, item))
            continue
        key, atoms, values = next(parsed)
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
        error = unread(error, f"the structure cannot be read ({reason_of(error)})")
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
        number = family_of(source).count(source)
    if number is None or source.frames is None:
        return number
    return source.frames.count(number)


def read_structure(path: Path) -> Atoms:
    """The one structure of a file.

    Raises:
        ReciNetError: If the file cannot be read, or holds none or several.
    """
    entries = list(islice(read_entries(find_sources([str(path)])), 2))
    if len(entries) != 1:
        number = "several" if entries else "no"
        raise ReciNetError(f"{path.name} holds {number} structures, not one")
    atoms: Any = entries[0].atoms
    if isinstance(atoms, Exception):
        raise atoms
    return atoms
