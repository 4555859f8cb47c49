"""Downloads through the packages that people fetch these datasets with.

Both are optional (``pip install recinet-ase[datasets]``) and imported only when a file is
missing. A file appears under its own name once it is complete.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

from recinet_ase.errors import ReciNetError


def fetch_jarvis(release: str, path: Path) -> Path:
    """Fetch an archive with jarvis-tools.

    Args:
        release: jarvis-tools' name, e.g. ``"dft_3d_2021"``.
        path: Where the file belongs; its name is the publisher's.

    Returns:
        ``path``.

    Raises:
        ReciNetError: If jarvis-tools is not installed or the download fails.
    """
    try:
        from jarvis.db.figshare import data
    except ImportError:
        raise _missing(path, "jarvis-tools") from None
    return _fetch(path, lambda folder: data(release, store_dir=folder))


def fetch_matminer(name: str, path: Path) -> Path:
    """A MatBench dataset from matminer: what it has already, or fetched (see `fetch_jarvis`).

    Returns:
        ``path``, or the file in matminer's own folder (``MATMINER_DATA``, or that of the
        package).
    """
    homes = [Path(os.environ["MATMINER_DATA"])] if os.environ.get("MATMINER_DATA") else []
    try:
        from matminer import datasets
        from matminer.datasets import load_dataset
    except ImportError:
        load_dataset = None
    else:
        homes += [Path(folder) for folder in getattr(datasets, "__path__", ())]
    for home in homes:
        if (home / path.name).is_file():
            return home / path.name
    if load_dataset is None:
        raise _missing(path, "matminer")
    return _fetch(path, lambda folder: load_dataset(name, data_home=folder))


def _missing(path: Path, package: str) -> ReciNetError:
    return ReciNetError(
        f"{path.name} is neither in {path.parent} nor in {path.parent.parent}; put it there, or "
        f"install {package} to have it fetched (pip install 'recinet-ase[datasets]')"
    )


def _fetch(path: Path, download: Callable[[str], object]) -> Path:
    """Download a file into a folder of its own, then put it in its place."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Both packages print progress to stdout, where results belong.
        with (
            TemporaryDirectory(dir=path.parent, prefix=".download-") as folder,
            redirect_stdout(sys.stderr),
        ):
            download(folder)
            (Path(folder) / path.name).replace(path)
    except Exception as error:
        raise ReciNetError(
            f"could not fetch {path.name} ({type(error).__name__}: {error}); put the file into "
            f"{path.parent}"
        ) from None
    return path


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
