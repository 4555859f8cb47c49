"""Several datasets as one, for a start that has seen them all.

A property of two datasets is two properties: levels of theory differ, so each has an output
column of its own, named ``formation_energy[mp]``. Ids are prefixed, ``mp/mp-1000``.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from recinet_ase.data.dataset import Dataset
from recinet_ase.data.labels import as_number
from recinet_ase.data.splits import Split, SplitRule, joined_split
from recinet_ase.errors import ReciNetError, UnknownNameError
from recinet_ase.properties import PropertyInfo, get_property_info, sourced_property

SEPARATOR = "+"


class Labels:
    """Labels that come from a file, of crystals of any dataset.

    Args:
        text: ``PROPERTY[SOURCE]=PATH``; the source is whoever made the labels. The path is a csv
            file with a header, ids in the first column and values in the second, or a folder
            with such a file for each dataset (``jarvis.csv``). Ids in a file for several datasets
            are prefixed (``jarvis/JVASP-1``).

    Raises:
        ReciNetError: If the text is something else.
    """

    def __init__(self, text: str) -> None:
        name, _, path = text.partition("=")
        base, _, source = name.strip().partition("[")
        if not path or not source.endswith("]"):
            raise ReciNetError(
                f"labels {text!r}: write PROPERTY[SOURCE]=PATH, for example "
                "'total_energy[chgnet]=labels/'"
            )
        self.info = sourced_property(get_property_info(base), source[:-1])
        self.source, self.path = source[:-1], Path(path).expanduser()

    def absolute(self) -> Labels:
        """The same, wherever the program is started next."""
        return Labels(f"{self.info.name}={self.path.absolute()}")

    def __str__(self) -> str:
        return f"{self.info.name}={self.path}"

    def read(self, members: Sequence[str]) -> dict[str, float]:
        """Values by prefixed id.

        Args:
            members: Names of the datasets.

        Raises:
            ReciNetError: If there is no such file, or no label in it.
        """
        if self.path.is_dir():
            files = {f"{name}/": self.path / f"{name}.csv" for name in members}
            files = {prefix: file for prefix, file in files.items() if file.is_file()}
        else:
            files = {"" if len(members) > 1 else f"{members[0]}/": self.path}
        by_id: dict[str, float] = {}
        for prefix, file in files.items():
            try:
                with file.open(encoding="utf-8", newline="") as handle:
                    rows = list(csv.reader(handle))[1:]
            except (OSError, UnicodeDecodeError) as error:
                raise ReciNetError(f"cannot read labels from {file} ({error})") from None
            for row in rows:
                value = as_number(row[1]) if len(row) > 1 else "none"
                if isinstance(value, float):
                    by_id[prefix + row[0]] = value
        if not by_id:
            raise ReciNetError(
                f"{self.path} holds no labels of {' or '.join(members)} (a csv file with columns "
                "id and value, or a folder with one for each dataset)"
            )
        return by_id


class JointDataset(Dataset):
    """Several datasets as one.

    Args:
        datasets: The datasets, with published splits or splits by rule.
        labels: Labels from files, columns of their own. They are divided as the first property
            of their crystal's dataset is.
    """

    def __init__(self, datasets: Sequence[Dataset], labels: Sequence[Labels] = ()) -> None:
        self.datasets = {dataset.name: dataset for dataset in datasets}
        if len(self.datasets) < len(datasets):
            raise ReciNetError("a dataset is named twice")
        self.name = SEPARATOR.join(self.datasets)
        self._labels = {labels.info.name: labels for labels in labels}
        self._columns = {
            f"{name}[{source}]": (dataset, name)
            for source, dataset in self.datasets.items()
            for name in dataset.properties
        }
        clash = self._columns.keys() & self._labels.keys()
        if clash:
            raise ReciNetError(f"{min(clash)} is the dataset's own; call the labels' source else")
        self.properties = (*self._columns, *self._labels)
        rules = {d.default_rule for d in datasets if d.properties}
        if len(rules) == 1:
            self.default_rule = rules.pop()

    @property
    def members(self) -> dict[str, Dataset]:
        """The datasets by the prefix of their ids."""
        return {f"{name}/": dataset for name, dataset in self.datasets.items()}

    def columns(self, name: str) -> list[PropertyInfo]:
        """The property of that name, or that of all datasets where none is named."""
        base, _, source = name.partition("[")
        try:
            base = get_property_info(base).name
        except UnknownNameError:
            raise UnknownNameError(f"{self.name} property", name, self.properties) from None
        if source:
            return [self.info(f"{base}[{source}")]
        chosen = [p for p in self.properties if p.partition("[")[0] == base]
        if not chosen:
            raise UnknownNameError(f"{self.name} property", name, self.properties)
        return [self.info(p) for p in chosen]

    def info(self, name: str) -> PropertyInfo:
        """What one of the properties is, by its full name."""
        if name in self._labels:
            return self._labels[name].info
        if name in self._columns:
            dataset, base = self._columns[name]
            return sourced_property(dataset.info(base), dataset.name)
        raise UnknownNameError(f"{self.name} property", name, self.properties)

    def functional_of(self, info: PropertyInfo) -> str:
        """Level of theory of a property; the source of labels from a file."""
        if info.name in self._labels:
            return self._labels[info.name].source
        dataset, base = self._columns[info.name]
        return dataset.functional_of(dataset.info(base))

    def source_files(self) -> list[Path]:
        """The files of all datasets."""
        return [path for dataset in self.datasets.values() for path in dataset.source_files()]

    def structures(self) -> Iterator[tuple[str, Any]]:
        """Prefixed id and structure of every row."""
        for prefix, dataset in self.members.items():
            for key, structure in dataset.structures():
                yield prefix + key, structure

    def ids(self) -> set[str]:
        """Prefixed ids."""
        return {prefix + key for prefix, dataset in self.members.items() for key in dataset.ids()}

    def labels(self, info: PropertyInfo) -> dict[str, float]:
        """Labels by prefixed id."""
        if info.name in self._labels:
            return self._read_labels[info.name]
        dataset, base = self._columns[info.name]
        return _prefixed(f"{dataset.name}/", dataset.labels(dataset.info(base)))

    @cached_property
    def _read_labels(self) -> dict[str, dict[str, float]]:
        return {name: each.read([*self.datasets]) for name, each in self._labels.items()}

    def rejected(self) -> dict[str, str]:
        """Rows without a usable label, by prefixed id."""
        return {
            prefix + key: reason
            for prefix, dataset in self.members.items()
            for key, reason in dataset.rejected().items()
        }

    def split(self, info: PropertyInfo, rule: SplitRule | None = None) -> Split:
        """A property's split in its own dataset, ids prefixed."""
        if info.name not in self._labels:
            dataset, base = self._columns[info.name]
            return _prefixed_split(f"{dataset.name}/", dataset.split(dataset.info(base), rule))
        values = self.labels(info)
        like = joined_split(
            [
                _prefixed_split(prefix, dataset.split(dataset.info(dataset.properties[0]), rule))
                for prefix, dataset in self.members.items()
                if dataset.properties
            ]
        )
        held = like.held_out
        return Split(
            {key: value for key, value in values.items() if key not in held},
            {key: values[key] for key in like.val if key in values},
            like.test,
        )


def _prefixed(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    return {prefix + key: value for key, value in values.items()}


def _prefixed_split(prefix: str, split: Split) -> Split:
    return replace(
        split,
        train=_prefixed(prefix, split.train),
        val=_prefixed(prefix, split.val),
        test=tuple(prefix + key for key in split.test),
    )
