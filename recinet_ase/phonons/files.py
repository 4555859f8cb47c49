"""The output folder: phonopy's file, plots, tables, a summary."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from recinet_ase._version import __version__
from recinet_ase.errors import ReciNetError
from recinet_ase.phonons import plots

if TYPE_CHECKING:
    from recinet_ase.phonons.result import Phonons

PARAMETERS = "phonopy_params.yaml"
"""Phonopy's name for a file of all it needs; it overwrites ``phonopy.yaml`` where it runs."""

SUMMARY = "phonons.json"
"""Written last: where it is, the folder is complete."""


def write_folder(phonons: Phonons, folder: Path) -> Path:
    """Write everything; each file appears whole or not at all.

    Args:
        phonons: The result.
        folder: Made if needed.

    Returns:
        The folder.

    Raises:
        ReciNetError: If the folder cannot be made.
    """
    from ase.io import write

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReciNetError(f"cannot make the folder {folder}: {error.strerror}") from None
    (folder / SUMMARY).unlink(missing_ok=True)
    writers: dict[str, Callable[[Path], Any]] = {
        PARAMETERS: lambda path: phonons.phonopy.save(path, {"force_constants": True}),
        "phonopy.yaml": lambda path: shutil.copyfile(folder / PARAMETERS, path),
        "relaxed.extxyz": lambda path: write(path, phonons.structure, format="extxyz"),
        "relaxed.cif": lambda path: write(path, phonons.structure, format="cif"),
        "bands.csv": lambda path: _write_table(path, *_bands(phonons)),
        "dos.csv": lambda path: _write_table(
            path,
            ["frequency (THz)", "states (1/THz per primitive cell)"],
            zip(phonons.dos.frequencies, phonons.dos.states, strict=True),
        ),
        "thermal.csv": lambda path: _write_table(path, *_thermal(phonons)),
        "band.png": lambda path: plots.band_plot(phonons, path),
        "dos.png": lambda path: plots.dos_plot(phonons, path),
        "thermal.png": lambda path: plots.thermal_plot(phonons, path),
        SUMMARY: lambda path: path.write_text(
            json.dumps(summary(phonons), indent=2) + "\n", encoding="utf-8"
        ),
    }
    with TemporaryDirectory(prefix=".part-", dir=folder) as unfinished:
        for name, writer in writers.items():
            part = Path(unfinished) / name
            writer(part)
            part.replace(folder / name)
    return folder


def summary(phonons: Phonons) -> dict[str, Any]:
    """What ``phonons.json`` holds; keys end in their unit."""
    worst = phonons.imaginary
    packages = ("phonopy", "seekpath", "spglib", "ase", "numpy")
    return {
        "formula": phonons.formula,
        "space_group": phonons.space_group.symbol,
        "space_group_number": phonons.space_group.number,
        "calculator": phonons.calculator,
        "cell_lengths_A": _rounded(phonons.structure.cell.lengths()),
        "cell_angles_deg": _rounded(phonons.structure.cell.angles()),
        "supercell": list(phonons.supercell),
        "supercell_atoms": len(phonons.phonopy.supercell),
        "primitive_cell": phonons.primitive.get_chemical_formula(),
        "displacements": len(phonons.phonopy.displacements),
        "relaxation_steps": phonons.steps,
        "residual_force_eV_per_A": _rounded(phonons.residual_force),
        "pressure_GPa": None if phonons.pressure is None else _rounded(phonons.pressure),
        "frequencies_at_gamma_THz": _rounded(phonons.gamma),
        "frequencies_THz": {name: _rounded(phonons.at(name)) for name in phonons.points},
        "highest_frequency_THz": _rounded(phonons.highest_frequency),
        "imaginary_mode": None
        if worst is None
        else {
            "frequency_THz": _rounded(worst.frequency),
            "qpoint": list(worst.qpoint),
            "point": worst.label,
            "at_wave_vector_of_supercell": worst.exact,
        },
        "high_symmetry_points": {name: _rounded(q) for name, q in phonons.points.items()},
        "settings": phonons.settings,
        "warnings": list(phonons.warnings),
        "versions": {"recinet-ase": __version__} | {name: version(name) for name in packages},
    }


def _bands(phonons: Phonons) -> tuple[list[str], Iterator[list[Any]]]:
    """Header and rows of the table of bands."""
    modes = phonons.bands[0].frequencies.shape[1]
    header = ["point", "q1", "q2", "q3", "distance (1/A)"]
    header += [f"mode {i + 1} (THz)" for i in range(modes)]

    def rows() -> Iterator[list[Any]]:
        for segment in phonons.bands:
            names = {0: segment.start, len(segment.qpoints) - 1: segment.end}
            pieces = zip(segment.qpoints, segment.distances, segment.frequencies, strict=True)
            for i, (q, distance, frequencies) in enumerate(pieces):
                yield [names.get(i, ""), *q, distance, *frequencies]

    return header, rows()


def _thermal(phonons: Phonons) -> tuple[list[str], Iterable[Sequence[float]]]:
    """Header and rows of the table of thermal properties."""
    thermal = phonons.thermal
    columns = (thermal.temperatures, thermal.free_energy, thermal.entropy, thermal.heat_capacity)
    header = [
        "temperature (K)",
        "free energy (kJ/mol of primitive cells)",
        "entropy (J/K/mol of primitive cells)",
        "heat capacity (J/K/mol of primitive cells)",
    ]
    return header, zip(*columns, strict=True)


def _write_table(path: Path, header: list[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle, lineterminator="\n")
        table.writerow(header)
        table.writerows(
            [v if isinstance(v, str) else f"{_rounded(v):.6f}" for v in row] for row in rows
        )


def _rounded(values: Any) -> Any:
    """Plain numbers with six decimals, no minus before zero."""
    return (np.round(np.asarray(values, dtype=np.float64), 6) + 0.0).tolist()
