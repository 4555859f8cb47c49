"""Worker processes that may die: one pipe each, so that none can block another.

Pools that share a queue share its lock, and a worker that is killed while it holds the lock
stops all others for good. Here a thread of this process hands each worker its next task
when it has answered the last, sees at once when one dies or takes too long, and puts another
in its place.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from recinet_ase.errors import DeviceLostError, ReciNetError, reason_of

_WATCH = 2.0  # seconds between a worker's looks at whether the screen still lives
_ATTEMPTS, _PAUSE = 5, 0.2  # to start a worker, and seconds between them
_DEATHS = 100  # in a row, after which something else is wrong
_PRELOADED = [
    "recinet_ase.inference.predictor",
    "recinet_ase.screening.execution.chunk",
    "ase.db",
    "ase.io",
]


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
    """A task whose worker died or took too long; the message says which."""


@dataclass
class _Task:
    payload: bytes
    future: Future[Any]


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    device: str | None = None
    task: _Task | None = None
    deadline: float | None = None  # of a task that was sent


class Workers:
    """Worker processes of this machine, one thread each.

    Args:
        workers: How many.
        time_limit: Seconds that a task may take.
        devices: A device for each worker, which is then the second argument of what it does.
    """

    def __init__(self, workers: int, time_limit: float, devices: Sequence[str] = ()) -> None:
        self.workers = workers
        self._limit = time_limit
        self._context = _context()
        self._pending: deque[_Task] = deque()
        self._lock = threading.Lock()
        self._inbox, self._bell = multiprocessing.Pipe(duplex=False)
        self._closed = False
        self._broken: ReciNetError | None = None
        self._deaths = 0
        seats = list(devices) if devices else [None] * workers
        try:
            self._crew = [self._start(device) for device in seats]
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
            self._bell.send_bytes(b"x")
        return task.future

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
            self._bell.send_bytes(b"x")
        self._thread.join()
        for worker in self._crew:
            _end(worker)
        self._inbox.close()
        self._bell.close()

    def _start(self, device: str | None) -> _Worker:
        for attempt in reversed(range(_ATTEMPTS)):
            ours, theirs = multiprocessing.Pipe()
            process = self._context.Process(
                target=_work, args=(theirs, os.getpid(), device), daemon=True
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
                return _Worker(process, ours, device)
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
                waiting = [*self._pending, *(w.task for w in self._crew if w.task is not None)]
            for task in waiting:
                if not task.future.done():
                    task.future.set_exception(why)

    def _loop(self) -> None:
        """Tasks out, answers in, the dead replaced."""
        while True:
            with self._lock:
                if self._closed:
                    return
                for worker in self._crew:
                    if worker.task is None and self._pending:
                        worker.task, worker.deadline = self._pending.popleft(), None
            for i, worker in enumerate(self._crew):
                if worker.task is not None and worker.deadline is None:
                    try:
                        worker.pipe.send_bytes(worker.task.payload)
                    except OSError:
                        self._replace(i, worker, self._death(worker))
                    else:
                        worker.deadline = time.monotonic() + self._limit
            busy = [worker for worker in self._crew if worker.deadline is not None]
            deadlines = [worker.deadline for worker in busy if worker.deadline is not None]
            patience = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
            watched = [w.pipe for w in busy] + [w.process.sentinel for w in busy] + [self._inbox]
            if self._inbox in wait(watched, patience):
                self._inbox.recv_bytes()
            for i, worker in enumerate(self._crew):
                if worker.deadline is not None:
                    self._look(i, worker)

    def _look(self, i: int, worker: _Worker) -> None:
        """Take a worker's answer, or see that none will come."""
        task, deadline = worker.task, worker.deadline
        assert task is not None and deadline is not None
        try:
            if worker.pipe.poll():
                good, answer = pickle.loads(worker.pipe.recv_bytes())
                worker.task = worker.deadline = None
                self._deaths = 0
                if good:
                    task.future.set_result(answer)
                else:
                    task.future.set_exception(answer)
                return
        except (EOFError, OSError):
            self._replace(i, worker, self._death(worker))
            return
        if not worker.process.is_alive():
            self._replace(i, worker, self._death(worker))
        elif time.monotonic() > deadline:
            self._replace(i, worker, Lost(f"this structure took more than {self._limit:.0f} s"))

    def _death(self, worker: _Worker) -> Exception:
        worker.process.join(5)
        self._deaths += 1
        code = worker.process.exitcode
        # All of them die at once with the process that they are forked from.
        if self._deaths >= max(_DEATHS, 3 * self.workers):
            return ReciNetError(
                f"{self._deaths} worker processes died in a row (exit code {code}); is memory "
                "exhausted? Try fewer --workers"
            )
        return Lost(f"the worker process died on this structure (exit code {code})")

    def _replace(self, i: int, worker: _Worker, reason: Exception) -> None:
        task = worker.task
        _end(worker)
        self._crew[i] = self._start(worker.device)
        if task is not None:
            task.future.set_exception(reason)


def _end(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join(5)
    worker.pipe.close()


def single_threaded(function: Callable[[Any], Any], chunk: Any) -> Any:
    """What the function gives with one thread: sums in another order would change last digits.

    Args:
        function: What to do with the chunk; so a chunk has the same rows wherever it is done.
        chunk: Its only argument.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return function(chunk)
    finally:
        torch.set_num_threads(before)


def _work(pipe: Connection, parent: int, device: str | None) -> None:
    """A worker: one thread, interrupts left to the screen, and an end with it."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    while True:
        try:
            function, argument = pickle.loads(pipe.recv_bytes())
        except (EOFError, OSError):
            return
        try:
            found = function(argument) if device is None else function(argument, device)
            answer = pickle.dumps((True, found), protocol=5)
        except DeviceLostError:
            # Only a new process can use the device again; the task is lost with this one.
            os._exit(1)
        except Exception as error:
            answer = pickle.dumps((False, _portable(error)), protocol=5)
        try:
            pipe.send_bytes(answer)
        except OSError:
            return


def _portable(error: Exception) -> Exception:
    """The error itself if it survives a pipe, else its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return ReciNetError(f"{type(error).__name__}: {error}")
    return error


def _watch(parent: int) -> None:
    import psutil

    while psutil.pid_exists(parent):
        time.sleep(_WATCH)
    os._exit(1)
