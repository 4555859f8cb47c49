"""What a model says of its training, and the rule that keeps held-out crystals out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from recinet_ase.data.dataset import Dataset
from recinet_ase.data.splits import SplitRule, ids_digest
from recinet_ase.errors import ReciNetError
from recinet_ase.models.property_model import PropertyModel
from recinet_ase.nn.recinet import ReciNetConfig, size_name
from recinet_ase.training.config import TrainingConfig
from recinet_ase.training.elements import elements_of_start, rare_elements
from recinet_ase.training.labels import PreparedData, listed_ids


def check_start(initial: PropertyModel, config: TrainingConfig, dataset: Dataset) -> None:
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
    if seen["dataset"] != dataset.name:
        earlier = seen.get("started_from")
        while earlier:  # what a start learnt before counts as much as what it learnt last
            if earlier.get("dataset") == dataset.name:
                raise ReciNetError(
                    f"{initial.config.name} was trained on {dataset.name} before "
                    f"{seen['dataset']}, and what of it was held out then says nothing of it "
                    f"now; start from a model of {dataset.name} itself"
                )
            earlier = earlier.get("started_from")
        return
    if _division(seen) != _division(_split_entry(config, dataset)):
        raise ReciNetError(
            f"{initial.config.name} was trained on another division of {dataset.name} "
            f"({' '.join(_division(seen))}), so its training crystals may be held out here; "
            "use the same --split-by"
        )
    missing = [p for p in config.properties if p not in seen["clean_for"]]
    if missing:
        raise ReciNetError(
            f"{initial.config.name} was trained without keeping out the validation and test "
            f"crystals of {', '.join(missing)}; its errors there would be too good. Train it "
            f"with --hold-out {','.join(missing)}"
        )


def _split_entry(config: TrainingConfig, dataset: Dataset) -> dict[str, object]:
    rule = config.rule or dataset.default_rule
    return {"split": str(rule), "split_seed": rule.seed}


def _division(entry: Mapping[str, object]) -> tuple[str, str]:
    """What decides which crystals are held out; models of format 1 used published splits."""
    rule = str(entry.get("split", "published"))
    return rule, "" if rule == "published" else f"with seed {entry.get('split_seed')}"


def clean_tasks(
    dataset: Dataset, train_ids: Iterable[str], rule: SplitRule | None = None
) -> set[str]:
    """Properties none of whose validation and test crystals are among the training ids."""
    seen = set(train_ids)
    clean = set()
    for name in dataset.properties:
        try:
            split = dataset.split(dataset.info(name), rule)
        except ReciNetError:
            continue  # without its file nothing can be said of this property
        if not seen & split.held_out:
            clean.add(name)
    return clean


def _left_out(config: TrainingConfig) -> dict[str, object] | None:
    """The list of ids that were kept out of training, if there was one."""
    if config.leave_out is None:
        return None
    ids = listed_ids(config.leave_out)
    return {"file": Path(config.leave_out).name, "ids": len(ids), "sha256": ids_digest(ids)}


def provenance(
    config: TrainingConfig,
    dataset: Dataset,
    data: PreparedData,
    network: ReciNetConfig,
    initial: PropertyModel | None,
) -> dict[str, object]:
    """What a model records of its training before it starts."""
    clean_for = clean_tasks(dataset, data.train_ids, config.rule)
    if initial is not None:
        earlier = initial.config.training
        # Ids say nothing across datasets: such a start leaves no claim standing.
        same = earlier.get("dataset") == dataset.name
        clean_for &= set(earlier.get("clean_for", ())) if same else set()
    return {
        "dataset": dataset.name,
        **_split_entry(config, dataset),
        "properties": list(config.properties),
        "hold_out": list(config.hold_out),
        "left_out": _left_out(config),
        "clean_for": sorted(clean_for),
        "elements_of_start": elements_of_start(data, initial),
        "rare_elements": rare_elements(data),
        "n_train": len(data.train),
        "n_val": len(data.val),
        "train_ids_sha256": ids_digest(data.train_ids),
        "val_ids_sha256": ids_digest(data.val_ids),
        "recipe": config.recipe,
        "size": size_name(network),
        "epochs": config.epochs,
        "batch_size": config.batch_for(len(data.train)),
        "optimizer": config.optimizer,
        "learning_rate": config.learning_rate,
        "seed": config.seed,
        "precision": config.precision,
        "task_weights": config.task_weights,
        "started_from": None if initial is None else initial.config.training,
    }
