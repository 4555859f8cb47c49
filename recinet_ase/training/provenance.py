"""What a model says of its training, and the rule that keeps held-out crystals out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from recinet_ase.data.dataset import Dataset
from recinet_ase.data.joint import SEPARATOR
from recinet_ase.data.splits import SplitRule, ids_digest
from recinet_ase.data.store import PackedStore
from recinet_ase.errors import ReciNetError
from recinet_ase.models.property_model import PropertyModel
from recinet_ase.nn.recinet import ReciNetConfig, size_name
from recinet_ase.training.config import TrainingConfig
from recinet_ase.training.elements import elements_of_start, rare_elements
from recinet_ase.training.labels import PreparedData, listed_ids, twins_of


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
    for name, wanted in _tasks(config, dataset).items():
        clean = _clean_of(seen, name)
        if clean is None:
            _check_earlier(initial, name)
            continue
        if _division(seen) != _division(_split_entry(config, dataset)):
            raise ReciNetError(
                f"{initial.config.name} was trained on another division of {name} "
                f"({' '.join(_division(seen))}), so its training crystals may be held out here; "
                "use the same --split-by"
            )
        missing = [p for p in wanted if p not in clean]
        if missing:
            raise ReciNetError(
                f"{initial.config.name} was trained without keeping out the validation and test "
                f"crystals of {', '.join(missing)}; its errors there would be too good. Train it "
                f"with --hold-out {','.join(missing)}"
            )


def _check_earlier(initial: PropertyModel, name: str) -> None:
    """What a start learnt before counts as much as what it learnt last."""
    seen = initial.config.training
    earlier = seen.get("started_from")
    while earlier:
        if _clean_of(earlier, name) is not None:
            raise ReciNetError(
                f"{initial.config.name} was trained on {name} before {seen['dataset']}, and what "
                f"of it was held out then says nothing of it now; start from a model of {name} "
                "itself"
            )
        earlier = earlier.get("started_from")


def _tasks(config: TrainingConfig, dataset: Dataset) -> dict[str, list[str]]:
    """The run's properties by the dataset that has them, without its name."""
    by_dataset: dict[str, list[str]] = {member.name: [] for member in dataset.members.values()}
    for name in config.properties:
        base, _, source = name.partition("[")
        source = source.removesuffix("]") or dataset.name
        if source in by_dataset:  # labels from a file belong to no dataset
            by_dataset[source].append(base)
    return by_dataset


def _clean_of(entry: Mapping[str, Any], name: str) -> set[str] | None:
    """Properties of a dataset whose held-out crystals a training did not see.

    Returns:
        None if that training did not use the dataset.
    """
    if name != entry.get("dataset") and name not in str(entry.get("dataset")).split(SEPARATOR):
        return None
    of_joint = f"[{name}]"
    return {
        p.removesuffix(of_joint)
        for p in entry.get("clean_for", ())
        if "[" not in p or p.endswith(of_joint)
    }


def _split_entry(config: TrainingConfig, dataset: Dataset) -> dict[str, object]:
    rule = config.rule or dataset.default_rule
    return {"split": str(rule), "split_seed": rule.seed}


def _division(entry: Mapping[str, object]) -> tuple[str, str]:
    """What decides which crystals are held out; models of format 1 used published splits."""
    rule = str(entry.get("split", "published"))
    return rule, "" if rule == "published" else f"with seed {entry.get('split_seed')}"


def clean_tasks(
    dataset: Dataset,
    train_ids: Iterable[str],
    rule: SplitRule | None = None,
    store: PackedStore | None = None,
) -> set[str]:
    """Properties none of whose validation and test crystals are among the training ids.

    With the store of several datasets, nor are the twins that they have in another one.
    """
    seen = set(train_ids)
    clean = set()
    for name in dataset.properties:
        try:
            split = dataset.split(dataset.info(name), rule)
        except ReciNetError:
            continue  # without its file nothing can be said of this property
        if seen & split.held_out:
            continue
        if store is None or not twins_of(dataset, store, split.held_out, seen):
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
    clean_for = clean_tasks(dataset, data.train_ids, config.rule, data.store)
    if initial is not None:
        # Ids say nothing across datasets: a start on others alone leaves no claim standing.
        kept = set[str]()
        for prefix, member in dataset.members.items():
            for name in _clean_of(initial.config.training, member.name) or ():
                kept.add(f"{name}[{member.name}]" if prefix else name)
        clean_for &= kept
    return {
        "dataset": dataset.name,
        **_split_entry(config, dataset),
        "properties": list(config.properties),
        "hold_out": list(config.hold_out),
        "left_out": _left_out(config),
        "labels": [text.rpartition("=")[0] for text in config.labels],
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
        "learning_rate": config.peak_rate,
        "patience": config.validations_waited,
        "seed": config.seed,
        "precision": config.precision,
        "task_weights": config.task_weights,
        "started_from": None if initial is None else initial.config.training,
    }
