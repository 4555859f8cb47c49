"""Worker processes that may die: one pipe each, so that none can block another.

Pools that share a queue share its lock, and a worker that is killed while it holds the lock
stops all others for good. Here a thread of this process hands each worker its next task
when it has answered the last, sees at once when one dies or takes too long, and puts another
in its place. A worker says in shared memory which structure it has begun (`worker.beginning`), so
that the time limit is one for a structure, and the structure at fault is known.
"""

from __future__ import annotations

import concurrent.futures
import math
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from recinet_ase.errors import DeviceLostError, ReciNetError, reason_of
from recinet_ase.screening.execution.worker import work

_START_SECONDS = 120.0  # that a new worker may take before it has its first task
_LONGEST_WAIT = 3600.0  # seconds; more than a selector takes at once would be an error
_ATTEMPTS, _PAUSE = 5, 0.2  # to start a worker, and seconds between them
_DEATHS = 100  # in a row, after which something else is wrong
_IN_FLIGHT = 2  # tasks of a worker that has a device: one is computed, one is made ready
_PRELOADED = [
    "recinet_ase.inference.predictor",
    "recinet_ase.screening.execution.chunk",
    "ase.db",
    "ase.io",
]


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def warm_up() -> None:
    """Let the process that workers are forked from begin its imports, where there is one."""
    if _context().get_start_method() == "forkserver":
        from multiprocessing import forkserver, resource_tracker

        resource_tracker.ensure_running()  # unblocks SIGINT when it starts
        # Ctrl-C goes to all processes of a terminal, and would end these imports in a traceback.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _context() -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # Imported once for all workers, in a process without threads of its own.
    context.set_forkserver_preload(_PRELOADED)
    return context


class Lost(Exception):
    """A task whose worker died or took too long.

    Args:
        reason: Which of the two.
        place: Where in its chunk the structure is that was worked on, if it was one.
        died: Whether the worker died, which may have been none of the task's fault.
    """

    def __init__(self, reason: str, place: int | None = None, died: bool = False) -> None:
        super().__init__(reason)
        self.place, self.died = place, died


@dataclass(eq=False)
class _Task:
    payload: bytes
    future: Future[Any]


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    begun: Any  # see `worker.work`
    device: str | None = None
    tasks: deque[_Task] = field(default_factory=deque)  # sent, in order
    answered: int = 0
    turn: float = 0.0  # when the first of its tasks had its turn
    look: float = 0.0  # when to see whether that takes too long

    def next_turn(self, limit: float) -> None:
        """Count the time of the first task from now."""
        self.turn = time.monotonic()
        self.look = self.turn + limit

    def step(self, limit: float) -> tuple[float, int | None]:
        """When its present step must have ended, and the place of the structure, if it is one."""
        time_begun, structures, place, tasks_begun = self.begun
        if tasks_begun <= self.answered:  # it has not taken this task yet
            return self.turn + max(limit, _START_SECONDS), None
        return time_begun + limit * structures, None if place < 0 else int(place)


class Workers:
    """Worker processes of this machine, one thread each.

    Args:
        workers: How many.
        time_limit: Seconds that a structure may take (see `beginning`; a task that does not say
            what it begins counts as one).
        devices: A device for each worker, which is then the second argument of what it does
            (see `worker.Overlapped`); it is sent its next task while it is at work.
    """

    def __init__(self, workers: int, time_limit: float, devices: Sequence[str] = ()) -> None:
        self.workers = workers
        self._limit = time_limit
        self._in_flight = _IN_FLIGHT if devices else 1
        self._context = _context()
        self._pending: deque[_Task] = deque()
        self._lock = threading.Lock()
        self._woken, self._wake = multiprocessing.Pipe(duplex=False)
        self._closed = False
        self._broken: ReciNetError | None = None
        self._deaths = 0
        try:
            devices_of = [*devices] if devices else [None] * workers
            self._processes = [self._start(device) for device in devices_of]
        except (OSError, EOFError) as error:
            raise ReciNetError(
                f"worker processes cannot be started here ({reason_of(error)}); --workers 0 "
                "screens without them"
            ) from None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def submit(self, function: Callable[..., Any], argument: Any) -> Future[Any]:
        """Start ``function(argument)`` (or with the worker's device) when a worker is free.

        Both must be picklable.
        """
        task = _Task(pickle.dumps((function, argument), protocol=5), Future())
        with self._lock:
            if self._broken is not None:
                task.future.set_exception(self._broken)
                return task.future
            self._pending.append(task)
            self._wake.send_bytes(b"x")
        return task.future

    def wait(self, futures: Sequence[Future[Any]]) -> None:
        """Wait until one of these is done."""
        concurrent.futures.wait(futures, return_when=concurrent.futures.FIRST_COMPLETED)

    def result(self, future: Future[Any]) -> Any:
        """Wait for what `submit` gave.

        Raises:
            Lost: If its worker died or took too long.
        """
        return future.result()

    def close(self) -> None:
        """Stop all workers at once."""
        with self._lock:
            self._closed = True
            self._wake.send_bytes(b"x")
        self._thread.join()
        for worker in self._processes:
            _end(worker)
        self._woken.close()
        self._wake.close()

    def _start(self, device: str | None) -> _Worker:
        """Start a worker, again where the process that workers are forked from has just died."""
        for attempt in reversed(range(_ATTEMPTS)):
            ours, theirs = multiprocessing.Pipe()
            begun = self._context.RawArray("d", 4)
            process = self._context.Process(
                target=work, args=(theirs, os.getpid(), begun, device), daemon=True
            )
            try:
                warm_up()
                process.start()
            except (OSError, EOFError):
                # The process that workers are forked from may have died a moment ago.
                ours.close()
                if not attempt:
                    raise
                time.sleep(_PAUSE)
            else:
                return _Worker(process, ours, begun, device)
            finally:
                theirs.close()
        raise AssertionError("the last attempt returns or raises")

    def _serve(self) -> None:
        """The thread. Whatever ends it is told to all who wait for an answer."""
        try:
            self._loop()
        except Exception as error:
            why = ReciNetError(
                f"the worker processes cannot go on ({reason_of(error)}); with -o, "
                "--resume goes on from here"
            )
            with self._lock:
                self._broken = why
                waiting = [*self._pending, *(task for w in self._processes for task in w.tasks)]
            for task in waiting:
                if not task.future.done():
                    task.future.set_exception(why)

    def _loop(self) -> None:
        """Tasks out, answers in, the dead replaced."""
        while True:
            with self._lock:
                if self._closed:
                    return
                given = self._hand_out()
            for worker, task in given:
                if task is worker.tasks[0]:
                    worker.next_turn(self._limit)
                with suppress(OSError):  # that it has died is seen below
                    worker.pipe.send_bytes(task.payload)
            busy = [worker for worker in self._processes if worker.tasks]
            patience = min((w.look for w in busy), default=math.inf) - time.monotonic()
            watched = [w.pipe for w in busy] + [w.process.sentinel for w in busy] + [self._woken]
            if self._woken in wait(watched, min(max(patience, 0.0), _LONGEST_WAIT)):
                self._woken.recv_bytes()
            for i, worker in enumerate(self._processes):
                if worker.tasks:
                    self._attend(i, worker)

    def _hand_out(self) -> list[tuple[_Worker, _Task]]:
        """Which worker gets which task: a second one only where all have a first."""
        given = []
        for most in range(1, self._in_flight + 1):
            for worker in self._processes:
                if self._pending and len(worker.tasks) < most:
                    worker.tasks.append(self._pending.popleft())
                    given.append((worker, worker.tasks[-1]))
        return given

    def _attend(self, i: int, worker: _Worker) -> None:
        """Take a worker's answer, or see that none will come."""
        try:
            if worker.pipe.poll():
                good, answer = pickle.loads(worker.pipe.recv_bytes())
                if isinstance(answer, DeviceLostError):
                    self._replace(i, worker, self._death(worker, str(answer)))
                    return
                future = worker.tasks.popleft().future
                worker.answered += 1
                worker.next_turn(self._limit)
                self._deaths = 0
                if good:
                    future.set_result(answer)
                else:
                    future.set_exception(answer)
                return
        except (EOFError, OSError):
            self._replace(i, worker, self._death(worker))
            return
        if not worker.process.is_alive():
            self._replace(i, worker, self._death(worker))
        elif (now := time.monotonic()) > worker.look:
            end, place = worker.step(self._limit)
            worker.look = min(end, now + self._limit)
            if now > end:
                reason = f"this structure took more than {self._limit:.0f} s"
                self._replace(i, worker, Lost(reason, place))

    def _death(self, worker: _Worker, reason: str = "") -> Exception:
        """What is told of a task whose worker has died."""
        _, place = worker.step(self._limit)
        worker.process.join(5)
        self._deaths += 1
        code = worker.process.exitcode
        # All of them die at once with the process that they are forked from.
        if self._deaths >= max(_DEATHS, 3 * self.workers):
            if reason:
                return ReciNetError(f"{self._deaths} times in a row {reason}; try --device cpu")
            return ReciNetError(
                f"{self._deaths} worker processes died in a row (exit code {code}); is memory "
                "exhausted? Try fewer --workers"
            )
        if reason:
            return Lost(reason, place)
        return Lost(f"the worker process died on this structure (exit code {code})", place, True)

    def _replace(self, i: int, worker: _Worker, reason: Exception) -> None:
        """Start another worker in the place of one, whose first task is lost with it."""
        _end(worker)
        self._processes[i] = self._start(worker.device)
        first, *others = worker.tasks
        with self._lock:
            self._pending.extendleft(reversed(others))
        first.future.set_exception(reason)


def _end(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join(5)
    worker.pipe.close()
