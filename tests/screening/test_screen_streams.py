"""Screens with closed streams, early signals, and outputs that cannot be files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import bulk
from ase.db import connect
from click.testing import CliRunner, Result
from support import EXAMPLES

from recinet_ase.cli.screen import screen
from recinet_ase.io.entries import Entry
from recinet_ase.screening.journal import Journal, journal_folder
from recinet_ase.screening.output.writers import open_writer

SCREEN = [sys.executable, "-m", "recinet_ase.cli.screen"]


def in_shell(words: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command with the arguments, and with the shell's redirections in ``words``."""
    script = f'exec "$@" {words}'
    call = ["sh", "-c", script, "sh", *SCREEN, *map(str, arguments), "--device", "cpu"]
    return subprocess.run(call, capture_output=True, text=True, timeout=200, check=False)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(screen, [str(EXAMPLES), *map(str, arguments), "--device", "cpu"])


@pytest.mark.parametrize("closed", ["2>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams_stop_no_screen(closed: str, model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.db"
    done = in_shell(closed, EXAMPLES, "--model", model_folder, "-o", out)
    assert done.returncode == 0
    assert connect(out).count() == 50


def test_rows_for_a_closed_stream(model_folder: Path) -> None:
    done = in_shell(">&-", EXAMPLES, "--model", model_folder)
    assert done.returncode == 2
    assert "standard output is closed; give a file with -o" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("seconds", [0.4, 1.0, 2.0])
def test_interrupted_before_anything_is_done(
    number: signal.Signals, seconds: float, model_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    process = subprocess.Popen(
        [*SCREEN, EXAMPLES, "--model", model_folder, "-o", out, "--workers", "2", "-q"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    time.sleep(seconds)
    os.killpg(process.pid, number)  # as a terminal does, to all processes
    _, message = process.communicate(timeout=60)
    if process.returncode == 0:  # a fast machine
        assert len(out.read_text().splitlines()) == 51
        return
    if "interrupted" not in message:
        assert process.returncode == -number, "the interpreter itself was still starting"
        return
    # A shell sees 130 in both: Python ends itself by SIGINT where an `exec` was interrupted.
    assert process.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in message
    assert ("--resume" in message) == out.with_name("out.csv.part").exists()


def test_outputs_that_are_no_files(model_folder: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.html").mkdir()
    for option, name, message in (
        ("-o", "pipe.csv", "no ordinary file"),
        ("-o", "a" * 232 + ".csv", "its name must not be longer than"),
        ("--report", "a" * 232 + ".html", "its name must not be longer than"),
        ("--report", "folder.html", "it is a folder"),
    ):
        found = call("--model", model_folder, option, tmp_path / name)
        assert found.exit_code == 2 and message in found.output, found.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.html", "pipe.csv"]


def test_names_at_the_limit_and_in_capitals(model_folder: Path, tmp_path: Path) -> None:
    longest = "a" * 227 + ".CSV"
    found = call("--model", model_folder, "-o", tmp_path / longest, "-q")
    assert found.exit_code == 0, found.output
    assert len((tmp_path / longest).read_text().splitlines()) == 51


def test_a_link_to_itself_is_replaced(model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    out.symlink_to(out)
    found = call("--model", model_folder, "-o", out, "-q")
    assert found.exit_code == 0, found.output
    assert len(out.read_text().splitlines()) == 51


def test_links_to_one_file_are_one_output(model_folder: Path, tmp_path: Path) -> None:
    out, link = tmp_path / "out.csv", tmp_path / "link.csv"
    link.symlink_to(out)
    assert journal_folder(out) == journal_folder(link) == tmp_path / "out.csv.part"
    journal = Journal(journal_folder(link), {"columns": ["id", "error"]})
    found = call("--model", model_folder, "-o", out, "--resume")
    assert found.exit_code == 2 and "another process is at work" in found.output, found.output
    journal.delete()


def test_what_a_kill_left_beside_the_output_is_gone_at_last(
    model_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.db"
    with pytest.raises(KeyboardInterrupt), open_writer(out, ["id", "bandgap"]) as writer:
        writer.write({"id": "1", "bandgap": 1.0}, Entry("1", bulk("Si")))
        (left,) = (p for p in tmp_path.iterdir() if p.suffix == ".db")
        kept = left.read_bytes()
        raise KeyboardInterrupt
    left.write_bytes(kept)  # as after kill -9
    left.with_name(f"{left.name}-journal").write_bytes(b"")
    found = call("--model", model_folder, "-o", out, "-q")
    assert found.exit_code == 0, found.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.db", "out.db.meta.json"]


def test_numbers_that_no_database_holds(tmp_path: Path) -> None:
    silicon: Atoms = bulk("Si")
    out = tmp_path / "out.db"
    values = {"huge": 10**400, "large": 2**62, "small": -3}
    with open_writer(out, ["id", "bandgap"], {"bandgap": "eV"}) as writer:
        writer.write({"id": "1", "bandgap": 1.0}, Entry("1", silicon, values=values))
    (row,) = connect(out).select()
    assert row.key_value_pairs == {"source_id": 1, "bandgap": 1.0, "large": 2**62, "small": -3}


def test_a_key_that_nothing_has_leaves_nothing_behind(model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    found = call("--model", model_folder, "-o", out, "--id-key", "jd", "--workers", "1")
    assert found.exit_code == 2 and "did you mean 'jid'" in found.output, found.output
    assert list(tmp_path.iterdir()) == []
