"""A model on a split of a dataset, through the one inference path."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from recinet_ase.data.dataset import Dataset
from recinet_ase.data.splits import SplitRule
from recinet_ase.errors import ReciNetError, UnknownNameError
from recinet_ase.evaluation.data import known_faults
from recinet_ase.evaluation.provenance import trust_warnings
from recinet_ase.evaluation.table import PredictionTable
from recinet_ase.inference.predictor import Predictor
from recinet_ase.models.property_model import ModelConfig
from recinet_ase.properties import PROPERTIES, PropertyInfo, source_of

PARTS = ("train", "val", "test", "all")
NO_STRUCTURE = "the dataset holds no structure of this id"
_ELEMENT = re.compile(r"[A-Z][a-z]?")


@dataclass(frozen=True)
class Evaluation:
    """Predictions of a model on a split.

    Attributes:
        config: The model's configuration.
        predicted: The property that the model gives.
        info: The property that it is judged by.
        dataset: The dataset's name.
        part: ``"train"``, ``"val"``, ``"test"`` or ``"all"``.
        rule: How the dataset was divided.
        functional: Level of theory of the labels.
        table: One row for each crystal of the split that has a structure.
        absent: Reason by id for those of the split that have none.
        faults: Ids among them whose label is known to be wrong.
        warnings: Why the errors may be too good or mean something else.
        seconds: Wall time of the predictions.
    """

    config: ModelConfig
    predicted: str
    info: PropertyInfo
    dataset: str
    part: str
    rule: SplitRule
    functional: str
    table: PredictionTable
    absent: Mapping[str, str] = field(default_factory=dict)
    faults: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()
    seconds: float = math.nan

    @property
    def refused(self) -> int:
        """Crystals that have a structure but no prediction."""
        return int(self.table.refused.sum())

    @property
    def withheld(self) -> int:
        """Crystals whose label is not known."""
        return int((~self.table.labelled).sum())


def choose_property(
    config: ModelConfig, dataset: Dataset, name: str | None = None
) -> tuple[str, PropertyInfo]:
    """What the model gives, and the dataset's property to judge it by.

    A model of another level of theory (``bandgap_opt``) is judged by the plain property
    where the dataset has only that.

    Args:
        config: The model.
        dataset: The dataset.
        name: Canonical name; by default the model's only property.

    Returns:
        The model's property name, and the dataset's registry entry.

    Raises:
        ReciNetError: If the model has several properties and none is named, the units
            differ, or the model does not predict the named one.
        UnknownNameError: If the dataset has no labels of it.
    """
    if name is None and len(config.properties) > 1:
        raise ReciNetError(
            f"{config.name} predicts {', '.join(config.properties)}; choose one with --prop"
        )
    target = name or config.properties[0]
    if source_of(target, config.properties) is not None:
        predicted: str | None = target
    else:
        predicted = next((p for p in config.properties if _parent(p) == target), None)
    if predicted is None:
        raise ReciNetError(
            f"{config.name} does not predict {target!r}; it predicts {', '.join(config.properties)}"
        )
    if target not in dataset.properties and _parent(target) in dataset.properties and name is None:
        target = str(_parent(target))
    info = dataset.info(target)
    unit = config.units[config.properties.index(source_of(predicted, config.properties) or "")]
    if info.unit != unit:
        raise ReciNetError(
            f"{config.name} predicts {predicted} in {unit!r}, but the labels of {dataset.name} are "
            f"in {info.unit!r}"
        )
    return predicted, info


def _parent(name: str) -> str | None:
    return PROPERTIES[name].variant_of if name in PROPERTIES else None


def split_targets(
    dataset: Dataset, info: PropertyInfo, part: str, rule: SplitRule | None = None
) -> dict[str, float]:
    """Ids of one part of the split with their labels, NaN where withheld, in the split's order.

    Raises:
        UnknownNameError: If there is no such part.
    """
    if part not in PARTS:
        raise UnknownNameError("split", part, PARTS)
    if part == "all" and (rule or dataset.default_rule).kind in ("random", "composition"):
        return dataset.labels(info)  # dividing it would change nothing
    split = dataset.split(info, rule)
    targets: dict[str, float] = {}
    if part in ("train", "all"):
        targets |= split.train
    if part in ("val", "all"):
        targets |= split.val
    if part in ("test", "all"):
        known = dataset.labels(info)
        targets |= {key: known.get(key, math.nan) for key in split.test}
    return targets


def load_structures(dataset: Dataset, ids: Iterable[str]) -> dict[str, Any]:
    """The structures of some ids, in the dataset's order; ids without one are left out.

    What cannot be read is handed on as its exception, which becomes that crystal's error.
    """
    wanted = set(ids)
    return {key: structure for key, structure in dataset.structures() if key in wanted}


def predict_structures(
    predictor: Predictor,
    prop: str,
    structures: Mapping[str, Any],
    targets: Mapping[str, float],
    progress: Callable[[int], None] | None = None,
) -> PredictionTable:
    """Predictions for the ids of ``targets`` that have a structure, in their order.

    Args:
        predictor: The inference path.
        prop: Which of its properties.
        structures: Structure by id; others than those of ``targets`` are ignored.
        targets: Label by id, NaN where unknown.
        progress: Called with the number of crystals done.
    """
    ids = [key for key in targets if key in structures]
    predictions, elements, n_atoms, errors = [], [], [], []
    for done, result in enumerate(predictor.predict_iter(structures[key] for key in ids), 1):
        value = result.values.get(prop)
        predictions.append(math.nan if value is None else value)
        elements.append(sorted(set(_ELEMENT.findall(result.formula))))
        n_atoms.append(result.n_atoms)
        errors.append("" if value is not None else result.error or "no prediction")
        if progress is not None:
            progress(done)
    return PredictionTable.of(
        ids, [targets[key] for key in ids], predictions, elements, n_atoms, errors
    )


def evaluate(
    predictor: Predictor,
    dataset: Dataset,
    part: str = "val",
    prop: str | None = None,
    rule: SplitRule | None = None,
    trained_rule: SplitRule | None = None,
    structures: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Predict one part of a dataset's split with a single model.

    Args:
        predictor: Holds the model.
        dataset: The dataset.
        part: ``"train"``, ``"val"``, ``"test"`` or ``"all"``.
        prop: Property to judge by (canonical name), by default the model's own.
        rule: How to divide, the dataset's default if None.
        trained_rule: How the model's run divided it, the dataset's default if None.
        structures: Structures by id, where they are already at hand.
        progress: Called with the number of crystals done.

    Raises:
        ReciNetError: For a property, split or file that does not exist.
    """
    (model,) = predictor.models
    predicted, info = choose_property(model.config, dataset, prop)
    if predicted not in predictor.properties:
        raise ReciNetError(
            f"{model.config.name} cannot give {predicted!r}: its formation energies are at a level "
            "of theory without shipped references"
        )
    targets = split_targets(dataset, info, part, rule)
    if not targets:
        raise ReciNetError(f"the split {part!r} of {dataset.name} is empty for {info.name}")
    if structures is None:
        structures = load_structures(dataset, targets)
    rejected = dataset.rejected()
    absent = {key: rejected.get(key, NO_STRUCTURE) for key in targets if key not in structures}
    start = time.perf_counter()
    table = predict_structures(predictor, predicted, structures, targets, progress)
    functional = dataset.functional_of(info)
    used = rule or dataset.default_rule
    return Evaluation(
        config=model.config,
        predicted=predicted,
        info=info,
        dataset=dataset.name,
        part=part,
        rule=used,
        functional=functional,
        table=table,
        absent=absent,
        faults=known_faults(dataset.name, info.name) & set(table.ids),
        warnings=tuple(
            trust_warnings(
                model.config,
                info.name,
                dataset.name,
                part,
                functional=functional,
                predicted=predicted,
                same_split=used == (trained_rule or dataset.default_rule),
            )
        ),
        seconds=time.perf_counter() - start,
    )
