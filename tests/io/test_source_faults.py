"""Inputs that would mislead a screen, hang it or make it read what it was not given."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.db import connect
from click.testing import CliRunner
from written import cif_text, entries_of, write_db

from recinet_ase.cli.screen import screen
from recinet_ase.errors import ReciNetError, UnknownNameError
from recinet_ase.inference.preparation import Preparation
from recinet_ase.io import (
    cif,
    count_entries,
    find_sources,
    fingerprint,
    read_entries,
)
from recinet_ase.io.entries import Entry, encodable


def indices(entries: list[Entry]) -> list[int]:
    assert not any(isinstance(e.atoms, Exception) for e in entries), entries
    return [int(e.id.rpartition("#")[2]) for e in entries]


# Databases


CHANGES = {
    "changed": "UPDATE systems SET energy = -1 WHERE id = 2",
    "deleted": "DELETE FROM systems WHERE id = 2",
    "added": "INSERT INTO systems SELECT id + 100, 'x', {} FROM systems WHERE id = 2",
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_beside_a_database_are_noticed(
    change: str, few: list[Atoms], tmp_path: Path
) -> None:
    """Mode WAL: the file itself stays as it is until the writer moves them into it."""
    path = write_db(tmp_path / "a.db", few)

    def state() -> str:
        return fingerprint(find_sources([str(path)]))

    with closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("PRAGMA wal_autocheckpoint=0")
        before = state()
        columns = [row[1] for row in writer.execute("PRAGMA table_info(systems)")][2:]
        file = path.stat()
        writer.execute(CHANGES[change].format(", ".join(columns)))
        writer.commit()
        assert path.stat().st_mtime_ns == file.st_mtime_ns
        after = state()
        assert after != before
        # Readers change nothing, whatever files they make.
        assert len(entries_of(path)) in (10, 11, 12)
        with closing(sqlite3.connect(path)) as reader:
            reader.execute("SELECT COUNT(*) FROM systems").fetchone()
        assert state() == after
        link = tmp_path / "link.db"
        link.symlink_to(path)
        linked = fingerprint(find_sources([str(link)]))
        writer.execute("UPDATE systems SET energy = -2 WHERE id = 3")
        writer.commit()
        assert state() != after and fingerprint(find_sources([str(link)])) != linked


def test_readers_of_a_database_leave_its_fingerprint(few: list[Atoms], tmp_path: Path) -> None:
    path = write_db(tmp_path / "a.db", few)
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
    before = fingerprint(find_sources([str(path)]))
    for _ in range(2):
        assert len(entries_of(path)) == 11
        with closing(sqlite3.connect(path)) as reader:
            reader.execute("SELECT COUNT(*) FROM systems").fetchone()
        assert fingerprint(find_sources([str(path)])) == before
    Path(f"{path}-wal").touch()
    assert fingerprint(find_sources([str(path)])) == before


def test_rows_with_any_id(few: list[Atoms], tmp_path: Path) -> None:
    path = write_db(tmp_path / "a.db", few[:4])
    with closing(sqlite3.connect(path)) as database:
        for old, new in ((1, -5), (2, 0)):
            database.execute("UPDATE systems SET id = ? WHERE id = ?", (new, old))
        database.commit()
    sources = find_sources([str(path)])
    entries = list(read_entries(sources))
    assert [e.id for e in entries] == ["-5", "0", "3", "4"]
    assert not any(isinstance(e.atoms, Exception) for e in entries)
    assert count_entries(sources) == 4


@pytest.mark.parametrize("name", ["systems", "Species", "information"])
def test_views_in_place_of_tables_are_refused(name: str, few: list[Atoms], tmp_path: Path) -> None:
    path = write_db(tmp_path / "a.db", few[:2])
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"ALTER TABLE {name} RENAME TO hidden")
        database.execute(f"CREATE VIEW {name} AS SELECT * FROM hidden")
        database.commit()
    with pytest.raises(ReciNetError, match=rf"a\.db .*'{name.lower()}' is no table but a view"):
        find_sources([str(path)])


def test_tables_that_a_database_names_are_tables(few: list[Atoms], tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with connect(path) as database:
        database.write(few[0], external_tables={"more": {"x": 1.5}})
    assert isinstance(entries_of(path)[0].atoms, Atoms)
    for name in (
        "(WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT * FROM n)",
        "v",
    ):
        with closing(sqlite3.connect(path)) as database:
            database.execute("CREATE VIEW IF NOT EXISTS v AS SELECT * FROM more")
            database.execute(
                "UPDATE information SET value = ? WHERE name LIKE 'external%'", (name,)
            )
            database.commit()
        with pytest.raises(ReciNetError, match="is no table but a view"):
            find_sources([str(path)])


ENDLESS = """
import signal, sys
from recinet_ase.io.entries import Source
from recinet_ase.io import databases

def interrupted(number, frame):
    raise KeyboardInterrupt

signal.signal(signal.SIGTERM, interrupted)
database = databases._connect(sys.argv[1], "db")
with database.managed_connection() as connection:
    print("ready", flush=True)
    databases._wait(Source("a.db", "databases", "db"), lambda: connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"
    ).fetchone())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_long_query_can_be_interrupted(
    number: signal.Signals, few: list[Atoms], tmp_path: Path
) -> None:
    path = write_db(tmp_path / "a.db", few[:1])
    command = [sys.executable, "-c", ENDLESS, str(path)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Where tests run in the background of a shell, programs begin deaf to interrupts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(0.2)
            process.send_signal(number)
            process.wait(10)
            assert b"KeyboardInterrupt" in process.stderr.read()
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("selection", "better"),
    [
        ("natoms > 100", "natoms>100"),
        ("natoms>=2, gap <= 1", "natoms>=2, gap<=1"),
        ("1 < natoms< 5", "1<natoms<5"),
    ],
)
def test_selections_take_no_blanks(
    selection: str, better: str, few: list[Atoms], tmp_path: Path
) -> None:
    path = write_db(tmp_path / "a.db", few[:2])
    with pytest.raises(ReciNetError, match="takes the blanks for a part of a name") as caught:
        find_sources([str(path)], selection=selection)
    assert f"write {better!r}" in str(caught.value)
    assert len(entries_of(path, selection="natoms>0, natoms<100")) == 2


# Files and folders


def test_links_that_lead_to_themselves(few: list[Atoms], tmp_path: Path) -> None:
    ase.io.write(tmp_path / "a.cif", few[0])
    loop = tmp_path / "x.cif"
    loop.symlink_to(loop)
    for pattern in (tmp_path, f"{tmp_path}/*.cif"):
        good, bad = entries_of(pattern, passed_over=[str(tmp_path / "out.csv")])
        assert isinstance(good.atoms, Atoms) and bad.id == f"{loop}#0"
        assert "cannot be read" in str(bad.atoms) and str(bad.atoms).count(str(loop)) == 1
    with pytest.raises(ReciNetError, match=r"x\.cif cannot be read"):
        find_sources([str(loop)])
    for name in ("x" * 5000, "x" * 300):
        with pytest.raises(ReciNetError, match="cannot be read|no such file"):
            find_sources([name])


def test_names_with_brackets_are_no_patterns_for_ase(few: list[Atoms], tmp_path: Path) -> None:
    ase.io.write(tmp_path / "a.res", few[0])
    (tmp_path / "a.res").rename(tmp_path / "a[1].res")
    ase.io.write(tmp_path / "a1.res", few[1])
    (entry,) = entries_of(tmp_path / "a[1].res")
    assert isinstance(entry.atoms, Atoms)
    assert entry.atoms.get_chemical_formula() == few[0].get_chemical_formula()


def latin_folder(few: list[Atoms], tmp_path: Path) -> Path:
    folder = tmp_path / "latin"
    folder.mkdir()
    buffer = io.BytesIO()
    ase.io.write(buffer, few[0], format="cif")
    try:
        Path(os.fsdecode(bytes(folder) + b"/caf\xe9.cif")).write_bytes(buffer.getvalue())
        Path(os.fsdecode(bytes(folder) + b"/empty\xe9.cif")).touch()
    except OSError:
        pytest.skip("the file system takes no such names")
    document = [{"id": "lone \ud800", "cif": buffer.getvalue().decode(), "a\udc80": "b\udfff"}]
    (folder / "x.json").write_text(json.dumps(document))
    return folder


def test_names_that_are_no_text(few: list[Atoms], tmp_path: Path) -> None:
    entries = entries_of(latin_folder(few, tmp_path))
    assert [e.id.removeprefix(f"{tmp_path}/latin/") for e in entries] == [
        r"caf\udce9.cif#0",
        r"empty\udce9.cif#0",
        r"x.json#lone \ud800",
    ]
    assert isinstance(entries[0].atoms, Atoms) and r"empty\udce9.cif is empty" in str(
        entries[1].atoms
    )
    assert entries[2].values[r"a\udc80"] == r"b\udfff"
    for entry in entries:
        f"{entry.id}{entry.atoms}{entry.values}".encode()
    assert encodable("Zn₂") == "Zn₂"


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ".db", ".json", ".extxyz"])
def test_names_that_are_no_text_in_outputs(suffix: str, few: list[Atoms], tmp_path: Path) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    output = tmp_path / f"out{suffix}"
    folder = latin_folder(few, tmp_path)
    result = CliRunner().invoke(
        screen, [str(folder), "--props", "bandgap", "--workers", "0", "-o", str(output), "-q"]
    )
    assert result.exit_code == 0, result.output
    assert output.stat().st_size > 0 and output.with_name(f"{output.name}.meta.json").exists()
    if suffix in (".csv", ".jsonl"):
        assert "udce9.cif" in output.read_text(encoding="utf-8")


# Standard input


def screen_stdin(raw: bytes | None, *options: str) -> subprocess.CompletedProcess[str]:
    code = "from recinet_ase.cli.screen import screen; screen()"
    command = [sys.executable, "-c", code, "-", "--props", "bandgap", *options]
    closed = None if raw is not None else lambda: os.close(0)
    done = subprocess.run(command, input=raw, capture_output=True, preexec_fn=closed)
    return subprocess.CompletedProcess(command, done.returncode, "", done.stderr.decode())


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "db", "json.gz", "parquet", "cif.gz"])
def test_messages_about_standard_input(kind: str, tmp_path: Path) -> None:
    (tmp_path / f"spool.{kind}").write_bytes(b"garbage")
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    try:
        (entry,) = entries_of("-", stdin_format=kind, spool=tmp_path / "spool")
        text = str(entry.atoms)
    except ReciNetError as error:
        text = str(error)
    assert "standard input" in text and str(tmp_path) not in text and "\n" not in text


def test_standard_input_that_is_closed_or_of_no_format() -> None:
    done = screen_stdin(None, "--format", "cif")
    assert done.returncode == 2 and "standard input is closed" in done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    with pytest.raises(UnknownNameError, match=r"'foo\.gz'.*cif, .*extxyz"):
        find_sources(["-"], stdin_format="foo.gz", spool=Path("nowhere"))


# Columns


def test_a_structure_column_needs_columns(few: list[Atoms], tmp_path: Path) -> None:
    write_db(tmp_path / "a.db", few[:1])
    ase.io.write(tmp_path / "a.extxyz", few[0])
    names = ("a.db", "a.extxyz")
    for patterns in (names[:1], names[1:], names):
        with pytest.raises(ReciNetError, match="no table .*--structure-column"):
            find_sources([str(tmp_path / n) for n in patterns], structure_column="foo")
    table = tmp_path / "t.csv"
    write_table(table, ["id", "geometry"], [["m1", cif_text(few[0])]])
    entries = entries_of(tmp_path / "a.extxyz", table, structure_column="geometry")
    assert [isinstance(e.atoms, Atoms) for e in entries] == [True, True]


def write_table(path: Path, names: list[str], rows: list[list[Any]]) -> None:
    with path.open("w", newline="") as handle:
        csv.writer(handle).writerows([names, *rows])


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json"])
def test_a_column_without_structures(suffix: str, few: list[Atoms], tmp_path: Path) -> None:
    path = tmp_path / f"t.{suffix}"
    broken = "data_x\n_cell_length_a"
    rows = [["", cif_text(a), f"JVASP-{i}", broken] for i, a in enumerate(few, 1)]
    names = ["empty", "cif", "jid", "cut"]
    records = [dict(zip(names, row, strict=True)) for row in rows]
    if suffix == "csv":
        write_table(path, names, rows)
    else:
        text = map(json.dumps, records) if suffix == "jsonl" else [json.dumps(records)]
        path.write_text("\n".join(text))
    with pytest.raises(ReciNetError, match="'jid' holds no structures") as caught:
        find_sources([str(path)], structure_column="jid")
    assert "(first: 'JVASP-1'); columns: empty, cif, jid, cut" in str(caught.value)
    for options in ({}, {"structure_column": "cif"}):
        assert all(isinstance(e.atoms, Atoms) for e in entries_of(path, **options))
    # Structures that are missing or damaged are rows, as ever.
    for column in ("empty", "cut"):
        entries = entries_of(path, structure_column=column)
        assert len(entries) == 11 and all(isinstance(e.atoms, Exception) for e in entries)


def test_values_that_are_no_ids(few: list[Atoms], tmp_path: Path) -> None:
    keys = [1, "a", [1, 2], {"x": 1}, None, "", 2.5, float("nan"), "z", 0, True]
    path = tmp_path / "t.json"
    path.write_text(
        json.dumps([{"cif": cif_text(a), "key": k} for a, k in zip(few, keys, strict=True)])
    )
    entries = entries_of(path, id_key="key")
    assert [e.has_key for e in entries] == [k in (1, "a", 2.5, "z", 0) for k in keys]
    assert [e.id for e in entries if e.has_key] == ["1", "a", "2.5", "z", "0", "True"]
    frames = [a.copy() for a in few[:2]]
    frames[0].info["key"], frames[1].info["key"] = np.arange(3), np.int64(7)
    ase.io.write(tmp_path / "a.extxyz", frames)
    assert [e.has_key for e in entries_of(tmp_path / "a.extxyz", id_key="key")] == [False, True]


def test_columns_that_begin_with_missing_cells(tmp_path: Path) -> None:
    path = tmp_path / "late.csv"
    write_table(path, ["mine"], [*([["None"]] * 25), [cif_text(bulk("Si"))]])
    sources = find_sources([str(path)], structure_column="mine")
    assert [isinstance(e.atoms, Atoms) for e in read_entries(sources)] == [False] * 25 + [True]


def test_databases_with_names_that_are_not_utf8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9?#%20.db"))
    write_db(path, [bulk("Si")])
    (entry,) = read_entries(find_sources([str(path)]))
    assert isinstance(entry.atoms, Atoms)


def test_pipes_are_told_where_to_go(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "frames.extxyz")
    with pytest.raises(ReciNetError, match="no ordinary file; what comes through a pipe"):
        find_sources([str(tmp_path / "frames.extxyz")])


@pytest.mark.parametrize("suffix", ["cif", "csv", "db", "xsf"])
def test_memory_that_runs_out_is_no_fault_of_a_file(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "csv":
        write_table(path, ["cif"], [[cif_text(bulk("Si"))]])
    else:
        ase.io.write(path, bulk("Si"))

    def short(*_: object, **__: object) -> Atoms:
        raise MemoryError

    monkeypatch.setattr(cif, "crystal_of", short)
    monkeypatch.setattr("ase.db.row.AtomsRow.toatoms", short)
    monkeypatch.setattr("ase.io.iread", short)
    (entry,) = pickle.loads(pickle.dumps(list(entries_of(path))))
    assert str(entry.atoms) == "internal error: MemoryError"
    (result,) = Preparation()([entry.atoms]).results
    assert result.error == str(entry.atoms) and "raise MemoryError" in result.fault
