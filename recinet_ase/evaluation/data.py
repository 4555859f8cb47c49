"""Which data a model is judged by: its own, unless another is asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recinet_ase.data.catalogue import dataset_names, open_dataset
from recinet_ase.data.dataset import Dataset
from recinet_ase.data.published import DATASETS
from recinet_ase.data.splits import PUBLISHED_SEED, SplitRule
from recinet_ase.errors import ReciNetError
from recinet_ase.models.property_model import ModelConfig
from recinet_ase.pretrained import model_members

_RUN_FILE = "training.json"


@dataclass(frozen=True)
class DataChoice:
    """What to open and how to divide it.

    Attributes:
        spec: Dataset name or path.
        target: Key of the labels in own data.
        unit: Unit of the labels in own data.
        rule: How to divide, None for the dataset's default.
        trained_rule: How the model's own run divided the same data, None for its default.
        from_run: Whether ``spec`` was taken from the model's run.
        foreign: Whether it is own data that the model was not trained on.
    """

    spec: str
    target: str | None = None
    unit: str | None = None
    rule: SplitRule | None = None
    trained_rule: SplitRule | None = None
    from_run: bool = False
    foreign: bool = False


def choose_data(
    model: str,
    config: ModelConfig,
    spec: str | None = None,
    target: str | None = None,
    unit: str | None = None,
    rule: SplitRule | None = None,
) -> DataChoice:
    """The data asked for, filled up with what the model's run was told.

    Args:
        model: Model name or run folder.
        config: Its configuration.
        spec: Dataset name or path; by default what the model was trained on, or ``"jarvis"``.
        target: Key of the labels in own data.
        unit: Unit of the labels in own data.
        rule: How to divide; by default as the run did, on the same data.
    """
    run = _run_settings(model)
    trained_on = str(run.get("dataset") or config.training.get("dataset") or "jarvis")
    if spec is not None and not same_data(spec, trained_on):
        return DataChoice(spec, target, unit, rule, foreign=spec not in dataset_names())
    trained_rule = None
    if run.get("split"):
        trained_rule = SplitRule.parse(run["split"], run.get("split_seed", PUBLISHED_SEED))
    return DataChoice(
        spec or trained_on,
        target or run.get("target"),
        unit or run.get("unit"),
        rule or trained_rule,
        trained_rule,
        from_run=spec is None,
    )


def same_data(first: str, second: str) -> bool:
    """Whether two names or paths mean the same dataset, as far as one can tell."""
    if first == second:
        return True
    if {first, second} & set(dataset_names()):
        return False
    return Path(first).expanduser().resolve() == Path(second).expanduser().resolve()


def _run_settings(model: str) -> dict[str, Any]:
    """What a run folder's command was told, ``{}`` for a model without."""
    path = model_members(model)[0] / _RUN_FILE
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ReciNetError(f"{path} cannot be read ({error})") from None
    return settings if isinstance(settings, dict) else {}


def open_data(choice: DataChoice, prop: str, data_dir: str | Path | None = None) -> Dataset:
    """Open the data of a choice.

    Args:
        choice: Which.
        prop: Property that the labels of own data are of.
        data_dir: Folder of the named datasets.

    Raises:
        ReciNetError: If it cannot be opened (see `recinet_ase.data.catalogue.open_dataset`).
    """
    named = choice.spec in dataset_names()
    try:
        return open_dataset(
            choice.spec,
            data_dir,
            target=choice.target,
            prop=None if named else prop,
            unit=choice.unit,
        )
    except ReciNetError as error:
        if not choice.from_run or named:
            raise
        raise ReciNetError(
            f"{error}; this is the data of the model's own run: say with --dataset where it is now"
        ) from None


def known_faults(dataset: str, prop: str) -> frozenset[str]:
    """Ids whose label is known to be wrong (`recinet_ase.data.faults`)."""
    return DATASETS[dataset].faults.get(prop, frozenset()) if dataset in DATASETS else frozenset()
