"""A screen that is killed, starved, crowded or cut off loses no row and changes none."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
from ase import Atoms
from ase.db import connect
from click.testing import CliRunner

from recinet_ase.cli.screen import screen
from recinet_ase.io import chunks, find_sources
from recinet_ase.io.entries import Chunk, Piece, Source
from recinet_ase.screening.execution.chunk import ChunkRows
from recinet_ase.screening.execution.processes import Workers
from recinet_ase.screening.execution.schedule import in_order, split
from recinet_ase.screening.execution.worker import beginning
from recinet_ase.screening.journal import Journal

ROWS = 1700  # four chunks
PATIENCE = 300  # seconds, on a machine with much else to do


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory, crystals: dict[str, Atoms]) -> Path:
    path = tmp_path_factory.mktemp("screen") / "many.db"
    small = sorted(crystals.values(), key=len)[:25]
    with connect(path) as db:
        for i in range(ROWS):
            atoms = small[i % 25].copy()
            if i % 97 == 5:
                atoms.positions[:] = 0.0 if len(atoms) > 1 else float("nan")
            db.write(atoms, number=i)
    return path


def command(database: Path, model: Path, out: Path, *more: str) -> list[str]:
    screen = [sys.executable, "-m", "recinet_ase.cli.screen", str(database), "--model", str(model)]
    return [*screen, "-o", str(out), "--device", "cpu", "-q", *more]


def complete(*arguments: str | list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    flat = [a for part in arguments for a in ([part] if isinstance(part, str) else part)]
    environment = {**os.environ, **variables}
    return subprocess.run(
        flat, capture_output=True, text=True, timeout=PATIENCE, check=False, env=environment
    )


def resumed(call: list[str]) -> str:
    """What a screen that goes on says; in this process, which has loaded everything."""
    done = CliRunner().invoke(screen, [*call[3:], "--resume", "--workers", "0"])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def clean(database: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    out = tmp_path_factory.mktemp("clean") / "out.csv"
    # With four threads, sums come out otherwise than with the one of a worker.
    threads = {"OMP_NUM_THREADS": "4", "MKL_NUM_THREADS": "4", "MKL_DYNAMIC": "FALSE"}
    done = complete(command(database, model_folder, out, "--workers", "0"), **threads)
    assert done.returncode == 0, done.stderr
    assert not out.with_name("out.csv.part").exists()
    assert f"{ROWS} structures, 18 with errors" in done.stderr
    return out.read_bytes()


def wait_for_lines(out: Path, lines: int, process: subprocess.Popen[str]) -> None:
    """Until the journal has so many chunks."""
    rows = out.with_name(f"{out.name}.part") / "rows.jsonl"
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        if rows.exists() and rows.read_bytes().count(b"\n") >= lines:
            return
        time.sleep(0.005)
    assert process.poll() is None, process.communicate()
    raise AssertionError("no progress")


def stopped_in_the_journal(call: list[str], out: Path, lines: int) -> subprocess.Popen[str]:
    """A screen that waits for ever once its journal has so many chunks, when it does."""
    there = out.with_name(f"waiting-{lines}")
    waiting = (
        "import pathlib, time\n"
        "from recinet_ase.screening.journal import Journal\n"
        "append = Journal.append\n"
        "def until(self, chunk):\n"
        f"    if self.done == {lines}:\n"
        f"        pathlib.Path({str(there)!r}).touch()\n"
        "        time.sleep(1000)\n"
        "    append(self, chunk)\n"
        "Journal.append = until\n"
        "from recinet_ase.cli.screen import main\n"
        "main()\n"
    )
    arguments = call[call.index("recinet_ase.cli.screen") + 1 :]
    process = subprocess.Popen(
        [sys.executable, "-c", waiting, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        # Where tests run in the background of a shell, programs begin deaf to interrupts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None and not there.exists():
        time.sleep(0.005)
    assert there.exists(), process.communicate() if process.poll() is not None else "no progress"
    return process


def begun(call: list[str], out: Path) -> subprocess.Popen[str]:
    """A screen with its first chunk done."""
    process = subprocess.Popen(call, stderr=subprocess.PIPE, text=True)
    wait_for_lines(out, 1, process)
    return process


def children_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Worker processes: children of the fork server."""
    return [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE
    ]


def gone(processes: list[psutil.Process], seconds: float = 20) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return not alive


def test_workers_give_the_same_bytes(
    database: Path, model_folder: Path, clean: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    done = complete(command(database, model_folder, out, "--workers", "2"))
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == clean


def test_killed_again_and_again(
    database: Path, model_folder: Path, clean: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    for lines, workers in ((1, "0"), (2, "2")):
        call = command(database, model_folder, out, "--resume", "--workers", workers)
        process = stopped_in_the_journal(call, out, lines)
        workers_of = children_of(process)
        process.kill()
        process.communicate()
        assert gone(workers_of), "workers must not outlive the screen"
        assert not out.exists()
    assert "going on after" in resumed(command(database, model_folder, out))
    assert out.read_bytes() == clean
    assert "is complete; nothing to resume" in resumed(command(database, model_folder, out))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ended_politely(
    database: Path, model_folder: Path, clean: bytes, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out.csv"
    process = stopped_in_the_journal(
        command(database, model_folder, out, "--workers", "1"), out, lines=1
    )
    workers_of = children_of(process)
    process.send_signal(number)
    _, message = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, message
    assert "interrupted after" in message and "--resume" in message
    assert "Traceback" not in message
    assert gone(workers_of)
    again = complete(command(database, model_folder, out))
    assert again.returncode == 2 and "unfinished screen; go on with --resume" in again.stderr
    resumed(command(database, model_folder, out))
    assert out.read_bytes() == clean


def test_a_worker_that_is_killed(
    database: Path, model_folder: Path, clean: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    process = begun(command(database, model_folder, out, "--workers", "2"), out)
    for child in children_of(process):
        if "forkserver" in " ".join(child.cmdline()) and not child.children():
            child.kill()
            break
    _, message = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, message
    assert out.read_bytes() == clean


def test_the_process_that_workers_are_forked_from_is_killed(
    database: Path, model_folder: Path, clean: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    process = begun(command(database, model_folder, out, "--workers", "2"), out)
    (server,) = (child for child in children_of(process) if child.children())
    server.kill()
    _, message = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, message
    assert out.read_bytes() == clean


def test_a_full_disk(database: Path, model_folder: Path, clean: bytes, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    call = command(database, model_folder, out, "--workers", "0")

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    done = subprocess.run(
        call, preexec_fn=small_files, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 2
    assert "cannot write" in done.stderr and "go on with --resume" in done.stderr
    assert not out.exists()
    resumed(command(database, model_folder, out))
    assert out.read_bytes() == clean


def header() -> dict[str, object]:
    return {"columns": ["id", "error"], "inputs": "a"}


def rows(number: int, n: int = 3) -> ChunkRows:
    return ChunkRows(number, [{"id": f"{number}-{i}", "error": ""} for i in range(n)])


def test_a_line_that_was_cut(tmp_path: Path) -> None:
    folder = tmp_path / "out.csv.part"
    journal = Journal(folder, header())
    journal.append(rows(0))
    journal.append(rows(1))
    journal.close()
    path = folder / "rows.jsonl"
    whole = path.read_bytes()
    for cut in (
        whole[:-1],
        whole[: len(whole) // 2 + 3],
        whole + b'[2,0,0,[["x"',
        whole + b"\0" * 9,
    ):
        path.write_bytes(cut)
        journal = Journal(folder, header(), resume=True)
        kept = 2 if cut.startswith(whole) else 1
        assert journal.done == kept and len(journal) == 3 * kept
        if kept == 1:
            journal.append(rows(1))
        journal.close()
        assert path.read_bytes() == whole


def test_a_damaged_line_is_done_again(tmp_path: Path) -> None:
    folder = tmp_path / "out.csv.part"
    journal = Journal(folder, header())
    for number in range(3):
        journal.append(rows(number))
    journal.close()
    path = folder / "rows.jsonl"
    whole = path.read_bytes()
    first, second, third = whole.splitlines(keepends=True)
    for damaged in (
        second.replace(b"1-1", b"1-7"),
        second.replace(b'["1-1",""],', b""),
        b"[1,2,3,4,5,6]\n",
        second[9:],
        third,
    ):
        path.write_bytes(first + damaged + third)
        journal = Journal(folder, header(), resume=True)
        assert journal.done == 1
        journal.append(rows(1))
        journal.append(rows(2))
        journal.close()
        assert path.read_bytes() == whole


def test_rows_without_a_screen_are_nobodys(tmp_path: Path) -> None:
    folder = tmp_path / "out.csv.part"
    journal = Journal(folder, header())
    journal.append(rows(0))
    journal.close()
    (folder / "run.json").unlink()  # as a kill in the middle of `delete` leaves it
    for resume in (False, True):
        journal = Journal(folder, {**header(), "inputs": "b"}, resume=resume)
        assert journal.done == 0
        if not resume:
            journal.append(rows(0))
            journal.close()
            (folder / "run.json").unlink()
    journal.delete()
    assert not folder.exists()


def test_journals_of_something_else_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "out.csv.part"
    Journal(folder, header()).close()
    with pytest.raises(Exception, match=r"other settings or inputs \(columns\)"):
        Journal(folder, {**header(), "columns": ["id"]}, resume=True)
    (folder / "run.json").write_text("{")
    with pytest.raises(Exception, match="damaged"):
        Journal(folder, header(), resume=True)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "out.csv.part"
    journal = Journal(folder, header())
    with pytest.raises(Exception, match="another process is at work"):
        Journal(folder, header(), resume=True)
    journal.close()
    Journal(folder, header(), resume=True).close()


def test_changed_input_is_not_resumed(database: Path, model_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    copy.write_bytes(database.read_bytes())
    out = tmp_path / "out.csv"
    process = stopped_in_the_journal(
        command(copy, model_folder, out, "--workers", "0"), out, lines=1
    )
    process.kill()
    process.communicate()
    os.utime(copy, (1, 1))
    done = complete(command(copy, model_folder, out, "--resume"))
    assert done.returncode == 2
    assert "begun with other settings or inputs (inputs)" in done.stderr


# Workers, with functions that misbehave for one structure


def numbered(n: int) -> list[Chunk]:
    source = Source("numbers", "none", "none")
    items = list(range(n))
    return [
        Chunk(k, (Piece(source, start, tuple(items[start : start + 10])),))
        for k, start in enumerate(range(0, n, 10))
    ]


def doubled(chunk: Chunk) -> ChunkRows:
    found = [item for piece in chunk.pieces for item in piece.items]
    return ChunkRows(chunk.number, [{"id": str(2 * i), "error": ""} for i in found])


def crashing(bad: int, chunk: Chunk) -> ChunkRows:
    if any(bad in piece.items for piece in chunk.pieces):
        os.kill(os.getpid(), signal.SIGSEGV)
    return doubled(chunk)


def hanging(bad: int, chunk: Chunk) -> ChunkRows:
    if any(bad in piece.items for piece in chunk.pieces):
        time.sleep(1000)
    return doubled(chunk)


@pytest.mark.parametrize(
    ("function", "limit", "reason"),
    [(crashing, 300.0, "worker process died on this structure"), (hanging, 1.0, "more than 1 s")],
)
def test_only_the_structure_at_fault_is_lost(function: object, limit: float, reason: str) -> None:
    backend = Workers(2, limit)
    try:
        done = list(in_order(numbered(60), backend, partial(function, 37), ["id", "error"]))
    finally:
        backend.close()
    assert [c.number for c in done] == list(range(6))
    found = [row for c in done for row in c.rows]
    assert [row["id"] for row in found if not row["error"]] == [
        str(2 * i) for i in range(60) if i != 37
    ]
    (bad,) = [row for row in found if row["error"]]
    assert bad["id"] == "numbers#37" and reason in bad["error"]
    assert found.index(bad) == 37


def steadily(chunk: Chunk) -> ChunkRows:
    """Each structure well within a limit of 1 s, the ten of a chunk not."""
    for place in range(len(chunk)):
        beginning(1, place)
        time.sleep(0.15)
    beginning(len(chunk))
    time.sleep(1.5)
    return doubled(chunk)


def hanging_at(bad: int, folder: Path, chunk: Chunk) -> ChunkRows:
    """Like `hanging`, but it says what it begins; every call is noted."""
    items = [item for piece in chunk.pieces for item in piece.items]
    (folder / f"{items[0]}-{len(items)}-{time.monotonic()}").touch()
    for place, item in enumerate(items):
        beginning(1, place)
        if item == bad:
            time.sleep(1000)
    return doubled(chunk)


def test_the_time_limit_is_for_a_structure() -> None:
    backend = Workers(1, 1.0)
    try:
        (done,) = in_order(numbered(10), backend, steadily, ["id", "error"])
    finally:
        backend.close()
    assert [row["error"] for row in done.rows] == [""] * 10


def test_others_go_on_while_a_slow_chunk_is_done_in_parts(tmp_path: Path) -> None:
    backend = Workers(2, 2.0)
    try:
        chunks_done = in_order(
            numbered(200), backend, partial(hanging_at, 3, tmp_path), ["id", "error"]
        )
        done = [row for chunk in chunks_done for row in chunk.rows]
    finally:
        backend.close()
    assert [row["id"] for row in done if row["error"]] == ["numbers#3"]
    calls = [name.name.split("-") for name in tmp_path.iterdir()]
    times = {(int(first), int(n)): float(when) for first, n, when in calls}
    # The structure at fault was known: what lies before and behind it is done again once.
    assert {key for key in times if key[1] < 10} == {(0, 3), (3, 1), (4, 6)}
    assert len(times) == len(calls) == 20 + 3
    # The other worker had begun all other chunks before the parts of the first were.
    assert max(times[first, 10] for first in range(0, 200, 10)) < times[3, 1]


def test_halves() -> None:
    source = Source("numbers", "none", "none")
    chunk = Chunk(
        4, (Piece(source, 7, (7, 8, 9)), Piece(source, 0, (0,)), Piece(source, 3, (3, 4)))
    )
    first, second = split(chunk, 3)
    assert [(p.start, p.items) for p in first.pieces] == [(7, (7, 8, 9))]
    assert [(p.start, p.items) for p in second.pieces] == [(0, (0,)), (3, (3, 4))]
    first, second = split(second, 1)
    assert [(p.start, p.items) for p in first.pieces] == [(0, (0,))]


def test_dask_workers(database: Path, model_folder: Path, clean: bytes, tmp_path: Path) -> None:
    """Two local workers, one of which is killed: the same bytes."""
    pytest.importorskip("distributed")
    out = tmp_path / "out.csv"
    process = begun(
        command(database, model_folder, out, "--scheduler", "local", "--workers", "2"), out
    )
    workers = [
        child
        for child in psutil.Process(process.pid).children()
        if "spawn" in " ".join(child.cmdline())
    ]
    assert workers
    workers[-1].kill()
    _, message = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, message
    assert out.read_bytes() == clean


def test_dask_that_is_not_there(database: Path, model_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    from recinet_ase.errors import ReciNetError
    from recinet_ase.screening.execution.cluster import DaskWorkers

    with pytest.raises(ReciNetError, match="no Dask workers at"):
        DaskWorkers("tcp://127.0.0.1:9", patience=1)


def test_chunks_do_not_depend_on_how_they_are_read(database: Path) -> None:
    found = list(chunks(find_sources([str(database)]), 512))
    assert [len(c) for c in found] == [512, 512, 512, ROWS - 3 * 512]
    assert json.dumps([c.number for c in found]) == "[0, 1, 2, 3]"
