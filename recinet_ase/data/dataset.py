"""What a dataset is, and how one is opened by name or path."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from recinet_ase.data.splits import (
    Split,
    SplitRule,
    composition_split,
    fold_split,
    kfold,
    random_split,
)
from recinet_ase.errors import ReciNetError, UnknownNameError
from recinet_ase.formula import reduced_counts
from recinet_ase.properties import PropertyInfo, get_property_info


class Dataset(ABC):
    """Structures with labels, and a way to divide them.

    Ids are unique strings. Rows that cannot be used never end the reading: `rejected` lists
    those that have no usable label, and `structures` hands on an exception in the place of a
    structure that cannot be read (a packed store keeps it among its ``rejected``).

    Attributes:
        name: What a run records: ``"jarvis"``, ``"matbench_phonons"``, or the path's name.
        properties: Canonical or custom names that it holds labels of.
        default_rule: The split that is used unless another is asked for.
        labels_note: What was taken for the labels, in which unit; ``""`` where that is no choice.
    """

    name: str
    properties: tuple[str, ...]
    default_rule: SplitRule = SplitRule("random")
    labels_note: str = ""

    def __repr__(self) -> str:
        """``<Published jarvis: formation_energy, bandgap...>``."""
        return f"<{type(self).__name__} {self.name}: {', '.join(self.properties)}>"

    def info(self, name: str) -> PropertyInfo:
        """What one of the properties is.

        Args:
            name: Name or alias.

        Raises:
            UnknownNameError: If the dataset has no such property.
        """
        try:
            info = get_property_info(name)
        except UnknownNameError:
            pass
        else:
            if info.name in self.properties:
                return info
        raise UnknownNameError(f"{self.name} property", name, self.properties)

    @property
    def members(self) -> dict[str, Dataset]:
        """The datasets that this one consists of, by the prefix of their ids: this one alone."""
        return {"": self}

    def columns(self, name: str) -> list[PropertyInfo]:
        """The properties that a name asks for: one, unless several datasets have it.

        Raises:
            UnknownNameError: If the dataset has no such property.
        """
        return [self.info(name)]

    @abstractmethod
    def source_files(self) -> list[Path]:
        """The files that the structures are read from.

        Raises:
            ReciNetError: If one is missing and cannot be fetched.
        """

    @abstractmethod
    def structures(self) -> Iterator[tuple[str, Any]]:
        """Id and structure of every row, whether or not it has a label.

        A structure is anything that `recinet_ase.graph.adapters.to_crystal` takes, or the
        exception that reading it raised.
        """

    def ids(self) -> set[str]:
        """Ids of `structures`."""
        return {key for key, _ in self.structures()}

    @abstractmethod
    def labels(self, info: PropertyInfo) -> dict[str, float]:
        """Every known label of a property by id, in the property's unit.

        Labels of test crystals are included where the user has them.

        Raises:
            UnknownNameError: If the dataset has no such property.
        """

    def functional_of(self, info: PropertyInfo) -> str:
        """Level of theory of a property, ``""`` if unknown."""
        return ""

    def rejected(self) -> dict[str, str]:
        """Rows that cannot be used, by id or ``file:row``, each with its reason."""
        return {}

    def split(self, info: PropertyInfo, rule: SplitRule | None = None) -> Split:
        """Training, validation and test of a property.

        Args:
            info: The property.
            rule: How to divide; `default_rule` if None.

        Raises:
            ReciNetError: If the dataset has no such split, or too few crystals for it.
        """
        rule = rule or self.default_rule
        if rule.kind == "published":
            return self.published_split(info, rule)
        labels = self.labels(info)
        if rule.kind == "composition":
            return composition_split(labels, self.formulas(labels), rule)
        if rule.kind == "fold":
            return fold_split(labels, kfold(sorted(labels), rule.seed)[rule.fold], rule)
        return random_split(labels, rule)

    def published_split(self, info: PropertyInfo, rule: SplitRule) -> Split:
        """The split that the publishers of the data made.

        Raises:
            ReciNetError: If there is none.
        """
        raise ReciNetError(
            f"{self.name} has no published split; choose 'random', 'composition' or 'fold:0'"
        )

    def formulas(self, ids: Iterable[str]) -> dict[str, str]:
        """Reduced formula of each of the ids; a structure that cannot be read is its own."""
        from recinet_ase.graph.adapters import to_crystal

        wanted = set(ids)
        by_id = {key: f"unread {key}" for key in wanted}
        for key, structure in self.structures():
            if key in wanted and not isinstance(structure, Exception):
                try:
                    by_id[key] = _reduced_formula(to_crystal(structure).numbers.tolist())
                except ReciNetError:
                    continue
        return by_id


def _reduced_formula(numbers: list[int]) -> str:
    return " ".join(f"{z}:{n}" for z, n in sorted(reduced_counts(Counter(numbers)).items()))
