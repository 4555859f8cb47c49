"""What a dataset is, and how one is opened by name or path."""

from __future__ import annotations

import os
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
    structure that cannot be read (a packed store keeps it among its ``skipped``).

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
        found = {key: f"unread {key}" for key in wanted}
        for key, structure in self.structures():
            if key in wanted and not isinstance(structure, Exception):
                try:
                    found[key] = _reduced_formula(to_crystal(structure).numbers.tolist())
                except ReciNetError:
                    continue
        return found


def _reduced_formula(numbers: list[int]) -> str:
    return " ".join(f"{z}:{n}" for z, n in sorted(reduced_counts(Counter(numbers)).items()))


def data_root(data_dir: str | Path | None = None) -> Path:
    """The folder that holds the datasets: the argument, or ``RECINET_DATA_DIR``.

    Raises:
        ReciNetError: If neither is given or the folder does not exist.
    """
    chosen = data_dir or os.environ.get("RECINET_DATA_DIR")
    if not chosen:
        raise ReciNetError("no data folder: pass --data-dir or set RECINET_DATA_DIR")
    root = Path(chosen).expanduser()
    if not root.is_dir():
        raise ReciNetError(f"the data folder {root} does not exist")
    return root


def dataset_names() -> list[str]:
    """Names that `open_dataset` knows."""
    from recinet_ase.data.matbench import MATBENCH
    from recinet_ase.data.mlearn import NAMES
    from recinet_ase.data.published import DATASETS

    return [*DATASETS, *MATBENCH, *NAMES]


def open_dataset(
    spec: str,
    data_dir: str | Path | None = None,
    *,
    target: str | None = None,
    prop: str | None = None,
    unit: str | None = None,
) -> Dataset:
    """A dataset by name, or one's own data by path.

    Args:
        spec: A name (`dataset_names`), or the path of an ASE database, an extended xyz file, a
            trajectory, a csv or json table, or a folder with ``id_prop.csv``. A name wins over
            a path; write ``./jarvis`` for a folder of that name.
        data_dir: Folder of the named datasets, else ``RECINET_DATA_DIR``.
        target: Key or column of the labels (own data); found by itself if there is one choice.
        prop: Property that the labels are of; the target's own name if that is a property.
        unit: Unit of the labels; the property's own if None. A property that is not in the
            registry needs one.

    Raises:
        UnknownNameError: If ``spec`` is neither, or names no property.
        ReciNetError: If the data, the target or the unit cannot be used.
    """
    from recinet_ase.data.matbench import MATBENCH, MatBench
    from recinet_ase.data.mlearn import NAMES, MLearn
    from recinet_ase.data.own import open_own
    from recinet_ase.data.published import DATASETS, Published

    named: Dataset
    if spec in DATASETS:
        named = Published(DATASETS[spec], data_dir)
    elif spec in MATBENCH:
        named = MatBench(MATBENCH[spec], data_dir)
    elif spec in NAMES:
        named = MLearn(spec, data_dir)
    elif Path(spec).expanduser().exists():
        return open_own(Path(spec).expanduser(), target=target, prop=prop, unit=unit)
    elif "/" in spec or Path(spec).suffix:
        raise ReciNetError(f"no such dataset, file or folder: {spec}")
    else:
        raise UnknownNameError("dataset", spec, dataset_names())
    if target is not None:
        raise ReciNetError(f"{spec} has its own labels; --target is for your own data")
    if prop is not None:
        info = named.info(prop)
        if unit is not None and unit != info.unit:
            raise ReciNetError(f"{spec} gives {info.name} in {info.unit or '1'}, not {unit!r}")
    return named
