"""Whether an error can be believed: what the model was trained on, against what it is judged by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recinet_ase.data.joint import SEPARATOR
from recinet_ase.models.property_model import ModelConfig
from recinet_ase.properties import source_of


def training_stages(training: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs behind a model, first to last; of an ensemble, one member after the other."""
    earlier = training.get("started_from")
    further = [stage for member in training.get("members", ()) for stage in training_stages(member)]
    return [*(training_stages(earlier) if earlier else []), training, *further]


def trust_warnings(
    config: ModelConfig,
    prop: str,
    dataset: str,
    part: str,
    functional: str = "",
    predicted: str | None = None,
    same_split: bool = True,
) -> list[str]:
    """Reasons why a model's error on a split may be too good, or mean something else.

    Args:
        config: The model.
        prop: The dataset's property that the model is judged by.
        dataset: The dataset's name.
        part: ``"train"``, ``"val"``, ``"test"`` or ``"all"``.
        functional: Level of theory of the dataset's labels, where known.
        predicted: The model's property, if it has another name.
        same_split: Whether the dataset is divided as the model's run divided it.

    Returns:
        Sentences for the user; none where the error can be taken as it is.
    """
    warnings = []
    name = config.name
    stages = [stage for stage in training_stages(config.training) if "dataset" in stage]
    here = [stage for stage in stages if _is_dataset(stage["dataset"], dataset)]
    if not stages:
        warnings.append(
            f"{name} does not say what it was trained on: crystals judged here may have been "
            "among its training data, and the error too good"
        )
    elif here and part in ("train", "all"):
        share = "these" if part == "train" else "most of these"
        warnings.append(
            f"{name} was trained on {share} crystals ({dataset}): the error says how well it "
            "remembers them, not how well it predicts new ones"
        )
    elif here and not same_split:
        warnings.append(
            f"{name} was trained on another split of {dataset}: it has seen many of these "
            "crystals, and the error is too good"
        )
    elif here and not _kept_away(config, here, prop):
        warnings.append(
            f"{name} was not kept away from the held-out crystals of {prop!r} in {dataset}: "
            "it may have been trained on some of them, and the error is then too good"
        )
    if len(here) < len(stages):
        others = sorted({str(s["dataset"]) for s in stages if s not in here})
        warnings.append(
            f"{name} was trained on {', '.join(others)}, whose ids cannot be compared with those "
            f"of {dataset}; the same compounds may occur in both"
        )
    given = predicted or prop
    own = config.functional_of(given) if source_of(given, config.properties) else ""
    if functional and own and functional != own:
        warnings.append(
            f"{name} predicts at the level of {own}, the labels of {dataset} are {functional}: "
            "part of the error is the difference between the two"
        )
    return warnings


def _is_dataset(recorded: str, dataset: str) -> bool:
    """Whether a run's record (names joined by ``+``, or a path) means a dataset of that name."""
    names = recorded.split(SEPARATOR)
    return dataset in (*names, recorded, Path(recorded).name, f"./{Path(recorded).name}")


def _kept_away(config: ModelConfig, here: list[dict[str, Any]], prop: str) -> bool:
    """Whether no stage saw the held-out crystals of a property.

    A run keeps those of its own split out by itself, so where no earlier stage used the data
    there is nothing more to ask.
    """
    if prop in config.training.get("clean_for", ()):
        return True
    return here == [config.training] and prop in config.training.get("properties", ())
