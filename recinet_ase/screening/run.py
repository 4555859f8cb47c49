"""A whole screen: from the input, over the journal, to the files that the user asked for."""

from __future__ import annotations

import shlex
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from recinet_ase.errors import ReciNetError
from recinet_ase.properties import PropertyInfo
from recinet_ase.screening import engine
from recinet_ase.screening.devices import choose_devices
from recinet_ase.screening.entries import InputChangedError, Source
from recinet_ase.screening.finished import REPORTS, is_complete, screen_identity
from recinet_ase.screening.journal import Journal, JournalTable, journal_folder
from recinet_ase.screening.pipeline import (
    TIME_LIMIT,
    Backend,
    choose_workers,
    make_backend,
    run,
)
from recinet_ase.screening.selection import Selection
from recinet_ase.screening.sidecar import models, sidecar_path, write_sidecar
from recinet_ase.screening.sources import chunks, count_entries, find_sources, fingerprint
from recinet_ase.screening.sources.databases import masked
from recinet_ase.screening.workers import warm_up
from recinet_ase.screening.writers import check_output, needs_structures, open_writer

if TYPE_CHECKING:
    from recinet_ase.predictor import Predictor

CHUNK = 512
"""Entries of a chunk: the unit of work, of the journal and of what a kill can cost."""

_STDIN_COPY = "stdin"


@dataclass(frozen=True)
class ScreenOptions:
    """What the user asked for.

    Attributes:
        files: Inputs, as `recinet_ase.screening.sources.find_sources` takes them.
        infos: Wanted properties; all that the models predict if None.
        models: Names or folders of models.
        output: Result file, or None for csv on standard output.
        report: Html report, or None.
        selection: Which rows, in what order.
        intervals: Give 90 % intervals and say whether a crystal is in the models' domain.
        id_key: Key that holds the identity.
        ase_selection: ASE selection string for databases.
        structure_column: Column that holds the structures of a table.
        stdin_format: Format of standard input.
        device: Torch devices, comma-separated, or ``"auto"``: every GPU, else the CPU.
        batch_size: Crystals a batch or ``"auto"``.
        workers: Worker processes; None chooses.
        scheduler: ``"local"`` or the address of a Dask scheduler.
        time_limit: Seconds a structure may take, which needs a worker process; None is
            `TIME_LIMIT` where there are any.
        resume: Go on where an earlier run stopped.
    """

    files: tuple[str, ...]
    infos: list[PropertyInfo] | None = None
    models: tuple[str, ...] = ()
    output: str | None = None
    report: str | None = None
    selection: Selection = field(default_factory=Selection)
    intervals: bool = False
    id_key: str | None = None
    ase_selection: str | None = None
    structure_column: str | None = None
    stdin_format: str | None = None
    device: str | None = None
    batch_size: int | str = "auto"
    workers: int | None = None
    scheduler: str | None = None
    time_limit: float | None = None
    resume: bool = False


class Display(Protocol):
    """What a screen tells while it runs."""

    def note(self, line: str) -> None:
        """Something to know."""

    def progress(self, total: int | None, done: int) -> AbstractContextManager[Callback]:
        """A bar that starts at ``done``; yields a function that takes further rows done."""


class Callback(Protocol):
    """Takes numbers of rows done."""

    def __call__(self, rows: int, /) -> None:
        """So many more."""


@dataclass
class Outcome:
    """What came out.

    Attributes:
        rows: Structures screened.
        errors: Rows with an error.
        without_key: Entries that lack the user's id key.
        written: Rows of the output.
        left_out: Selected rows that the output's format could not hold.
        table: All rows, while the screen's files are there.
        indices: The rows selected, or None if no selection was asked for.
        was_complete: There was nothing to resume: the output is this screen's result.
    """

    rows: int = 0
    errors: int = 0
    without_key: int = 0
    written: int = 0
    left_out: int = 0
    table: JournalTable | None = None
    indices: np.ndarray | None = None
    was_complete: bool = False


@contextmanager
def run_screen(
    options: ScreenOptions, display: Display, command: Sequence[str]
) -> Iterator[Outcome]:
    """Screen and write the files; what came out is given while its table can still be read.

    Everything that can be known to fail fails before the first structure is read.

    Raises:
        ReciNetError: For wrong options, an input or output that cannot be used, or anything
            that stops the screen; what was done is kept and can be resumed.
    """
    if options.output is not None:
        check_output(options.output)
    if options.report is not None:
        _check_report(Path(options.report))
    if options.resume and options.output is None and options.report is None:
        raise ReciNetError("rows on standard output cannot be resumed; give a file with -o")
    with tempfile.TemporaryDirectory(prefix="recinet-screen-") as scratch:
        target = options.output or options.report
        folder = Path(scratch) / "rows" if target is None else journal_folder(Path(target))
        sources = _sources(options, Path(scratch))
        if options.output is not None:
            check_output(options.output, sources)
        total = count_entries(sources)
        limited = options.time_limit is not None
        devices = choose_devices(options.device, options.scheduler is not None)
        if choose_workers(options.workers, options.scheduler, total, limited=limited):
            warm_up()  # while this process loads torch and the models
        spec = engine.choose_spec(
            options.infos,
            options.models,
            devices,
            options.batch_size,
            options.intervals or options.selection.confident,
            options.id_key,
        )
        predictor = engine.loaded(spec)
        names, units = engine.columns(predictor), engine.units(predictor)
        options.selection.check(names, units)
        header = _header(sources, predictor, spec, names, units)
        identity = screen_identity(header, options.selection)
        if (
            options.resume
            and not folder.exists()
            and is_complete((options.output, options.report), identity)
        ):
            yield Outcome(was_complete=True)
            return
        for line in engine.provenance(predictor):
            display.note(line)
        gpus = 0 if spec.on_cpu else len(devices)
        workers = choose_workers(options.workers, options.scheduler, total, gpus, limited)
        with _backend(options, workers, spec) as backend:
            if target is None and not options.selection:
                yield _streamed(sources, spec, backend, names, display, total)
                return
            journal = Journal(folder, header, options.resume)
            clock = time.perf_counter()
            try:
                _fill(journal, sources, spec, backend, display, total)
                outcome = _finish(
                    journal, options, sources, predictor, units, identity, clock, command
                )
                yield outcome
            except BaseException:
                journal.close()
                raise
            journal.delete()


@contextmanager
def _backend(
    options: ScreenOptions, workers: int, spec: engine.ScreenSpec
) -> Iterator[Backend | None]:
    limit = TIME_LIMIT if options.time_limit is None else options.time_limit
    backend = make_backend(workers, options.workers, options.scheduler, spec, limit)
    try:
        yield backend
    finally:
        if backend is not None:
            backend.close()


def _sources(options: ScreenOptions, scratch: Path) -> list[Source]:
    if "-" not in options.files and options.stdin_format is not None:
        raise ReciNetError(
            "--format is for standard input (-); files are read by their suffix and contents"
        )
    if "-" in options.files and options.resume:
        raise ReciNetError("a screen of standard input cannot be resumed; save the input first")
    return find_sources(
        options.files,
        options.ase_selection,
        options.structure_column,
        options.stdin_format,
        scratch / _STDIN_COPY,
        _written(options),
    )


def _written(options: ScreenOptions) -> list[str]:
    """The files of this screen, which are no inputs where they lie among them."""
    names = [name for name in (options.output, options.report) if name is not None]
    return names if options.output is None else [*names, str(sidecar_path(options.output))]


def _header(
    sources: Sequence[Source],
    predictor: Predictor,
    spec: engine.ScreenSpec,
    names: Sequence[str],
    units: Mapping[str, str],
) -> dict[str, Any]:
    """What must be the same for a screen to be continued."""
    return {
        "inputs": fingerprint(sources),
        "models": [(m["name"], m["fingerprint"]) for m in models(predictor)],
        "device": spec.devices[0].partition(":")[0],
        "batch_size": spec.batch_size,
        "id_key": spec.id_key,
        "columns": list(names),
        "units": dict(units),
        "chunk": CHUNK,
    }


def _streamed(
    sources: Sequence[Source],
    spec: engine.ScreenSpec,
    backend: Backend | None,
    names: Sequence[str],
    display: Display,
    total: int | None,
) -> Outcome:
    """Rows to standard output as they come."""
    outcome = Outcome()
    with open_writer(None, names) as writer, display.progress(total, 0) as advance:
        for chunk in run(chunks(sources, CHUNK), spec, backend):
            for row in chunk.rows:
                writer.write(row)
            outcome.errors += sum(bool(row["error"]) for row in chunk.rows)
            outcome.rows += len(chunk.rows)
            outcome.without_key += chunk.without_key
            advance(len(chunk.rows))
    outcome.written = outcome.rows
    return outcome


def _fill(
    journal: Journal,
    sources: Sequence[Source],
    spec: engine.ScreenSpec,
    backend: Backend | None,
    display: Display,
    total: int | None,
) -> None:
    """Screen what the journal lacks."""
    done = journal.done
    if done:
        display.note(f"going on after {len(journal):,} structures that are done")
    left = (chunk for chunk in chunks(sources, CHUNK) if chunk.number >= done)
    with display.progress(total, len(journal)) as advance:
        for rows in run(left, spec, backend):
            journal.append(rows)
            advance(len(rows.rows))
    if journal.header["inputs"] != fingerprint(sources):
        display.note(
            "warning: the input was changed while it was screened; each row is what was found "
            "when its turn came"
        )


def _finish(
    journal: Journal,
    options: ScreenOptions,
    sources: Sequence[Source],
    predictor: Predictor,
    units: Mapping[str, str],
    identity: str,
    clock: float,
    command: Sequence[str],
) -> Outcome:
    """Select, write, report."""
    table = journal.table(units, sources, CHUNK)
    selection = options.selection
    indices = selection.indices(table) if selection else None
    outcome = Outcome(
        len(journal), journal.errors, journal.without_key, table=table, indices=indices
    )
    if options.output is not None or options.report is None:
        try:
            outcome.written, outcome.left_out = _write(table, indices, options.output, units)
        except InputChangedError as error:
            rescued = f"{options.output}.rows.csv"
            _write(table, indices, rescued, units)
            raise ReciNetError(
                f"the input was changed while it was screened ({error}), so that structures and "
                f"predictions no longer belong together and {options.output} is not written. The "
                f"predictions as they were made are in {rescued}; with the input as it was, go on "
                "with --resume"
            ) from None
    ended = datetime.now(timezone.utc)
    if options.report is not None:
        from recinet_ase.screening.report import write_report

        write_report(
            options.report,
            table,
            indices,
            selection=selection if selection else None,
            sources=[source.name for source in sources],
            command=shlex.join(map(masked, command)),
            provenance=engine.provenance(predictor),
            seconds=time.perf_counter() - clock,
            identity=identity,
            created=f"{ended.astimezone():%Y-%m-%d %H:%M}",
        )
    if options.output is not None:
        counts = {
            "structures": outcome.rows,
            "errors": outcome.errors,
            "written": outcome.written,
            "left_out": outcome.left_out,
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
                "screen": identity,
                "seconds": round(time.perf_counter() - clock, 3),
                "selection": selection.explain(table.columns, units),
            },
        )
    return outcome


def _check_report(path: Path) -> None:
    if path.suffix not in REPORTS:
        raise ReciNetError(f"cannot write {path}: a report's suffix must be .html")
    if not path.resolve().parent.is_dir():
        raise ReciNetError(f"cannot write {path}: there is no folder {path.resolve().parent}")


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
        left_out = writer.left_out
    return written - left_out, left_out
