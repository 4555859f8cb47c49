"""A training run from its configuration: data, model, loop, result.

The run folder holds ``training.json`` (the configuration), ``metrics.csv``,
``checkpoint.pt``, and, once it has been validated, ``config.json`` and
``model.safetensors``: it is a model folder like the shipped ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from recinet_ase.data.datasets import get_dataset
from recinet_ase.data.splits import Split, ids_digest
from recinet_ase.data.store import PackedStore, StoreSettings, cache_dir, cached_store
from recinet_ase.errors import ReciNetError
from recinet_ase.model import ModelConfig, PropertyModel
from recinet_ase.nn.recinet import ReciNetConfig, size_name
from recinet_ase.pretrained import load_model
from recinet_ase.properties import get_property_info
from recinet_ase.training.config import TrainingConfig
from recinet_ase.training.trainer import Progress, Targets, Trainer, load_checkpoint

TRAINING_FILE = "training.json"


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
    """Load structures (from the cache where possible) and the split of a run.

    Validation and test ids of every property in ``config.hold_out`` are removed from
    training: a model of property P must never have seen, as a training label of any
    property, a crystal in P's validation or test ids.

    Raises:
        ReciNetError: If data is missing or fewer crystals remain than a split needs.
    """
    dataset = get_dataset(config.dataset)
    if len(config.properties) != 1:
        raise ReciNetError("one property a run; train a model for each")
    info = get_property_info(config.properties[0])
    split = dataset.split(info, data_dir)
    held_out: set[str] = set()
    for name in config.hold_out:
        held_out |= dataset.split(get_property_info(name), data_dir).held_out
    split = split.without(held_out)
    settings = StoreSettings(reduce=config.reduce, k_max=network.k_max, n_waves=network.n_waves)
    store = cached_store(
        dataset.archive_path(data_dir),
        lambda: dataset.records(data_dir).items(),
        settings,
        cache_dir(cache),
        workers,
        progress,
    )
    return _labelled(store, split, config)


def _labelled(store: PackedStore, split: Split, config: TrainingConfig) -> PreparedData:
    def targets(values: dict[str, float]) -> tuple[Targets, list[str]]:
        ids = [key for key in values if key in store.position]
        index = torch.tensor([store.position[key] for key in ids], dtype=torch.long)
        return Targets(index, torch.tensor([values[key] for key in ids]).reshape(-1, 1)), ids

    train, train_ids = targets(split.train)
    val, val_ids = targets(split.val)
    if not len(train) or not len(val):
        raise ReciNetError("the split has no training or no validation crystals in the archive")
    if config.limit is not None and config.limit < len(train):
        generator = torch.Generator().manual_seed(config.seed)
        chosen = torch.randperm(len(train), generator=generator)[: config.limit]
        train = Targets(train.index[chosen], train.values[chosen])
        train_ids = [train_ids[i] for i in chosen.tolist()]
    return PreparedData(store, train, val, train_ids, val_ids)


def architecture(config: TrainingConfig, initial: PropertyModel | None) -> ReciNetConfig:
    """The network of a run: what is asked for, or that of the model to start from.

    Raises:
        ReciNetError: If both are given and differ, or the network cannot be trained so.
    """
    outputs = len(config.properties)
    network = config.architecture(outputs)
    if initial is not None:
        theirs = initial.config.network
        if (config.size is not None or config.network) and theirs != network:
            raise ReciNetError(
                f"{config.init} has another architecture than this run asks for; leave out "
                "--size and network options to take it over"
            )
        network = theirs
    if network.reciprocal == "literal" and config.reduce:
        raise ReciNetError("the literal reciprocal block needs full graphs: add --full-graphs")
    return network


def build_model(
    config: TrainingConfig,
    data: PreparedData,
    name: str,
    network: ReciNetConfig,
    initial: PropertyModel | None = None,
    data_dir: str | Path | None = None,
) -> PropertyModel:
    """The model at the start of a run: fresh, or with the weights of ``initial``.

    Targets are standardised by their mean and mean absolute deviation, so that the loss
    is 1 for the model that always answers the mean.

    Raises:
        ReciNetError: If the model to start from may have seen held-out crystals.
    """
    infos = [get_property_info(p) for p in config.properties]
    if initial is not None:
        _check_hygiene(initial, config)
    torch.manual_seed(config.seed)
    mean = data.train.values.mean(0)
    spread = (data.train.values - mean).abs().mean(0).clamp(min=1e-6)
    dataset = get_dataset(config.dataset)
    model = PropertyModel(
        ModelConfig(
            name=name,
            properties=config.properties,
            units=tuple(info.unit for info in infos),
            mean=tuple(mean.tolist()),
            std=tuple(spread.tolist()),
            elements=tuple(data.store.elements(data.train.index)),
            network=network,
            functional=tuple(dataset.functional_of(info) for info in infos),
            training=_provenance(config, data, network, initial, data_dir),
        )
    )
    if initial is not None:
        model.network.load_state_dict(initial.network.state_dict())
    return model


def _check_hygiene(initial: PropertyModel, config: TrainingConfig) -> None:
    """A model to start from must have been kept away from this run's held-out crystals.

    Raises:
        ReciNetError: If it says otherwise, or does not say.
    """
    seen = initial.config.training
    if "dataset" not in seen or "clean_for" not in seen:
        raise ReciNetError(
            f"{initial.config.name} does not say what it was trained on, so its errors on "
            "held-out crystals could be too good; start from a model that does"
        )
    missing = [p for p in config.properties if p not in seen.get("clean_for", ())]
    if seen.get("dataset") == config.dataset and missing:
        raise ReciNetError(
            f"{initial.config.name} was trained without keeping out the validation and test "
            f"crystals of {', '.join(missing)}; its errors there would be too good. Train it "
            f"with --hold-out {','.join(missing)}"
        )


def clean_tasks(
    dataset: str, train_ids: Iterable[str], data_dir: str | Path | None = None
) -> set[str]:
    """Properties none of whose validation and test crystals are among the training ids."""
    published, seen = get_dataset(dataset), set(train_ids)
    clean = set()
    for name in published.tasks:
        try:
            split = published.split(get_property_info(name), data_dir)
        except ReciNetError:
            continue  # without its file nothing can be said of this property
        if not seen & split.held_out:
            clean.add(name)
    return clean


def _provenance(
    config: TrainingConfig,
    data: PreparedData,
    network: ReciNetConfig,
    initial: PropertyModel | None,
    data_dir: str | Path | None,
) -> dict[str, object]:
    """What a model records of its training."""
    clean_for = clean_tasks(config.dataset, data.train_ids, data_dir)
    if initial is not None:
        earlier = initial.config.training
        # Ids say nothing across datasets: such a start leaves no claim standing.
        same = earlier.get("dataset") == config.dataset
        clean_for &= set(earlier.get("clean_for", ())) if same else set()
    return {
        "dataset": config.dataset,
        "properties": list(config.properties),
        "clean_for": sorted(clean_for),
        "n_train": len(data.train),
        "n_val": len(data.val),
        "train_ids_sha256": ids_digest(data.train_ids),
        "val_ids_sha256": ids_digest(data.val_ids),
        "size": size_name(network),
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        "seed": config.seed,
        "precision": config.precision,
        "started_from": None if initial is None else initial.config.training,
    }


def train(
    config: TrainingConfig,
    folder: Path,
    data_dir: str | Path | None = None,
    cache: str | Path | None = None,
    resume: bool = False,
    max_minutes: float | None = None,
    workers: int = 1,
    on_step: Callable[[Progress], None] | None = None,
    on_store: Callable[[int], None] | None = None,
) -> tuple[PropertyModel, bool]:
    """Run (or continue) a training and leave a loadable model in ``folder``.

    Args:
        config: Settings; ignored in favour of the folder's own when resuming.
        folder: Run folder.
        data_dir: Folder of the datasets, else ``RECINET_DATA_DIR``.
        cache: Folder of packed stores.
        resume: Continue from the folder's checkpoint.
        max_minutes: Wall time, graph building included, after which to stop with a checkpoint.
        workers: Processes for building the store.
        on_step: Called after every training step.
        on_store: Called with the number of crystals converted while building the store.

    Returns:
        The averaged model, and whether the run is complete.

    Raises:
        ReciNetError: For missing data, a folder in use, or a run that diverged.
    """
    deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
    settings_file = folder / TRAINING_FILE
    state = None
    if resume:
        config = TrainingConfig.load(settings_file)
        state = load_checkpoint(folder)
    elif settings_file.exists():
        raise ReciNetError(
            f"{folder} already holds a run; continue it with --resume, or choose another"
        )
    elif folder.exists() and not folder.is_dir():
        raise ReciNetError(f"{folder} is a file; choose a folder for the run")
    if state is None:
        initial = None if config.init is None else load_model(config.init)
        network = architecture(config, initial)
        data = prepare_data(config, network, data_dir, cache, workers, on_store)
        name = folder.resolve().name
        model = build_model(config, data, name, network, initial, data_dir)
    else:
        stored = ModelConfig.from_json(state["config"], str(folder))
        data = prepare_data(config, stored.network, data_dir, cache, workers, on_store)
        if ids_digest(data.train_ids) != stored.training["train_ids_sha256"]:
            raise ReciNetError(f"the training crystals are not those that {folder} began with")
        model = PropertyModel(stored)
    trainer = Trainer(model, data.store, data.train, data.val, config, folder, on_step)
    if state is not None:
        trainer.restore(state)
    folder.mkdir(parents=True, exist_ok=True)
    config.save(settings_file)
    complete = trainer.fit(deadline)
    result = trainer.averaged_model
    result.config = with_results(result.config, trainer, data)
    result.save(folder, half=False)
    return result, complete


def with_results(config: ModelConfig, trainer: Trainer, data: PreparedData) -> ModelConfig:
    """The configuration with the run's validation figures added."""
    deviation = (data.val.values - data.train.values.mean(0)).abs().mean()
    figures = {
        "validation_mae": trainer.validation_error(),
        "validation_mad": float(deviation),
        "epochs_done": trainer.epoch,
        "hours": round(trainer.seconds / 3600, 3),
        "parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
    }
    return replace(config, training={**config.training, **figures})
