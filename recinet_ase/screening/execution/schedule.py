"""Many chunks at a time: worker processes, in input order, with constant memory.

On CPUs every worker does the whole of a chunk with one thread. Where there are GPUs, some
workers read and build graphs, and each GPU has a process that runs the network. A worker that
dies or hangs costs the one entry at fault: its chunk is done again in parts, by all workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from recinet_ase.errors import ReciNetError
from recinet_ase.io.entries import Chunk, Piece
from recinet_ase.screening.execution.chunk import (
    ChunkRows,
    computing,
    failed_chunk,
    prepare_packed,
    read_packed,
    screen_chunk,
)
from recinet_ase.screening.execution.gpus import DeviceWorkers, Steps, check_here
from recinet_ase.screening.execution.processes import Lost, Workers, available_cores
from recinet_ase.screening.execution.spec import ScreenSpec, loaded_predictor, result_columns
from recinet_ase.screening.execution.worker import single_threaded

TIME_LIMIT = 300.0
"""Seconds that a structure may take. One that takes longer is tried again alone, then given up."""

_FEW = 1024  # entries that take less time than starting workers
_AHEAD = 3  # chunks in flight for each worker
_HELD = 256  # finished chunks that may wait for a slow one before them: 130,000 rows


class Backend(Protocol):
    """Something that turns chunks into rows elsewhere."""

    @property
    def workers(self) -> int:
        """How many there are."""

    def submit(self, function: Any, chunk: Chunk) -> Any:
        """Start a function of a chunk, or `Steps`; both can be pickled."""

    def wait(self, futures: Sequence[Any]) -> None:
        """Wait until one of these is done, more or less: it may also return too early."""

    def result(self, future: Any) -> ChunkRows:
        """Wait for what `submit` gave.

        Raises:
            Lost: If the worker died or hung.
        """

    def close(self) -> None:
        """Stop all workers."""


def run(
    chunks: Iterable[Chunk], spec: ScreenSpec, backend: Backend | None = None
) -> Iterator[ChunkRows]:
    """The rows of all chunks, in order.

    Args:
        chunks: From `recinet_ase.io.chunks`.
        spec: What to predict.
        backend: Where the work is done; None is this process.
    """
    if backend is None:
        for chunk in chunks:
            yield single_threaded(partial(screen_chunk, spec), chunk)
        return
    predictor = loaded_predictor(spec)
    function: Callable[[Chunk], ChunkRows] | Steps = partial(screen_chunk, spec)
    if spec.takes_steps:
        function = Steps(
            partial(prepare_packed, predictor.preparation, spec.id_key),
            computing(spec),
            partial(read_packed, spec),
        )
    names = result_columns(predictor, spec.relaxation is not None)
    yield from in_order(chunks, backend, function, names)


def in_order(
    chunks: Iterable[Chunk],
    backend: Backend,
    function: Callable[[Chunk], ChunkRows] | Steps,
    names: Sequence[str],
) -> Iterator[ChunkRows]:
    """Chunks through workers and back, in order, a few of them at a time.

    Args:
        chunks: The input.
        backend: The workers.
        function: What is done with a chunk.
        names: Columns, for the rows of entries that are lost.
    """
    waiting: deque[list[_Part]] = deque()
    stream = iter(chunks)
    while True:
        futures = [p.future for parts in waiting for p in parts if p.future is not None]
        most = _AHEAD * backend.workers
        while len(futures) < most and len(waiting) < max(_HELD, most):
            following = next(stream, None)
            if following is None:
                break
            futures.append(backend.submit(function, following))
            waiting.append([_Part(following, futures[-1])])
        if not waiting:
            return
        first = waiting[0]
        if all(part.future is None for part in first):
            yield ChunkRows.joined([part.done() for part in waiting.popleft()])
            continue
        backend.wait(futures)
        for parts in waiting:
            parts[:] = [new for part in parts for new in _advanced(part, backend, function, names)]


@dataclass
class _Part:
    """A chunk or a part of one, at work (with a future) or done."""

    chunk: Chunk
    future: Any = None
    rows: ChunkRows | None = None
    error: BaseException | None = None
    again: bool = False  # begun a second time, as it was

    def done(self) -> ChunkRows:
        """The rows, or the error that ends the screen when it is this part's turn."""
        if self.error is not None:
            raise self.error
        assert self.rows is not None
        return self.rows


def _advanced(
    part: _Part,
    backend: Backend,
    function: Callable[[Chunk], ChunkRows] | Steps,
    names: Sequence[str],
) -> list[_Part]:
    """A part as it is now: at work, done, or lost and so begun again in smaller parts."""
    if part.future is None or not part.future.done():
        return [part]
    try:
        return [_Part(part.chunk, rows=backend.result(part.future))]
    except Lost as error:
        if error.died and not part.again:  # killed, perhaps, by another program: the same rows
            future = backend.submit(function, part.chunk)
            return [_Part(part.chunk, future, again=True)]
        if len(part.chunk) == 1:
            return [_Part(part.chunk, rows=failed_chunk(part.chunk, names, str(error)))]
        smaller = divided(part.chunk, error.place)
        return [_Part(chunk, backend.submit(function, chunk)) for chunk in smaller]
    except BaseException as error:
        return [_Part(part.chunk, error=error)]


def divided(chunk: Chunk, place: int | None) -> list[Chunk]:
    """A chunk in parts, one of which holds the entry at fault alone; halves if it is not known."""
    if place is None:
        return list(split(chunk, len(chunk) // 2))
    before, rest = split(chunk, place)
    fault, after = split(rest, 1)
    return [part for part in (before, fault, after) if len(part)]


def split(chunk: Chunk, place: int) -> tuple[Chunk, Chunk]:
    """The entries of a chunk before a place, and those from it on."""
    left = place
    first: list[Piece] = []
    second: list[Piece] = []
    for piece in chunk.pieces:
        n = min(max(left, 0), len(piece.items))
        if n:
            first.append(replace(piece, items=piece.items[:n]))
        if n < len(piece.items):
            second.append(replace(piece, start=piece.start + n, items=piece.items[n:]))
        left -= len(piece.items)
    return Chunk(chunk.number, tuple(first)), Chunk(chunk.number, tuple(second))


def choose_workers(
    workers: int | None,
    scheduler: str | None,
    entries: int | None,
    gpus: int = 0,
    limited: bool = False,
) -> int:
    """Worker processes of this machine to use, 0 for none.

    Args:
        workers: What the user asked for; None is one for each core, none where the input is
            so small that starting them would take longer than the work.
        scheduler: Given if the work is done elsewhere.
        entries: Number of entries, if known.
        gpus: Devices with a process of their own; 0 where workers run the network.
        limited: Whether the user set a time limit, which takes a worker that can be ended.

    Raises:
        ReciNetError: If a time limit is wanted where there is nothing to end.
    """
    if limited and (scheduler is not None or workers == 0):
        other = "--scheduler" if scheduler is not None else "--workers 0"
        raise ReciNetError(
            f"--time-limit ends a worker process of this machine; it cannot go with {other}"
        )
    if scheduler is not None:
        if workers == 0:
            raise ReciNetError("--workers 0 is this process; it cannot go with --scheduler")
        return 0
    if workers is not None:
        return workers
    least = 1 if limited else 0
    if entries is not None and entries <= _FEW:
        return least
    cores = available_cores()
    if gpus:
        return max(1, cores - gpus)
    return cores if cores > 1 else least


def make_backend(
    workers: int,
    asked: int | None,
    scheduler: str | None,
    spec: ScreenSpec,
    time_limit: float = TIME_LIMIT,
) -> Backend | None:
    """Where to screen; None is this process.

    Args:
        workers: From `choose_workers`.
        asked: Workers the user asked for, for a local Dask cluster.
        scheduler: ``"local"`` or the address of a Dask scheduler, or None.
        spec: What to predict.
        time_limit: See `TIME_LIMIT`.

    Raises:
        ReciNetError: If Dask is missing, its scheduler cannot be reached, or a device gives
            other numbers than the CPU.
    """
    if scheduler is not None:
        if spec.relaxation is not None and not spec.on_cpu:
            raise ReciNetError(
                "--relax runs on the CPUs of a cluster; leave --device out, or relax first "
                "(recinet relax) on a machine with a GPU"
            )
        from recinet_ase.screening.execution.cluster import DaskWorkers

        cluster = DaskWorkers(scheduler, asked, None if spec.on_cpu else spec.devices[0])
        if not spec.on_cpu:
            cluster.check(spec)
        return cluster
    if not workers:
        if not spec.on_cpu:
            check_here(spec)
        return None
    if spec.on_cpu:
        return Workers(workers, time_limit)
    if not spec.takes_steps:
        check_here(spec)
        return Workers(len(spec.devices), time_limit, spec.devices)
    return DeviceWorkers(spec, workers, time_limit)
