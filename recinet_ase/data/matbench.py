"""MatBench v0.1 (Dunn 2020): the regression tasks on crystal structures, official folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from recinet_ase.data.fetch import data_root, fetch_matminer
from recinet_ase.data.splits import Split, SplitRule, fold_split, kfold
from recinet_ase.data.table import TableDataset
from recinet_ase.errors import ReciNetError
from recinet_ase.io.json_documents import load_document
from recinet_ase.io.rows import Row, read_rows
from recinet_ase.properties import PROPERTIES, PropertyInfo

FOLDS_FILE = "folds.json"
FOLD_SEED = 18_012_019
"""Seed of ``KFold(5, shuffle=True)`` that MatBench's folds were made with."""


@dataclass(frozen=True)
class Task:
    """One of MatBench's tasks.

    Attributes:
        name: MatBench's name.
        column: Column of the labels.
        property: Canonical property name.
        functional: Level of theory.
    """

    name: str
    column: str
    property: str
    functional: str


MATBENCH = {
    task.name: task
    for task in (
        Task("matbench_jdft2d", "exfoliation_en", "exfoliation_energy", "OptB88vdW"),
        Task("matbench_phonons", "last phdos peak", "phonon_peak", "PBEsol"),
        Task("matbench_mp_e_form", "e_form", "formation_energy", "PBE"),
        Task("matbench_mp_gap", "gap pbe", "bandgap", "PBE"),
        Task("matbench_log_kvrh", "log10(K_VRH)", "log_bulk_modulus", "PBE"),
        Task("matbench_log_gvrh", "log10(G_VRH)", "log_shear_modulus", "PBE"),
        Task("matbench_perovskites", "e_form", "perovskite_energy", "RPBE"),
        Task("matbench_dielectric", "n", "refractive_index", "PBE"),
    )
}


class MatBench(TableDataset):
    """A MatBench task in a data folder: ``<data>/matbench/<name>.json.gz``, matminer's format.

    Args:
        task: Which one.
        data_dir: Data folder, else ``RECINET_DATA_DIR``.

    Raises:
        ReciNetError: If the file is missing and cannot be fetched, or broken.
    """

    default_rule = SplitRule("fold")

    def __init__(self, task: Task, data_dir: str | Path | None = None) -> None:
        path = _find(task.name, data_dir)
        rows, _ = read_rows(path)
        if task.column not in rows[0].values:
            raise ReciNetError(f"{path} is not matminer's {task.name}")
        rows = _with_official_ids(rows, task.name)
        info = PROPERTIES[task.property]
        super().__init__(task.name, rows, [path], task.column, info, functional=task.functional)

    def folds(self) -> list[list[str]]:
        """Ids of the five official test folds.

        They are read from ``folds.json`` beside the data, or made by MatBench's own recipe.

        Raises:
            ReciNetError: If the file does not fit the data.
        """
        path = self.source_files()[0].parent / FOLDS_FILE
        folds = load_document(str(path)).get(self.name) if path.exists() else None
        if folds is None:
            return kfold(list(self._rows), FOLD_SEED)
        parts = [[str(key) for key in folds[f"fold_{k}"]] for k in range(len(folds))]
        listed = [key for part in parts for key in part]
        if len(parts) != 5 or sorted(listed) != sorted(self._rows):
            raise ReciNetError(f"{path}: the folds of {self.name} are not those of its crystals")
        return parts

    def published_split(self, info: PropertyInfo, rule: SplitRule) -> Split:
        """One of the official folds; validation is carved out of its training part by seed."""
        return fold_split(self.labels(info), self.folds()[rule.fold], rule)

    def split(self, info: PropertyInfo, rule: SplitRule | None = None) -> Split:
        """A split; ``"fold"`` and ``"published"`` are the official folds."""
        rule = rule or self.default_rule
        if rule.kind == "fold":
            return self.published_split(info, rule)
        return super().split(info, rule)


def _find(name: str, data_dir: str | Path | None) -> Path:
    root = data_root(data_dir)
    for folder in (root / "matbench", root):
        for path in (folder / f"{name}.json.gz", folder / f"{name}.json"):
            if path.exists():
                return path
    return fetch_matminer(name, root / "matbench" / f"{name}.json.gz")


def _with_official_ids(rows: Sequence[Row], name: str) -> list[Row]:
    """Rows under MatBench's ids: matminer's files number them from 0, MatBench from mb-...-1."""
    if not all(row.id == str(i) for i, row in enumerate(rows)):
        return list(rows)
    prefix = name.replace("matbench", "mb").replace("_", "-")
    digits = len(str(len(rows)))
    return [replace(row, id=f"{prefix}-{i:0{digits}d}") for i, row in enumerate(rows, 1)]
