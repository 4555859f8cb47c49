"""The validation and training crystals behind a model, by which it is calibrated."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recinet_ase.data.dataset import Dataset
from recinet_ase.data.splits import PUBLISHED_SEED, SplitRule
from recinet_ase.evaluation.data import choose_data, known_faults, open_data
from recinet_ase.models.property_model import ModelConfig


@dataclass(frozen=True)
class Crystals:
    """What a model is calibrated with.

    Attributes:
        dataset: Name of the dataset.
        validation: Validation crystals of any of the model's properties, by id.
        labels: Their labels, by property and id. Labels known to be wrong are left out.
        training: A sample of the training crystals, by id.
    """

    dataset: str
    validation: dict[str, Any]
    labels: dict[str, dict[str, float]]
    training: dict[str, Any]


def crystals_of(
    name: str,
    config: ModelConfig,
    sample: int,
    data_dir: str | Path | None = None,
    spec: str | None = None,
    target: str | None = None,
    unit: str | None = None,
) -> Crystals:
    """The crystals of a model's own dataset and split.

    Args:
        name: Model name or folder.
        config: The model's configuration.
        sample: Training crystals wanted.
        data_dir: Folder of the named datasets, else ``RECINET_DATA_DIR``.
        spec: Where own data is, if not where the run found it.
        target: Key of the labels in own data.
        unit: Unit of the labels in own data.
    """
    choice = choose_data(name, config, spec, target, unit)
    rule, recorded = choice.trained_rule, config.training
    if rule is None and "split" in recorded:
        seed = int(recorded.get("split_seed", PUBLISHED_SEED))
        rule = SplitRule.parse(str(recorded["split"]), seed)
    dataset: Dataset = open_data(choice, config.properties[0], data_dir)
    labels: dict[str, dict[str, float]] = {}
    train: set[str] = set()
    for info in config.infos:
        split = dataset.split(info, rule)
        wrong = known_faults(dataset.name, info.name)
        labels[info.name] = {i: y for i, y in split.val.items() if i not in wrong}
        train |= set(split.train)
    wanted = set().union(*labels.values())
    chosen = set(random.Random(0).sample(sorted(train - wanted), min(sample, len(train - wanted))))
    validation, training = {}, {}
    for key, structure in dataset.structures():
        if isinstance(structure, Exception):
            continue
        if key in wanted:
            validation[key] = structure
        elif key in chosen:
            training[key] = structure
    return Crystals(dataset.name, validation, labels, training)
