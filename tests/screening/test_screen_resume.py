"""What a screen gave up is not touched again, and only a screen's own result is complete."""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.db import connect
from ase.io import read
from click.testing import CliRunner, Result

from recinet_ase import ReciNetError, load_model
from recinet_ase.cli.screen import screen
from recinet_ase.io import find_sources
from recinet_ase.screening import run as running
from recinet_ase.screening.execution import processes
from recinet_ase.screening.execution.chunk import ChunkRows
from recinet_ase.screening.execution.processes import Workers
from recinet_ase.screening.execution.schedule import choose_workers
from recinet_ase.screening.execution.spec import _cached
from recinet_ase.screening.journal import Journal
from recinet_ase.screening.options import ScreenOptions, ScreenOutcome
from recinet_ase.screening.selection.selection import Selection


@pytest.fixture
def database(tmp_path: Path, crystals: dict[str, Atoms]) -> Path:
    path = tmp_path / "few.db"
    with connect(path) as db:
        for atoms in list(crystals.values())[:6]:
            db.write(atoms)
    return path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(screen, [*map(str, arguments), "--device", "cpu", "-q"])


class Quiet:
    def busy(self, what: str) -> None:
        """Nothing."""

    def note(self, line: str) -> None:
        """Nothing."""

    @contextlib.contextmanager
    def progress(self, total: int | None, done: int) -> Iterator[object]:
        yield lambda rows: None


def screened(options: ScreenOptions, *words: str) -> ScreenOutcome:
    with running.run_screen(options, Quiet(), ["recinet-screen", *words]) as outcome:
        return outcome


LOST = (1, 4)


@pytest.fixture
def one_that_kills(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Two rows whose worker died; later reads of them are counted."""
    from recinet_ase.screening import journal_table
    from recinet_ase.screening.execution import schedule

    whole = schedule.screen_chunk

    def dying(spec: object, chunk: object) -> ChunkRows:
        done = whole(spec, chunk)
        rows = list(done.rows)
        for place in LOST:
            empty = dict.fromkeys(rows[place], None)
            rows[place] = {**empty, "id": f"few.db#{place}", "formula": "", "error": "it died"}
        return ChunkRows(done.number, rows, done.without_key, LOST)

    again: list[int] = []
    reading = journal_table.read_chunk

    def counted(chunk: object, id_key: str | None) -> object:
        again.extend(piece.start for piece in chunk.pieces)
        return reading(chunk, id_key)

    monkeypatch.setattr(schedule, "screen_chunk", dying)
    monkeypatch.setattr(journal_table, "read_chunk", counted)
    return again


@pytest.mark.parametrize("name", ["out.extxyz", "out.db", "out.json"])
def test_lost_structures_are_left_out_and_not_read_again(
    database: Path, model_folder: Path, tmp_path: Path, one_that_kills: list[int], name: str
) -> None:
    out, report = tmp_path / name, tmp_path / "report.html"
    found = call(database, "--model", model_folder, "-o", out, "--report", report)
    assert found.exit_code == 0, found.output
    assert "2 rows have no structure" in found.output or "2 with errors" in found.output
    assert len(read(out, ":")) in (4, 6)
    assert one_that_kills and not set(LOST) & set(one_that_kills)


def test_lost_rows_survive_a_restart(database: Path, tmp_path: Path) -> None:
    header = {"columns": ["id", "error"], "id_key": None}
    rows = [{"id": str(i), "error": ""} for i in range(1, 7)]
    rows[2] = {"id": "few.db#2", "error": "it died"}
    journal = Journal(tmp_path / "out.csv.part", header)
    begun = journal.started
    journal.append(ChunkRows(0, rows, lost=(2,)))
    journal.close()
    journal = Journal(tmp_path / "out.csv.part", header, resume=True)
    assert journal.started == begun and journal.lost == {2: ("few.db#2", "it died")}
    table = journal.table({}, find_sources([str(database)]), 512)
    entries = list(table.entries(np.array([5, 2, 0])))
    assert [entry.id for entry in entries] == ["6", "few.db#2", "1"]
    assert isinstance(entries[1].atoms, ReciNetError) and isinstance(entries[0].atoms, Atoms)
    journal.close()


@pytest.mark.parametrize("name", ["out.csv", "report.html"])
def test_only_its_own_result_is_complete(
    database: Path, model_folder: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / name
    target = ("--report" if name.endswith("html") else "-o", out)
    line = (database, "--model", model_folder, *target)
    assert call(*line, "--resume").exit_code == 0
    before = out.read_bytes()
    again = call(*line, "--resume")
    assert again.exit_code == 0 and "is complete; nothing to resume" in again.output
    other = call(*line, "--top", 1, "--resume")
    assert other.exit_code == 2 and "result of another screen" in other.output
    with connect(database) as db:
        db.write(Atoms("Si", cell=[3] * 3, pbc=True))
    assert "result of another screen" in call(*line, "--resume").output
    assert out.read_bytes() == before
    if name == "out.csv":
        sidecar = tmp_path / "out.csv.meta.json"
        assert len(json.loads(sidecar.read_text())["screen"]) == 64
        sidecar.unlink()
    else:
        out.write_text("<html>")
    assert "nothing says that it is the result" in call(*line, "--resume").output
    assert call(*line).exit_code == 0


@pytest.fixture
def short_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph of one structure does not fit, another meets a bug."""
    from recinet_ase.inference import preparation

    whole, seen = preparation.neighbours_of, []

    def failing(crystal: object, settings: object) -> object:
        seen.append(crystal)
        if len(seen) == 2:
            raise MemoryError
        if len(seen) == 5:
            raise KeyError("a bug")
        return whole(crystal, settings)

    monkeypatch.setattr(preparation, "neighbours_of", failing)


@pytest.mark.parametrize("target", ["-o", "stdout"])
def test_faults_of_the_program_are_counted_apart_and_logged(
    database: Path, model_folder: Path, tmp_path: Path, short_of_memory: None, target: str
) -> None:
    with connect(database) as db:
        db.write(Atoms("Si2", positions=np.zeros((2, 3)), cell=[3] * 3, pbc=True))
    out, log = tmp_path / "out.csv", tmp_path / "screen.log"
    line = [database, "--model", model_folder, *(("-o", out) if target == "-o" else ())]
    found = call(*line, "--log", log)
    assert found.exit_code == 0, found.output
    assert "7 structures, 3 with errors" in found.output
    assert "warning: 2 errors are faults of this program" in found.output
    assert f"tracebacks: {log}" in found.output
    table = out.read_text() if target == "-o" else found.output
    assert "internal error: MemoryError" in table and "internal error: KeyError: 'a bug'" in table
    text = log.read_text()
    assert "2: Traceback" in text and "5: Traceback" in text and "7: Traceback" not in text
    assert text.count('raise KeyError("a bug")') == text.count("raise MemoryError") == 1
    if target == "-o":
        counts = json.loads((tmp_path / "out.csv.meta.json").read_text())["counts"]
        assert (counts["errors"], counts["faults"], counts["lost"]) == (3, 2, 0)


def test_faults_survive_a_restart(tmp_path: Path) -> None:
    header = {"columns": ["id", "error"], "id_key": None}
    journal = Journal(tmp_path / "out.csv.part", header)
    rows = [{"id": "1", "error": "internal error: MemoryError"}, {"id": "2", "error": ""}]
    journal.append(ChunkRows(0, rows, faults=((0, "Traceback ..."),)))
    journal.close()
    journal = Journal(tmp_path / "out.csv.part", header, resume=True)
    assert (journal.errors, journal.faults) == (1, 1)
    journal.close()


def unfinished(options: ScreenOptions) -> None:
    """Leave the journal of a screen with one chunk done, as a kill does."""
    with contextlib.suppress(KeyboardInterrupt), running.run_screen(options, Quiet(), []):
        raise KeyboardInterrupt


def test_rows_of_two_versions_or_weights_do_not_mix(
    database: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    shutil.copytree(model_folder, model)
    out = tmp_path / "out.csv"
    options = ScreenOptions(
        (str(database),), models=(str(model),), output=str(out), device="cpu", resume=True
    )
    unfinished(options)
    assert (tmp_path / "out.csv.part" / "rows.jsonl").read_bytes()
    with monkeypatch.context() as other:
        other.setattr(running, "__version__", "0.0.1")
        with pytest.raises(ReciNetError, match=r"begun by recinet-ase \S+, and this is 0.0.1"):
            screened(options)
    original = load_model(model)
    changed = copy.deepcopy(original)
    with torch.no_grad():
        next(changed.network.parameters()).mul_(2.0)
    colder = copy.deepcopy(original)
    colder.config = replace(colder.config, mean=(1.0,))
    shorter = copy.deepcopy(original)
    settings = replace(original.config.graph, neighbours=12)
    shorter.config = replace(original.config, graph=settings)  # weights and scale are the same
    for other_model in (changed, colder, shorter):
        other_model.save(model, half=False)
        _cached.cache_clear()
        with pytest.raises(ReciNetError, match=r"other settings or inputs \(models\)"):
            screened(options)
    original.save(model, half=False)
    _cached.cache_clear()
    assert screened(options).rows == 6


def test_a_password_is_in_no_output(database: Path, model_folder: Path, tmp_path: Path) -> None:
    out, report = tmp_path / "out.csv", tmp_path / "report.html"
    options = ScreenOptions(
        (str(database),), models=(str(model_folder),), output=str(out), report=str(report),
        device="cpu", selection=Selection(),
    )  # fmt: skip
    screened(options, "postgresql://me:S3CRET@host/db")
    written = [path.read_text() for path in (out, report, tmp_path / "out.csv.meta.json")]
    assert not any("S3CRET" in text for text in written)
    assert "me:***@host" in written[1] and "me:***@host" in written[2]


def test_standard_output_cannot_be_resumed(database: Path, model_folder: Path) -> None:
    found = call(database, "--model", model_folder, "--resume")
    assert found.exit_code == 2 and "give a file with -o" in found.output


def test_a_time_limit_takes_a_worker() -> None:
    assert choose_workers(None, None, 10, limited=True) == 1
    assert choose_workers(None, None, 10) == 0
    for workers, scheduler in ((0, None), (None, "local")):
        with pytest.raises(ReciNetError, match="--time-limit ends a worker process"):
            choose_workers(workers, scheduler, 10, limited=True)


def test_nobody_waits_for_workers_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Workers(1, 300.0)

    def refused(device: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(backend, "_start", refused)
    try:
        first, second = (backend.submit(exit_now, 3) for _ in range(2))
        for future in (first, second, backend.submit(exit_now, 3)):
            with pytest.raises((ReciNetError, processes.Lost), match="cannot go on|died"):
                future.result(timeout=60)
        with pytest.raises(ReciNetError, match="Resource temporarily unavailable"):
            backend.submit(exit_now, 3).result(timeout=60)
    finally:
        backend.close()


def exit_now(code: int) -> None:
    import os

    os._exit(code)
