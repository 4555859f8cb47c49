"""mlearn (Zuo 2020): strained, defective and molten cells of six elements, PBE.

``<data>/mlearn/<Element>.json.gz``, a list of records in the format of ALIGNN's
``id_prop.json``. Energies are VASP's total energies per atom: relative to its reference
atoms, neither to free atoms nor to the elements (bcc Mo is at -10.85 eV/atom), and no
energies of formation. The functional differs from JARVIS', so do the numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recinet_ase.data.fetch import data_root
from recinet_ase.data.table import TableDataset
from recinet_ase.errors import ReciNetError
from recinet_ase.io.rows import Row, read_rows
from recinet_ase.properties import PROPERTIES

ELEMENTS = ("Cu", "Ge", "Li", "Mo", "Ni", "Si")
NAMES = ("mlearn", *(f"mlearn_{symbol}" for symbol in ELEMENTS))
_ENERGY = "total_energy"


@dataclass(frozen=True)
class Configuration:
    """One calculation, as the file states it.

    Attributes:
        id: E.g. ``"Si-12"``.
        structure: JARVIS ``Atoms`` dictionary.
        energy: Total energy in eV/atom.
        forces: ``[N, 3]`` in eV/angstrom, in the order of the structure's atoms.
        stress: ``[6]`` as in the file, whose unit, sign and order of components it does not
            state.
    """

    id: str
    structure: dict[str, Any]
    energy: float
    forces: np.ndarray
    stress: np.ndarray


class MLearn(TableDataset):
    """All six elements (``"mlearn"``) or one (``"mlearn_Si"``).

    The files mark no test set; the default split is random. Many configurations are snapshots
    of one run of molecular dynamics, so a random split says how well a model interpolates.

    Args:
        name: One of `NAMES`.
        data_dir: Data folder, else ``RECINET_DATA_DIR``.

    Raises:
        ReciNetError: If a file is missing or broken.
    """

    def __init__(self, name: str, data_dir: str | Path | None = None) -> None:
        folder = data_root(data_dir) / "mlearn"
        symbols = ELEMENTS if name == "mlearn" else (name.removeprefix("mlearn_"),)
        rows: list[Row] = []
        paths = [_find(folder, symbol) for symbol in symbols]
        for symbol, path in zip(symbols, paths, strict=True):
            rows += [replace(row, id=f"{symbol}-{row.id}") for row in read_rows(path)[0]]
        super().__init__(name, rows, paths, _ENERGY, PROPERTIES["total_energy"], functional="PBE")

    def configurations(self) -> Iterator[Configuration]:
        """Structure, energy, forces and stress of every usable row, unconverted.

        Raises:
            ReciNetError: If a row has no forces or stress, or not one force for each atom.
        """
        for key, energy in self._labels.items():
            row = self._rows[key]
            atoms = row.read()
            forces = np.asarray(row.values.get("forces", ()), dtype=np.float64)
            stress = np.asarray(row.values.get("stresses", ()), dtype=np.float64)
            if forces.shape != (len(atoms["elements"]), 3) or stress.shape != (6,):
                raise ReciNetError(
                    f"{self.name}: {key} has forces {forces.shape} and stress {stress.shape} for "
                    f"{len(atoms['elements'])} atoms"
                )
            yield Configuration(key, atoms, energy, forces, stress)


def _find(folder: Path, symbol: str) -> Path:
    for path in (folder / f"{symbol}.json.gz", folder / f"{symbol}.json"):
        if path.exists():
            return path
    raise ReciNetError(
        f"{symbol}.json.gz is not in {folder}: it is a json list of records with 'jid', 'atoms', "
        "'total_energy', 'forces' and 'stresses' (docs/reference/data.md)"
    )
