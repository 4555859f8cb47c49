"""Published datasets: structures, official splits, and where to find their files.

The files are the publishers' own downloads; nothing is fetched and nothing is shipped.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recinet_ase.data.faults import JARVIS_MBJ_GAPS
from recinet_ase.data.splits import Split, leaderboard_split, read_json_zip
from recinet_ase.errors import ReciNetError, UnknownNameError
from recinet_ase.properties import PropertyInfo


def data_root(data_dir: str | Path | None = None) -> Path:
    """The folder that holds the datasets: the argument, or ``RECINET_DATA_DIR``.

    Raises:
        ReciNetError: If neither is given or the folder does not exist.
    """
    chosen = data_dir or os.environ.get("RECINET_DATA_DIR")
    if not chosen:
        raise ReciNetError("no data folder: pass --data-dir or set RECINET_DATA_DIR")
    root = Path(chosen).expanduser()
    if not root.is_dir():
        raise ReciNetError(f"the data folder {root} does not exist")
    return root


@dataclass(frozen=True)
class PublishedDataset:
    """A dataset with official splits, read from its publisher's files.

    Attributes:
        name: Name for ``--dataset``, and the folder under the data root.
        archive: File name of the structures, a json.zip of records with ``atoms``.
        id_key: Key of a record's id.
        tasks: File stem of each property's split, by canonical property name.
        functional: Level of theory, by property; ``""`` is that of all others.
        faults: Ids whose label is known to be wrong, by property.
    """

    name: str
    archive: str
    id_key: str
    tasks: Mapping[str, str]
    functional: Mapping[str, str]
    faults: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def archive_path(self, data_dir: str | Path | None = None) -> Path:
        """Path of the structures, in ``<data>/<name>`` or ``<data>`` itself.

        Raises:
            ReciNetError: If the file is in neither.
        """
        root = data_root(data_dir)
        for candidate in (root / self.name / self.archive, root / self.archive):
            if candidate.exists():
                return candidate
        raise ReciNetError(f"{self.archive} is neither in {root / self.name} nor in {root}")

    def records(self, data_dir: str | Path | None = None) -> dict[str, dict[str, Any]]:
        """All entries by id, in file order.

        Raises:
            ReciNetError: If the file is missing, broken or of another kind.
        """
        path = self.archive_path(data_dir)
        entries = read_json_zip(path)
        if not isinstance(entries, list) or not entries or self.id_key not in entries[0]:
            raise ReciNetError(f"{path} is not the {self.name} archive")
        return {str(entry[self.id_key]): entry for entry in entries}

    def split_name(self, info: PropertyInfo) -> str:
        """File stem of a property's split.

        Raises:
            UnknownNameError: If the dataset has no such property.
        """
        if info.name not in self.tasks:
            raise UnknownNameError(f"{self.name} property", info.name, self.tasks)
        return self.tasks[info.name]

    def split(self, info: PropertyInfo, data_dir: str | Path | None = None) -> Split:
        """The official split of a property, known faults taken out of training.

        Raises:
            UnknownNameError: If the dataset has no such property.
            ReciNetError: If the file is missing or broken.
        """
        name = f"{self.split_name(info)}.json.zip"
        folder = self.archive_path(data_dir).parent
        for candidate in (folder / "splits" / name, folder / name):
            if candidate.exists():
                return leaderboard_split(candidate).without(self.faults.get(info.name, ()))
        raise ReciNetError(f"{name} is neither in {folder / 'splits'} nor in {folder}")

    def functional_of(self, info: PropertyInfo) -> str:
        """Level of theory of a property."""
        return self.functional.get(info.name, self.functional[""])


JARVIS = PublishedDataset(
    name="jarvis",
    archive="jdft_3d-8-18-2021.json.zip",
    id_key="jid",
    tasks={
        "formation_energy": "dft_3d_formation_energy_peratom",
        "total_energy": "dft_3d_optb88vdw_total_energy",
        "ehull": "dft_3d_ehull",
        "bandgap": "dft_3d_mbj_bandgap",
        "bandgap_opt": "dft_3d_optb88vdw_bandgap",
        "bulk_modulus": "dft_3d_bulk_modulus_kv",
        "shear_modulus": "dft_3d_shear_modulus_gv",
        "exfoliation_energy": "dft_3d_exfoliation_energy",
    },
    functional={"": "OptB88vdW", "bandgap": "TB-mBJ"},
    faults={"bandgap": JARVIS_MBJ_GAPS},
)
"""JARVIS-DFT 3D, 2021 release, with the JARVIS-Leaderboard splits (Choudhary 2020)."""

MATERIALS_PROJECT = PublishedDataset(
    name="mp",
    archive="megnet.json.zip",
    id_key="id",
    tasks={
        "formation_energy": "megnet_e_form",
        "bandgap": "megnet_gappbe",
        "bulk_modulus": "megnet_bulk_modulus",
        "shear_modulus": "megnet_shear_modulus",
    },
    functional={"": "PBE"},
)
"""Materials Project, MEGNet 2018.6.1 set (Chen 2019)."""

DATASETS = {dataset.name: dataset for dataset in (JARVIS, MATERIALS_PROJECT)}


def get_dataset(name: str) -> PublishedDataset:
    """A dataset by name.

    Raises:
        UnknownNameError: If there is none of that name.
    """
    try:
        return DATASETS[name]
    except KeyError:
        raise UnknownNameError("dataset", name, DATASETS) from None
