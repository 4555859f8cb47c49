"""Screens whose network has devices of its own; ``cpu:0`` and ``cpu:1`` stand for two GPUs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.db import connect
from support import random_model

from recinet_ase import Predictor, ReciNetError
from recinet_ase.errors import DeviceLostError
from recinet_ase.inference.result import Prediction
from recinet_ase.io.entries import Chunk, Piece, Source
from recinet_ase.screening.execution import gpus
from recinet_ase.screening.execution.chunk import ChunkRows
from recinet_ase.screening.execution.cluster import DaskWorkers
from recinet_ase.screening.execution.gpus import (
    DeviceWorkers,
    Steps,
    choose_devices,
    compare,
    probe,
    probe_crystals,
)
from recinet_ase.screening.execution.processes import Lost, Workers
from recinet_ase.screening.execution.schedule import in_order, make_backend
from recinet_ase.screening.execution.spec import ScreenSpec, loaded_predictor
from recinet_ase.screening.execution.worker import Overlapped

ROWS = 1100  # three chunks


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory, crystals: dict[str, Atoms]) -> Path:
    path = tmp_path_factory.mktemp("devices") / "many.db"
    small = sorted(crystals.values(), key=len)[:25]
    with connect(path) as db:
        for i in range(ROWS):
            db.write(small[i % 25], number=i)
    return path


def command(database: Path, model: Path, out: Path, *more: str) -> list[str]:
    screen = [sys.executable, "-m", "recinet_ase.cli.screen", str(database), "--model", str(model)]
    return [*screen, "-o", str(out), "-q", *more]


@pytest.fixture(scope="module")
def clean(database: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    out = tmp_path_factory.mktemp("clean") / "out.csv"
    whole = command(database, model_folder, out, "--device", "cpu", "--workers", "0")
    subprocess.run(whole, check=True, capture_output=True, timeout=300)
    return out.read_bytes()


def test_two_devices_and_the_death_of_a_process(
    database: Path, model_folder: Path, clean: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    process = subprocess.Popen(
        command(database, model_folder, out, "--device", "cpu:0,cpu:1", "--workers", "1"),
        stderr=subprocess.PIPE,
        text=True,
    )
    rows = out.with_name("out.csv.part") / "rows.jsonl"
    end = time.monotonic() + 120
    while time.monotonic() < end and not (rows.exists() and rows.read_bytes()):
        time.sleep(0.005)
    family = psutil.Process(process.pid).children(recursive=True)
    workers = [p for p in family if not p.children() and "multiprocessing" in " ".join(p.cmdline())]
    assert len(workers) >= 3
    workers[-1].kill()
    _, message = process.communicate(timeout=150)
    assert process.returncode == 0, message
    assert out.read_bytes() == clean


def numbers(chunk: Chunk) -> list[int]:
    return [item for piece in chunk.pieces for item in piece.items]


def packed(chunk: Chunk) -> tuple[bytes, bytes]:
    return repr(chunk.number).encode(), repr(numbers(chunk)).encode()


def failing(bad: int, parts: Sequence[bytes], device: str) -> list[bytes]:
    if any(bad in eval(items) for items in parts):
        raise DeviceLostError(f"{device} has failed")
    return list(parts)


def rows_of(parts: tuple[bytes, bytes]) -> ChunkRows:
    number, items = map(eval, parts)
    return ChunkRows(number, [{"id": str(i), "error": ""} for i in items])


def test_a_device_that_fails_on_one_structure() -> None:
    source = Source("numbers", "none", "none")
    chunks = [Chunk(k, (Piece(source, 8 * k, tuple(range(8 * k, 8 * k + 8))),)) for k in range(4)]

    class Both(DeviceWorkers):
        def __init__(self) -> None:
            self._models, self._graphs = Workers(2, 60.0, ("a", "b")), Workers(1, 60.0)
            self._prepare_calls()

    backend = Both()
    try:
        work = Steps(packed, partial(failing, 13), rows_of)
        found = list(in_order(chunks, backend, work, ["id", "error"]))
    finally:
        backend.close()
    rows = [row for chunk in found for row in chunk.rows]
    assert [row["id"] for row in rows] == [str(i) if i != 13 else "numbers#13" for i in range(32)]
    assert [bool(row["error"]) for row in rows] == [i == 13 for i in range(32)]
    assert rows[13]["error"] in ("a has failed", "b has failed")


def waited_for(folder: Path, number: int, device: str) -> int:
    """Wait until the next task is loaded, but for the last."""
    (folder / f"{number} begun").touch()
    end = time.monotonic() + 60
    while number < 3 and not (folder / f"{number + 1} loaded").exists():
        assert time.monotonic() < end, "the next task is not loaded meanwhile"
        time.sleep(0.01)
    if number == 2:
        raise ReciNetError("a fault of the task")
    return number


def loaded(folder: Path, number: int, device: str) -> int:
    (folder / f"{number} loaded").touch()
    return number


def packed_slowly(folder: Path, number: int) -> str:
    """Answer once the next task is computed, but for the last."""
    end = time.monotonic() + 60
    while number < 3 and not (folder / f"{number + 1} begun").exists():
        assert time.monotonic() < end, "nothing is computed while an answer is packed"
        time.sleep(0.01)
    return f"answer {number}"


def test_a_device_computes_while_others_load_and_pack(tmp_path: Path) -> None:
    work = Overlapped(
        partial(loaded, tmp_path), partial(waited_for, tmp_path), partial(packed_slowly, tmp_path)
    )
    workers = Workers(1, 60.0, ("a",))
    try:
        futures = [workers.submit(work, number) for number in range(4)]
        with pytest.raises(ReciNetError, match="a fault of the task"):
            futures[2].result(100)
        assert [futures[i].result(100) for i in (0, 1, 3)] == ["answer 0", "answer 1", "answer 3"]
    finally:
        workers.close()


def dying(folder: Path, number: int, device: str) -> int:
    """Die, or lose the device, when the next task is there too."""
    if number < 2 and not (folder / f"{number} was here").exists():
        (folder / f"{number} was here").touch()
        while not (folder / f"{number + 1} loaded").exists():
            time.sleep(0.01)
        if number:
            raise DeviceLostError(f"{device} has failed")
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_death_costs_the_task_at_work_and_no_other(tmp_path: Path) -> None:
    work = Overlapped(partial(loaded, tmp_path), partial(dying, tmp_path), str)
    workers = Workers(1, 60.0, ("a",))
    try:
        futures = [workers.submit(work, number) for number in range(4)]
        with pytest.raises(Lost, match="the worker process died"):
            futures[0].result(100)
        with pytest.raises(Lost, match="a has failed"):
            futures[1].result(100)
        assert [future.result(100) for future in futures[2:]] == ["2", "3"]
    finally:
        workers.close()


def counted(parts: Sequence[bytes], device: str) -> list[bytes]:
    return [repr((items, len(parts))).encode() for items in parts]


def rows_with_count(parts: tuple[bytes, bytes]) -> ChunkRows:
    items, count = eval(parts[1])
    return ChunkRows(eval(parts[0]), [{"id": str(i), "n": count} for i in eval(items)])


def test_which_chunks_go_through_a_device_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of fixed numbers, from wherever a screen goes on, and those that are left."""
    monkeypatch.setattr(gpus, "TOGETHER", 4)
    source = Source("numbers", "none", "none")
    chunks = [Chunk(k, (Piece(source, k, (k,)),)) for k in range(4, 14)]

    class One(DeviceWorkers):
        def __init__(self) -> None:
            self._models, self._graphs = Workers(1, 60.0, ("a",)), Workers(1, 60.0)
            self._prepare_calls()

    backend = One()
    try:
        work = Steps(packed, counted, rows_with_count)
        found = list(in_order(chunks, backend, work, ["id", "error"]))
    finally:
        backend.close()
    rows = [row for chunk in found for row in chunk.rows]
    assert [row["id"] for row in rows] == [str(k) for k in range(4, 14)]
    assert [row["n"] for row in rows] == [4] * 8 + [2] * 2


def test_a_device_with_other_numbers_is_refused(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ScreenSpec((str(model_folder),), ("bandgap",))
    right = probe(spec, "cpu")
    edges = [
        b.centre
        for b in loaded_predictor(spec).preparation(probe_crystals()[0]).batches[0].graphs.values()
    ]
    assert len(edges[0]) > 1000 and len(right[1]) == 74
    compare(probe(spec, "cpu:0"), right)
    answered = [p for p in right[1] if not p.error]
    assert len(answered) >= 2
    wrong = [replace(p, values={k: v + 0.01 for k, v in p.values.items()}) for p in right[1]]
    with pytest.raises(ReciNetError, match="cuda:1 gives bandgap = .*cannot be trusted"):
        compare(("cuda:1", wrong), right)
    silent = [replace(p, error="no kernel image") for p in right[1]]
    with pytest.raises(ReciNetError, match="cuda:1 cannot be used .no kernel image"):
        compare(("cuda:1", silent), right)


def test_intervals_are_compared_and_not_a_number_is_no_agreement() -> None:
    (result,) = Predictor("jarvis-eform", device="cpu").predict_many([bulk("Si")])
    low, high = result.intervals["formation_energy"]
    compare(("a", [result]), ("b", [result]))
    for ends in ((low, high + 0.01), (float("nan"), high)):
        wrong = replace(result, intervals={"formation_energy": ends})
        with pytest.raises(ReciNetError, match="a gives an end of the interval of formation_ener"):
            compare(("a", [wrong]), ("b", [result]))


def test_a_screen_without_workers_looks_at_its_device_too(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ScreenSpec((str(model_folder),), ("bandgap",), devices=("cpu:0",))
    assert make_backend(0, None, None, spec) is None
    whole = gpus.probe

    def moved(spec: ScreenSpec, device: str) -> tuple[str, list[Prediction]]:
        name, found = whole(spec, device)
        if device == "cpu":
            return name, found
        return name, [replace(p, values={k: v + 0.1 for k, v in p.values.items()}) for p in found]

    monkeypatch.setattr(gpus, "probe", moved)
    with pytest.raises(ReciNetError, match="cpu:0 gives bandgap .* cannot be trusted"):
        make_backend(0, None, None, spec)


def test_a_process_that_cannot_start_its_device(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ScreenSpec((str(model_folder),), ("bandgap",), devices=("cpu:0",))
    predictor = loaded_predictor(spec)
    monkeypatch.setattr(gpus, "probe", killed)
    monkeypatch.setattr(gpus, "loaded_predictor", lambda *_: predictor)
    with pytest.raises(ReciNetError, match="cannot work on cpu:0 .* try --device cpu"):
        DeviceWorkers(spec, 1, 60.0)


def killed(spec: ScreenSpec, device: str) -> None:
    if device != "cpu":
        os.kill(os.getpid(), signal.SIGKILL)


def test_names_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_devices("cpu") == ("cpu",) and choose_devices(" cpu:0, cpu:1") == (
        "cpu:0",
        "cpu:1",
    )
    with pytest.raises(ReciNetError, match="'gpu' is no device"):
        choose_devices("gpu")
    with pytest.raises(ReciNetError, match="CUDA_VISIBLE_DEVICES for each GPU"):
        choose_devices("cuda:1", elsewhere=True)
    assert choose_devices("cuda", elsewhere=True) == ("cuda",)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_devices("auto") == choose_devices(None) == ("cuda:0", "cuda:1")
    assert choose_devices("cuda") == ("cuda",) and choose_devices("cuda:1") == ("cuda:1",)
    assert choose_devices("auto", elsewhere=True) == ("cpu",)
    with pytest.raises(ReciNetError, match="there are 2 GPUs, counted from 0"):
        choose_devices("cuda:2")


def small_memory(limit: int, kind: type[Exception]) -> Predictor:
    """A predictor on a "device" that fails where more than so many crystals come at once."""
    predictor = Predictor(random_model(), device="cpu:0")
    (model,) = predictor.models
    whole = model.outcome

    def outcome(batch: object, *rest: object) -> object:
        if batch.n_crystals > limit:  # type: ignore[attr-defined]
            raise kind("CUDA error: an illegal memory access was encountered")
        return whole(batch, *rest)

    model.outcome = outcome
    return predictor


def test_batches_that_do_not_fit_are_halved(crystals: dict[str, Atoms]) -> None:
    structures = list(crystals.values())
    expected = Predictor(random_model(), device="cpu").predict_many(structures)
    found = small_memory(3, torch.OutOfMemoryError).predict_many(structures)
    for one, two in zip(found, expected, strict=True):
        assert one.error == two.error == ""
        assert one.values["bandgap"] == pytest.approx(two.values["bandgap"], abs=1e-5)


def test_a_device_that_is_gone_answers_for_nothing(crystals: dict[str, Atoms]) -> None:
    predictor = small_memory(0, RuntimeError)
    computation = predictor.computation
    computation.device = torch.device("cuda")  # where such an error is for good
    computation.batches = lambda window: iter(window.batches)  # type: ignore[method-assign]
    computation._outcomes = lambda batch, _: predictor.models[0].outcome(  # type: ignore[method-assign]
        next(iter(batch.graphs.values()))
    )
    with pytest.raises(DeviceLostError, match="cuda has failed .*illegal memory access"):
        predictor.predict_many(list(crystals.values()))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """A Dask scheduler with two plain workers and one that says that it has a GPU."""
    pytest.importorskip("distributed")
    contact = tmp_path / "scheduler.json"
    # The workers find this file's functions by its name.
    places = os.pathsep.join(str(folder) for folder in Path(__file__).parents[:2])
    environment = {**os.environ, "PYTHONPATH": places}
    quiet: dict[str, Any] = {
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
        "env": environment,
    }
    dask = [sys.executable, "-m", "dask"]
    connect_ = ["--scheduler-file", str(contact)]
    worker = [*dask, "worker", *connect_, "--nthreads", "1", "--no-dashboard"]
    started = [
        subprocess.Popen([*dask, "scheduler", *connect_, "--port", "0", "--no-dashboard"], **quiet)
    ]
    try:
        started += [
            subprocess.Popen([*worker, *more], cwd=tmp_path, **quiet)
            for more in ([], [], ["--resources", "GPU=1"])
        ]
        from distributed import Client

        end = time.monotonic() + 60
        while not contact.exists() and time.monotonic() < end:
            time.sleep(0.1)
        with Client(scheduler_file=str(contact)) as client:
            client.wait_for_workers(3, timeout=60)
            yield client.scheduler.address
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(120)


def test_dask_workers_with_and_without_a_gpu(
    cluster: str, database: Path, model_folder: Path, clean: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    whole = command(database, model_folder, out, "--scheduler", cluster, "--device", "cpu:0")
    done = subprocess.run(whole, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == clean


@pytest.mark.slow
def test_a_dask_worker_whose_device_is_lost_is_started_again(cluster: str) -> None:
    source = Source("numbers", "none", "none")
    chunks = [Chunk(k, (Piece(source, 2 * k, (2 * k, 2 * k + 1)),)) for k in range(9)]
    backend = DaskWorkers(cluster, device="cuda")
    try:
        before = backend._client.run(os.getpid)
        work = Steps(packed, partial(failing, 13), rows_of)
        rows = [
            row for chunk in in_order(chunks, backend, work, ["id", "error"]) for row in chunk.rows
        ]
        after = backend._client.run(os.getpid)
    finally:
        backend.close()
    assert [row["id"] for row in rows] == [str(i) if i != 13 else "numbers#13" for i in range(18)]
    assert [i for i, row in enumerate(rows) if row["error"]] == [13]
    assert rows[13]["error"].startswith("cuda has failed on the Dask worker tcp")
    assert len(set(before.values()) - set(after.values())) == 1
