"""What a worker process does: tasks in by its pipe, answers out, one after the other."""

from __future__ import annotations

import math
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from recinet_ase.errors import DeviceLostError, ReciNetError

_PARENT_CHECK = 2.0  # seconds between looks at whether the screen still lives

_begun: Any = None  # shared with the screen: see `work`; None outside of workers


def beginning(structures: float = 1, place: int | None = None) -> None:
    """Say that work on one structure or several together begins: the time limit counts from here.

    Args:
        structures: How many; together they have so many times the limit of one.
        place: Where in its chunk the structure is, if it is one.
    """
    if _begun is not None:
        _begun[:3] = (time.monotonic(), structures, -1 if place is None else place)


@dataclass(frozen=True)
class Overlapped:
    """A function on a device in three parts, of which threads do the first and the last.

    So the device need not wait while the next task is unpacked and the last answer packed.

    Attributes:
        load: What was sent and the device, to what ``compute`` takes.
        compute: That and the device, to what came out.
        pack: What came out, to the answer.
    """

    load: Callable[[Any, str], Any]
    compute: Callable[[Any, str], Any]
    pack: Callable[[Any], Any]

    def __call__(self, argument: Any, device: str) -> Any:
        """All three, one after the other."""
        return self.pack(self.compute(self.load(argument, device), device))


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


def work(pipe: Connection, parent: int, begun: Any, device: str | None) -> None:
    """A worker: one thread for arithmetic, interrupts left to the screen, and an end with it.

    Args:
        pipe: Where tasks come from and answers go to.
        parent: Process of the screen.
        begun: Memory shared with it: what `beginning` was told (time, structures, place), and how
            many tasks were begun.
        device: Second argument of each task's function, where the worker has one.
    """
    import torch

    global _begun
    _begun = begun
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if device is not None:
        _work_on(device, pipe)
        return
    for data in _received(pipe):
        function, argument = pickle.loads(data)
        beginning()
        begun[3] += 1
        _send(pipe, _outcome(function, argument))


def _work_on(device: str, pipe: Connection) -> None:
    """The work of a worker with a device: threads take what is sent, load it, and answer."""
    tasks: SimpleQueue[Future[tuple[bool, Any]] | None] = SimpleQueue()
    loading, packing = ThreadPoolExecutor(1), ThreadPoolExecutor(1)

    def load(data: bytes) -> tuple[Any, Any]:
        function, argument = pickle.loads(data)
        if isinstance(function, Overlapped):
            argument = function.load(argument, device)
        return function, argument

    def receive() -> None:
        for data in _received(pipe):
            tasks.put(loading.submit(_outcome, load, data))
        tasks.put(None)

    def answer(function: Any, outcome: tuple[bool, Any]) -> None:
        good, found = outcome
        if good and isinstance(function, Overlapped):
            outcome = _outcome(function.pack, found)
        _send(pipe, outcome)

    threading.Thread(target=receive, daemon=True).start()
    while (task := tasks.get()) is not None:
        beginning(math.inf)  # what is loaded is no structure's time, models least of all
        _begun[3] += 1
        outcome = task.result()
        function = None
        if outcome[0]:
            function, argument = outcome[1]
            beginning()
            compute = function.compute if isinstance(function, Overlapped) else function
            outcome = _outcome(compute, argument, device)
        answered = packing.submit(answer, function, outcome)
        if isinstance(outcome[1], DeviceLostError):
            answered.result()


def _received(pipe: Connection) -> Iterator[bytes]:
    """What is sent, until the pipe is closed."""
    while True:
        try:
            yield pipe.recv_bytes()
        except (EOFError, OSError):
            return


def _outcome(function: Callable[..., Any], *arguments: Any) -> tuple[bool, Any]:
    """Whether a function gave a result, and that or the error."""
    try:
        return True, function(*arguments)
    except Exception as error:
        return False, _portable(error)


def _send(pipe: Connection, outcome: tuple[bool, Any]) -> None:
    """Answer; the process ends where that cannot be, and with a device that is lost."""
    try:
        data = pickle.dumps(outcome, protocol=5)
    except Exception as error:
        data = pickle.dumps((False, _portable(error)), protocol=5)
    try:
        pipe.send_bytes(data)
    except OSError:
        os._exit(1)
    if isinstance(outcome[1], DeviceLostError):
        os._exit(1)  # only a new process can use the device again


def _portable(error: Exception) -> Exception:
    """The error itself if it survives a pipe, else its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return ReciNetError(f"{type(error).__name__}: {error}")
    return error


def _end_with(parent: int) -> None:
    """End this process when that of the screen has ended."""
    import psutil

    while psutil.pid_exists(parent):
        time.sleep(_PARENT_CHECK)
    os._exit(1)
