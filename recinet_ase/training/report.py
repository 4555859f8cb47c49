"""What a finished (or stopped) run leaves beside its weights: plots and a model card."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from recinet_ase.data.store import PackedStore
from recinet_ase.elements import symbols
from recinet_ase.evaluation.data import known_faults
from recinet_ase.evaluation.plots import learning_curve, parity_plot
from recinet_ase.evaluation.table import PredictionTable
from recinet_ase.models.property_model import PropertyModel
from recinet_ase.properties import PropertyInfo
from recinet_ase.training.card import card_text
from recinet_ase.training.labels import PreparedData
from recinet_ase.training.metrics import METRICS_FILE, read_metrics
from recinet_ase.training.property_task import evaluate

CURVE_FILE = "learning_curve.png"
CARD_FILE = "README.md"
_SEVERAL = PropertyInfo("several", "properties", "of the mean absolute deviation", "")


def write_report(model: PropertyModel, data: PreparedData, folder: Path) -> None:
    """Write ``README.md``, ``learning_curve.png`` and a parity plot of each property.

    Args:
        model: The run's model.
        data: Its data; the plots show the validation crystals.
        folder: Run folder, with ``metrics.csv``.
    """
    infos = model.config.infos
    if read_metrics(folder):
        info = infos[0] if len(infos) == 1 else _SEVERAL
        learning_curve(folder / METRICS_FILE, folder / CURVE_FILE, info)
    predicted = evaluate(model, data.store, data.val).numpy()
    tables = [_table(data, predicted, column) for column in range(len(infos))]
    for info, table in zip(infos, tables, strict=True):
        if len(table):
            name = "parity.png" if len(infos) == 1 else f"parity_{info.name}.png"
            parity_plot(table.targets, table.predictions, info, folder / name)
    dataset = str(model.config.training["dataset"])
    faults = [known_faults(dataset, info.name) for info in infos]
    others = list(zip(tables, faults, strict=True))[1:]
    card = card_text(model.config, tables[0], faults=faults[0], others=others, usage=str(folder))
    (folder / CARD_FILE).write_text(card, encoding="utf-8")


def _table(data: PreparedData, predicted: np.ndarray, column: int) -> PredictionTable:
    """Predictions of a property beside the labels of the validation crystals that have one."""
    targets = data.val.values[:, column].numpy()
    known = np.flatnonzero(np.isfinite(targets))
    elements, n_atoms = _contents(data.store, data.val.index)
    return PredictionTable.of(
        [data.val_ids[i] for i in known],
        targets[known],
        predicted[known, column],
        [elements[i] for i in known],
        n_atoms[known],
    )


def _contents(store: PackedStore, index: torch.Tensor) -> tuple[list[list[str]], np.ndarray]:
    """Symbols in each of the crystals, and their numbers of atoms."""
    names, a = symbols(), store.arrays
    elements, n_atoms = [], []
    for i in index.tolist():
        rows = slice(int(a["atom_ptr"][i]), int(a["atom_ptr"][i + 1]))
        elements.append([names[z] for z in sorted(set(a["z"][rows].tolist()))])
        n_atoms.append(int(a["atom_weight"][rows].sum()))
    return elements, np.array(n_atoms)
