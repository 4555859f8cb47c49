"""Whether an error can be believed: what the model was trained on, against what it is judged by."""

from __future__ import annotations

from typing import Any

from recinet_ase.model import ModelConfig


def training_stages(training: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs behind a model, first to last."""
    earlier = training.get("started_from")
    return [*(training_stages(earlier) if earlier else []), training]


def trust_warnings(
    config: ModelConfig,
    prop: str,
    dataset: str,
    part: str,
    functional: str = "",
    predicted: str | None = None,
) -> list[str]:
    """Reasons why a model's error on a split may be too good, or mean something else.

    Args:
        config: The model.
        prop: The dataset's property that the model is judged by.
        dataset: The dataset's name.
        part: ``"train"``, ``"val"``, ``"test"`` or ``"all"``.
        functional: Level of theory of the dataset's labels, where known.
        predicted: The model's property, if it has another name.

    Returns:
        Sentences for the user; none where the error can be taken as it is.
    """
    warnings = []
    name, training = config.name, config.training
    stages = [stage for stage in training_stages(training) if "dataset" in stage]
    if not stages:
        warnings.append(
            f"{name} does not say what it was trained on: crystals judged here may have been "
            "among its training data, and the error too good"
        )
    elif any(stage["dataset"] == dataset for stage in stages):
        if part in ("train", "all"):
            share = "these" if part == "train" else "most of these"
            warnings.append(
                f"{name} was trained on {share} crystals ({dataset}): the error says how well it "
                "remembers them, not how well it predicts new ones"
            )
        elif prop not in training.get("clean_for", ()):
            warnings.append(
                f"{name} was not kept away from the held-out crystals of {prop!r} in {dataset}: "
                "it may have been trained on some of them, and the error is then too good"
            )
    if stages and any(stage["dataset"] != dataset for stage in stages):
        others = sorted({str(stage["dataset"]) for stage in stages} - {dataset})
        warnings.append(
            f"{name} was trained on {', '.join(others)}, whose ids cannot be compared with those "
            f"of {dataset}; the same compounds may occur in both"
        )
    given = predicted or prop
    own = config.functional_of(given) if given in config.properties else ""
    if functional and own and functional != own:
        warnings.append(
            f"{name} predicts at the level of {own}, the labels of {dataset} are {functional}: "
            "part of the error is the difference between the two"
        )
    return warnings
