"""A result table seen by column: what selection, summary and report work on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from recinet_ase.errors import ReciNetError
from recinet_ase.inference.result import ENDS, RELAXATION, SPREAD
from recinet_ase.screening.selection.columns import DECOMPOSITION, LACKS, WARNINGS

if TYPE_CHECKING:
    from ase import Atoms

TEXT_COLUMNS = ("id", "formula", LACKS, DECOMPOSITION, WARNINGS, "error")
"""Columns of strings."""

FLAG_COLUMNS = ("in_domain", "relaxed")
"""Columns of True, False and None; all that are neither these nor texts hold numbers."""

_NOT_PREDICTED = ("natoms", *RELAXATION)


class RowTable(Protocol):
    """Result rows of a screen, ``n`` of them, by column or by row."""

    @property
    def columns(self) -> Sequence[str]:
        """Names, in order."""

    @property
    def units(self) -> Mapping[str, str]:
        """Unit of each column of numbers, ``""`` for none."""

    def __len__(self) -> int:
        """Number of rows."""

    def column(self, name: str) -> np.ndarray:
        """Float64 with NaN for missing, or an object array of str, bool and None ``[n]``."""

    def rows(self, indices: np.ndarray | None = None) -> Iterator[dict[str, Any]]:
        """The given rows in the given order, all of them by default; None for missing."""

    def structures(self, indices: np.ndarray) -> Iterator[Atoms | Exception]:
        """The structures of these rows, or the errors met while reading them again."""


class ListTable:
    """A table in memory.

    Args:
        columns: Names, in order.
        rows: One dictionary each, None (or no entry) for missing.
        units: Unit of each column of numbers, ``""`` if not given.
        atoms: The structure of each row, for what needs structures.
    """

    def __init__(
        self,
        columns: Sequence[str],
        rows: Sequence[Mapping[str, Any]],
        units: Mapping[str, str] | None = None,
        atoms: Sequence[Atoms | Exception] | None = None,
    ) -> None:
        if atoms is not None and len(atoms) != len(rows):
            raise ReciNetError(f"{len(rows)} rows, but {len(atoms)} structures")
        self.columns = list(columns)
        numbers = [c for c in columns if c not in (*TEXT_COLUMNS, *FLAG_COLUMNS)]
        self.units = {name: (units or {}).get(name, "") for name in numbers}
        self._rows, self._atoms = rows, atoms
        self._columns: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def column(self, name: str) -> np.ndarray:
        """Float64 with NaN for missing, or an object array of str, bool and None ``[n]``."""
        if name not in self._columns:
            values = [row.get(name) for row in self._rows]
            if name in self.units:
                self._columns[name] = np.array(
                    [np.nan if value is None else value for value in values], dtype=np.float64
                )
            else:
                array = np.empty(len(values), dtype=object)
                array[:] = values
                self._columns[name] = array
        return self._columns[name]

    def rows(self, indices: np.ndarray | None = None) -> Iterator[dict[str, Any]]:
        """The given rows in the given order, all of them by default."""
        for index in range(len(self)) if indices is None else indices:
            yield {name: self._rows[index].get(name) for name in self.columns}

    def structures(self, indices: np.ndarray) -> Iterator[Atoms | Exception]:
        """The structures of these rows.

        Raises:
            ReciNetError: If the table was made without structures.
        """
        if self._atoms is None:
            raise ReciNetError("this table holds no structures")
        for index in indices:
            yield self._atoms[index]


def property_columns(columns: Sequence[str], units: Mapping[str, str]) -> list[str]:
    """The columns that hold predicted values: numbers, without intervals, spreads and counts."""
    others = {f"{name}{end}" for name in columns for end in (*ENDS, SPREAD)}
    others |= {*_NOT_PREDICTED}
    return [name for name in columns if name in units and name not in others]


def has_interval(name: str, columns: Sequence[str]) -> bool:
    """Whether the table has both ends of a property's 90 % interval."""
    return all(f"{name}{end}" in columns for end in ENDS)
