"""Structures without labels, for a teacher's labels to be put on."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from recinet_ase.data.dataset import Dataset
from recinet_ase.data.fetch import data_root
from recinet_ase.errors import ReciNetError
from recinet_ase.graph.crystal import Crystal
from recinet_ase.properties import PropertyInfo

UNLABELLED = {"mp-unlabelled": ("mp", "unlabelled-2025.npz")}
"""Folder under the data root and file of each, by name."""

_KEYS = ("mp_id", "n_atoms", "numbers", "frac_coords", "lattice")


class Unlabelled(Dataset):
    """Crystals in one npz file of flat arrays.

    The arrays (S crystals, N atoms): ``mp_id`` ``[S]``, ``n_atoms`` ``[S]``, ``numbers`` ``[N]``,
    ``frac_coords`` ``[N, 3]`` and ``lattice`` ``[S, 3, 3]`` (vectors as rows, angstrom).

    Args:
        name: A key of `UNLABELLED`.
        data_dir: Data folder, else ``RECINET_DATA_DIR``.
    """

    properties = ()

    def __init__(self, name: str, data_dir: str | Path | None = None) -> None:
        self.name, self.data_dir = name, data_dir

    def source_files(self) -> list[Path]:
        """The npz file."""
        folder, file = UNLABELLED[self.name]
        root = data_root(self.data_dir)
        for path in (root / folder / file, root / file):
            if path.exists():
                return [path]
        raise ReciNetError(f"{file} is neither in {root / folder} nor in {root}")

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        [path] = self.source_files()
        try:
            with np.load(path) as data:
                return {key: data[key] for key in _KEYS}
        except (ValueError, KeyError, OSError) as error:
            raise ReciNetError(f"{path} is not the {self.name} archive ({error})") from None

    def _ids(self) -> list[str]:
        return [f"mp-{number}" for number in self._arrays["mp_id"].tolist()]

    def ids(self) -> set[str]:
        """Ids of all crystals."""
        return set(self._ids())

    def structures(self) -> Iterator[tuple[str, Any]]:
        """Id and `Crystal` of each, in file order."""
        a = self._arrays
        ends = np.cumsum(a["n_atoms"], dtype=np.int64)
        starts = ends - a["n_atoms"]
        for i, key in enumerate(self._ids()):
            rows = slice(starts[i], ends[i])
            try:
                crystal = Crystal.from_arrays(
                    a["numbers"][rows], a["frac_coords"][rows], a["lattice"][i]
                )
            except ReciNetError as error:
                yield key, error
            else:
                yield key, crystal

    def labels(self, info: PropertyInfo) -> dict[str, float]:
        """There are none: every property is refused."""
        self.info(info.name)
        return {}
