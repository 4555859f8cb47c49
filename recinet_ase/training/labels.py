"""Which crystals a run trains and validates on, and with which labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from recinet_ase.data.datasets import PublishedDataset, get_dataset
from recinet_ase.data.splits import Split
from recinet_ase.data.store import PackedStore, StoreSettings, cache_dir, cached_store
from recinet_ase.errors import ReciNetError
from recinet_ase.graph.crystal import GraphSettings
from recinet_ase.nn.recinet import ReciNetConfig
from recinet_ase.properties import get_property_info
from recinet_ase.training.config import TrainingConfig


@dataclass(frozen=True)
class Targets:
    """Crystals of a store and their labels.

    Attributes:
        index: Positions in the store, int64 ``[n]``.
        values: Labels in the properties' units, ``[n, outputs]``; NaN where missing.
    """

    index: torch.Tensor
    values: torch.Tensor

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device | str) -> Targets:
        """The same on a device."""
        return Targets(self.index.to(device), self.values.to(device))


@dataclass(frozen=True)
class PreparedData:
    """Graphs and labels of a run.

    Attributes:
        store: Packed graphs.
        train, val: Labels.
        train_ids: Ids of the training crystals.
        val_ids: Ids of the validation crystals.
    """

    store: PackedStore
    train: Targets
    val: Targets
    train_ids: list[str]
    val_ids: list[str]


def prepare_data(
    config: TrainingConfig,
    network: ReciNetConfig,
    data_dir: str | Path | None = None,
    cache: str | Path | None = None,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> PreparedData:
    """Load structures (from the cache where possible) and the labels of a run.

    Validation and test ids of every property of the run and of ``config.hold_out`` are
    removed from training: a model of property P must never have seen, as a training label
    of any property, a crystal in P's validation or test ids.

    Raises:
        ReciNetError: If data is missing or fewer crystals remain than a split needs.
    """
    dataset = get_dataset(config.dataset)
    splits = merged_splits(dataset, config.properties, config.hold_out, data_dir)
    settings = StoreSettings(
        graph=GraphSettings(neighbours=config.neighbours),
        reduce=config.reduce,
        k_max=network.k_max,
        n_waves=network.n_waves,
        wave_norm=network.wave_norm,
    )
    store = cached_store(
        dataset.archive_path(data_dir),
        lambda: dataset.records(data_dir).items(),
        settings,
        cache_dir(cache),
        workers,
        progress,
    )
    return _labelled(store, splits, config)


def merged_splits(
    dataset: PublishedDataset,
    properties: Sequence[str],
    hold_out: Iterable[str],
    data_dir: str | Path | None,
) -> list[Split]:
    """The split of each property, without the held-out crystals of all others in training."""
    splits = [dataset.split(get_property_info(name), data_dir) for name in properties]
    held_out = set().union(*(split.held_out for split in splits))
    for name in hold_out:
        held_out |= dataset.split(get_property_info(name), data_dir).held_out
    return [split.without(held_out) for split in splits]


def _table(store: PackedStore, columns: Sequence[dict[str, float]]) -> tuple[Targets, list[str]]:
    """Labels by id, one column a property, for the crystals that have at least one."""
    ids = [key for key in dict.fromkeys(k for c in columns for k in c) if key in store.position]
    index = torch.tensor([store.position[key] for key in ids], dtype=torch.long)
    missing = float("nan")
    values = torch.tensor([[column.get(key, missing) for column in columns] for key in ids])
    return Targets(index, values.reshape(len(ids), len(columns))), ids


def _labelled(store: PackedStore, splits: list[Split], config: TrainingConfig) -> PreparedData:
    train, train_ids = _table(store, [split.train for split in splits])
    val, val_ids = _table(store, [split.val for split in splits])
    for name, column in zip(config.properties, train.values.T, strict=True):
        if torch.isnan(column).all():
            raise ReciNetError(f"no crystal is left to train {name} on")
    if not len(val):
        raise ReciNetError("the split has no validation crystals in the archive")
    if config.limit is not None and config.limit < len(train):
        generator = torch.Generator().manual_seed(config.seed)
        chosen = torch.randperm(len(train), generator=generator)[: config.limit]
        train = Targets(train.index[chosen], train.values[chosen])
        train_ids = [train_ids[i] for i in chosen.tolist()]
    return PreparedData(store, train, val, train_ids, val_ids)
