"""Files full of structures to files full of relaxed ones: ``recinet relax``."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recinet_ase._version import __version__
from recinet_ase.errors import ReciNetError
from recinet_ase.inference.preparation import described
from recinet_ase.inference.result import RELAXATION
from recinet_ase.io import count_entries, find_sources
from recinet_ase.io.entries import Chunk, Entry, InputChangedError, structure_digest
from recinet_ase.models.files import replacing, write_atomic
from recinet_ase.screening.execution.chunk import ChunkRows
from recinet_ase.screening.execution.gpus import choose_devices
from recinet_ase.screening.execution.schedule import TIME_LIMIT, choose_workers
from recinet_ase.screening.execution.worker import beginning
from recinet_ase.screening.output.metadata import sidecar_path
from recinet_ase.screening.output.writers import check_file, check_output, open_writer
from recinet_ase.screening.output.writers.structures import atoms_of
from recinet_ase.screening.relaxation import RELAXED_CHUNK, WORTH, RelaxationSpec, geometry_of
from recinet_ase.screening.work import journalled, read_one_by_one

if TYPE_CHECKING:
    from ase import Atoms

    from recinet_ase.screening.journal_table import JournalTable
    from recinet_ase.screening.options import Display
    from recinet_ase.simulation.relaxation import Relaxation

COLUMNS = ("id", "formula", "natoms", "energy_per_atom", *RELAXATION, "error")
UNITS = {"natoms": "", "energy_per_atom": "eV/atom", **dict.fromkeys(RELAXATION[:2], "")}


@dataclass
class RelaxedFiles:
    """What came out.

    Attributes:
        rows: Structures read.
        written: Structures in the output.
        unfinished: Of these, those that did not come to rest.
        left_out: Id, formula and reason of the others.
        listing: File that lists them, if there are any.
    """

    rows: int = 0
    written: int = 0
    unfinished: int = 0
    left_out: list[tuple[str, str, str]] = field(default_factory=list)
    listing: Path | None = None


def relax_files(
    files: Sequence[str],
    output: str | Path,
    spec: RelaxationSpec,
    display: Display,
    *,
    selection: str | None = None,
    structure_column: str | None = None,
    id_key: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    resume: bool = False,
) -> RelaxedFiles:
    """Relax every structure of files.

    Args:
        files: Any input of ``recinet-screen``, but standard input.
        output: An extended xyz file, ASE database or another file that `open_writer` knows, or
            a folder for CIF files (a name without a suffix).
        spec: With what, and how.
        display: What is told on the way.
        selection: ASE selection string for databases.
        structure_column: Column that holds the structures of a table.
        id_key: Key that holds the identity.
        device: Torch devices, or ``"auto"``.
        workers: Worker processes; None chooses.
        resume: Go on where an earlier call stopped.

    Raises:
        ReciNetError: For an input or output that cannot be used, or anything that stops the
            work; what was done is kept and can be resumed.
    """
    output = Path(output)
    if "-" in files:
        raise ReciNetError("standard input cannot be relaxed; save it in a file first")
    written = (str(output), str(sidecar_path(output)), str(_listing(output)))
    sources = find_sources(files, selection, structure_column, passed_over=written)
    if output.suffix:
        check_output(output, sources)
    else:
        check_folder(output)
    display.note(str(spec))
    devices = choose_devices(device)
    total = count_entries(sources)
    if devices == ("cpu",):
        count = choose_workers(workers, None, None if total is None else WORTH * total)
    else:
        count = 0 if workers == 0 else len(devices)
    with journalled(
        partial(relax_chunk, spec, id_key),
        sources,
        output,
        COLUMNS,
        {"relaxation": spec.identity, "id_key": id_key},
        RELAXED_CHUNK,
        display,
        devices=devices,
        workers=count,
        time_limit=TIME_LIMIT,
        total=total,
        resume=resume,
    ) as journal:
        outcome = _write(journal.table(UNITS, sources, RELAXED_CHUNK), output)
        if output.suffix:
            about = {"recinet-ase": __version__, "relaxation": spec.identity, "units": UNITS}
            write_atomic(sidecar_path(output), (json.dumps(about, indent=1) + "\n").encode())
    return outcome


def relax_chunk(
    spec: RelaxationSpec, id_key: str | None, chunk: Chunk, device: str = "cpu"
) -> ChunkRows:
    """Read a chunk and relax its structures together."""
    beginning(math.inf)  # loading models is no structure's time
    spec.load(device)
    entries = read_one_by_one(chunk, id_key)
    found = spec.relax([entry.atoms for entry in entries], device, beginning)
    return ChunkRows(
        chunk.number,
        [_row(entry, relaxation) for entry, relaxation in zip(entries, found, strict=True)],
        sum(not entry.has_key for entry in entries),
        digests=tuple(structure_digest(entry.atoms) for entry in entries),
        geometries=tuple(map(geometry_of, found)),
    )


def _row(entry: Entry, found: Relaxation) -> dict[str, Any]:
    known = found.atoms is not None and found.energy is not None
    formula, natoms = "", 0
    if not isinstance(entry.atoms, Exception):
        formula, natoms = described(entry.atoms)
    return {
        "id": entry.id,
        "formula": formula,
        "natoms": natoms or None,
        "energy_per_atom": found.energy / natoms if known and found.energy is not None else None,
        **found.columns(),
        "error": found.reason,
    }


def _write(table: JournalTable, output: Path) -> RelaxedFiles:
    """The relaxed structures, and a list of those that there are none of."""
    outcome = RelaxedFiles(rows=len(table))
    every = table.column("energy_per_atom")
    opened = open_writer(output, COLUMNS, UNITS) if output.suffix else _open_folder(output)
    with opened as writer:
        for i, (row, entry) in enumerate(_rows_and_entries(table)):
            if every[i] != every[i]:
                outcome.left_out.append((row["id"], row["formula"], row["error"]))
                continue
            if isinstance(entry.atoms, InputChangedError):
                raise entry.atoms
            writer.write(row, entry)
            outcome.written += 1
            outcome.unfinished += not row["relaxed"]
    listing = _listing(output)
    listing.unlink(missing_ok=True)
    if outcome.left_out:
        with replacing(listing) as part, part.open("w", newline="", encoding="utf-8") as handle:
            lines = csv.writer(handle, lineterminator="\n")
            lines.writerow(("id", "formula", "reason"))
            lines.writerows(outcome.left_out)
        outcome.listing = listing
    return outcome


def _rows_and_entries(table: JournalTable) -> Iterator[tuple[dict[str, Any], Entry]]:
    import numpy as np

    every = np.arange(len(table))
    return zip(table.rows(), table.entries(every), strict=True)


def _listing(output: Path) -> Path:
    return output.with_name(f"{output.name}.left_out.csv")


def check_folder(folder: Path) -> None:
    """Look whether CIF files can be put into a folder of this name.

    Raises:
        ReciNetError: If there is something of that name, or no place for it.
    """
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    if folder.exists():
        raise ReciNetError(f"cannot write {folder}: it is there already; name a new folder")
    check_file(folder)


class _Folder:
    """A folder of CIF files, named by the ids of their rows."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: set[str] = set()

    def write(self, row: dict[str, Any], entry: Entry) -> None:
        """Add one."""
        from ase.io import write

        last = re.split(r"[/\\]", str(row["id"]))[-1]  # an id may be the path of a file
        plain = re.sub(r"[^\w.+-]+", "_", last).strip("._")[:100] or "structure"
        name, number = plain, 1
        while name.lower() in self._names:  # not every file system tells cases apart
            number += 1
            name = f"{plain}-{number}"
        self._names.add(name.lower())
        atoms: Atoms | None = atoms_of(entry)
        assert atoms is not None
        write(self._folder / f"{name}.cif", atoms, format="cif")


@contextmanager
def _open_folder(folder: Path) -> Iterator[_Folder]:
    """A folder that is there when all its files are."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        yield _Folder(part)
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
