"""The journal of a screen: finished chunks, on disk, in input order.

A folder ``OUT.part`` holds ``run.json`` (what is screened, and how) and ``rows.jsonl`` (one
line a chunk, with a checksum). Lines are only ever appended, so that whatever ends the program,
all chunks but the last unfinished ones are there, and a line that was cut or damaged is
recognised: it and what follows is done again. Rows count only beside a ``run.json``, which is
made after and removed before them.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
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
from recinet_ase.models.files import write_atomic
from recinet_ase.screening.execution.chunk import ChunkRows
from recinet_ase.screening.output.writers import real_path
from recinet_ase.screening.relaxation import Geometry, with_geometry
from recinet_ase.screening.selection.table import FLAG_COLUMNS, TEXT_COLUMNS

if TYPE_CHECKING:
    from ase import Atoms
    from filelock import FileLock

VERSION = 6
RUN_FILE, ROWS_FILE, LOCK_FILE = "run.json", "rows.jsonl", "lock"

_STARTED = "started"
_SUM = 9  # bytes of a line's checksum and the space behind it
_SYNC_SECONDS = 5.0  # of work lost at most if the machine itself goes down
_ROW_BLOCK = 50_000  # rows held to bring them into another order
_ENTRY_BLOCK = 5_000  # structures held for the same
T = TypeVar("T")


def journal_folder(output: Path) -> Path:
    """Where the journal of an output file lies: the same place for all links to the file."""
    real = real_path(output)
    return real.with_name(real.name + ".part")


def has_journal(folder: Path) -> bool:
    """Whether there is a screen to go on with."""
    return (folder / RUN_FILE).exists()


class Journal:
    """Finished chunks of one screen.

    Args:
        folder: Its folder.
        header: What is screened and how; a journal can only be continued with the same one.
        resume: Continue where an earlier run stopped, if one did.

    Raises:
        ReciNetError: If an unfinished screen is there and ``resume`` is not set, if it was
            another one, or if another process is at work on it.
    """

    def __init__(self, folder: Path, header: Mapping[str, Any], resume: bool = False) -> None:
        self.folder = folder
        self.header = {"version": VERSION, **header}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ReciNetError(f"cannot make {folder}: {error.strerror}") from None
        self._lock = _locked(folder)
        try:
            exists = has_journal(folder)
            if exists and not resume:
                raise ReciNetError(
                    f"{folder} holds an unfinished screen; go on with --resume, or delete the "
                    "folder"
                )
            if exists:
                self.started = self._check()
            else:
                (folder / ROWS_FILE).unlink(missing_ok=True)  # of a journal half deleted
                self.started = datetime.now(UTC)
                document = {**self.header, _STARTED: self.started.isoformat()}
                write_atomic(folder / RUN_FILE, (json.dumps(document, indent=1) + "\n").encode())
            self._scan()
            self._handle = (folder / ROWS_FILE).open("ab")
            self._handle.truncate(self.offsets[-1])
        except OSError as error:
            self._lock.release()
            raise ReciNetError(f"cannot write {folder}: {error.strerror}") from None
        except ReciNetError:
            self._lock.release()
            raise
        self._synced = time.monotonic()

    @property
    def done(self) -> int:
        """Number of finished chunks."""
        return len(self.counts)

    def __len__(self) -> int:
        """Number of rows."""
        return sum(self.counts)

    def append(self, chunk: ChunkRows) -> None:
        """Add the next chunk.

        Raises:
            ReciNetError: If it cannot be written; the journal then ends before it.
        """
        if chunk.number != self.done:
            raise ValueError(f"chunk {chunk.number} after {self.done} chunks")
        names = self.header["columns"]
        rows = [[row[name] for name in names] for row in chunk.rows]
        errors = sum(bool(row["error"]) for row in chunk.rows)
        digests = chunk.digests or [None] * len(rows)
        parsed = [
            chunk.number, chunk.without_key, errors, rows, chunk.lost, digests, len(chunk.faults),
            chunk.geometries,
        ]  # fmt: skip
        data = json.dumps(parsed, separators=(",", ":")).encode() + b"\n"
        data = b"%08x " % zlib.crc32(data) + data
        try:
            self._handle.write(data)
            self._handle.flush()
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                os.fsync(self._handle.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            raise ReciNetError(
                f"cannot write {self.folder}: {error.strerror}; make room and go on with --resume"
            ) from None
        self._count(len(data), parsed)

    def table(
        self, units: Mapping[str, str], sources: Sequence[Source], chunk_size: int
    ) -> JournalTable:
        """All rows so far."""
        self._handle.flush()
        return JournalTable(self, units, sources, chunk_size)

    def close(self) -> None:
        """Leave the journal as it is, to be continued."""
        try:
            self._handle.close()
        except OSError:  # a full disk, which `append` has told of
            pass
        finally:
            self._lock.release()

    def delete(self) -> None:
        """Remove the journal once its result is written."""
        with suppress(OSError):
            # In this order, so that a kill leaves no rows that pass for those of a screen; before
            # the lock is given up, so that none of another process are lost.
            (self.folder / RUN_FILE).unlink()
            (self.folder / ROWS_FILE).unlink()
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _check(self) -> datetime:
        """When the screen was begun, if it was this one."""
        try:
            before = json.loads((self.folder / RUN_FILE).read_text(encoding="utf-8"))
            started = datetime.fromisoformat(before.pop(_STARTED, "1970-01-01T00:00:00+00:00"))
        except (ValueError, TypeError, AttributeError):
            raise ReciNetError(f"{self.folder / RUN_FILE} is damaged; delete the folder") from None
        now = json.loads(json.dumps(self.header))
        changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        if "recinet-ase" in changed:
            was = before.get("recinet-ase", "(older)")
            raise ReciNetError(
                f"{self.folder} was begun by recinet-ase {was}, and "
                f"this is {now.get('recinet-ase')}: rows of two versions do not belong together. "
                "Go on with that version, or delete the folder to begin anew"
            )
        if changed:
            raise ReciNetError(
                f"{self.folder} was begun with other settings or inputs ({', '.join(changed)}); "
                "repeat the first command, or delete the folder to begin anew"
            )
        return started

    def _scan(self) -> None:
        """Where each whole line ends, its rows, and what they add up to."""
        self.offsets: list[int] = [0]
        self.counts: list[int] = []
        self.without_key = self.errors = self.faults = 0
        self.lost: dict[int, tuple[str, str]] = {}  # id and error by row
        path = self.folder / ROWS_FILE
        if not path.exists():
            return
        with path.open("rb") as handle:
            for line in handle:
                parsed = _parsed(line)
                if parsed is None or parsed[0] != self.done:
                    break
                self._count(len(line), parsed)

    def _count(self, size: int, parsed: Sequence[Any]) -> None:
        """Add up a line of so many bytes."""
        _, without_key, errors, rows, lost, _, faults, _ = parsed
        names = self.header["columns"]
        name, error = names.index("id"), names.index("error")
        for place in lost:
            self.lost[len(self) + place] = (rows[place][name], rows[place][error])
        self.offsets.append(self.offsets[-1] + size)
        self.counts.append(len(rows))
        self.without_key += without_key
        self.errors += errors
        self.faults += faults


def _parsed(line: bytes) -> list[Any] | None:
    """A line, or None if it was cut or damaged."""
    if not line.endswith(b"\n") or line[:_SUM] != b"%08x " % zlib.crc32(line[_SUM:]):
        return None
    return _fields(line)


def _fields(line: bytes) -> list[Any]:
    """What stands in a line that was found to be whole."""
    fields: list[Any] = json.loads(line[_SUM:])
    return fields


def _locked(folder: Path) -> FileLock:
    """The lock of a journal's folder, refused where another process holds it."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ReciNetError(f"another process is at work on {folder}") from None
    except OSError as error:
        raise ReciNetError(f"cannot write {folder}: {error.strerror}") from None
    return lock


class JournalTable:
    """The rows of a journal as a `recinet_ase.screening.selection.table.RowTable`.

    Columns are read when they are asked for; structures are read again from the input.

    Args:
        journal: The journal.
        units: Unit of each column of numbers.
        sources: The input.
        chunk_size: Entries a chunk.
    """

    def __init__(
        self,
        journal: Journal,
        units: Mapping[str, str],
        sources: Sequence[Source],
        chunk_size: int,
    ) -> None:
        self.columns: list[str] = list(journal.header["columns"])
        self.units = dict(units)
        self._path = journal.folder / ROWS_FILE
        self._offsets = np.array(journal.offsets)
        self._first = np.concatenate(([0], np.cumsum(journal.counts))).astype(np.int64)
        self._sources, self._chunk_size = list(sources), chunk_size
        self._id_key: str | None = journal.header.get("id_key")
        self._lost = journal.lost
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
                yield int(self._first[number]), _fields(line)[3]

    def _rows_ascending(self, indices: np.ndarray) -> Iterator[dict[str, Any]]:
        chunk = np.searchsorted(self._first, indices, side="right") - 1
        with self._path.open("rb") as handle:
            for number in np.unique(chunk):
                handle.seek(int(self._offsets[number]))
                rows = _fields(handle.readline())[3]
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
            fields = _fields(handle.readline())
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
