"""The whole road from a structure to its phonons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recinet_ase.errors import ReciNetError
from recinet_ase.phonons import harmonic
from recinet_ase.phonons.forces import (
    SavedForces,
    digest,
    displaced_forces,
    pressure_of,
    residual_force,
)
from recinet_ase.phonons.result import Phonons
from recinet_ase.phonons.structure import (
    MAX_ATOMS,
    SUPERCELL_LENGTH,
    SYMMETRY_PRECISION,
    as_crystal,
    choose_supercell,
    formula,
    symmetrise,
)
from recinet_ase.simulation.batch_forces import BatchForces, CalculatorForces
from recinet_ase.simulation.calculators import load_calculator
from recinet_ase.simulation.relaxation import RelaxationSettings
from recinet_ase.simulation.relaxation import relax as relax_structure
from recinet_ase.simulation.states import name_of, require

SHORT = 7.0
"""A supercell with a vector shorter than this (angstrom) is worth a warning."""

PRESSURE = 1.0
"""Pressure in GPa above which phonons are not those of the crystal at rest."""

Progress = Callable[[str, int, int | None], None]
"""Called with the stage (``"relaxation"``, ``"forces"``), what is done, and the total if known."""


def phonons(
    atoms: Any,
    calculator: Any = None,
    *,
    relax: bool = True,
    relax_cell: bool = True,
    fmax: float = 1e-3,
    max_steps: int = 500,
    symprec: float = SYMMETRY_PRECISION,
    supercell: Sequence[int] | None = None,
    min_length: float = SUPERCELL_LENGTH,
    max_atoms: int = MAX_ATOMS,
    distance: float = 0.01,
    mesh: float = 80.0,
    folder: str | Path | None = None,
    overwrite: bool = False,
    name: str = "",
    progress: Progress = lambda stage, done, total: None,
    message: Callable[[str], None] = lambda text: None,
) -> Phonons:
    """Phonons of a crystal by finite displacements.

    The crystal is brought into its standard cell, relaxed with its space group kept, and
    repeated; phonopy displaces atoms, the calculator gives the forces, and phonopy makes force
    constants of them that obey the space group and the acoustic sum rule.

    Args:
        atoms: ASE ``Atoms``, pymatgen ``Structure``, or a dictionary of pymatgen or JARVIS. Its
            choice of cell and orientation does not matter.
        calculator: Any ASE calculator with forces (and stress, to relax the cell). One that also
            has ``forces_of(list[Atoms])`` (`BatchForces`) is asked in batches. By default the
            shipped force model for every element.
        relax: Relax before anything else.
        relax_cell: Relax the cell along with the positions.
        fmax: Largest force in eV/A left by the relaxation.
        max_steps: Steps after which the relaxation is given up.
        symprec: Tolerance of the symmetry in angstrom.
        supercell: Repetitions of the conventional standard cell; by default as many as make
            every vector at least ``min_length`` long.
        min_length: See ``supercell``, in angstrom.
        max_atoms: Largest supercell, in atoms.
        distance: Displacement in angstrom.
        mesh: Length in angstrom that sets how densely the density of states and the thermal
            properties are sampled (phonopy's convention).
        folder: Where forces are kept as they come (in ``forces/``), so that a second call goes
            on where a first one stopped; by default nowhere.
        overwrite: Drop what another calculation left in ``folder``.
        name: What to call the calculator; by default its own name.
        progress: Called as things get done.
        message: Called with what is worth knowing on the way (space group, supercell).

    Returns:
        The phonons.

    Raises:
        StructureError: If this is no crystal, cannot be relaxed, or is not at rest.
        ReciNetError: If the calculator lacks forces or gives unusable ones, the supercell is too
            large, ``folder`` belongs to another calculation, or phonopy is missing.
    """
    harmonic.require_phonopy()
    if calculator is None:
        calculator = load_calculator()
    require(calculator, "forces", "phonons need")
    if not 0 < distance < 1:
        raise ReciNetError(f"the displacement must be between 0 and 1 A, not {distance:g}")
    if not (np.isfinite(mesh) and mesh > 0):
        raise ReciNetError(f"the mesh's length must be positive, not {mesh:g}")
    crystal = as_crystal(atoms)
    name = name or name_of(calculator)
    model = calculator if isinstance(calculator, BatchForces) else CalculatorForces(calculator)
    settings = {
        "calculator": name,
        "relax": ("cell" if relax_cell else "positions") if relax else "no",
        "fmax": fmax,
        "symprec": symprec,
        "distance": distance,
    }

    unitcell, group = symmetrise(crystal, symprec)
    message(f"{formula(crystal)}: space group {group} within {symprec:g} A")
    choose_supercell(unitcell, supercell, min_length, max_atoms)  # refuse before any work
    wish = [int(n) for n in supercell] if supercell is not None else f"{min_length:g} A"
    saved = SavedForces(
        Path(folder) / "forces" if folder else None,
        {"structure": digest(crystal), "supercell": wish, **settings},
        overwrite,
    )
    earlier = saved.unitcell()
    steps: int | None = None
    if earlier:
        unitcell, steps = earlier
    elif relax:
        found = relax_structure(
            symmetrise(crystal, symprec, primitive=True)[0],
            calculator,
            RelaxationSettings(fmax, max_steps, relax_cell, symprec=symprec),
            progress=lambda step: progress("relaxation", step, None),
        )
        steps = found.steps
        unitcell, _ = symmetrise(found.atoms, symprec)
        lengths = ", ".join(f"{x:.4f}" for x in unitcell.cell.lengths())
        message(f"relaxed in {steps} steps: a, b, c = {lengths} A")
    force = residual_force(model, unitcell)
    pressure = pressure_of(calculator, unitcell)
    if not earlier:
        saved.save_unitcell(unitcell, steps)
    _, at_rest = symmetrise(unitcell, symprec)
    if at_rest != group:
        message(f"the relaxed crystal has the space group {at_rest}")

    repeats = choose_supercell(unitcell, supercell, min_length, max_atoms)
    phonon = harmonic.build(unitcell, repeats)
    if len(phonon.supercell) == 1:
        raise ReciNetError("a supercell of one atom has no force constants; choose a larger one")
    cells = harmonic.displace(phonon, distance)
    message(
        f"supercell {'x'.join(map(str, repeats))}: {len(phonon.supercell)} atoms, "
        f"{len(cells)} displacement{'s' if len(cells) > 1 else ''}"
    )
    forces = displaced_forces(
        model, cells, saved, lambda done: progress("forces", done, len(cells))
    )
    harmonic.fit_force_constants(phonon, forces)
    bands, points = harmonic.run_bands(phonon)
    dos = harmonic.run_states(phonon, mesh)
    imaginary = harmonic.worst_imaginary_mode(phonon, bands, points)
    warnings = [str(imaginary)] if imaginary else []
    if pressure is not None and abs(pressure) > PRESSURE:
        warnings.append(f"these are phonons under a pressure of {pressure:.1f} GPa")
    shortest = float((np.array(repeats) * unitcell.cell.lengths()).min())
    if shortest < SHORT:
        warnings.append(
            f"the supercell is only {shortest:.1f} A long: forces between atoms farther apart than "
            "half of that are folded onto nearer ones"
        )
    return Phonons(
        phonopy=phonon,
        structure=unitcell,
        primitive=harmonic.as_atoms(phonon.primitive),
        space_group=at_rest,
        supercell=repeats,
        points=points,
        bands=bands,
        dos=dos,
        thermal=harmonic.run_thermal(phonon),
        gamma=np.array(phonon.run_qpoints([[0.0, 0.0, 0.0]]).frequencies[0]),
        imaginary=imaginary,
        residual_force=force,
        pressure=pressure,
        steps=steps,
        calculator=name,
        settings=settings | {"mesh": mesh},
        warnings=tuple(warnings),
    )
