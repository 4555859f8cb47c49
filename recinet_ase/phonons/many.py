"""Phonons of many structures: one table of what is most asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recinet_ase.errors import fault_of, reason_of
from recinet_ase.inference.preparation import described
from recinet_ase.io import count_entries, find_sources
from recinet_ase.io.entries import Chunk
from recinet_ase.phonons.calculation import phonons
from recinet_ase.screening.execution.chunk import ChunkRows
from recinet_ase.screening.execution.gpus import choose_devices
from recinet_ase.screening.execution.schedule import choose_workers
from recinet_ase.screening.execution.worker import beginning
from recinet_ase.screening.output.metadata import sidecar_path
from recinet_ase.screening.output.writers import check_output, open_writer
from recinet_ase.screening.relaxation import RelaxationSpec
from recinet_ase.screening.work import journalled, read_one_by_one

if TYPE_CHECKING:
    from recinet_ase.phonons.result import Phonons
    from recinet_ase.screening.options import Display

UNITS = {
    "natoms": "",
    "volume": "A^3/atom",
    "relax_steps": "",
    "supercell_atoms": "",
    "lowest_mode": "THz",
    "highest_mode": "THz",
    "heat_capacity": "J/K/mol",
}
"""Numbers of a row and their units; the heat capacity is that of a mole of formula units."""

COLUMNS = ("id", "formula", "space_group", *UNITS, "warnings", "error")

TEMPERATURE = 300.0
"""Of the heat capacity, K."""

_WORTH = 1000  # structures that are only judged, in the time of one with phonons


def phonon_table(
    files: Sequence[str],
    output: str | Path,
    calculator: str,
    settings: Mapping[str, Any],
    display: Display,
    *,
    selection: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    resume: bool = False,
) -> tuple[int, int]:
    """Phonons of every structure of files, as a table.

    Args:
        files: Any input of ``recinet-screen``, but standard input.
        output: A table (``.csv``, ``.jsonl``, ``.parquet``).
        calculator: As `recinet_ase.simulation.calculators.load_calculator` takes it.
        settings: Arguments of `recinet_ase.phonons.phonons`.
        display: What is told on the way.
        selection: ASE selection string for databases.
        device: Torch devices, or ``"auto"``.
        workers: Worker processes; None chooses.
        resume: Go on where an earlier call stopped.

    Returns:
        Rows, and rows with an error.

    Raises:
        ReciNetError: For an input or output that cannot be used, or anything that stops the
            work; what was done is kept and can be resumed.
    """
    output = Path(output)
    sources = find_sources(files, selection, passed_over=(str(output), str(sidecar_path(output))))
    check_output(output, sources)
    devices = choose_devices(device)
    total = count_entries(sources)
    if devices == ("cpu",):
        count = choose_workers(workers, None, None if total is None else _WORTH * total)
    else:
        count = 0 if workers == 0 else len(devices)
    identity = {**RelaxationSpec(calculator).identity, **settings}
    with journalled(
        partial(phonon_rows, calculator, dict(settings)),
        sources,
        output,
        COLUMNS,
        {"phonons": identity},
        1,
        display,
        devices=devices,
        workers=count,
        time_limit=math.inf,
        total=total,
        resume=resume,
    ) as journal:
        rows, errors = len(journal), journal.errors
        with open_writer(output, COLUMNS, UNITS) as writer:
            for row in journal.table(UNITS, sources, 1).rows():
                writer.write(row)
    return rows, errors


def phonon_rows(
    calculator: str, settings: Mapping[str, Any], chunk: Chunk, device: str = "cpu"
) -> ChunkRows:
    """Read a chunk and calculate phonons, structure after structure; errors included."""
    beginning(math.inf)
    loaded = RelaxationSpec(calculator).load(device)
    rows, faults = [], []
    for place, entry in enumerate(read_one_by_one(chunk)):
        row: dict[str, Any] = dict.fromkeys(COLUMNS) | {"id": entry.id, "error": ""}
        try:
            if isinstance(entry.atoms, Exception):
                raise entry.atoms
            row["formula"], _ = described(entry.atoms)
            beginning(1, place)
            row |= summary(phonons(entry.atoms, loaded, name=calculator, **settings))
        except Exception as error:  # one structure must not cost the others theirs
            row["error"] = reason_of(error)
            if fault := fault_of(error):
                faults.append((place, fault))
        rows.append(row)
    return ChunkRows(chunk.number, rows, faults=tuple(faults))


def summary(found: Phonons) -> dict[str, Any]:
    """What a row says of a crystal's phonons."""
    from recinet_ase.formula import count_elements

    natoms = len(found.primitive)
    units = natoms / sum(count_elements(found.formula).values())
    at = int(np.abs(found.thermal.temperatures - TEMPERATURE).argmin())
    return {
        "space_group": str(found.space_group),
        "natoms": natoms,
        "volume": found.primitive.get_volume() / natoms,
        "relax_steps": found.steps,
        "supercell_atoms": len(found.phonopy.supercell),
        "lowest_mode": found.lowest_frequency,
        "highest_mode": found.highest_frequency,
        "heat_capacity": float(found.thermal.heat_capacity[at]) / units,
        "warnings": "; ".join(found.warnings),
    }
