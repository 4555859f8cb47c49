"""Screening on a Dask cluster: the same chunks, on workers of other machines.

Every worker holds its model once. Results come back to the one process that writes, in input
order, so that resuming and the bytes of the result are those of a single machine. Workers
read the input themselves, which therefore has to be on a file system that they share.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import recinet_ase
from recinet_ase.errors import DeviceLostError, ReciNetError
from recinet_ase.io.entries import Chunk
from recinet_ase.screening.execution.chunk import ChunkRows
from recinet_ase.screening.execution.gpus import Steps, compare, probe
from recinet_ase.screening.execution.processes import Lost, available_cores
from recinet_ase.screening.execution.spec import ScreenSpec
from recinet_ase.screening.execution.worker import single_threaded

_PATIENCE = 60.0  # seconds between looks at what is done
_LOGGERS = ("distributed", "tornado", "asyncio")


class DaskWorkers:
    """Workers of a Dask scheduler.

    Args:
        scheduler: ``"local"`` for a cluster on this machine, or an address such as
            ``tcp://node01:8786``.
        workers: Workers of a local cluster; one a core if None.
        device: Device of the workers that were started with the resource ``GPU``, which then run
            the network while all others read and build graphs; None if all do everything.
        patience: Seconds to wait for a scheduler and its first worker.

    Raises:
        ReciNetError: If Dask is missing, the scheduler cannot be reached, it has no worker (or
            none with a GPU), or its workers run another version of recinet-ase.
    """

    def __init__(
        self,
        scheduler: str,
        workers: int | None = None,
        device: str | None = None,
        patience: float = 30.0,
    ) -> None:
        try:
            from distributed import Client, LocalCluster
        except ImportError:
            raise ReciNetError("--scheduler needs Dask: pip install 'recinet-ase[dask]'") from None
        self._cluster: Any = None
        self._device = device
        # A lost connection is told in one line, not in the tracebacks of Dask's own log.
        names = [n for n in logging.root.manager.loggerDict if n.split(".")[0] in _LOGGERS]
        self._levels = {name: logging.getLogger(name).level for name in names}
        for name in names:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        if scheduler == "local":
            self._cluster = LocalCluster(
                n_workers=workers or available_cores(),
                threads_per_worker=1,
                dashboard_address=None,
                silence_logs=50,  # a worker that dies is reported by its chunk
            )
        try:
            self._client = Client(self._cluster or scheduler, timeout=patience)
            self._client.wait_for_workers(1, timeout=patience)
        except (OSError, TimeoutError, ValueError) as error:
            raise ReciNetError(f"no Dask workers at {scheduler} ({error})") from None
        self._check_versions()
        if device is not None and not any(self._has_gpu().values()):
            raise ReciNetError(
                f"no Dask worker at {scheduler} has a GPU to run --device {device} on: start one "
                "for each GPU with dask worker --nthreads 1 --resources GPU=1"
            )

    def _has_gpu(self) -> dict[str, bool]:
        """For each worker, by its address."""
        found = self._client.scheduler_info()["workers"].items()
        return {address: "GPU" in worker.get("resources", {}) for address, worker in found}

    def _check_versions(self) -> None:
        """Refuse workers of another version: their rows would be others."""
        try:
            found = set(self._client.run(_version).values())
        except ModuleNotFoundError:
            found = {"none"}
        if found != {recinet_ase.__version__}:
            raise ReciNetError(
                f"the Dask workers run recinet-ase {', '.join(sorted(found))}, this process "
                f"{recinet_ase.__version__}; install the same version on both"
            )

    def check(self, spec: ScreenSpec) -> None:
        """Let every worker with a GPU predict what this process has predicted.

        Raises:
            ReciNetError: If one cannot, or gives other numbers.
        """
        expected = probe(spec, "cpu")
        asked = {
            address: self._client.submit(
                _on_gpu, probe, spec, self._device, pure=False, workers=[address],
                resources={"GPU": 1},
            )
            for address, gpu in self._has_gpu().items()
            if gpu
        }  # fmt: skip
        try:
            for address, future in asked.items():
                device, found = self.result(future)
                compare((f"{device} of the Dask worker {address}", found), expected)
        except Lost as error:
            self.close()
            raise ReciNetError(f"{error}; try --device cpu") from None
        except ReciNetError:
            self.close()
            raise

    @property
    def workers(self) -> int:
        """Workers at the moment."""
        return max(1, len(self._client.nthreads()))

    def submit(self, function: Callable[[Chunk], ChunkRows] | Steps, chunk: Chunk) -> Any:
        """Start a function of a chunk, or steps one after the other."""
        submit = self._client.submit
        if not isinstance(function, Steps):
            return submit(single_threaded, function, chunk, pure=False)
        others = [address for address, gpu in self._has_gpu().items() if not gpu]
        plain = {"workers": others or None, "allow_other_workers": bool(others), "pure": False}
        graphs = submit(single_threaded, function.prepare, chunk, **plain)
        alone = partial(_alone, function.compute)
        gpu = {"GPU": 1}
        done = submit(_on_gpu, alone, graphs, self._device, pure=False, resources=gpu)
        return submit(single_threaded, function.read, done, **plain)

    def wait(self, futures: Sequence[Any]) -> None:
        """Wait until one of these is done, or the connection is lost."""
        from concurrent.futures import CancelledError

        from distributed import wait
        from distributed.comm.core import CommClosedError

        with suppress(CancelledError, CommClosedError, TimeoutError):
            wait(futures, timeout=_PATIENCE, return_when="FIRST_COMPLETED")

    def result(self, future: Any) -> Any:
        """Wait for what `submit` gave.

        Raises:
            Lost: If several workers in a row died on it, or the device of one failed.
            ReciNetError: If the scheduler is gone.
        """
        from concurrent.futures import CancelledError

        from distributed import KilledWorker
        from distributed.comm.core import CommClosedError

        try:
            return future.result()
        except _LostDevice as error:
            self._renew(error)
            raise Lost(str(error)) from None
        except KilledWorker:
            raise Lost("several Dask workers in a row died on this structure") from None
        except (CancelledError, CommClosedError) as error:
            raise ReciNetError(
                f"the connection to the Dask scheduler was lost ({type(error).__name__}); "
                "go on with --resume"
            ) from None

    def _renew(self, error: _LostDevice) -> None:
        """Start the process of a worker again whose device has failed: no other way is left.

        Raises:
            ReciNetError: If that is not in this process's power.
        """
        if self._client.run(os.getpid, workers=[error.worker]).get(error.worker) != error.process:
            return  # it was started again since
        try:
            self._client.restart_workers([error.worker])
        except (ValueError, TimeoutError) as why:  # a worker without a nanny
            raise ReciNetError(
                f"{error}, and the worker cannot be started again from here ({why}); start it "
                "anew and go on with --resume"
            ) from None

    def close(self) -> None:
        """Leave the scheduler; end a local cluster."""
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)


def _alone(
    compute: Callable[[Sequence[bytes], str], list[bytes]], parts: tuple[bytes, bytes], device: str
) -> tuple[bytes, bytes]:
    """The second step for one chunk."""
    rest, graphs = parts
    return rest, compute([graphs], device)[0]


class _LostDevice(Exception):
    """A device of a Dask worker that has failed.

    Args:
        reason: What it said.
        worker: Address of the worker.
        process: Number of its process.
    """

    def __init__(self, reason: str, worker: str, process: int) -> None:
        super().__init__(reason, worker, process)
        self.reason, self.worker, self.process = reason, worker, process

    def __str__(self) -> str:
        return f"{self.reason} on the Dask worker {self.worker}"


def _on_gpu(function: Callable[[Any, str], Any], argument: Any, device: str) -> Any:
    """What a function gives on the device of a worker."""
    try:
        return function(argument, device)
    except DeviceLostError as error:
        from distributed import get_worker

        raise _LostDevice(str(error), get_worker().address, os.getpid()) from None


def _version() -> str:
    return recinet_ase.__version__
