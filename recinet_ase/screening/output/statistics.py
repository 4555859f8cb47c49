"""What a finished screen amounts to: counts, ranges, kinds of errors."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from recinet_ase.properties import PROPERTIES
from recinet_ase.screening.selection.table import RowTable, property_columns

_UNTRAINED = re.compile(r"((?:was|were) not trained on )[A-Z][a-z]?(?:, [A-Z][a-z]?)*")


@dataclass(frozen=True)
class PropertyFigures:
    """One property over all rows.

    Attributes:
        name: Column.
        label: In plain language.
        unit: Unit, ``""`` if it has none.
        count: Rows with a value.
        minimum: Smallest value, NaN without any; likewise ``median`` and ``maximum``.
        in_domain: Share of these rows inside the models' domain; None if nothing could tell.
    """

    name: str
    label: str
    unit: str
    count: int
    minimum: float
    median: float
    maximum: float
    in_domain: float | None


@dataclass(frozen=True)
class ErrorKind:
    """Errors that differ in their numbers and names only.

    Attributes:
        reason: The error; the first one, after "e.g.", where they differ.
        count: Number of rows.
        first_id: The first row.
    """

    reason: str
    count: int
    first_id: str


@dataclass
class _Tally:
    """Errors of one kind, while they are counted.

    Attributes:
        first: The first in full.
        general: The first without the elements that a model lacks.
        first_id: Its row.
        count: Number of rows.
        alike: Whether all are the first in full; ``alike_general``: without the elements.
    """

    first: str
    general: str
    first_id: str
    count: int = 0
    alike: bool = True
    alike_general: bool = True

    def kind(self) -> ErrorKind:
        """The sum of it, which says of all only what is true of all."""
        reason = self.first if self.alike else self.general
        if not self.alike_general:
            reason = f"e.g. {self.first}"
        return ErrorKind(reason, self.count, self.first_id)


def label_of(name: str) -> str:
    """A column in plain language."""
    if name == "natoms":
        return "number of atoms"
    base, bracket, source = name.partition("[")
    label = PROPERTIES[base].label if base in PROPERTIES else base.replace("_", " ")
    return f"{label} ({source.removesuffix(']')})" if bracket else label


def property_figures(table: RowTable) -> list[PropertyFigures]:
    """Range and domain of each predicted property."""
    inside = known = None
    if "in_domain" in table.columns:
        flags = table.column("in_domain")
        known = np.array([flag is not None for flag in flags], dtype=bool)
        inside = np.array([bool(flag) for flag in flags], dtype=bool)
    found = []
    for name in property_columns(table.columns, table.units):
        values = table.column(name)
        present = ~np.isnan(values)
        share = None
        if inside is not None and known is not None and (present & known).any():
            share = float(inside[present & known].mean())
        numbers = values[present]
        low, middle, high = (
            (float(numbers.min()), float(np.median(numbers)), float(numbers.max()))
            if len(numbers)
            else (np.nan,) * 3
        )
        unit = table.units.get(name, "")
        found.append(
            PropertyFigures(name, label_of(name), unit, len(numbers), low, middle, high, share)
        )
    return found


def error_kinds(table: RowTable) -> list[ErrorKind]:
    """Errors by kind, the most frequent first."""
    if "error" not in table.columns:
        return []
    errors, ids = table.column("error"), table.column("id")
    found: dict[str, _Tally] = {}
    for index, text in enumerate(errors):
        if text:
            general = _UNTRAINED.sub(r"\1some of its elements", text)
            tally = found.setdefault(_kind(text), _Tally(text, general, str(ids[index])))
            tally.count += 1
            tally.alike &= text == tally.first
            tally.alike_general &= general == tally.general
    kinds = [tally.kind() for tally in found.values()]
    return sorted(kinds, key=lambda kind: -kind.count)


def _kind(error: str) -> str:
    """An error without what differs between structures: quotations, numbers, lists of elements."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"|\([^()]*\)", "'", error)
    text = re.sub(r"[-+]?\d[\d.,e+-]*", "0", text)
    text = _UNTRAINED.sub(r"\1elements", text)
    return re.sub(r"\b(\w+#0|0)(, (\w+#0|0))*\b", "0", text)[:200]
