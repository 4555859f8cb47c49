"""Prediction files as JARVIS-Leaderboard wants them (Choudhary et al. 2024).

A contribution is a zip archive of one csv with ``id,target,prediction`` for every test id,
named ``AI-SinglePropertyPrediction-<property>-<dataset>-test-mae.csv.zip``. The site joins
it with its own labels by id and reads ``prediction`` alone.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from recinet_ase.data.published import get_dataset
from recinet_ase.errors import ReciNetError
from recinet_ase.evaluation.table import PredictionTable
from recinet_ase.properties import PropertyInfo

_SITE_NAMES = {"jarvis": "dft_3d", "mp": "megnet"}


def leaderboard_name(dataset: str, info: PropertyInfo) -> str:
    """File name of a contribution, without ``.zip``.

    Raises:
        ReciNetError: If the leaderboard has no such task.
    """
    if dataset not in _SITE_NAMES:
        raise ReciNetError(
            f"JARVIS-Leaderboard files are written for {' and '.join(_SITE_NAMES)}, "
            f"not for {dataset!r}"
        )
    site = _SITE_NAMES[dataset]
    task = get_dataset(dataset).split_name(info).removeprefix(f"{site}_")
    return f"AI-SinglePropertyPrediction-{task}-{site}-test-mae.csv"


def write_contribution(table: PredictionTable, name: str, folder: Path) -> Path:
    """Write ``folder/<name>.zip``; crystals without a prediction are left out.

    The site cannot score a file with empty predictions.
    """
    path = folder / f"{name}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, table.select(~table.refused).to_csv())
    return path
