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
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recinet_ase.errors import ReciNetError
from recinet_ase.io.entries import (
    Source,
)
from recinet_ase.models.files import write_atomic
from recinet_ase.screening.execution.chunk import ChunkRows
from recinet_ase.screening.journal_table import JournalTable, parsed_line
from recinet_ase.screening.output.writers import real_path

if TYPE_CHECKING:
    from filelock import FileLock

VERSION = 6
RUN_FILE, ROWS_FILE, LOCK_FILE = "run.json", "rows.jsonl", "lock"

_STARTED = "started"
_SYNC_SECONDS = 5.0  # of work lost at most if the machine itself goes down


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
        return JournalTable(
            self.folder / ROWS_FILE,
            self.header,
            self.offsets,
            self.counts,
            self.lost,
            units,
            sources,
            chunk_size,
        )

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
                parsed = parsed_line(line)
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
