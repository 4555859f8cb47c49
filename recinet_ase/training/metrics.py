"""The table of a run's progress, ``metrics.csv``: one row an epoch."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from recinet_ase.models.files import replacing

METRICS_FILE = "metrics.csv"
_COLUMNS = ("epoch", "train_mae", "val_mae", "learning_rate", "seconds")


def append_metrics(folder: Path, row: Mapping[str, object]) -> None:
    """Add the row of an epoch, dropping rows of epochs that are run again after a resume.

    Args:
        folder: Run folder.
        row: ``epoch``, ``train_mae`` and ``val_mae`` (in the property's unit; with several
            properties, in units of each one's mean absolute deviation), ``learning_rate``,
            ``seconds`` and, with several properties, ``val_mae_<property>`` in its unit.
    """
    path = folder / METRICS_FILE
    rows: list[Mapping[str, object]] = [
        r for r in read_metrics(folder) if int(r["epoch"]) < int(str(row["epoch"]))
    ]
    rows.append(row)
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as handle:
        columns = dict.fromkeys((*_COLUMNS, *(key for each in rows for key in each)))
        writer = csv.DictWriter(handle, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_metrics(folder: Path) -> list[dict[str, str]]:
    """The rows so far (none before the first epoch)."""
    path = folder / METRICS_FILE
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))
