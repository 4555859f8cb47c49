"""What a phonon calculation gives, in the field's terms."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from recinet_ase._version import __version__
from recinet_ase.errors import UnknownNameError
from recinet_ase.phonons import files
from recinet_ase.phonons.spectra import (
    DensityOfStates,
    ImaginaryMode,
    Segment,
    ThermalProperties,
)
from recinet_ase.phonons.structure import SpaceGroup, formula

if TYPE_CHECKING:
    from ase import Atoms
    from phonopy import Phonopy


@dataclass(frozen=True)
class Phonons:
    """Phonons of a crystal.

    Attributes:
        phonopy: phonopy's own object, with force constants, for all else that phonopy does.
        structure: The relaxed crystal, conventional standard cell (A).
        primitive: Its primitive cell, in whose reciprocal vectors wave vectors are given (A).
        space_group: Its space group.
        supercell: Repetitions of ``structure``.
        points: Wave vectors of the high-symmetry points by seekpath's names.
        bands: Frequencies along the seekpath path.
        dos: Density of states.
        thermal: Thermal properties.
        gamma: Frequencies at Gamma ``[3 N]`` in THz, ascending.
        imaginary: The worst imaginary mode, or None.
        residual_force: Largest force on an atom of ``structure``, eV/A.
        pressure: Pressure on ``structure`` in GPa; None without a stress.
        steps: Steps of the relaxation; None if there was none.
        calculator: Name of the calculator.
        settings: What the calculation was asked for.
        warnings: Sentences for the user.
    """

    phonopy: Phonopy
    structure: Atoms
    primitive: Atoms
    space_group: SpaceGroup
    supercell: tuple[int, int, int]
    points: dict[str, np.ndarray]
    bands: tuple[Segment, ...]
    dos: DensityOfStates
    thermal: ThermalProperties
    gamma: np.ndarray
    imaginary: ImaginaryMode | None
    residual_force: float
    pressure: float | None
    steps: int | None
    calculator: str
    settings: dict[str, Any]
    warnings: tuple[str, ...]

    @property
    def formula(self) -> str:
        """The reduced formula."""
        return formula(self.structure)

    @property
    def highest_frequency(self) -> float:
        """The highest frequency along the path, THz."""
        return max(float(segment.frequencies.max()) for segment in self.bands)

    @property
    def lowest_frequency(self) -> float:
        """The worst imaginary mode, or else the lowest frequency at a special point, THz.

        The three acoustic modes at Gamma do not count.
        """
        if self.imaginary is not None:
            return self.imaginary.frequency
        names = [name for name in self.points if name != "GAMMA"]
        modes = [self.gamma[3:], *(self.at(name) for name in names)]
        return float(np.concatenate(modes).min())

    def frequencies(self, qpoints: npt.ArrayLike) -> np.ndarray:
        """Frequencies at any wave vectors.

        Args:
            qpoints: ``[n, 3]``, or one ``[3]``, in the primitive cell's reciprocal vectors.

        Returns:
            ``[n, 3 N]`` in THz, ascending, imaginary ones negative.
        """
        return np.array(
            self.phonopy.run_qpoints(
                np.atleast_2d(np.asarray(qpoints, dtype=np.float64))
            ).frequencies
        )

    def at(self, point: str) -> np.ndarray:
        """Frequencies ``[3 N]`` in THz at a high-symmetry point, e.g. ``"X"`` or ``"GAMMA"``.

        Raises:
            UnknownNameError: If the path has no such point.
        """
        if point not in self.points:
            spellings = {known.lower(): known for known in self.points}
            raise UnknownNameError("high-symmetry point", point, self.points, spellings)
        return self.frequencies(self.points[point])[0]

    def write(self, folder: str | Path) -> Path:
        """Write phonopy.yaml, plots, tables and a summary into a folder, and return it.

        Raises:
            ReciNetError: If the folder cannot be made.
        """
        from ase.io import write

        from recinet_ase.phonons import plots

        folder, imaginary = Path(folder), self.imaginary is not None
        title = f"{self.formula}, {self.space_group.symbol}, {self.calculator}"
        cell = self.primitive
        files.write_folder(
            folder,
            {
                files.PARAMETERS: lambda to: self.phonopy.save(to, {"force_constants": True}),
                "phonopy.yaml": lambda to: shutil.copyfile(folder / files.PARAMETERS, to),
                "relaxed.extxyz": lambda to: write(to, self.structure, format="extxyz"),
                "relaxed.cif": lambda to: write(to, self.structure, format="cif"),
                "bands.csv": lambda to: files.write_bands(self.bands, to),
                "dos.csv": lambda to: files.write_dos(self.dos, to),
                "thermal.csv": lambda to: files.write_thermal(self.thermal, to),
                "band.png": lambda to: plots.band_plot(self.bands, imaginary, title, to),
                "dos.png": lambda to: plots.dos_plot(self.dos, imaginary, title, to),
                "thermal.png": lambda to: plots.thermal_plot(
                    self.thermal, cell, imaginary, title, to
                ),
                # Written last: where it is, the folder is complete.
                files.SUMMARY: lambda to: to.write_text(
                    json.dumps(self.summary(), indent=2) + "\n", encoding="utf-8"
                ),
            },
        )
        return folder

    def summary(self) -> dict[str, Any]:
        """What ``phonons.json`` holds; keys end in their unit."""
        worst = self.imaginary
        packages = ("phonopy", "seekpath", "spglib", "ase", "numpy")
        return {
            "formula": self.formula,
            "space_group": self.space_group.symbol,
            "space_group_number": self.space_group.number,
            "calculator": self.calculator,
            "cell_lengths_A": files.rounded(self.structure.cell.lengths()),
            "cell_angles_deg": files.rounded(self.structure.cell.angles()),
            "supercell": list(self.supercell),
            "supercell_atoms": len(self.phonopy.supercell),
            "primitive_cell": self.primitive.get_chemical_formula(),
            "displacements": len(self.phonopy.displacements),
            "relaxation_steps": self.steps,
            "residual_force_eV_per_A": files.rounded(self.residual_force),
            "pressure_GPa": None if self.pressure is None else files.rounded(self.pressure),
            "frequencies_at_gamma_THz": files.rounded(self.gamma),
            "frequencies_THz": {name: files.rounded(self.at(name)) for name in self.points},
            "highest_frequency_THz": files.rounded(self.highest_frequency),
            "imaginary_mode": None
            if worst is None
            else {
                "frequency_THz": files.rounded(worst.frequency),
                "qpoint": list(worst.qpoint),
                "point": worst.label,
                "at_wave_vector_of_supercell": worst.exact,
            },
            "high_symmetry_points": {name: files.rounded(q) for name, q in self.points.items()},
            "settings": self.settings,
            "warnings": list(self.warnings),
            "versions": {"recinet-ase": __version__} | {name: version(name) for name in packages},
        }
