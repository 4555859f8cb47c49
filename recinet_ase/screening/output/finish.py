"""From the rows of a finished screen to the files that were asked for."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from recinet_ase.errors import ReciNetError
from recinet_ase.io.databases import masked
from recinet_ase.io.entries import InputChangedError, Source, encodable
from recinet_ase.screening.execution.spec import provenance_lines
from recinet_ase.screening.journal import Journal
from recinet_ase.screening.journal_table import JournalTable
from recinet_ase.screening.options import ScreenOptions, ScreenOutcome
from recinet_ase.screening.output.identity import REPORTS
from recinet_ase.screening.output.metadata import references, write_sidecar
from recinet_ase.screening.output.own_hull import OwnHullTable
from recinet_ase.screening.output.writers import (
    check_file,
    check_length,
    needs_structures,
    open_writer,
)
from recinet_ase.stability.derived import SELF

if TYPE_CHECKING:
    from recinet_ase.inference.predictor import Predictor


def finish(
    journal: Journal,
    options: ScreenOptions,
    sources: Sequence[Source],
    predictor: Predictor,
    units: Mapping[str, str],
    identity: str,
    clock: float,
    command: Sequence[str],
) -> ScreenOutcome:
    """Select, write, report, and say where it all comes from.

    Args:
        journal: All rows.
        options: What was asked for.
        sources: The input.
        predictor: What gave the numbers.
        units: Unit of each column of numbers.
        identity: Digest of all that the result depends on.
        clock: `time.perf_counter` when the screen began.
        command: The command line.

    Raises:
        ReciNetError: If the input is no longer what was screened, or a file cannot be written.
    """
    table = journal.table(units, sources, journal.header["chunk"])
    hull = predictor.stability.hull if predictor.stability else None
    if hull is not None and SELF in options.hull:
        own = OwnHullTable(table, hull)
        table, hull = cast("JournalTable", own), own.hull
    selection = options.selection
    indices = selection.indices(table) if selection else None
    outcome = ScreenOutcome(
        rows=len(journal),
        errors=journal.errors,
        faults=journal.faults,
        lost=len(journal.lost),
        without_key=journal.without_key,
        table=table,
        indices=indices,
    )
    if options.output is not None or options.report is None:
        try:
            outcome.written, outcome.unwritten = _write(table, indices, options.output, units)
        except InputChangedError as error:
            rescued = f"{options.output}.rows.csv"
            _write(table, indices, rescued, units)
            raise ReciNetError(
                f"the input was changed while it was screened ({error}), so that structures and "
                f"predictions no longer belong together and {options.output} is not written. The "
                f"predictions as they were made are in {rescued}; with the input as it was, go on "
                "with --resume"
            ) from None
    ended = datetime.now(UTC)
    if options.report is not None:
        from recinet_ase.screening.output.report import write_report

        write_report(
            options.report,
            table,
            indices,
            selection=selection if selection else None,
            sources=[source.title for source in sources],
            command=encodable(shlex.join(map(masked, command))),
            provenance=provenance_lines(predictor, options.relaxation),
            seconds=time.perf_counter() - clock,
            identity=identity,
            hull=hull,
            created=f"{ended.astimezone():%Y-%m-%d %H:%M}",
        )
    if options.output is not None:
        counts = {
            "structures": outcome.rows,
            "errors": outcome.errors,
            "faults": outcome.faults,
            "lost": outcome.lost,
            "written": outcome.written,
            "unwritten": outcome.unwritten,
        }
        write_sidecar(
            options.output,
            predictor,
            sources,
            table.columns,
            units,
            counts,
            journal.started,
            ended,
            command,
            {
                "references": None if hull is None else references(hull),
                "screen": identity,
                "relaxation": journal.header.get("relaxation"),
                "seconds": round(time.perf_counter() - clock, 3),
                "selection": selection.explain(table.columns, units),
            },
        )
    return outcome


def check_report(path: Path) -> None:
    """Look for what would stop the report, before any work is done.

    Raises:
        ReciNetError: For another suffix than that of a page, and whatever `check_file` finds.
    """
    if path.suffix.lower() not in REPORTS:
        raise ReciNetError(f"cannot write {path}: a report's suffix must be .html")
    check_length(path)
    check_file(path)


def _write(
    table: JournalTable, indices: np.ndarray | None, output: str | None, units: Mapping[str, str]
) -> tuple[int, int]:
    """Rows written, and rows that the format could not hold."""
    written = 0
    with open_writer(output, table.columns, units) as writer:
        if needs_structures(output):
            chosen = np.arange(len(table)) if indices is None else indices
            for row, entry in zip(table.rows(chosen), table.entries(chosen), strict=True):
                if isinstance(entry.atoms, InputChangedError):
                    raise entry.atoms
                if entry.id != row["id"]:
                    raise InputChangedError(f"row {row['id']} is {entry.id} now")
                writer.write(row, entry)
                written += 1
        else:
            for row in table.rows(indices):
                writer.write(row)
                written += 1
        unwritten = writer.unwritten
    return written - unwritten, unwritten
