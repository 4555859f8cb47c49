"""The JARVIS-DFT 3D dataset (2021 release) and its official splits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from recinet_ase.data.splits import Split, leaderboard_split, read_json_zip
from recinet_ase.errors import ReciNetError, UnknownNameError
from recinet_ase.properties import PROPERTIES, PropertyInfo

ARCHIVE = "jdft_3d-8-18-2021.json.zip"


def functional(info: PropertyInfo) -> str:
    """Level of theory of a JARVIS property; everything but the mBJ gap is OptB88vdW."""
    return "TB-mBJ" if info.name == "bandgap" else "OptB88vdW"


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


def archive_path(data_dir: str | Path | None = None) -> Path:
    """Path of the structure archive, in ``<data>/jarvis`` or ``<data>`` itself."""
    root = data_root(data_dir)
    for candidate in (root / "jarvis" / ARCHIVE, root / ARCHIVE):
        if candidate.exists():
            return candidate
    raise ReciNetError(f"{ARCHIVE} is neither in {root / 'jarvis'} nor in {root}")


def load_records(data_dir: str | Path | None = None) -> list[dict[str, Any]]:
    """All entries of the archive, as jarvis-tools' ``data("dft_3d_2021")`` gives them."""
    path = archive_path(data_dir)
    records = read_json_zip(path)
    if not isinstance(records, list) or not records or "jid" not in records[0]:
        raise ReciNetError(f"{path} is not a JARVIS dft_3d archive")
    return records


def task_key(info: PropertyInfo) -> str:
    """JARVIS's own name of a property.

    Raises:
        UnknownNameError: If JARVIS does not have it.
    """
    if "jarvis" not in info.dataset_keys:
        known = [p.name for p in PROPERTIES.values() if "jarvis" in p.dataset_keys]
        raise UnknownNameError("JARVIS property", info.name, known)
    return info.dataset_keys["jarvis"]


def load_split(info: PropertyInfo, data_dir: str | Path | None = None) -> Split:
    """The leaderboard's split of a property."""
    folder = archive_path(data_dir).parent
    name = f"dft_3d_{task_key(info)}.json.zip"
    for candidate in (folder / "splits" / name, folder / name):
        if candidate.exists():
            return leaderboard_split(candidate)
    raise ReciNetError(f"{name} is neither in {folder / 'splits'} nor in {folder}")
