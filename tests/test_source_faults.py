"""Inputs that would mislead a screen, hang it or make it read what it was not given."""

from __future__ import annotations

import ast
import csv
import importlib
import inspect
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from functools import lru_cache
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.db import connect
from ase.io.formats import ioformats
from click.testing import CliRunner

from recinet_ase.cli.screen import screen
from recinet_ase.errors import ReciNetError, UnknownNameError
from recinet_ase.screening.entries import Entry, encodable
from recinet_ase.screening.sources import (
    chunks,
    count_entries,
    find_sources,
    fingerprint,
    read_chunk,
    read_entries,
    read_structure,
)
from recinet_ase.screening.sources.files import REFUSED


@pytest.fixture(scope="module")
def few(crystals: dict[str, Atoms]) -> list[Atoms]:
    """Eleven frames of three crystals."""
    small = [a for a in crystals.values() if len(a) < 8][:3]
    return [small[i % 3] for i in range(11)]


def entries_of(*patterns: object, id_key: str | None = None, **options: Any) -> list[Entry]:
    return list(read_entries(find_sources(map(str, patterns), **options), id_key))


def indices(entries: list[Entry]) -> list[int]:
    assert not any(isinstance(e.atoms, Exception) for e in entries), entries
    return [int(e.id.rpartition("#")[2]) for e in entries]


# Databases


def write_db(path: Path, crystals: list[Atoms]) -> Path:
    with connect(path) as database:
        for atoms in crystals:
            database.write(atoms)
    return path


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
from recinet_ase.screening.entries import Source
from recinet_ase.screening.sources import databases

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
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
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
    with pytest.raises(ReciNetError, match="takes none") as caught:
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


def cif_text(atoms: Atoms) -> str:
    buffer = io.BytesIO()
    ase.io.write(buffer, atoms, format="cif")
    return buffer.getvalue().decode()


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


# Some structures of a file

INDICES = {
    "-1": slice(-1, None),
    "5": slice(5, 6),
    "0": slice(0, 1),
    "-11": slice(0, 1),
    ":": slice(None),
    "::10": slice(None, None, 10),
    "2:8:3": slice(2, 8, 3),
    "-4:": slice(-4, None),
    "-20::2": slice(-20, None, 2),
    "-5:-2": slice(-5, -2),
    "-5:9": slice(-5, 9),
    ":-3": slice(None, -3),
    "1:-2:4": slice(1, -2, 4),
    "::-5": slice(None, None, -5),
    "8:": slice(8, None),
}


@pytest.mark.parametrize(
    "name", ["a.traj", "a.extxyz", "a.cif", "a.pdb", "XDATCAR", "a.csv", "a.extxyz.gz"]
)
def test_some_structures_of_a_file(name: str, crystals: dict[str, Atoms], tmp_path: Path) -> None:
    path = tmp_path / name
    crystal = next(a for a in crystals.values() if len(a) == 2)
    few = [crystal.copy() for _ in range(11)]
    for i, atoms in enumerate(few):
        atoms.set_cell(atoms.cell * (1 + i / 10), scale_atoms=True)
    if name == "a.csv":
        write_table(path, ["cif"], [[cif_text(a)] for a in few])
    else:
        ase.io.write(path, few)
    for text, part in INDICES.items():
        sources = find_sources([f"{path}@{text}"])
        wanted = list(range(11)[part])
        for size in (1, 3, 512):
            parts = list(chunks(sources, size))
            assert [len(c) for c in parts[:-1]] == [size] * (len(parts) - 1)
            found = [e for c in parts for e in read_chunk(c)]
            assert indices(found) == wanted, text
        for entry, i in zip(found, wanted, strict=True):
            assert entry.id == f"{path}#{i}" and isinstance(entry.atoms, Atoms)
            assert entry.atoms.get_volume() == pytest.approx(few[i].get_volume(), rel=1e-3)
        assert count_entries(sources) in (len(wanted), None)
        assert count_entries(sources) is not None or name in ("a.pdb", "XDATCAR", "a.csv")
    prints = {
        fingerprint(find_sources([f"{path}{at}"])) for at in ("", *(f"@{t}" for t in INDICES))
    }
    assert len(prints) == len(INDICES) + 1


def test_the_last_structures_of_many_files(few: list[Atoms], tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"runs/{i}").mkdir(parents=True)
        ase.io.write(tmp_path / f"runs/{i}/relax.traj", few[: i + 2])
    sources = find_sources([f"{tmp_path}/runs/*/relax.traj@-1"])
    entries = list(read_entries(sources))
    assert [e.id for e in entries] == [f"{tmp_path}/runs/{i}/relax.traj#{i + 1}" for i in range(3)]
    assert count_entries(sources) == 3
    file = tmp_path / "runs/2/relax.traj"
    ends = entries_of(f"{file}@0", f"{file}@-1", f"{file}@0")
    assert indices(ends) == [0, 3]
    assert len(entries_of(f"{tmp_path}/runs@-1")) == 3
    assert read_structure(Path(f"{file}@1")) == few[1]


def test_a_file_of_the_literal_name_comes_first(few: list[Atoms], tmp_path: Path) -> None:
    ase.io.write(tmp_path / "a.extxyz", few[:3])
    (tmp_path / "a.extxyz").rename(tmp_path / "a@0.extxyz")
    ase.io.write(tmp_path / "b.cif", few[:3])
    (tmp_path / "b.cif").rename(tmp_path / "POSCAR@0")
    ase.io.write(tmp_path / "POSCAR@0", few[0], format="vasp")
    assert len(entries_of(tmp_path / "a@0.extxyz")) == 3
    assert indices(entries_of(tmp_path / "a@0.extxyz@1:")) == [1, 2]
    assert indices(entries_of(tmp_path / "POSCAR@0")) == [0]


def test_indices_that_pick_nothing(few: list[Atoms], tmp_path: Path) -> None:
    path, database = tmp_path / "a.traj", write_db(tmp_path / "a.db", few[:2])
    ase.io.write(path, few)
    for text in ("11", "-12", "20:", "3:3"):
        sources = find_sources([f"{path}@{text}"])
        (entry,) = read_entries(sources)
        assert f"a.traj@{text} picks no structure" in str(entry.atoms)
        assert count_entries(sources) == 1
    for text in ("", "last", "1:2:3:4", "::0", "1.5"):
        with pytest.raises(ReciNetError, match="is no index of structures in a file"):
            find_sources([f"{path}@{text}"])
    for text in ("-1", ":"):
        with pytest.raises(ReciNetError, match="--select"):
            find_sources([f"{database}@{text}"])
    with pytest.raises(ReciNetError, match="no such file"):
        find_sources([str(tmp_path / "b.traj@-1")])


# ASE's readers


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "%block species \n%endblock species\ninclude_file : {secret}\n"),
        ("b.acemolecule-input", "%% BasicInformation\n GeometryFilename {secret}\n%% End\n"),
        ("c.xtd", "<xml>"),
        ("do_GSR.nc", "\x89HDF"),
        ("e.aselmdb", "x"),
    ],
)
def test_formats_that_lead_elsewhere_are_refused(name: str, text: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("1\n\nH 0 0 0\n")
    (tmp_path / name).write_text(text.format(secret=secret), encoding="latin-1")
    with pytest.raises(ReciNetError, match="are not read, because it"):
        find_sources([str(tmp_path / name)])


def test_a_name_makes_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mysql_notes.txt").write_text("no structure")
    with pytest.raises(ReciNetError, match="cannot tell the format"):
        find_sources(["mysql_notes.txt"])


DANGER = {
    # Running
    *("eval", "exec", "__import__", "import_module", "os.system", "os.popen", "subprocess"),
    *("Popen", "check_call", "check_output", "pickle", "yaml", "allow_pickle"),
    # Reading something else
    *("open", "paropen", "read_text", "read_bytes", "loadtxt", "genfromtxt", "fromfile", "load"),
    *("memmap", "ZipFile", "glob", "iglob", "iterdir", "listdir", "scandir", "urlopen", "connect"),
    *("Dataset", "netcdf_file", "iread", "chdir", "environ", "getenv", "iterparse"),
}
OWN = "opens the file that it was given"
LINES = "numpy parses lines or an open file"
HARMLESS = {
    "ase.utils.iofunction": OWN,
    "ase.utils.iofunc": OWN,
    "ase.io.acemolecule.parse_geometry": OWN,
    "ase.io.acemolecule.read_acemolecule_out": OWN,
    "ase.io.cif.parse_cif_ase": OWN,
    "ase.io.res.Res": OWN,
    "ase.io.res.from_file": OWN,
    "ase.io.res.read_res": "takes the name for a pattern, and is given an escaped one",
    "ase.io.trajectory.TrajectoryReader": OWN,
    "ase.io.trajectory.TrajectoryWriter": "writes; reached by the name of a method alone",
    "ase.io.trajectory._open": OWN,
    "ase.io.vasp.read_vasp_xml": OWN,
    "ase.io.vasp.get_atomtypes": "element symbols of the POTCAR or OUTCAR beside a POSCAR",
    "ase.io.vasp.atomtypes_outpot": "looks for POTCAR and OUTCAR beside a POSCAR without symbols",
    "ase.io.abinit.read_abinit_gsr": "is given classic netCDF files alone",
    "ase.io.netcdftrajectory.NetCDFTrajectory": "is given classic netCDF files alone",
    "ase.io.netcdftrajectory._open": "is given classic netCDF files alone",
    "ase.io.cjson.read_cjson": "json.load",
    "ase.nomad.read": "json.load",
    "ase.spacegroup.spacegroup._read_datafile": "ASE's own table of space groups",
    "ase.io.cp2k._read_cp2k_dcd_frame": LINES,
    "ase.io.cp2k._read_metainfo": LINES,
    "ase.io.mustem.read_mustem": LINES,
    "ase.io.prismatic.read_prismatic": LINES,
    "ase.io.onetep._OnetepHelper": LINES,
    **{
        f"ase.io.onetep.parse_{what}": LINES
        for what in (
            *("cell", "charge", "first_cell", "first_positions", "force", "positions", "spin"),
        )
    },
}
PASSED = ("ase.io.formats", "ase.atoms", "ase.calculators.")
"""What opens the file itself, and the objects that are made and not asked for anything."""


@lru_cache
def definitions(module: str) -> tuple[dict[str, list[ast.AST]], dict[str, tuple[str, str]]]:
    """Functions and classes of a module by name, and where its other names come from."""
    loaded = importlib.import_module(module)
    defined: dict[str, list[ast.AST]] = {}
    imported = {}
    for node in ast.walk(ast.parse(inspect.getsource(loaded))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.ImportFrom):
            package = loaded.__package__ or ""
            source = resolve_name("." * node.level + (node.module or ""), package)
            for name in node.names:
                imported[name.asname or name.name] = (source, name.name)
    return defined, imported


def names_in(node: ast.AST) -> Iterator[tuple[str, bool]]:
    """Names that are used, and whether each stands alone (it may have been imported)."""
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            yield part.id, True
        elif isinstance(part, ast.Attribute):
            yield part.attr, False
            yield ast.unparse(part), False
        elif isinstance(part, ast.keyword) and part.arg:
            yield part.arg, False


def dangers(module: str, name: str) -> set[tuple[str, str]]:
    """Functions that a reader may reach, by whatever name, and the dangerous names in each."""
    todo, seen, found = [(module, name)], set(), set()
    while todo:
        place = todo.pop()
        if place in seen or not place[0].startswith("ase.") or place[0].startswith(PASSED):
            continue
        seen.add(place)
        defined, imported = definitions(place[0])
        if place[1] in imported:  # by a package, from one of its modules
            todo.append(imported[place[1]])
        for node in defined.get(place[1], ()):
            for used, alone in names_in(node):
                source = imported.get(used, ("", "")) if alone else ("", "")
                if used in DANGER or source in (("ase.io", "read"), ("ase.io", "iread")):
                    found.add((".".join(place), used))
                todo += [source, (place[0], used)]
    return found


def test_no_other_format_of_ase_runs_or_follows_what_it_reads() -> None:
    """A guard for releases of ASE to come: whatever can be read has a parser and no more."""
    for name, about in ioformats.items():
        if about.can_read and about.module_name.startswith("ase.") and name not in REFUSED:
            for place, used in dangers(about.module_name, about._readfunc().__name__):
                assert place in HARMLESS, (name, place, used)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_the_guard_sees_what_is_refused(name: str) -> None:
    about = ioformats.get(name)
    if about is None or not about.can_read or name in ("castep-cell", "python", "py"):
        pytest.skip("not a reader that shows it by its names")
    found = dangers(about.module_name, about._readfunc().__name__)
    assert any(place not in HARMLESS for place, _ in found)
