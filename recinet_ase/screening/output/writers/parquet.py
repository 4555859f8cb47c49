"""Parquet: typed columns, units in the columns' metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recinet_ase.screening.selection.table import FLAG_COLUMNS

if TYPE_CHECKING:
    from recinet_ase.io.entries import Entry

_GROUP = 16_384  # rows a row group


class ParquetWriter:
    """Rows in groups; a missing value is null."""

    needs_structures = False
    unwritten = 0

    def __init__(self, path: Path, columns: Sequence[str], units: Mapping[str, str]) -> None:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter as Writer

        kinds = {"natoms": pa.int64(), "relax_steps": pa.int64()}
        kinds |= dict.fromkeys(FLAG_COLUMNS, pa.bool_())
        self._schema = pa.schema(
            [
                pa.field(
                    name,
                    kinds.get(name, pa.float64() if name in units else pa.string()),
                    metadata={"unit": units[name]} if name in units else None,
                )
                for name in columns
            ]
        )
        self._rows: list[dict[str, Any]] = []
        self._writer = Writer(path, self._schema)

    def write(self, row: Mapping[str, Any], entry: Entry | None = None) -> None:
        """Append one row."""
        self._rows.append({name: _plain(row.get(name)) for name in self._schema.names})
        if len(self._rows) == _GROUP:
            self._flush()

    def close(self) -> None:
        """Write the last group and the footer."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows.clear()


def _plain(value: Any) -> Any:
    return None if value is not None and value != value else value
