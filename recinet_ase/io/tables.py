"""Tables with a column of structures (CIF, POSCAR or json texts): csv, tsv and parquet."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from recinet_ase.errors import ReciNetError, UnknownNameError
from recinet_ase.io.base import Found
from recinet_ase.io.compression import open_text
from recinet_ase.io.convert import looks_like_structure
from recinet_ase.io.entries import Source
from recinet_ase.io.records import (
    SEEN,
    STRUCTURE_KEYS,
    Record,
    check_column,
    found_of,
    own_id,
    record_of,
)

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

_FIELD = 64 << 20  # the csv module's own limit is less than a large cell's CIF
_BATCH = 256


def recognise(source: Source) -> Source:
    """Find the column of structures.

    Raises:
        ReciNetError: If there is none, or the file is no such table.
        UnknownNameError: If the column that the user named does not exist.
    """
    count = None
    if source.kind == "parquet":
        with _parquet(source) as table:
            count = table.metadata.num_rows
            names = list(table.schema_arrow.names)
    else:
        with open_text(source.path) as lines:
            names = _header(lines, source)[0]
    if source.column is not None:
        if source.column not in names:
            raise UnknownNameError(f"column of {source.title}:", source.column, names)
        check_column(source, islice(items(source), SEEN), names)
        return replace(source, count=count)
    by_name = {name.strip().lower(): name for name in reversed(names)}
    for key in STRUCTURE_KEYS:
        if key in by_name:
            return replace(source, column=by_name[key], count=count)
    # Columns that look like structures may still be chosen by what they hold.
    for row in islice(items(source), SEEN):
        if isinstance(row, Mapping):
            for name, cell in row.items():
                if looks_like_structure(cell):
                    return replace(source, column=name, count=count)
    raise ReciNetError(
        f"{source.title} has no column of structures (CIF, POSCAR or json texts); name it with "
        f"--structure-column. Its columns: {', '.join(names)[:200]}"
    )


def items(source: Source) -> Iterator[Any]:
    """The rows as dictionaries."""
    if source.kind == "parquet":
        with _parquet(source) as table:
            for batch in table.iter_batches(_BATCH, columns=_columns(table, source)):
                yield from batch.to_pylist()
        return
    with open_text(source.path) as lines:
        header, rows = _header(lines, source)
        for number, cells in enumerate(rows, 2):
            if isinstance(cells, Exception):
                yield cells
                return
            if not cells:
                continue
            if len(cells) != len(header):
                yield ReciNetError(
                    f"row {number} has {len(cells)} fields where the header has {len(header)}"
                )
                continue
            yield dict(zip(header, cells, strict=True))


def record(source: Source, item: Mapping[str, Any]) -> Record:
    """The record that a row is, its structure not made yet.

    Identities are found under any spelling of their names ("ID", "Material_ID").
    """
    named = record_of(None, item, source.column)
    lowered = {str(key).strip().lower(): value for key, value in item.items()}
    return named._replace(key=own_id(lowered))


def read(source: Source, items: Sequence[Mapping[str, Any]]) -> Iterator[Found]:
    """Structure, identity and values of each row."""
    for item in items:
        yield found_of(record(source, item))


def count(source: Source) -> int | None:
    """Known for parquet."""
    return source.count


# csv


def _header(lines: Iterator[str], source: Source) -> tuple[list[str], Iterator[Any]]:
    """The names of the columns, and the rows to come.

    Raises:
        ReciNetError: If names are missing or stand twice.
    """
    first = next(lines, "")
    delimiter = max(",;\t", key=first.count)
    rows = _rows(csv.reader(_chained(first, lines), delimiter=delimiter), source)
    names = next(rows, [])
    if isinstance(names, Exception):
        raise names
    if len(set(names)) != len(names):
        raise ReciNetError(f"{source.title}: two columns have the same name")
    return names, rows


def _chained(first: str, lines: Iterable[str]) -> Iterator[str]:
    yield first
    yield from lines


def _rows(reader: Any, source: Source) -> Iterator[list[str] | Exception]:
    """The rows of a csv file; the error that ends it in place of the rest."""
    while True:
        # The limit belongs to the csv module, so it is set for each row alone.
        before = csv.field_size_limit(_FIELD)
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield ReciNetError(
                f"{source.title}, line {reader.line_num}: {error}; the rest was not read"
            )
            return
        finally:
            csv.field_size_limit(before)
        yield row


# parquet


@contextmanager
def _parquet(source: Source) -> Iterator[ParquetFile]:
    """A parquet file, open for reading."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise ReciNetError(
            f"{source.title} needs the package pyarrow: pip install 'recinet-ase[parquet]'"
        ) from None
    try:
        with ParquetFile(source.path) as table:
            yield table
    except ArrowException as error:
        raise ReciNetError(
            f"{source.title} is no parquet file that can be read ({error})"
        ) from None


def _columns(table: ParquetFile, source: Source) -> list[str]:
    """The column of structures and every column of plain values."""
    from pyarrow import types

    fields = table.schema_arrow
    return [
        field.name
        for field in fields
        if field.name == source.column or source.column is None or not types.is_nested(field.type)
    ]
