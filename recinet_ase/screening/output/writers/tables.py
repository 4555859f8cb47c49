"""Tables as text: csv and json lines."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from recinet_ase.io.entries import Entry


class _TextWriter:
    needs_structures = False
    unwritten = 0

    def __init__(
        self,
        target: Path | TextIO,
        columns: Sequence[str],
        units: Mapping[str, str] | None = None,
    ) -> None:
        self._handle = (
            target.open("w", newline="", encoding="utf-8") if isinstance(target, Path) else target
        )
        self._columns = list(columns)

    def close(self) -> None:
        """Flush what is left."""
        self._handle.close()


class CsvWriter(_TextWriter):
    """One line a row; a missing value is an empty cell."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._writer = csv.writer(self._handle, lineterminator="\n")
        self._writer.writerow(self._columns)

    def write(self, row: Mapping[str, Any], entry: Entry | None = None) -> None:
        """Append one row."""
        self._writer.writerow([_text(row.get(column)) for column in self._columns])


class JsonLinesWriter(_TextWriter):
    """One object a line; a missing value is null."""

    def write(self, row: Mapping[str, Any], entry: Entry | None = None) -> None:
        """Append one row."""
        ordered = {column: _plain(row.get(column)) for column in self._columns}
        self._handle.write(json.dumps(ordered, allow_nan=False) + "\n")


def _text(value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    # Seven digits are all that float32 holds.
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    """A value that json has."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
