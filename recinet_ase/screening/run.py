"""A whole screen: from the input, over the journal, to the files that the user asked for."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recinet_ase._version import __version__
from recinet_ase.errors import ReciNetError, UnknownNameError
from recinet_ase.io import chunks, count_entries, find_sources, fingerprint
from recinet_ase.io.entries import Chunk, Source
from recinet_ase.screening.execution.chunk import ChunkRows
from recinet_ase.screening.execution.gpus import TOGETHER, choose_devices
from recinet_ase.screening.execution.processes import warm_up
from recinet_ase.screening.execution.schedule import (
    TIME_LIMIT,
    Backend,
    choose_workers,
    make_backend,
    run,
)
from recinet_ase.screening.execution.spec import (
    ScreenSpec,
    choose_spec,
    column_units,
    loaded_predictor,
    provenance_lines,
    result_columns,
)
from recinet_ase.screening.journal import Journal, has_journal, journal_folder
from recinet_ase.screening.options import Display, ScreenOptions, ScreenOutcome
from recinet_ase.screening.output.finish import check_report, finish
from recinet_ase.screening.output.identity import is_complete, screen_identity, what_answers
from recinet_ase.screening.output.metadata import sidecar_path
from recinet_ase.screening.output.writers import check_length, check_output, open_writer
from recinet_ase.screening.relaxation import RELAXED_CHUNK, WORTH
from recinet_ase.stability.derived import SELF

if TYPE_CHECKING:
    from recinet_ase.inference.predictor import Predictor

CHUNK = 512
"""Entries of a chunk: the unit of work, of the journal and of what a kill can cost."""

_LOG = logging.getLogger(__name__)
_STDIN_COPY = "stdin"


@contextmanager
def run_screen(
    options: ScreenOptions, display: Display, command: Sequence[str]
) -> Iterator[ScreenOutcome]:
    """Screen and write the files; what came out is given while its table can still be read.

    Everything that can be known to fail fails before the first structure is read.

    Raises:
        ReciNetError: For wrong options, an input or output that cannot be used, or anything
            that stops the screen; what was done is kept and can be resumed.
    """
    if options.output is not None:
        check_length(options.output)
        check_output(options.output)
    if options.report is not None:
        check_report(Path(options.report))
    if options.resume and options.output is None and options.report is None:
        raise ReciNetError("rows on standard output cannot be resumed; give a file with -o")
    target = options.output or options.report
    with _scratch("-" in options.files or target is None) as scratch:
        folder = scratch / "rows" if target is None else journal_folder(Path(target))
        sources = _sources(options, scratch)
        if options.output is not None:
            check_output(options.output, sources)
        total = count_entries(sources)
        limited = options.time_limit is not None
        effort = total  # in structures that are only judged
        if options.relaxation is not None and total is not None:
            effort = WORTH * total
        devices = choose_devices(options.device, options.scheduler is not None)
        if choose_workers(options.workers, options.scheduler, effort, limited=limited):
            warm_up()  # while this process loads torch and the models
        spec = choose_spec(
            options.infos,
            options.models,
            devices,
            options.batch_size,
            options.intervals or options.selection.confident,
            options.id_key,
            options.hull,
            options.decomposition,
        )
        if options.relaxation is not None:
            spec = replace(spec, relaxation=options.relaxation)
        predictor = loaded_predictor(spec)
        relaxed = spec.relaxation is not None
        names, units = result_columns(predictor, relaxed), column_units(predictor, relaxed)
        if options.decomposition and predictor.stability is None:
            raise ReciNetError("--decomposition is of the hull: add ehull to --props")
        options.selection.check(names, units)
        header = _header(sources, predictor, spec, names, units)
        identity = screen_identity(header, options.selection)
        if (
            options.resume
            and not has_journal(folder)
            and is_complete((options.output, options.report), identity)
        ):
            yield ScreenOutcome(was_complete=True)
            return
        for line in provenance_lines(predictor, spec.relaxation):
            display.note(line)
        gpus = 0 if spec.on_cpu else len(devices)
        workers = choose_workers(options.workers, options.scheduler, effort, gpus, limited)
        with _backend(options, workers, spec) as backend:
            if target is None and not options.selection and SELF not in options.hull:
                yield _streamed(sources, spec, backend, names, display, total)
                return
            journal = Journal(folder, header, options.resume)
            clock = time.perf_counter()
            try:
                _fill(journal, sources, spec, backend, display, total)
                display.busy("selecting and writing")
                outcome = finish(
                    journal, options, sources, predictor, units, identity, clock, command
                )
                yield outcome
            except BaseException:
                if journal.done:
                    journal.close()
                else:
                    journal.delete()  # nothing to go on with
                raise
            journal.delete()


@contextmanager
def _scratch(needed: bool) -> Iterator[Path]:
    """A folder for what has no other place; none is made where nothing will lie in it."""
    if not needed:
        yield Path()
        return
    with tempfile.TemporaryDirectory(prefix="recinet-screen-") as folder:
        yield Path(folder)


@contextmanager
def _backend(options: ScreenOptions, workers: int, spec: ScreenSpec) -> Iterator[Backend | None]:
    limit = TIME_LIMIT if options.time_limit is None else options.time_limit
    backend = make_backend(workers, options.workers, options.scheduler, spec, limit)
    try:
        yield backend
    finally:
        if backend is not None:
            backend.close()


def _sources(options: ScreenOptions, scratch: Path) -> list[Source]:
    """The inputs, refused where options do not fit them."""
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


def _chunk_size(spec: ScreenSpec) -> int:
    return CHUNK if spec.relaxation is None else RELAXED_CHUNK


def _header(
    sources: Sequence[Source],
    predictor: Predictor,
    spec: ScreenSpec,
    names: Sequence[str],
    units: Mapping[str, str],
) -> dict[str, Any]:
    """What must be the same for a screen to be continued."""
    return {
        "inputs": fingerprint(sources),
        "recinet-ase": __version__,
        "models": what_answers(predictor),
        "device": spec.devices[0].partition(":")[0],
        "batch_size": spec.batch_size,
        "id_key": spec.id_key,
        "columns": list(names),
        "units": dict(units),
        "chunk": _chunk_size(spec),
        "hull": [*spec.hull, predictor.stability.hull.fingerprint] if predictor.stability else [],
        "relaxation": None if spec.relaxation is None else spec.relaxation.identity,
    }


def _streamed(
    sources: Sequence[Source],
    spec: ScreenSpec,
    backend: Backend | None,
    names: Sequence[str],
    display: Display,
    total: int | None,
) -> ScreenOutcome:
    """Rows to standard output as they come."""
    outcome = ScreenOutcome()
    with open_writer(None, names) as writer, display.progress(total, 0) as advance:
        for chunk in _screened(chunks(sources, _chunk_size(spec)), sources, spec, backend):
            for row in chunk.rows:
                writer.write(row)
            outcome.errors += sum(bool(row["error"]) for row in chunk.rows)
            outcome.faults += len(chunk.faults)
            outcome.lost += len(chunk.lost)
            outcome.rows += len(chunk.rows)
            outcome.without_key += chunk.without_key
            advance(len(chunk.rows))
    outcome.written = outcome.rows
    return outcome


def _screened(
    parts: Iterable[Chunk],
    sources: Sequence[Source],
    spec: ScreenSpec,
    backend: Backend | None,
) -> Iterator[ChunkRows]:
    """The rows of chunks; what is none of their structures' fault is logged.

    Raises:
        UnknownNameError: For an id key that no structure of the first chunk has, with the keys
            that there are: it was mistyped.
    """
    for chunk in run(parts, spec, backend):
        readable = sum(digest is not None for digest in chunk.digests)
        first_of_one = chunk.number == 0 and len(sources) == 1
        if spec.id_key and first_of_one and 0 < readable == chunk.without_key:
            raise UnknownNameError("--id-key", spec.id_key, chunk.other_keys)
        for place in chunk.lost:
            _LOG.warning("%s: %s", chunk.rows[place]["id"], chunk.rows[place]["error"])
        for place, fault in chunk.faults:
            _LOG.error("%s: %s", chunk.rows[place]["id"], fault)
        yield chunk


def _fill(
    journal: Journal,
    sources: Sequence[Source],
    spec: ScreenSpec,
    backend: Backend | None,
    display: Display,
    total: int | None,
) -> None:
    """Screen what the journal lacks."""
    done = journal.done
    if done:
        display.note(f"going on after {len(journal):,} structures that are done")
    # On a GPU rounding depends on what goes through it together: the whole call is done again.
    first = done if spec.on_cpu else done - done % TOGETHER
    size = journal.header["chunk"]
    left = (chunk for chunk in chunks(sources, size) if chunk.number >= first)
    with display.progress(total, len(journal)) as advance:
        for rows in _screened(left, sources, spec, backend):
            if rows.number < done:
                continue
            journal.append(rows)
            advance(len(rows.rows))
    if journal.header["inputs"] != fingerprint(sources):
        display.note(
            "warning: the input was changed while it was screened; each row is what was found "
            "when its turn came"
        )
