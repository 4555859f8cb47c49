"""From forces to frequencies: phonopy's force constants, bands, states, thermal properties."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from recinet_ase.errors import ReciNetError
from recinet_ase.phonons.spectra import (
    DensityOfStates,
    ImaginaryMode,
    Segment,
    ThermalProperties,
)
from recinet_ase.phonons.structure import is_gamma

if TYPE_CHECKING:
    from ase import Atoms
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

IMAGINARY = -0.05
"""Frequencies below this (THz) count as imaginary; rounding makes smaller ones near Gamma."""

_BAND_POINTS = 101
"""Wave vectors on the longest segment of the band path; the others in proportion."""

_DOS_POINTS = 400
_CUTOFF = 1e-3
"""Frequency (THz) under which a mode (acoustic at Gamma) has no part in thermal properties."""


def require_phonopy() -> None:
    """Say what is missing before any work is done.

    Raises:
        ReciNetError: If phonopy or seekpath is not installed.
    """
    try:
        import phonopy  # noqa: F401
        import seekpath  # noqa: F401
    except ImportError as error:
        raise ReciNetError(
            f"phonons need phonopy and seekpath ({error}): pip install 'recinet-ase[phonopy]'"
        ) from None


def build(unitcell: Atoms, supercell: tuple[int, int, int]) -> Phonopy:
    """Phonopy's object for a conventional standard cell."""
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms
    from phonopy.structure.cells import guess_primitive_matrix

    cell = PhonopyAtoms(
        numbers=unitcell.numbers,
        cell=unitcell.cell.array,
        scaled_positions=unitcell.get_scaled_positions(),
    )
    return Phonopy(
        cell,
        supercell_matrix=np.diag(supercell),
        primitive_matrix=guess_primitive_matrix(cell),
    )


def displace(phonon: Phonopy, distance: float) -> list[Atoms]:
    """The displaced supercells that determine all force constants.

    Args:
        phonon: phonopy's object; it keeps the displacements.
        distance: Displacement in angstrom.
    """
    phonon.generate_displacements(distance=distance)
    return [as_atoms(cell) for cell in phonon.supercells_with_displacements or []]


def as_atoms(cell: PhonopyAtoms) -> Atoms:
    """ASE's form of phonopy's cell."""
    from ase import Atoms

    return Atoms(
        numbers=cell.numbers, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True
    )


def fit_force_constants(phonon: Phonopy, forces: Sequence[np.ndarray]) -> None:
    """Force constants that obey space group, index symmetry and the acoustic sum rule.

    Args:
        phonon: phonopy's object with displacements; it keeps forces and force constants.
        forces: Forces ``[N, 3]`` in eV/A on each displaced supercell.
    """
    phonon.forces = np.array(forces)
    phonon.produce_force_constants(calculate_full_force_constants=False, show_drift=False)
    phonon.symmetrize_force_constants(use_symfc_projector=True, show_drift=False)


def run_bands(phonon: Phonopy) -> tuple[tuple[Segment, ...], dict[str, np.ndarray]]:
    """Frequencies along the path of seekpath (Hinuma et al., 2017), and its special points."""
    import seekpath
    from phonopy.phonon.band_structure import get_band_qpoints

    primitive = phonon.primitive
    # The points in terms of phonopy's cell, which in some lattices is not seekpath's.
    found = seekpath.get_path_orig_cell(primitive.totuple(), symprec=1e-4)
    names = dict.fromkeys(name for ends in found["path"] for name in ends)
    points = {name: np.array(found["point_coords"][name], dtype=np.float64) for name in names}
    qpoints = get_band_qpoints(
        [[points[start], points[end]] for start, end in found["path"]],
        npoints=_BAND_POINTS,
        rec_lattice=np.linalg.inv(primitive.cell).astype(np.float64),
    )
    bands = phonon.run_band_structure(qpoints)
    pieces = zip(found["path"], bands.qpoints, bands.distances, bands.frequencies, strict=True)
    segments = tuple(
        Segment(start, end, np.array(q), np.array(distances), np.array(frequencies))
        for (start, end), q, distances, frequencies in pieces
    )
    return segments, points


def run_states(phonon: Phonopy, mesh: float) -> DensityOfStates:
    """Density of states by the tetrahedron method.

    Args:
        phonon: phonopy's object with force constants; it keeps the mesh.
        mesh: Length in angstrom that sets the density of wave vectors (phonopy).
    """
    sampled = phonon.run_mesh(mesh)
    low, high = float(sampled.frequencies.min()), float(sampled.frequencies.max())
    margin = 0.03 * max(high - low, 1e-3)
    low = min(low - margin, 0.0) if low < IMAGINARY else 0.0
    high += margin
    states = phonon.run_total_dos(
        freq_min=low, freq_max=high, freq_pitch=(high - low) / _DOS_POINTS
    )
    return DensityOfStates(np.array(states.frequency_points), np.array(states.dos))


def run_thermal(phonon: Phonopy, maximum: float = 1000.0, step: float = 10.0) -> ThermalProperties:
    """Thermal properties from the mesh of `run_states`, from 0 K to ``maximum`` (K)."""
    found = phonon.run_thermal_properties(
        t_min=0, t_max=maximum, t_step=step, cutoff_frequency=_CUTOFF
    )
    return ThermalProperties(
        *(
            np.array(column)
            for column in (
                found.temperatures, found.free_energy, found.entropy, found.heat_capacity,
            )
        )
    )  # fmt: skip


def worst_imaginary_mode(
    phonon: Phonopy, bands: Sequence[Segment], points: dict[str, np.ndarray]
) -> ImaginaryMode | None:
    """The lowest frequency on mesh, path and the supercell's own wave vectors, if imaginary.

    Three modes at Gamma are the acoustic ones and do not count.
    """
    fitting = _fitting_qpoints(phonon)
    fitting_frequencies = np.array(phonon.run_qpoints(fitting).frequencies)
    mesh = phonon.mesh
    qpoints = np.concatenate([fitting, mesh.qpoints, *(b.qpoints for b in bands)])  # type: ignore[union-attr]
    frequencies = np.concatenate(
        [fitting_frequencies, mesh.frequencies, *(b.frequencies for b in bands)]  # type: ignore[union-attr]
    )
    lowest = _without_acoustic(qpoints, frequencies).min(axis=1)
    at = int(lowest.argmin())
    if not lowest[at] < IMAGINARY:
        return None
    # The same wave vector may be there several times: prefer the one with a name.
    near = np.flatnonzero(lowest < lowest[at] + 1e-4)
    names = {int(i): _label(qpoints[i], points) for i in near}
    at = next((i for i, name in names.items() if name), at)
    exact = bool((_without_acoustic(fitting, fitting_frequencies) < IMAGINARY).any())
    q = qpoints[at]
    return ImaginaryMode(
        float(lowest[at]), (float(q[0]), float(q[1]), float(q[2])), names[at], exact
    )


def _fitting_qpoints(phonon: Phonopy) -> np.ndarray:
    """The wave vectors ``[n, 3]`` whose waves repeat in the supercell."""
    from phonopy.harmonic.dynmat_to_fc import get_commensurate_points

    matrix = np.linalg.solve(phonon.primitive_matrix, phonon.supercell_matrix)
    return np.array(get_commensurate_points(np.rint(matrix).astype(np.int64)))


def _without_acoustic(qpoints: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """The frequencies, with the three smallest at Gamma set to zero."""
    kept = frequencies.copy()
    for i in np.flatnonzero(is_gamma(qpoints)):
        kept[i, np.argsort(np.abs(kept[i]))[:3]] = 0.0
    return kept


def _label(qpoint: np.ndarray, points: dict[str, np.ndarray]) -> str:
    for name, point in points.items():
        if is_gamma(qpoint[None] - point)[0]:
            return name
    return ""
