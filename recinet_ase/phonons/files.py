"""The output folder: files that appear whole or not at all, and its tables."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from recinet_ase.errors import ReciNetError
from recinet_ase.phonons.spectra import DensityOfStates, Segment, ThermalProperties

PARAMETERS = "phonopy_params.yaml"
"""Phonopy's name for a file of all it needs; it overwrites ``phonopy.yaml`` where it runs."""

SUMMARY = "phonons.json"


def write_folder(folder: Path, writers: Mapping[str, Callable[[Path], Any]]) -> None:
    """Write files into a folder, in order; each appears whole or not at all.

    Args:
        folder: Made if needed; a summary of an earlier calculation is removed first.
        writers: What writes each file, by its name.

    Raises:
        ReciNetError: If the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReciNetError(f"cannot make the folder {folder}: {error.strerror}") from None
    (folder / SUMMARY).unlink(missing_ok=True)
    with TemporaryDirectory(prefix=".part-", dir=folder) as unfinished:
        for name, writer in writers.items():
            part = Path(unfinished) / name
            writer(part)
            part.replace(folder / name)


def write_bands(bands: Sequence[Segment], path: Path) -> None:
    """Write the table of bands: a row a wave vector, a column a mode."""
    modes = bands[0].frequencies.shape[1]
    header = ["point", "q1", "q2", "q3", "distance (1/A)"]
    header += [f"mode {i + 1} (THz)" for i in range(modes)]
    rows: list[list[Any]] = []
    for segment in bands:
        names = {0: segment.start, len(segment.qpoints) - 1: segment.end}
        pieces = zip(segment.qpoints, segment.distances, segment.frequencies, strict=True)
        for i, (q, distance, frequencies) in enumerate(pieces):
            rows.append([names.get(i, ""), *q, distance, *frequencies])
    _write_table(path, header, rows)


def write_dos(dos: DensityOfStates, path: Path) -> None:
    """Write the table of the density of states."""
    header = ["frequency (THz)", "states (1/THz per primitive cell)"]
    _write_table(path, header, zip(dos.frequencies, dos.states, strict=True))


def write_thermal(thermal: ThermalProperties, path: Path) -> None:
    """Write the table of thermal properties."""
    columns = (thermal.temperatures, thermal.free_energy, thermal.entropy, thermal.heat_capacity)
    header = [
        "temperature (K)",
        "free energy (kJ/mol of primitive cells)",
        "entropy (J/K/mol of primitive cells)",
        "heat capacity (J/K/mol of primitive cells)",
    ]
    _write_table(path, header, zip(*columns, strict=True))


def _write_table(path: Path, header: list[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle, lineterminator="\n")
        table.writerow(header)
        table.writerows(
            [v if isinstance(v, str) else f"{rounded(v):.6f}" for v in row] for row in rows
        )


def rounded(values: Any) -> Any:
    """Plain numbers with six decimals, no minus before zero."""
    return (np.round(np.asarray(values, dtype=np.float64), 6) + 0.0).tolist()
