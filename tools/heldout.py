"""The validation and training crystals behind a model, for the tools that measure it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from recinet_ase.data.datasets import get_dataset
from recinet_ase.errors import ReciNetError
from recinet_ase.model import ModelConfig
from recinet_ase.properties import get_property_info


@dataclass(frozen=True)
class Crystals:
    """Crystals of one split.

    Attributes:
        structures: Structure by id.
        labels: Label of each, or an empty dictionary.
    """

    structures: dict[str, Any]
    labels: dict[str, float]


def dataset_name(config: ModelConfig) -> str:
    """The dataset that a model was trained on.

    Raises:
        ReciNetError: If its configuration does not say.
    """
    name = config.training.get("dataset")
    if not name:
        raise ReciNetError(f"{config.name} does not say what it was trained on")
    return str(name)


def heldout(config: ModelConfig, data_dir: str | None, sample: int) -> tuple[Crystals, Crystals]:
    """All validation crystals of a model's property, and a sample of its training crystals.

    Validation labels that are known to be wrong are left out.

    Args:
        config: The model's configuration.
        data_dir: Folder of the datasets, else ``RECINET_DATA_DIR``.
        sample: Training crystals wanted.
    """
    dataset = get_dataset(dataset_name(config))
    info = get_property_info(config.properties[0])
    split, records = dataset.split(info, data_dir), dataset.records(data_dir)
    wrong = dataset.faults.get(info.name, frozenset())
    labels = {i: y for i, y in split.val.items() if i in records and i not in wrong}
    train = sorted(i for i in split.train if i in records)
    chosen = random.Random(0).sample(train, min(sample, len(train)))
    return (
        Crystals({i: records[i] for i in labels}, labels),
        Crystals({i: records[i] for i in chosen}, {}),
    )
