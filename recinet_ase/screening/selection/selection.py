"""Which rows of a screen to keep, and in what order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recinet_ase.errors import ReciNetError, UnknownNameError
from recinet_ase.screening.selection.columns import resolve_column
from recinet_ase.screening.selection.expression import Expression
from recinet_ase.screening.selection.pareto import pareto_front
from recinet_ase.screening.selection.table import TEXT_COLUMNS, RowTable
from recinet_ase.screening.selection.unique import METHODS, first_of_each


def parse_keys(text: str | None) -> tuple[str, ...]:
    """``"ehull,-bandgap"`` as keys; none for None or an empty text."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


@dataclass(frozen=True)
class Selection:
    """A shortlist: condition, Pareto front, order, duplicates, length, applied in this order.

    Attributes:
        where: Condition on the rows (see `expression`); rows without the numbers that it needs
            do not pass.
        confident: The condition must hold on the whole 90 % interval of every property in it,
            inside the models' domain.
        sort: Columns to order by, most important first, ``"-name"`` for descending. Stable;
            rows without a value come last in both directions. Input order if empty.
        top: Keep this many rows at most.
        pareto: Columns to minimise, ``"-name"`` to maximise: keeps the rows that no other row
            beats in one of them without losing in another. Rows without a value are left out.
        unique: Keep the first of structures that are the same: ``"fingerprint"`` (distances) or
            ``"matcher"`` (pymatgen's StructureMatcher). None keeps all.
    """

    where: str | None = None
    confident: bool = False
    sort: tuple[str, ...] = ()
    top: int | None = None
    pareto: tuple[str, ...] = ()
    unique: str | None = None

    def __bool__(self) -> bool:
        """Whether it does anything."""
        return bool(self.where or self.confident or self.sort or self.pareto or self.unique) or (
            self.top is not None
        )

    @property
    def needs_structures(self) -> bool:
        """Whether structures must be read again."""
        return self.unique is not None

    def check(self, columns: Sequence[str], units: Mapping[str, str]) -> None:
        """Find what is wrong before any work is done.

        Args:
            columns: Columns of the table to come.
            units: Unit of each column of numbers.

        Raises:
            UnknownNameError: For an unknown column, method or function, with suggestions.
            ReciNetError: For a condition that cannot be understood, or settings that cannot be
                met.
        """
        if self.where is not None:
            condition = Expression(self.where, columns, units)
            if self.confident:
                condition.check_confident()
        elif self.confident:
            raise ReciNetError("--confident says how --where is judged; give a condition")
        for key in self.sort:
            _column_of(key, columns, "--sort")
        for key in self.pareto:
            name = _column_of(key, columns, "--pareto")[0]
            if name not in units and name != "natoms":
                raise ReciNetError(f"--pareto: {name} is no number that could be large or small")
        if len({key.lstrip("-") for key in self.pareto}) < len(self.pareto):
            raise ReciNetError("--pareto names a column twice")
        if self.top is not None and self.top < 1:
            raise ReciNetError(f"--top must be 1 or more, not {self.top}")
        if self.unique is not None and self.unique not in METHODS:
            raise UnknownNameError("method of --unique", self.unique, METHODS)

    def indices(self, table: RowTable) -> np.ndarray:
        """Rows that are kept, in output order.

        Args:
            table: All rows of the screen.

        Returns:
            Row numbers, int64 ``[k]``.

        Raises:
            ReciNetError: As `check`.
        """
        self.check(table.columns, table.units)
        kept = np.arange(len(table), dtype=np.int64)
        if self.where is not None:
            condition = Expression(self.where, table.columns, table.units)
            kept = np.flatnonzero(condition.mask(table, self.confident))
        if self.pareto:
            costs = np.empty((len(kept), len(self.pareto)))
            for i, key in enumerate(self.pareto):
                name, descending = _column_of(key, table.columns, "--pareto")
                values = table.column(name)[kept]
                costs[:, i] = -values if descending else values
            kept = kept[pareto_front(costs)]
        if self.sort:
            keys = [_column_of(key, table.columns, "--sort") for key in self.sort]
            codes = [_sort_code(table.column(name)[kept], name, down) for name, down in keys]
            kept = kept[np.lexsort(codes[::-1])]
        if self.unique is not None:
            return first_of_each(table, kept, self.unique, self.top)
        return kept if self.top is None else kept[: self.top]

    def explain(self, columns: Sequence[str], units: Mapping[str, str]) -> list[str]:
        """What is selected, a line for each step, with units."""
        lines = []
        if self.where is not None:
            how = " on the whole 90 % interval, inside the domain" if self.confident else ""
            lines.append(f"where {Expression(self.where, columns, units).explain()}{how}")
        if self.pareto:
            keys = [_column_of(key, columns, "--pareto") for key in self.pareto]
            goals = [f"{'largest' if down else 'smallest'} {name}" for name, down in keys]
            lines.append(f"Pareto front of {', '.join(goals)}")
        if self.sort:
            keys = [_column_of(key, columns, "--sort") for key in self.sort]
            orders = [f"{name} ({'descending' if down else 'ascending'})" for name, down in keys]
            lines.append(f"sorted by {', '.join(orders)}")
        if self.unique is not None:
            lines.append(f"one of each structure, by {METHODS[self.unique]}")
        if self.top is not None:
            lines.append(f"the first {self.top}")
        return lines


def _column_of(key: str, columns: Sequence[str], option: str) -> tuple[str, bool]:
    """The column that a key names, and whether it is descending."""
    return resolve_column(key.lstrip("-").strip(), columns, option), key.startswith("-")


def _sort_code(values: np.ndarray, name: str, descending: bool) -> np.ndarray:
    """Numbers that sort as the column should, NaN (which numpy puts last) for missing."""
    if values.dtype == object:
        missing = np.array([v is None or (v == "" and name == "formula") for v in values], bool)
        known: list[str | bool] = [
            str(v) if name in TEXT_COLUMNS else bool(v) for v in values[~missing]
        ]
        rank = {value: float(i) for i, value in enumerate(sorted(set(known)))}  # type: ignore[type-var]
        codes = np.full(len(values), np.nan)
        codes[~missing] = [rank[value] for value in known]
        values = codes
    return -values if descending else values
