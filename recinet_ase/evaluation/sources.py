"""Datasets as the evaluation reads them: structures and every known label, by id."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from recinet_ase.data.datasets import DATASETS, PublishedDataset, get_dataset
from recinet_ase.data.splits import Split, read_json_zip
from recinet_ase.errors import ReciNetError
from recinet_ase.properties import PropertyInfo, get_property_info


class Dataset(Protocol):
    """What the evaluation needs of a dataset."""

    @property
    def name(self) -> str:
        """What a run records."""

    @property
    def properties(self) -> tuple[str, ...]:
        """Names of the properties that it holds labels of."""

    def info(self, name: str) -> PropertyInfo:
        """What a property is called and measured in."""

    def structures(self) -> Iterator[tuple[str, Any]]:
        """Every id with anything that `recinet_ase.graph.adapters.to_crystal` takes."""

    def labels(self, info: PropertyInfo) -> dict[str, float]:
        """Every known label."""

    def split(self, info: PropertyInfo) -> Split:
        """Train, validation and test ids."""

    def functional_of(self, info: PropertyInfo) -> str:
        """Level of theory."""

    def rejected(self) -> dict[str, str]:
        """Entries that could not be read, with the reason."""


class _Published:
    """A published dataset behind the protocol."""

    def __init__(self, dataset: PublishedDataset, data_dir: str | Path | None) -> None:
        self.dataset, self.data_dir = dataset, data_dir
        self.name, self.properties = dataset.name, tuple(dataset.tasks)

    def info(self, name: str) -> PropertyInfo:
        return get_property_info(name)

    def structures(self) -> Iterator[tuple[str, Any]]:
        yield from self.dataset.records(self.data_dir).items()

    def labels(self, info: PropertyInfo) -> dict[str, float]:
        folder = self.dataset.archive_path(self.data_dir).parent
        name = f"{self.dataset.split_name(info)}.json.zip"
        for path in (folder / "splits" / name, folder / name):
            if path.exists():
                parts = read_json_zip(path)
                assert isinstance(parts, dict)
                known = (item for part in parts.values() for item in part.items())
                return {str(key): float(value) for key, value in known if value is not None}
        raise ReciNetError(f"{name} is neither in {folder / 'splits'} nor in {folder}")

    def split(self, info: PropertyInfo) -> Split:
        return self.dataset.split(info, self.data_dir)

    def functional_of(self, info: PropertyInfo) -> str:
        return self.dataset.functional_of(info)

    def rejected(self) -> dict[str, str]:
        return {}


def open_dataset(spec: str, data_dir: str | Path | None = None) -> Dataset:
    """A dataset by name.

    Raises:
        UnknownNameError: If there is none of that name.
        ReciNetError: If its files are not found.
    """
    dataset = get_dataset(spec)
    dataset.archive_path(data_dir)
    return _Published(dataset, data_dir)


def known_faults(dataset: str, prop: str) -> frozenset[str]:
    """Ids whose label is known to be wrong (`recinet_ase.data.faults`)."""
    return DATASETS[dataset].faults.get(prop, frozenset()) if dataset in DATASETS else frozenset()
