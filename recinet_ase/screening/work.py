"""Work on files of structures that is kept as it comes: in order, resumable, in workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recinet_ase._version import __version__
from recinet_ase.errors import ReciNetError
from recinet_ase.io import chunks, entries_of, fingerprint
from recinet_ase.io.entries import Chunk, Entry, Source
from recinet_ase.screening.execution.chunk import ChunkRows
from recinet_ase.screening.execution.processes import Workers
from recinet_ase.screening.execution.schedule import in_order
from recinet_ase.screening.execution.worker import beginning, single_threaded
from recinet_ase.screening.journal import Journal, has_journal, journal_folder

if TYPE_CHECKING:
    from recinet_ase.screening.options import Display


def read_one_by_one(chunk: Chunk, id_key: str | None = None) -> list[Entry]:
    """The entries of a chunk, each with the time limit of one structure."""
    entries: list[Entry] = []
    reading = entries_of(chunk, id_key)
    for place in range(len(chunk)):
        beginning(1, place)
        entries.append(next(reading))
    return entries


@contextmanager
def journalled(
    function: Callable[..., ChunkRows],
    sources: Sequence[Source],
    output: Path,
    columns: Sequence[str],
    settings: Mapping[str, Any],
    size: int,
    display: Display,
    *,
    devices: Sequence[str] = ("cpu",),
    workers: int = 0,
    time_limit: float,
    total: int | None = None,
    resume: bool = False,
) -> Iterator[Journal]:
    """A journal with the rows of all structures; it is deleted when the block is left in peace.

    Args:
        function: The rows of a chunk, from the chunk and a device; can be pickled.
        sources: The input.
        output: What the rows are for: the journal lies beside it.
        columns: Columns of the rows.
        settings: What must be the same for the work to be continued, beside the input.
        size: Structures in a chunk.
        display: What is told on the way.
        devices: Torch devices; one worker for each, where they are not the CPU.
        workers: Worker processes on the CPU, 0 for none.
        time_limit: Seconds that a structure may take in a worker.
        total: Number of structures, where it is known.
        resume: Go on where an earlier call stopped.

    Raises:
        ReciNetError: If there is unfinished work and ``resume`` is not set, if it was other
            work, or if there is nothing to go on with.
    """
    folder = journal_folder(output)
    if resume and not has_journal(folder) and output.exists():
        raise ReciNetError(f"{output} is complete; leave --resume out to make it anew")
    header = {
        "inputs": fingerprint(sources),
        "recinet-ase": __version__,
        **settings,
        "device": devices[0].partition(":")[0],
        "columns": list(columns),
        "chunk": size,
    }
    journal = Journal(folder, header, resume)
    try:
        if journal.done:
            display.note(f"going on after {len(journal):,} structures that are done")
        left = (chunk for chunk in chunks(sources, size) if chunk.number >= journal.done)
        with display.progress(total, len(journal)) as advance:
            for rows in _worked(left, function, columns, devices, workers, time_limit):
                journal.append(rows)
                advance(len(rows.rows))
        yield journal
    except BaseException:
        if journal.done:
            journal.close()
        else:
            journal.delete()  # nothing to go on with
        raise
    journal.delete()


def _worked(
    parts: Iterator[Chunk],
    function: Callable[..., ChunkRows],
    columns: Sequence[str],
    devices: Sequence[str],
    workers: int,
    time_limit: float,
) -> Iterator[ChunkRows]:
    """The rows of chunks, in order."""
    if not workers:
        for chunk in parts:
            yield single_threaded(partial(function, device=devices[0]), chunk)
        return
    on_cpu = tuple(devices) == ("cpu",)
    backend = Workers(workers, time_limit, () if on_cpu else devices)
    with closing(backend):
        yield from in_order(parts, backend, function, columns)
