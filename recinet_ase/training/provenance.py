"""What a model says of its training, and the rule that keeps held-out crystals out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from recinet_ase.data.datasets import get_dataset
from recinet_ase.data.splits import ids_digest
from recinet_ase.errors import ReciNetError
from recinet_ase.model import PropertyModel
from recinet_ase.nn.recinet import ReciNetConfig, size_name
from recinet_ase.properties import get_property_info
from recinet_ase.training.config import TrainingConfig
from recinet_ase.training.labels import PreparedData


def check_start(initial: PropertyModel, config: TrainingConfig) -> None:
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


def provenance(
    config: TrainingConfig,
    data: PreparedData,
    network: ReciNetConfig,
    initial: PropertyModel | None,
    data_dir: str | Path | None,
) -> dict[str, object]:
    """What a model records of its training before it starts."""
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
