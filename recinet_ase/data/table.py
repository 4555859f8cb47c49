"""A dataset of rows: one property, labels checked row by row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from recinet_ase.data.dataset import Dataset
from recinet_ase.data.labels import as_number
from recinet_ase.errors import ReciNetError, UnknownNameError, reason_of
from recinet_ase.io.rows import Row
from recinet_ase.properties import PropertyInfo


class TableDataset(Dataset):
    """Rows with one label each.

    Args:
        name: The dataset's name.
        rows: Its rows. Of rows with the same id the first is kept.
        sources: Files that they were read from.
        key: Key of the label in a row's values.
        info: The property that it is a label of.
        factor: What a label is multiplied by to be in the property's unit.
        functional: Level of theory.

    Raises:
        ReciNetError: If no row can be used.
    """

    def __init__(
        self,
        name: str,
        rows: Iterable[Row],
        sources: Sequence[Path],
        key: str,
        info: PropertyInfo,
        factor: float = 1.0,
        functional: str = "",
    ) -> None:
        self.name, self.key, self.functional = name, key, functional
        self.properties = (info.name,)
        self._info, self._sources = info, list(sources)
        self._rows: dict[str, Row] = {}
        self._labels: dict[str, float] = {}
        self._rejected: dict[str, str] = {}
        for row in rows:
            if row.id in self._rows:
                first = self._rows[row.id].where
                self._rejected[row.where] = f"id {row.id!r} is that of {first} too"
                continue
            self._rows[row.id] = row
            value = row.fault or as_number(row.values.get(key))
            if isinstance(value, str):
                self._rejected[row.id] = value
            else:
                self._labels[row.id] = value * factor
        if not self._labels:
            first_reasons = "; ".join(f"{k}: {v}" for k, v in islice(self._rejected.items(), 3))
            raise ReciNetError(f"{name}: no row can be used ({first_reasons})")

    def info(self, name: str) -> PropertyInfo:
        """What the property is (see `Dataset.info`)."""
        if name == self._info.name:
            return self._info
        return super().info(name)

    def source_files(self) -> list[Path]:
        """The files that the rows were read from."""
        return list(self._sources)

    def structures(self) -> Iterator[tuple[str, Any]]:
        """Id and structure of every row with an id of its own, whether or not it has a label.

        What cannot be read is handed on as its exception, and listed in `rejected` from then
        on.
        """
        for key, row in self._rows.items():
            try:
                structure = row.read()
            except Exception as error:  # one bad file must not end the reading of the others
                reason = reason_of(error)
                self._rejected.setdefault(key, reason)
                structure = ReciNetError(reason)
            yield key, structure

    def ids(self) -> set[str]:
        """Ids of all rows, without reading their structures."""
        return set(self._rows)

    def labels(self, info: PropertyInfo) -> dict[str, float]:
        """The labels, in the property's unit."""
        if info.name != self._info.name:
            raise UnknownNameError(f"{self.name} property", info.name, self.properties)
        return dict(self._labels)

    def functional_of(self, info: PropertyInfo) -> str:
        """Level of theory, ``""`` if unknown."""
        return self.functional

    def rejected(self) -> dict[str, str]:
        """Rows without a usable label, repeated ids, and what `structures` could not read."""
        return dict(self._rejected)
