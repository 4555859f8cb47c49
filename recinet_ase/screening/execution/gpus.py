"""GPUs: one process for each, which holds its models; other workers read and build graphs.

A process of its own has the device to itself (also where the driver allows only one), cannot
hold up the journal, and can be replaced when the device fails: its chunk is done again in
parts, like one whose worker died.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from recinet_ase.errors import DeviceLostError, ReciNetError
from recinet_ase.io.entries import Chunk
from recinet_ase.screening.execution.chunk import ChunkRows
from recinet_ase.screening.execution.processes import Lost, Workers
from recinet_ase.screening.execution.spec import ScreenSpec, loaded_predictor
from recinet_ase.screening.execution.worker import Overlapped

if TYPE_CHECKING:
    from ase import Atoms

    from recinet_ase.inference.result import Prediction

_PROBE_SECONDS = 300.0
_AGREEMENT = 1e-3  # of a value, or of one unit of a small one: far above rounding


TOGETHER = 16
"""Chunks that go through a GPU in one call, those of numbers 0 to 15, 16 to 31 and so on: which
crystals are together must not depend on how fast they come, since rounding does."""


@dataclass(frozen=True)
class Steps:
    """The work on a chunk, cut where the network begins and ends.

    Attributes:
        prepare: Reads a chunk; what its rows are made of, and its graphs.
        compute: What the networks make of the graphs of several chunks, on a device.
        read: The rows of a chunk, from the first part of ``prepare`` and that of ``compute``.
    """

    prepare: Callable[[Chunk], tuple[bytes, bytes]]
    compute: Callable[[Sequence[bytes], str], list[bytes]] | Overlapped
    read: Callable[[tuple[bytes, bytes]], ChunkRows]


@dataclass
class _Call:
    """Chunks that go through a device together.

    Attributes:
        steps: What is done.
        rows: What each chunk shall become, in order.
        prepared: What ``prepare`` gave, by place in ``rows``.
        left: Chunks that are not prepared yet; later, that are not read yet.
        closed: Whether no other chunk will be added.
    """

    steps: Steps
    rows: list[Future[ChunkRows]] = field(default_factory=list)
    prepared: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    left: int = 0
    closed: bool = False


def choose_devices(device: str | None, elsewhere: bool = False) -> tuple[str, ...]:
    """Where networks run: all GPUs that this process may use, or what was asked for.

    Args:
        device: Torch devices, comma-separated; ``"auto"`` or None is every GPU there is, else the
            CPU.
        elsewhere: The work is done on other machines: nothing is looked for here, ``"auto"``
            is their CPUs.

    Raises:
        ReciNetError: If a device does not exist.
    """
    from recinet_ase.inference.devices import choose_device

    if device is None or device == "auto":
        n = torch.cuda.device_count() if torch.cuda.is_available() and not elsewhere else 0
        return tuple(f"cuda:{i}" for i in range(n)) or ("cpu",)
    names = tuple(dict.fromkeys(part.strip() for part in device.split(",")))
    for name in names:
        kind, _, number = name.partition(":")
        if elsewhere and kind == "cuda":
            if number or len(names) > 1:
                raise ReciNetError(
                    f"--device {device} cannot go with --scheduler: say cuda, and start a worker "
                    "with CUDA_VISIBLE_DEVICES for each GPU"
                )
        elif kind == "cuda" and torch.cuda.is_available() and number.isdecimal():
            # Counted, not opened: that would take the device away from its own process.
            if int(number) >= torch.cuda.device_count():
                raise ReciNetError(
                    f"device {name!r} cannot be used here: there are "
                    f"{torch.cuda.device_count()} GPUs, counted from 0"
                )
        elif not (name == "cuda" and torch.cuda.is_available()):
            choose_device(name)
    return names


class DeviceWorkers:
    """Worker processes that read and build graphs, and one process for each device.

    Args:
        spec: What to predict, and the devices.
        workers: How many read and build graphs.
        time_limit: Seconds that a structure may take in either step.

    Raises:
        ReciNetError: If a device cannot be used, or gives other numbers than the CPU.
    """

    def __init__(self, spec: ScreenSpec, workers: int, time_limit: float) -> None:
        self._devices = spec.devices
        self._prepare_calls()
        self._models = Workers(len(spec.devices), max(time_limit, _PROBE_SECONDS), spec.devices)
        self._graphs = Workers(workers, time_limit)
        try:
            self._check(spec)
        except BaseException:
            self.close()
            raise

    def _prepare_calls(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, _Call] = {}
        self._seen: set[int] = set()
        self._running = 0  # calls that are closed, until the last of their rows is read

    @property
    def workers(self) -> int:
        """As many as keep the devices busy with three chunks in flight for each of them.

        That makes six calls a device: two are there, others are prepared or read.
        """
        enough = 2 * TOGETHER * self._models.workers
        return max(self._graphs.workers + self._models.workers, enough)

    def submit(self, function: Steps, chunk: Chunk) -> Future[ChunkRows]:
        """Start the steps; the second with others of its group, once all are prepared."""
        rows: Future[ChunkRows] = Future()
        with self._lock:
            if chunk.number in self._seen:
                # A part of a chunk that was lost with its call: the next shall cost it alone.
                call = _Call(function, closed=True)
            else:
                self._seen.add(chunk.number)
                call = self._open.setdefault(chunk.number // TOGETHER, _Call(function))
            place = len(call.rows)
            call.rows.append(rows)
            call.left += 1
            if len(call.rows) == TOGETHER:
                del self._open[chunk.number // TOGETHER]
                call.closed = True
            self._running += call.closed
        then = partial(self._prepared, call, place)
        self._graphs.submit(function.prepare, chunk).add_done_callback(then)
        return rows

    def _prepared(self, call: _Call, place: int, done: Future[tuple[bytes, bytes]]) -> None:
        error = done.exception()
        with self._lock:
            call.left -= 1
            if error is None:
                call.prepared[place] = done.result()
            ready = call.closed and not call.left
        if error is not None:
            call.rows[place].set_exception(error)
        if ready:
            self._compute(call)

    def _compute(self, call: _Call) -> None:
        places = sorted(call.prepared)
        if not places:
            self._ended()
            return
        graphs = [call.prepared[place][1] for place in places]
        computed = self._models.submit(call.steps.compute, graphs)
        computed.add_done_callback(partial(self._computed, call, places))

    def _computed(self, call: _Call, places: list[int], done: Future[list[bytes]]) -> None:
        error = done.exception()
        if error is not None:
            self._ended()
            for place in places:
                call.rows[place].set_exception(error)
            return
        call.left = len(places)
        for place, found in zip(places, done.result(), strict=True):
            read = self._graphs.submit(call.steps.read, (call.prepared.pop(place)[0], found))
            read.add_done_callback(partial(self._read, call, place))

    def _read(self, call: _Call, place: int, done: Future[ChunkRows]) -> None:
        with self._lock:
            call.left -= 1
            self._running -= not call.left
        error = done.exception()
        if error is not None:
            call.rows[place].set_exception(error)
        else:
            call.rows[place].set_result(done.result())

    def _ended(self) -> None:
        with self._lock:
            self._running -= 1

    def wait(self, futures: Sequence[Future[ChunkRows]]) -> None:
        """Wait until one of these is done.

        Where nothing else is under way, the input has ended, and a call that is not full begins.
        """
        ready = []
        with self._lock:
            if not self._running:
                for call in self._open.values():
                    call.closed = True
                    self._running += 1
                    if not call.left:
                        ready.append(call)
                self._open.clear()
        for call in ready:
            self._compute(call)
        self._graphs.wait(futures)

    def result(self, future: Future[ChunkRows]) -> ChunkRows:
        """Wait for what `submit` gave.

        Raises:
            Lost: If a worker died or took too long.
        """
        return future.result()

    def close(self) -> None:
        """Stop all processes at once."""
        self._graphs.close()
        self._models.close()

    def _check(self, spec: ScreenSpec) -> None:
        """Let every device predict what the CPU has predicted, before anything is screened."""
        expected = probe(spec, "cpu")
        asked = [self._models.submit(probe, spec) for _ in self._devices]
        for future in asked:
            try:
                found = future.result()
            except Lost as error:
                listed = ", ".join(self._devices)
                raise ReciNetError(f"cannot work on {listed} ({error}); try --device cpu") from None
            compare(found, expected)


def check_here(spec: ScreenSpec) -> None:
    """Let the device of this process predict what the CPU predicts.

    Raises:
        ReciNetError: If it cannot be used, or gives other numbers.
    """
    try:
        found = probe(spec, spec.devices[0])
    except DeviceLostError as error:
        raise ReciNetError(f"{error}; try --device cpu") from None
    compare(found, probe(spec, "cpu"))


def probe(spec: ScreenSpec, device: str) -> tuple[str, list[Prediction]]:
    """What a device makes of a few crystals, and its name.

    They take every way through the network: small cells and a large one, alone and together,
    with symmetry and without, and so many edges that embeddings are taken in their span.
    """
    predictor = loaded_predictor(spec, device)
    small, large = probe_crystals()
    together = [crystal for some in (small, [large], [*small[:8], large]) for crystal in some]
    ends = (0, len(small), len(small) + 1, len(together))
    parts = [together[a:b] for a, b in pairwise(ends)]
    return device, [result for part in parts for result in predictor.predict_many(part)]


def probe_crystals() -> tuple[list[Atoms], Atoms]:
    """Sixty-four small crystals, and one of 54 atoms without symmetry."""
    from ase.build import bulk

    crystals = [
        bulk("Si"),
        bulk("NaCl", "rocksalt", a=5.64),
        bulk("Ni").repeat((2, 2, 2)),
        bulk("ZnO", "wurtzite", a=3.25, c=5.2),
    ]
    pairs = (("NaCl", "rocksalt", 5.64), ("GaAs", "zincblende", 5.65), ("MgO", "rocksalt", 4.21))
    for i in range(60):
        name, kind, a = pairs[i % len(pairs)]
        cell = bulk(name, kind, a=a * (0.97 + 0.001 * i), cubic=i % 2 == 0)
        cell.rattle(0.02, seed=i)
        crystals.append(cell)
    large = bulk("NaCl", "rocksalt", a=5.64).repeat((3, 3, 3))
    large.rattle(0.05, seed=1)
    return crystals, large


def compare(found: tuple[str, list[Prediction]], expected: tuple[str, list[Prediction]]) -> None:
    """Refuse a device whose numbers are not those of the other.

    Raises:
        ReciNetError: With the first number that differs.
    """
    (device, ours), (other, theirs) = found, expected
    for one, two in zip(ours, theirs, strict=True):
        if one.error != two.error:
            raise ReciNetError(
                f"{device} cannot be used ({one.error or two.error} for {one.formula}, on one of "
                f"{device} and {other} only); try --device cpu"
            )
        for name, value in one.values.items():
            pairs = [(name, value, two.values[name])]
            if name in one.intervals:
                ends = zip(one.intervals[name], two.intervals[name], strict=True)
                pairs += [(f"an end of the interval of {name}", *pair) for pair in ends]
            for what, mine, right in pairs:
                # A NaN is no agreement either.
                if not abs(mine - right) <= _AGREEMENT * max(1.0, abs(right)):
                    raise ReciNetError(
                        f"{device} gives {what} = {mine:g} for {one.formula}, {other} "
                        f"{right:g}; its answers cannot be trusted, use --device cpu"
                    )
