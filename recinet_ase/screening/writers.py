"""Result tables by file suffix."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from recinet_ase.errors import ReciNetError

if TYPE_CHECKING:
    from collections.abc import Iterator


class RowWriter(Protocol):
    """Takes result rows one by one."""

    def write(self, row: dict[str, Any]) -> None:
        """Append one row."""


class _CsvWriter:
    def __init__(self, handle: TextIO, columns: Sequence[str]) -> None:
        self._writer = csv.DictWriter(handle, columns, lineterminator="\n")
        self._writer.writeheader()

    def write(self, row: dict[str, Any]) -> None:
        self._writer.writerow({k: _text(v) for k, v in row.items()})


class _JsonLinesWriter:
    def __init__(self, handle: TextIO, columns: Sequence[str]) -> None:
        self._handle, self._columns = handle, columns

    def write(self, row: dict[str, Any]) -> None:
        ordered = {key: row.get(key) for key in self._columns}
        self._handle.write(json.dumps(ordered) + "\n")


_WRITERS: dict[str, Callable[[TextIO, Sequence[str]], RowWriter]] = {
    ".csv": _CsvWriter,
    ".jsonl": _JsonLinesWriter,
}


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    # Seven digits are all that float32 holds.
    return f"{value:.7g}" if isinstance(value, float) else str(value)


@contextmanager
def open_writer(output: str | None, columns: Sequence[str]) -> Iterator[RowWriter]:
    """A writer for a file, its format chosen by suffix, or csv on standard output.

    Args:
        output: Path, or None for standard output.
        columns: Columns in order.

    Raises:
        ReciNetError: For a suffix that has no writer, or a file that cannot be written.
    """
    if output is None:
        yield _CsvWriter(sys.stdout, columns)
        sys.stdout.flush()
        return
    path = Path(output)
    if path.suffix not in _WRITERS:
        raise ReciNetError(
            f"cannot write {path}: its suffix must be one of {', '.join(sorted(_WRITERS))}"
        )
    try:
        handle = path.open("w", newline="", encoding="utf-8")
    except OSError as error:
        raise ReciNetError(f"cannot write {path}: {error.strerror}") from None
    with handle:
        yield _WRITERS[path.suffix](handle, columns)
