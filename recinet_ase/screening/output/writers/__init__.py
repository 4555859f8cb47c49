"""Result files by suffix, each written whole or not at all.

A family of formats is a module with a class that takes rows one by one and is finished
with ``close``. Files grow beside their target under a temporary name, are synced and then
renamed, so that an existing output is replaced only by a complete one.
"""

from __future__ import annotations

import io
import os
import sqlite3
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from recinet_ase.errors import ReciNetError
from recinet_ase.models.files import replace_synced

if TYPE_CHECKING:
    from recinet_ase.io.entries import Entry, Source

_FORMATS = {
    ".csv": ("tables", "CsvWriter"),
    ".jsonl": ("tables", "JsonLinesWriter"),
    ".parquet": ("parquet", "ParquetWriter"),
    ".db": ("asedb", "SqliteWriter"),
    ".json": ("asedb", "JsonWriter"),
    ".extxyz": ("extxyz", "ExtxyzWriter"),
}


_LONGEST_NAME = 255
_LONGEST_ENDING = len("..meta.json.0123456.part")  # of the files beside an output


class RowWriter(Protocol):
    """Takes result rows one by one."""

    @property
    def needs_structures(self) -> bool:
        """Whether ``write`` wants the entry that a row belongs to."""

    @property
    def unwritten(self) -> int:
        """Rows that could not be written, because they have no structure."""

    def write(self, row: Mapping[str, Any], entry: Entry | None = None) -> None:
        """Append one row."""


class _Closing(RowWriter, Protocol):
    def close(self) -> None:
        """Finish the file."""


def needs_structures(output: str | Path | None) -> bool:
    """Whether a file of this name holds structures (``write`` wants the entries)."""
    return output is not None and _suffix(output) in (".db", ".json", ".extxyz")


def _suffix(output: str | Path) -> str:
    return Path(output).suffix.lower()


def real_path(path: str | Path) -> Path:
    """Where a file really lies: a link keeps pointing to it; one in a loop is replaced."""
    return Path(os.path.realpath(path))


def check_length(path: str | Path) -> None:
    """Look whether there is room for the longer names of the files beside a result.

    Raises:
        ReciNetError: If the name is too long.
    """
    real = real_path(path)
    most = _LONGEST_NAME
    with suppress(AttributeError, OSError, ValueError):  # Windows has no such call
        most = os.pathconf(real.parent, "PC_NAME_MAX")
    most -= _LONGEST_ENDING
    if max(len(os.fsencode(name)) for name in (Path(path).name, real.name)) > most:
        raise ReciNetError(f"cannot write {path}: its name must not be longer than {most} bytes")


def check_file(path: Path) -> None:
    """Look for what would stop a file from being written, before any work is done.

    Raises:
        ReciNetError: If it is something else than a file, or its folder does not exist or cannot
            be written to.
    """
    folder = real_path(path).parent
    if path.is_dir():
        raise ReciNetError(f"cannot write {path}: it is a folder")
    if not folder.is_dir():
        raise ReciNetError(f"cannot write {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ReciNetError(f"cannot write {path}: no permission to write in {folder}")
    try:
        kind = path.stat().st_mode
    except OSError:  # not there, or a link in a loop
        return
    if not stat.S_ISREG(kind):
        raise ReciNetError(f"cannot write {path}: it is no ordinary file, and would be replaced")


def check_output(output: str | Path, sources: Iterable[Source] = ()) -> None:
    """Look for everything that would stop the writer, before any work is done.

    Args:
        output: Where the result will go.
        sources: The inputs, none of which may be overwritten.

    Raises:
        ReciNetError: For a suffix that has no writer, a missing package, the name of an input,
            and whatever `check_file` finds.
    """
    path = Path(output)
    if _suffix(path) not in _FORMATS:
        raise ReciNetError(
            f"cannot write {path}: its suffix must be one of {', '.join(sorted(_FORMATS))}"
        )
    check_file(path)
    for source in sources:
        if "://" not in source.path and real_path(source.path) == real_path(path):
            raise ReciNetError(f"cannot write {path}: it is an input, and would be overwritten")
    if _suffix(path) == ".parquet":
        try:
            import_module("pyarrow.parquet")
        except ImportError:
            raise ReciNetError(
                f"cannot write {path}: it needs the package pyarrow "
                "(pip install 'recinet-ase[parquet]')"
            ) from None


@contextmanager
def open_writer(
    output: str | Path | None, columns: Sequence[str], units: Mapping[str, str] | None = None
) -> Iterator[RowWriter]:
    """A writer for a file, its format chosen by suffix, or csv on standard output.

    The file appears when the block ends; an exception leaves everything as it was.

    Args:
        output: Path, or None for standard output.
        columns: Columns in order.
        units: Unit of each column of numbers, ``""`` for none.

    Raises:
        ReciNetError: For a suffix that has no writer, or a file that cannot be written.
    """
    if output is None:
        from recinet_ase.screening.output.writers.tables import CsvWriter

        if sys.stdout is None:
            raise ReciNetError("standard output is closed; give a file with -o")
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # an id that the terminal has not
        yield CsvWriter(sys.stdout, columns)
        sys.stdout.flush()
        return
    check_output(output)
    path = real_path(output)
    module, name = _FORMATS[_suffix(output)]
    create = getattr(import_module(f"{__name__}.{module}"), name)
    # Always the same name, so that what a kill left is replaced. (The journal, which lies beside
    # the real path too, keeps another process from writing the same output.)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    writer: _Closing | None = None
    try:
        with _reported(path):
            _remove(part)
            writer = cast(_Closing, create(part, columns, dict(units or {})))
        yield _Guarded(writer, path)
        with _reported(path):
            writer.close()
            if path.exists():
                part.chmod(path.stat().st_mode & 0o777)
            replace_synced(part, path)
    finally:
        if part.exists():
            if writer is not None:
                with suppress(Exception):
                    writer.close()
            _remove(part)


def _remove(part: Path) -> None:
    """Delete an unfinished file, and what sqlite keeps beside it."""
    for name in (part.name, f"{part.name}-journal"):
        part.with_name(name).unlink(missing_ok=True)


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Errors of writing as one that names the file."""
    try:
        yield
    except (OSError, sqlite3.Error, ValueError, OverflowError) as error:
        # ValueError: a text or number that the format cannot hold.
        if isinstance(error, ReciNetError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        kept = "the file that was there is unchanged" if path.exists() else "no file was left"
        raise ReciNetError(f"cannot write {path}: {reason} ({kept})") from None


class _Guarded:
    """A writer whose errors name the file."""

    def __init__(self, writer: RowWriter, path: Path) -> None:
        self._writer, self._path = writer, path

    @property
    def needs_structures(self) -> bool:
        return self._writer.needs_structures

    @property
    def unwritten(self) -> int:
        return self._writer.unwritten

    def write(self, row: Mapping[str, Any], entry: Entry | None = None) -> None:
        with _reported(self._path):
            self._writer.write(row, entry)
