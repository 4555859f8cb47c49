"""``--hull self``: distances to the hull of the screened crystals themselves.

While a screen runs, its distances are those to the hull of the elements and of other references
that were named; the hull of all crystals is known when the last of them has its energy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recinet_ase.inference.result import ENDS
from recinet_ase.screening.selection.columns import DECOMPOSITION, LACKS
from recinet_ase.stability.composition import parse_formula
from recinet_ase.stability.derived import DISTANCE, OWN
from recinet_ase.stability.hull import Hull
from recinet_ase.stability.phases import Phase, describe

if TYPE_CHECKING:
    from recinet_ase.screening.journal_table import JournalTable

_SHIFTED = (DISTANCE, *(f"{DISTANCE}{end}" for end in ENDS))


class OwnHullTable:
    """A finished table with distances to the hull that its own crystals make.

    Crystals outside the models' domain, where that is known, are no references.

    Args:
        table: The table, with distances to ``base``.
        base: The hull of what else is known.

    Attributes:
        hull: The hull of both.
    """

    def __init__(self, table: JournalTable, base: Hull) -> None:
        self._table = table
        formulas = table.column("formula")
        distance = table.column(DISTANCE)
        self._known = np.flatnonzero(np.isfinite(distance))
        amounts = [parse_formula(str(formulas[i])) for i in self._known]
        before = base.energies_of(amounts)
        good = np.ones(len(self._known), dtype=bool)
        if "in_domain" in table.columns:
            flags = table.column("in_domain")
            good = np.array([flags[i] is not False for i in self._known], dtype=bool)
        ids = table.column("id")
        own = [
            Phase.of(amounts[k], float(distance[i] + before[k]), str(ids[i]))
            for k, i in enumerate(self._known)
            if good[k]
        ]
        pairs = () if base.name == OWN else base.pairs
        self.hull = Hull([*base, *own], base.functional, base.name, pairs)
        after, mixtures = self.hull.solved(amounts)
        self._shift = np.zeros(len(table))
        self._shift[self._known] = before - after
        self._text: dict[str, list[str]] = {
            LACKS: ["; ".join(self.hull.missing(a)) for a in amounts],
            DECOMPOSITION: [describe(mixture) for mixture in mixtures],
        }
        self._place = {int(i): k for k, i in enumerate(self._known)}
        self._changed: dict[str, np.ndarray] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)

    def __len__(self) -> int:
        return len(self._table)

    @property
    def columns(self) -> Sequence[str]:
        """Names, in order."""
        return self._table.columns

    @property
    def units(self) -> Mapping[str, str]:
        """Unit of each column of numbers."""
        return self._table.units

    def column(self, name: str) -> np.ndarray:
        """As `JournalTable.column`."""
        if name not in self._changed:
            values = self._table.column(name)
            if name in _SHIFTED:
                values = values + self._shift
            elif name in self._text or name == "in_domain":
                values = values.copy()
                for i, k in self._place.items():
                    if name in self._text:
                        values[i] = self._text[name][k]
                    elif self._text[LACKS][k]:
                        values[i] = False
            self._changed[name] = values
        return self._changed[name]

    def rows(self, indices: np.ndarray | None = None) -> Iterator[dict[str, Any]]:
        """As `JournalTable.rows`."""
        chosen = range(len(self)) if indices is None else indices.tolist()
        changed = [c for c in self.columns if c in _SHIFTED or c in (*self._text, "in_domain")]
        for i, row in zip(chosen, self._table.rows(indices), strict=True):
            if i in self._place:
                row |= {name: _plain(self.column(name)[i]) for name in changed}
            yield row


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, np.floating) else value
