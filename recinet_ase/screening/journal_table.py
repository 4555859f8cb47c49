"""The rows of a journal as a table: read when they are asked for."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from recinet_ase.errors import ReciNetError
from recinet_ase.io import chunks, read_chunk
from recinet_ase.io.entries import (
    Chunk,
    Entry,
    InputChangedError,
    Piece,
    Source,
    structure_digest,
)
from recinet_ase.screening.relaxation import Geometry, with_geometry
from recinet_ase.screening.selection.table import FLAG_COLUMNS, TEXT_COLUMNS

if TYPE_CHECKING:
    from ase import Atoms


CHECKSUM_BYTES = 9  # bytes of a line's checksum and the space behind it

_ROW_BLOCK = 50_000  # rows held to bring them into another order

_ENTRY_BLOCK = 5_000  # structures held for the same

T = TypeVar("T")


def parsed_line(line: bytes) -> list[Any] | None:
    """A line, or None if it was cut or damaged."""
    if not line.endswith(b"\n") or line[:CHECKSUM_BYTES] != b"%08x " % zlib.crc32(
        line[CHECKSUM_BYTES:]
    ):
        return None
    return fields_of(line)


def fields_of(line: bytes) -> list[Any]:
    """What stands in a line that was found to be whole."""
    fields: list[Any] = json.loads(line[CHECKSUM_BYTES:])
    return fields


class JournalTable:
    """The rows of a journal as a `recinet_ase.screening.selection.table.RowTable`.

    Columns are read when they are asked for; structures are read again from the input.

    Args:
        path: The file of rows.
        header: What is screened and how.
        offsets: Where each chunk's line ends in the file, from 0.
        counts: Rows of each chunk.
        lost: Id and error of rows that ended their worker or took too long.
        units: Unit of each column of numbers.
        sources: The input.
        chunk_size: Entries a chunk.
    """

    def __init__(
        self,
        path: Path,
        header: Mapping[str, Any],
        offsets: Sequence[int],
        counts: Sequence[int],
        lost: Mapping[int, tuple[str, str]],
        units: Mapping[str, str],
        sources: Sequence[Source],
        chunk_size: int,
    ) -> None:
        self.columns: list[str] = list(header["columns"])
        self.units = dict(units)
        self._path = path
        self._offsets = np.array(offsets)
        self._first = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        self._sources, self._chunk_size = list(sources), chunk_size
        self._id_key: str | None = header.get("id_key")
        self._lost = lost
        self._cache: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return int(self._first[-1])

    def column(self, name: str) -> np.ndarray:
        """Float64 with NaN for missing, or an object array of str, bool and None ``[n]``."""
        if name not in self._cache:
            place = self.columns.index(name)
            text = name in (*TEXT_COLUMNS, *FLAG_COLUMNS)
            values = np.full(len(self), None if text else np.nan, dtype=object if text else float)
            for first, rows in self._lines():
                part = [row[place] for row in rows]
                if not text:
                    part = [np.nan if v is None else v for v in part]
                values[first : first + len(part)] = part
            self._cache[name] = values
        return self._cache[name]

    def rows(self, indices: np.ndarray | None = None) -> Iterator[dict[str, Any]]:
        """The given rows in the given order, all of them by default; None for missing."""
        if indices is None:
            for _, rows in self._lines():
                for row in rows:
                    yield dict(zip(self.columns, row, strict=True))
        else:
            yield from _in_order(indices, _ROW_BLOCK, self._rows_ascending)

    def entries(self, indices: np.ndarray) -> Iterator[Entry]:
        """The entries of these rows, read again from the input.

        Those of a screen that relaxed them are as they were relaxed. One that was lost is not read
        again, since it would end this process as it did a worker: its structure is its row's
        error. One that is another structure now, or is not there any more, is an
        `InputChangedError`.
        """
        yield from _in_order(indices, _ENTRY_BLOCK, self._entries_ascending)

    def structures(self, indices: np.ndarray) -> Iterator[Atoms | Exception]:
        """The structures of these rows, or the errors met while reading them again."""
        for entry in self.entries(indices):
            yield entry.atoms

    def _lines(self) -> Iterator[tuple[int, list[list[Any]]]]:
        with self._path.open("rb") as handle:
            for number, line in enumerate(islice(handle, len(self._first) - 1)):
                yield int(self._first[number]), fields_of(line)[3]

    def _rows_ascending(self, indices: np.ndarray) -> Iterator[dict[str, Any]]:
        chunk = np.searchsorted(self._first, indices, side="right") - 1
        with self._path.open("rb") as handle:
            for number in np.unique(chunk):
                handle.seek(int(self._offsets[number]))
                rows = fields_of(handle.readline())[3]
                for index in indices[chunk == number]:
                    yield dict(zip(self.columns, rows[index - self._first[number]], strict=True))

    def _entries_ascending(self, indices: np.ndarray) -> Iterator[Entry]:
        """Entries of ascending rows, each chunk read once."""
        at = 0
        start = 0
        for chunk in chunks(self._sources, self._chunk_size):
            if at == len(indices):
                return
            stop = start + len(chunk)
            end = int(np.searchsorted(indices, stop))
            if end > at:
                yield from self._read(chunk, indices[at:end], start)
            at, start = end, stop
        for row in indices[at:].tolist():
            error = InputChangedError("the input has fewer structures than when it was screened")
            yield Entry(f"row {row + 1}", error)

    def _read(self, chunk: Chunk, indices: np.ndarray, start: int) -> Iterator[Entry]:
        """Some entries of a chunk whose first row is ``start``."""
        safe = np.array([i for i in indices if i not in self._lost], dtype=int)
        found = iter(read_chunk(_picked(chunk, safe - start), self._id_key))
        digests, geometries = self._kept(chunk.number)
        for i in indices.tolist():
            if i in self._lost:
                name, error = self._lost[i]
                yield Entry(name, ReciNetError(error))
                continue
            entry = next(found)
            known = digests[i - start]
            if known is not None and structure_digest(entry.atoms) != known:
                changed = InputChangedError(f"{entry.id} is another structure than was screened")
                entry = Entry(entry.id, changed, entry.has_key)
            elif geometries:
                entry = with_geometry(entry, geometries[i - start])
            yield entry

    def _kept(self, number: int) -> tuple[list[int | None], list[Geometry | None]]:
        """Digests of a chunk's structures, and what they were relaxed to, if they were."""
        with self._path.open("rb") as handle:
            handle.seek(int(self._offsets[number]))
            fields = fields_of(handle.readline())
        return fields[5], fields[7]


def _picked(chunk: Chunk, places: np.ndarray) -> Chunk:
    """Some entries of a chunk, ascending, as a chunk."""
    pieces, start = [], 0
    wanted = places.tolist()
    for piece in chunk.pieces:
        pieces += [
            Piece(piece.source, piece.start + place - start, (piece.items[place - start],))
            for place in wanted
            if start <= place < start + len(piece.items)
        ]
        start += len(piece.items)
    return Chunk(chunk.number, tuple(pieces))


def _in_order(
    indices: np.ndarray, block: int, fetch: Callable[[np.ndarray], Iterator[T]]
) -> Iterator[T]:
    """What an ascending reader finds, in any order, with a block of them held at a time."""
    if (np.diff(indices) > 0).all():
        yield from fetch(indices)
        return
    for start in range(0, len(indices), block):
        part = indices[start : start + block]
        ascending, place = np.unique(part, return_inverse=True)
        found = list(fetch(ascending))
        for i in place:
            yield found[i]
