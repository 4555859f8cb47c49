"""The validation and training crystals behind a model, for the tools that measure it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from recinet_ase.data.dataset import Dataset, open_dataset
from recinet_ase.data.published import DATASETS
from recinet_ase.data.splits import SplitRule
from recinet_ase.errors import ReciNetError
from recinet_ase.model import ModelConfig


@dataclass(frozen=True)
class Crystals:
    """What a model is calibrated with.

    Attributes:
        validation: Validation crystals of any of the model's properties, by id.
        labels: Their labels, by property and id. Labels known to be wrong are left out.
        training: A sample of the training crystals, by id.
    """

    validation: dict[str, Any]
    labels: dict[str, dict[str, float]]
    training: dict[str, Any]


def dataset_name(config: ModelConfig) -> str:
    """The dataset that a model was trained on.

    Raises:
        ReciNetError: If its configuration does not say.
    """
    name = config.training.get("dataset")
    if not name:
        raise ReciNetError(f"{config.name} does not say what it was trained on")
    return str(name)


def crystals_of(config: ModelConfig, dataset: Dataset, sample: int) -> Crystals:
    """The crystals of a model's own split.

    Args:
        config: The model's configuration.
        dataset: What it was trained on.
        sample: Training crystals wanted.
    """
    recorded = config.training
    rule = None
    if "split" in recorded:
        seed = int(recorded.get("split_seed", SplitRule.seed))
        rule = SplitRule.parse(str(recorded["split"]), seed)
    labels: dict[str, dict[str, float]] = {}
    train: set[str] = set()
    for info in config.infos:
        split = dataset.split(info, rule)
        published = DATASETS.get(dataset.name)
        wrong = published.faults.get(info.name, frozenset()) if published else frozenset()
        labels[info.name] = {i: y for i, y in split.val.items() if i not in wrong}
        train |= set(split.train)
    wanted = set().union(*labels.values())
    chosen = set(random.Random(0).sample(sorted(train), min(sample, len(train))))
    validation, training = {}, {}
    for key, structure in dataset.structures():
        if isinstance(structure, Exception):
            continue
        if key in wanted:
            validation[key] = structure
        elif key in chosen:
            training[key] = structure
    return Crystals(validation, labels, training)


def open_for(config: ModelConfig, data_dir: str | None) -> Dataset:
    """The dataset that a model says it was trained on."""
    return open_dataset(dataset_name(config), data_dir)
