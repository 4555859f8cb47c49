"""Which crystals a run trains and validates on, and with which labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from recinet_ase.data.catalogue import dataset_names, open_dataset
from recinet_ase.data.conversion import cached_store
from recinet_ase.data.dataset import Dataset
from recinet_ase.data.joint import Labels
from recinet_ase.data.labels import NO_LABEL
from recinet_ase.data.overlap import twins
from recinet_ase.data.rejected import check_share
from recinet_ase.data.splits import Split
from recinet_ase.data.store import PackedStore, StoreSettings, cache_dir, join_stores
from recinet_ase.errors import ReciNetError
from recinet_ase.graph.crystal import GraphSettings
from recinet_ase.nn.recinet import ReciNetConfig
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
        rejected: Crystals that could not be used, by id, with the reason.
    """

    store: PackedStore
    train: Targets
    val: Targets
    train_ids: list[str]
    val_ids: list[str]
    rejected: dict[str, str]


def open_run_dataset(
    config: TrainingConfig, data_dir: str | Path | None = None
) -> tuple[Dataset, TrainingConfig]:
    """The dataset of a run, and the configuration with canonical property names.

    Raises:
        ReciNetError: If the dataset cannot be opened or has no such property.
    """
    names = config.properties
    labels = tuple(str(Labels(text).absolute()) for text in config.labels)
    config = replace(config, labels=labels)
    if config.leave_out is not None:  # to be resumed from anywhere
        config = replace(config, leave_out=str(Path(config.leave_out).expanduser().absolute()))
    path = Path(config.dataset).expanduser()
    if config.dataset not in dataset_names() and path.exists():
        config = replace(config, dataset=str(path.absolute()))  # to be resumed from anywhere
        if len(names) > 1:
            raise ReciNetError("one's own data gives one property a run; train a model for each")
    dataset = open_dataset(
        config.dataset,
        data_dir,
        target=config.target,
        prop=names[0] if names else None,
        unit=config.unit,
        labels=labels,
    )
    if not dataset.properties:
        raise ReciNetError(
            f"{dataset.name} has no labels; give some with --labels, or other datasets with it"
        )

    def canonical(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(info.name for n in names for info in dataset.columns(n)))

    names = canonical(names or dataset.properties[:1])
    held, logs = canonical(config.hold_out), canonical(config.log_targets)
    references = tuple(
        name
        for r in config.references
        for name in [n for n in names if n.partition("[")[0] == r] or [r]
    )
    for name in logs:
        if name not in names:
            raise ReciNetError(
                f"the logarithm of {name} is to be learnt, but the run learns {', '.join(names)}"
            )
        if name in references:
            raise ReciNetError(
                f"the elements' energies are to be taken off {name}, and its logarithm learnt; "
                "only one is possible"
            )
    return dataset, replace(
        config, properties=names, hold_out=held, log_targets=logs, references=references
    )


def prepare_data(
    config: TrainingConfig,
    dataset: Dataset,
    network: ReciNetConfig,
    cache: str | Path | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
    message: Callable[[str], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> PreparedData:
    """Load structures (from the cache where possible) and the labels of a run.

    Validation and test ids of every property of the run and of ``config.hold_out`` are
    removed from training: a model of property P must never have seen, as a training label
    of any property, a crystal in P's validation or test ids.

    Args:
        config: Settings of the run, of `open_run_dataset`.
        dataset: Its dataset.
        network: What the graphs are for.
        cache: Folder of packed stores.
        workers: Processes for building the store.
        progress: Called with the number of crystals converted and that of all.
        message: Called with what the user should know.
        stop: Asked now and then whether to stop converting.

    Raises:
        ConversionStopped: If ``stop`` said so; the next call goes on from there.
        ReciNetError: If data is missing, too much of it is bad, or fewer crystals remain than
            a split needs.
    """
    splits = merged_splits(dataset, config, message)
    settings = StoreSettings(
        graph=GraphSettings(neighbours=config.neighbours),
        reduce=config.reduce,
        k_max=network.k_max,
        n_waves=network.n_waves,
        wave_norm=network.wave_norm,
    )
    stores = []
    for prefix, member in dataset.members.items():
        store = _member_store(member, settings, cache, workers, progress, message, stop)
        stores.append(store.prefixed(prefix))
    store = join_stores(stores)
    rejected = {**store.rejected, **dataset.rejected()}
    # Rows of a table need not have every property; one without a label is no fault of the data.
    bad = {key: reason for key, reason in rejected.items() if reason != NO_LABEL}
    rows, unlabelled = len(rejected.keys() | store.position.keys()), len(rejected) - len(bad)
    check_share(bad, rows - unlabelled, config.max_bad)
    if unlabelled and message is not None:
        message(f"{unlabelled:,} of {rows:,} rows have no label, and are not used")
    splits = _without_twins(dataset, config, store, splits, message)
    return _labelled(store, splits, config, rejected)


def _member_store(
    dataset: Dataset,
    settings: StoreSettings,
    cache: str | Path | None,
    workers: int,
    progress: Callable[[int, int], None] | None,
    message: Callable[[str], None] | None,
    stop: Callable[[], bool] | None,
) -> PackedStore:
    """The graphs of one dataset, from the cache where possible."""
    total = 0

    def begin(path: Path) -> None:
        nonlocal total
        total = len(dataset.ids())
        if message is not None:
            message(f"converting {total:,} structures to graphs (once; kept in {path.parent})")

    def convert(done: int) -> None:
        if progress is not None:
            progress(done, total)

    return cached_store(
        dataset.source_files(),
        dataset.structures,
        settings,
        cache_dir(cache),
        workers,
        convert,
        dataset.name,
        begin,
        stop,
    )


def held_out_ids(dataset: Dataset, config: TrainingConfig) -> set[str]:
    """Validation and test ids of the run's properties and of those that it holds out."""
    names = (*config.properties, *config.hold_out)
    return set().union(*(dataset.split(dataset.info(n), config.rule).held_out for n in names))


def twins_of(
    dataset: Dataset, store: PackedStore, held_out: Iterable[str], train: Iterable[str]
) -> set[str]:
    """Training ids that are twins of a crystal that another dataset holds out."""
    held_out, train, spoilt = set(held_out), set(train), set[str]()
    for prefix in dataset.members if len(dataset.members) > 1 else ():
        held = store.positions(i for i in held_out if i.startswith(prefix))
        others = store.positions(i for i in train if not i.startswith(prefix))
        spoilt |= {store.ids[i] for i in others[twins(store, held, others)].tolist()}
    return spoilt


def _without_twins(
    dataset: Dataset,
    config: TrainingConfig,
    store: PackedStore,
    splits: list[Split],
    message: Callable[[str], None] | None,
) -> list[Split]:
    """Of several datasets, training without the twins of what another one holds out."""
    if len(dataset.members) == 1:
        return splits
    train = {key for split in splits for key in split.train}
    spoilt = twins_of(dataset, store, held_out_ids(dataset, config), train)
    if message is not None:
        message(
            f"left out {len(spoilt):,} of {len(train):,} training crystals: twins of crystals that "
            "another dataset holds out (one formula, volumes within 8 %)"
        )
    return [split.without(spoilt) for split in splits]


def merged_splits(
    dataset: Dataset, config: TrainingConfig, message: Callable[[str], None] | None = None
) -> list[Split]:
    """The split of each property, without the held-out crystals of all others in training.

    Raises:
        ReciNetError: If the dataset has no such split, or none of the ids to leave out.
    """
    splits = [dataset.split(dataset.info(name), config.rule) for name in config.properties]
    held_out = held_out_ids(dataset, config)
    splits = [split.without(held_out) for split in splits]
    if config.leave_out is None:
        return splits
    listed = listed_ids(config.leave_out)
    _check_listed(listed, dataset, config.leave_out, message)
    if message is not None:
        removed = listed.intersection(key for split in splits for key in split.train)
        message(f"left out {len(removed):,} training crystals listed in {config.leave_out}")
    return [split.without(listed) for split in splits]


def _check_listed(
    listed: set[str], dataset: Dataset, path: str, message: Callable[[str], None] | None
) -> None:
    """The ids to leave out must be those of the dataset."""
    unknown = listed - dataset.ids()
    example = min(unknown, default="")
    if unknown == listed:
        raise ReciNetError(
            f"none of the {len(listed):,} ids in {path} occurs in {dataset.name} ({example!r} does "
            "not, for example), so nothing would be left out; list ids as the dataset has them"
        )
    if unknown and message is not None:
        message(
            f"warning: {len(unknown):,} of the {len(listed):,} ids in {path} do not occur in "
            f"{dataset.name} ({example!r}, for example)"
        )


def listed_ids(path: str | Path) -> set[str]:
    """The ids in a text file, one a line.

    Raises:
        ReciNetError: If it is no such file, or empty.
    """
    try:
        ids = set(Path(path).expanduser().read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise ReciNetError(f"{path} is no list of ids to leave out ({error})") from None
    if not ids:
        raise ReciNetError(f"{path} lists no ids to leave out")
    return ids


def _table(store: PackedStore, columns: Sequence[dict[str, float]]) -> tuple[Targets, list[str]]:
    """Labels by id, one column a property, for the crystals that have at least one."""
    ids = [key for key in dict.fromkeys(k for c in columns for k in c) if key in store.position]
    index = torch.tensor([store.position[key] for key in ids], dtype=torch.long)
    missing = float("nan")
    values = torch.tensor([[column.get(key, missing) for column in columns] for key in ids])
    return Targets(index, values.reshape(len(ids), len(columns))), ids


def _labelled(
    store: PackedStore, splits: list[Split], config: TrainingConfig, rejected: dict[str, str]
) -> PreparedData:
    """Targets and positions of the training and validation crystals."""
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
    return PreparedData(store, train, val, train_ids, val_ids, rejected)
