"""Every input format: the same crystals, the same numbers, an identity for each."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import pickle
import re
import sqlite3
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.db import connect
from pymatgen.core import Lattice, Molecule, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from written import cif_text, entries_of, jarvis_dict, poscar_text, pymatgen_dict, write_db

from recinet_ase.errors import ReciNetError, UnknownNameError
from recinet_ase.io import (
    chunks,
    compression,
    count_entries,
    databases,
    find_sources,
    fingerprint,
    read_chunk,
    read_entries,
    read_structure,
)
from recinet_ase.io.entries import Entry, InputUnavailableError, Source


@pytest.fixture(scope="module")
def few(crystals: dict[str, Atoms]) -> list[Atoms]:
    """Seven small crystals."""
    return [a for a in crystals.values() if len(a) < 8][:7]


def assert_same(
    entries: Sequence[Entry], crystals: Sequence[Atoms], tolerance: float = 1e-4
) -> None:
    """The same cells and atoms, whatever the order in which a format keeps the atoms."""
    assert len(entries) == len(crystals)
    for entry, atoms in zip(entries, crystals, strict=True):
        assert isinstance(entry.atoms, Atoms), entry
        assert entry.atoms.get_chemical_formula() == atoms.get_chemical_formula()
        assert entry.atoms.pbc.all()
        assert entry.atoms.get_volume() == pytest.approx(atoms.get_volume(), rel=tolerance)
        found, wanted = (
            np.sort(a.get_all_distances(mic=True), axis=None) for a in (entry.atoms, atoms)
        )
        assert found == pytest.approx(wanted, rel=tolerance, abs=tolerance)


# Json layouts: how each is written, and the ids that it gives.

LAYOUTS: dict[str, Callable[[list[Atoms]], tuple[Any, list[str]]]] = {
    "list of structures": lambda few: (
        [pymatgen_dict(a) for a in few],
        [f"{{path}}#{i}" for i in range(len(few))],
    ),
    "mapping": lambda few: (
        {f"mp-{i}": pymatgen_dict(a) for i, a in enumerate(few)},
        [f"mp-{i}" for i in range(len(few))],
    ),
    "mapping of records": lambda few: (
        {f"mp-{i}": {"structure": pymatgen_dict(a), "gap": 1.0} for i, a in enumerate(few)},
        [f"mp-{i}" for i in range(len(few))],
    ),
    "jarvis": lambda few: (
        [{"jid": f"JVASP-{i}", "atoms": jarvis_dict(a), "x": "na"} for i, a in enumerate(few)],
        [f"JVASP-{i}" for i in range(len(few))],
    ),
    "computed entries": lambda few: (
        [
            {
                "@module": "pymatgen.entries.computed_entries",
                "@class": "ComputedStructureEntry",
                "entry_id": f"mp-{i}",
                "energy": -1.0,
                "structure": pymatgen_dict(a),
            }
            for i, a in enumerate(few)
        ],
        [f"mp-{i}" for i in range(len(few))],
    ),
    "alexandria": lambda few: (
        {
            "entries": [
                {"structure": pymatgen_dict(a), "data": {"mat_id": f"agm{i}", "e_above_hull": 0.1}}
                for i, a in enumerate(few)
            ]
        },
        [f"agm{i}" for i in range(len(few))],
    ),
    "matminer": lambda few: (
        {
            "index": [f"mb-{i}" for i in range(len(few))],
            "columns": ["structure", "n"],
            "data": [[pymatgen_dict(a), 1.5] for a in few],
        },
        [f"mb-{i}" for i in range(len(few))],
    ),
    "pandas": lambda few: (
        {
            "material_id": {str(i): f"m{i}" for i in range(len(few))},
            "structure": {str(i): pymatgen_dict(a) for i, a in enumerate(few)},
        },
        [str(i) for i in range(len(few))],
    ),
    "cif texts": lambda few: (
        [{"material_id": f"mp-{i}", "cif": cif_text(a)} for i, a in enumerate(few)],
        [f"mp-{i}" for i in range(len(few))],
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_json_layouts(layout: str, few: list[Atoms], tmp_path: Path) -> None:
    path = tmp_path / "records.json"
    document, ids = LAYOUTS[layout](few)
    path.write_text(json.dumps(document))
    sources = find_sources([str(path)])
    assert count_entries(sources) == len(few)
    entries = list(read_entries(sources))
    assert_same(entries, few)
    assert [e.id for e in entries] == [i.replace("{path}", str(path)) for i in ids]


def test_wrong_counts_in_xyz_files(few: list[Atoms], tmp_path: Path) -> None:
    """Whatever the order of the columns, the frames around a wrong one are read."""
    frame = """{}
Lattice="4 0 0 0 4 0 0 0 4" Properties={} pbc="T T T"
{}
{}
"""
    for columns, a, b in (
        ("species:S:1:pos:R:3", "Cs 0 0 0", "Cl 2 2 2"),
        ("pos:R:3:species:S:1", "0 0 0 Cs", "2 2 2 Cl"),
        ("species:S:1:pos:R:3:forces:R:3", "Cs 0 0 0 .1 .1 .1", "Cl 2 2 2 -1e-3 0 0"),
    ):
        good, *bad = (frame.format(n, columns, a, b) for n in (2, 1, 3, -2, 10**9, "two"))
        path = tmp_path / "frames.extxyz"
        path.write_text(good + "".join(b + good for b in bad) + "".join(bad) + "\n\n" + good)
        wrong = [isinstance(e.atoms, Exception) for e in entries_of(path)]
        assert wrong == [False, *[True, False] * 5, *[True] * 5, False]


def test_a_bad_frame_costs_only_itself(few: list[Atoms], tmp_path: Path) -> None:
    frames, cif, count = (tmp_path / name for name in ("a.extxyz", "a.cif", "b.extxyz"))
    for path in (frames, cif, count):
        ase.io.write(path, few[:5])
    lines = frames.read_text().splitlines(keepends=True)
    lines[sum(len(a) + 2 for a in few[:2]) + 2] = "Xq 0 0 zero\n"
    frames.write_text("".join(lines))
    blocks = cif.read_text().split("data_")
    blocks[3] = re.sub(r"(_cell_length_a\s+)\S+", r"\1banana", blocks[3])
    cif.write_text("data_".join(blocks))
    for path in (frames, cif):
        entries = entries_of(path)
        assert isinstance(entries.pop(2).atoms, Exception)
        assert_same(entries, [*few[:2], *few[3:5]])
    count.write_text("\n" + count.read_text() + "\nnot a count\n")
    *good, last = entries_of(count)
    assert_same(good, few[:5])
    assert "the rest of the file was not read" in str(last.atoms)


def test_damaged_rows_of_databases(few: list[Atoms], tmp_path: Path) -> None:
    path = write_db(tmp_path / "rows.json", few[:4])
    document = json.loads(path.read_text())
    del document["2"]["positions"]
    document["3"]["positions"]["__ndarray__"][2] = [1.0, 2.0]
    path.write_text(json.dumps(document))
    assert [isinstance(e.atoms, Atoms) for e in entries_of(path)] == [True, False, False, True]
    path = write_db(tmp_path / "rows.db", few[:4])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE systems SET positions = x'00' WHERE id = 2")
        connection.execute("DELETE FROM systems WHERE id = 3")
        connection.commit()
    found = [(e.id, isinstance(e.atoms, Atoms)) for e in entries_of(path)]
    assert found == [("1", True), ("2", False), ("4", True)]


def test_files_among_others(few: list[Atoms], tmp_path: Path) -> None:
    """What a pattern brings in and cannot be read is an entry; a file is read once."""
    for name in "ac":
        ase.io.write(tmp_path / f"{name}.cif", few[0])
    (tmp_path / "b.cif").touch()
    (tmp_path / "d.bin").write_bytes(bytes(range(256)))
    entries = entries_of(tmp_path / "c.cif", f"{tmp_path}/*", tmp_path / "c.cif")
    names = [Path(entry.id).name for entry in entries]
    assert names == ["c.cif#0", "a.cif#0", "b.cif#0", "d.bin#0"]
    assert [isinstance(e.atoms, Atoms) for e in entries] == [True, True, False, False]


def test_one_structure_in_json(few: list[Atoms], tmp_path: Path) -> None:
    path = tmp_path / "NaCl.json"
    AseAtomsAdaptor.get_structure(few[0]).to(str(path))
    assert_same(entries_of(path), few[:1])
    path.write_text(json.dumps({"jid": "JVASP-1", "atoms": jarvis_dict(few[0])}))
    entries = entries_of(path)
    assert_same(entries, few[:1])
    assert entries[0].id == "JVASP-1"


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zip"])
def test_compressed(suffix: str, few: list[Atoms], tmp_path: Path) -> None:
    ase.io.write(tmp_path / "x.extxyz", few)
    ase.io.write(tmp_path / "x.cif", few)
    ase.io.write(tmp_path / "x.vasp", few[0])
    document, _ = LAYOUTS["jarvis"](few)
    (tmp_path / "x.json").write_text(json.dumps(document))
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, document)))
    for name in ("x.extxyz", "x.cif", "x.json", "x.jsonl", "x.vasp"):
        raw = (tmp_path / name).read_bytes()
        packed = tmp_path / f"{name}{suffix}"
        if suffix == ".zip":
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(name, raw)
        else:
            pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[suffix]
            packed.write_bytes(pack(raw))
        assert_same(entries_of(packed), few[:1] if name == "x.vasp" else few)


def test_json_lines(few: list[Atoms], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps(pymatgen_dict(a)) for a in few]
    lines[2] = lines[2][:200]
    lines += ["", json.dumps({"material_id": "mp-9", "structure": jarvis_dict(few[0])}), "[1]"]
    path.write_text("\n".join(lines))
    entries = entries_of(path)
    good = [e for e in entries if isinstance(e.atoms, Atoms)]
    assert_same(good, [a for i, a in enumerate(few) if i != 2] + few[:1])
    assert [i for i, e in enumerate(entries) if isinstance(e.atoms, Exception)] == [2, 8]
    assert "not valid json" in str(entries[2].atoms) and entries[7].id == "mp-9"


TABLES = {"cif": cif_text, "poscar": poscar_text, "json": lambda a: json.dumps(pymatgen_dict(a))}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz", ".parquet"])
def test_tables(kind: str, suffix: str, few: list[Atoms], tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / f"table{suffix}"
    ids = [f"mp-{i}" for i in range(len(few))]
    columns = {
        "Material_ID": ids,
        "gap": list(range(len(few))),
        "geometry": [TABLES[kind](a) for a in few],
    }
    write_table(path, columns)
    for options in ({}, {"structure_column": "geometry"}):
        entries = entries_of(path, **options)
        assert_same(entries, few)
        assert [e.id for e in entries] == ids
        assert str(entries[1].values["gap"]) == "1" and "geometry" not in entries[1].values
    assert [e.id for e in entries_of(path, id_key="gap")] == [str(i) for i in range(len(few))]
    with pytest.raises(UnknownNameError, match="did you mean 'geometry'"):
        find_sources([str(path)], structure_column="geometri")


def write_table(path: Path, columns: dict[str, list[Any]]) -> None:
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table(columns), path)
        return
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter="\t" if path.suffix == ".tsv" else ",")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    raw = buffer.getvalue().encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def test_parquet_with_nested_structures(few: list[Atoms], tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "nested.parquet"
    write_table(path, {"jid": ["a", "b"], "atoms": [jarvis_dict(a) for a in few[:2]]})
    entries = entries_of(path)
    assert_same(entries, few[:2])
    assert [e.id for e in entries] == ["a", "b"] and count_entries(find_sources([str(path)])) == 2


def test_damaged_rows_of_a_table(few: list[Atoms], tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    texts = [cif_text(few[0]), "", "data_x\n_cell_length_a 3", cif_text(few[1])]
    rows = [["id", "cif"], *([str(i), t] for i, t in enumerate(texts)), ["4"]]
    with path.open("w", newline="") as handle:
        csv.writer(handle).writerows(rows)
    entries = entries_of(path)
    assert [isinstance(e.atoms, Exception) for e in entries] == [False, True, True, False, True]
    assert "has 1 fields where the header has 2" in str(entries[4].atoms)
    assert [e.id for e in entries[:4]] == list("0123")


def test_standard_input(few: list[Atoms], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.StringIO()
    ase.io.write(buffer, few, format="extxyz")

    class Input:
        buffer: io.BytesIO

    for name, raw in (
        ("extxyz", buffer.getvalue().encode()),
        ("cif", "".join(map(cif_text, few)).encode()),
        ("jsonl.gz", gzip.compress("\n".join(json.dumps(pymatgen_dict(a)) for a in few).encode())),
        (".poscar", poscar_text(few[0]).encode()),
    ):
        Input.buffer = io.BytesIO(raw)
        monkeypatch.setattr(sys, "stdin", Input)
        sources = find_sources(["-"], stdin_format=name, spool=tmp_path / "stdin")
        wanted = few[:1] if name == ".poscar" else few
        for _ in range(2):
            entries = list(read_entries(sources))
            assert_same(entries, wanted)
        assert entries[0].id == "stdin#0"
        # Read once; the copy serves whoever comes later.
        assert find_sources(["-"], stdin_format=name, spool=tmp_path / "stdin") == sources
    with pytest.raises(ReciNetError, match="--format"):
        find_sources(["-"])
    with pytest.raises(UnknownNameError, match="extxyz"):
        find_sources(["-"], stdin_format="extxzy", spool=tmp_path / "stdin")


def test_folders(few: list[Atoms], tmp_path: Path) -> None:
    for name in ("b/POSCAR", "a/2.vasp", "a/1.cif", "c.extxyz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        kind = "vasp" if "POSCAR" in name else None
        ase.io.write(tmp_path / name, few[0], format=kind)
    (tmp_path / "a" / "broken.cif").touch()
    (tmp_path / "a" / "notes.txt").write_text("no structure")
    (tmp_path / "results.csv").write_text("id,bandgap\n1,2\n")
    (tmp_path / "settings.json").write_text('{"ENCUT": 520}')
    ase.io.write(tmp_path / "d.pdb", few[0])
    (tmp_path / "e.dump").write_text("ITEM: TIMESTEP\n0\n")
    (tmp_path / "tables.dump").write_text("CREATE TABLE a (b INTEGER);\n")
    (tmp_path / ".hidden").mkdir()
    ase.io.write(tmp_path / ".hidden" / "x.cif", few[0])
    entries = entries_of(tmp_path)
    names = [e.id.removeprefix(f"{tmp_path}/") for e in entries]
    read = ["c.extxyz#0", "d.pdb#0", "a/1.cif#0", "a/2.vasp#0", "b/POSCAR#0"]
    assert names == [*read[:2], "e.dump#0", *read[2:4], "a/broken.cif#0", read[4]]
    assert [n for n, e in zip(names, entries, strict=True) if isinstance(e.atoms, Atoms)] == read
    assert entries_of(f"{tmp_path}/*") != []
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReciNetError, match="without files of structures"):
        find_sources([str(tmp_path / "empty")])


def test_a_table_of_pandas(few: list[Atoms], tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"cif": [cif_text(a) for a in few]}, index=[f"x{i}" for i in range(7)])
    frame.to_csv(tmp_path / "a.csv")
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_json(tmp_path / "a.json")
    frame.to_json(tmp_path / "b.json", orient="split")
    for name in ("a.csv", "a.json", "b.json"):
        entries = entries_of(tmp_path / name)
        assert_same(entries, few)
        assert [e.id for e in entries] == list(frame.index), name
    assert_same(entries_of(tmp_path / "a.parquet"), few)


# Chunks


def test_chunks_are_the_same_whatever_reads_them(few: list[Atoms], tmp_path: Path) -> None:
    database = write_db(tmp_path / "a.db", few, jid=[f"j{i}" for i in range(len(few))])
    frames, blocks, trajectory = (tmp_path / f"a.{s}" for s in ("extxyz", "cif", "traj"))
    for path in (frames, blocks, trajectory):
        ase.io.write(path, few)
    rows = tmp_path / "a.json"
    rows.write_text(json.dumps(LAYOUTS["mapping"](few)[0]))
    sources = find_sources(map(str, (database, frames, blocks, trajectory, rows)))
    whole = [e.id for e in read_entries(sources)]
    assert len(set(whole)) == 5 * len(few) and whole[0] == f"{database}#1"
    for size in (1, 4, 1000):
        parts = list(chunks(sources, size))
        assert [c.number for c in parts] == list(range(len(parts)))
        assert {len(c) for c in parts[:-1]} <= {size}
        assert pickle.dumps(parts) == pickle.dumps(list(chunks(sources, size)))
        # Any order, in another process's memory.
        read = {c.number: read_chunk(pickle.loads(pickle.dumps(c))) for c in reversed(parts)}
        assert [e.id for c in parts for e in read[c.number]] == whole
        assert all(len(read[c.number]) == len(c) for c in parts)
        assert_same([e for c in parts for e in read[c.number]], few * 5)
    assert count_entries(sources) == len(whole)


def test_chunks_are_read_from_any_folder(
    few: list[Atoms], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a worker that was started elsewhere, faults of every kind included."""
    monkeypatch.chdir(tmp_path)
    write_db(Path("a.db"), few[:1])
    ase.io.write("b.traj", few[0])
    ase.io.write("c.vasp", few[0])
    Path("d.csv").write_text("id,geometri\n1,2\n")
    Path("e.cif").touch()
    sources = find_sources(["*.*"], structure_column="geometry")
    (chunk,) = chunks(sources)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    entries = read_chunk(pickle.loads(pickle.dumps(chunk)))
    assert [e.id for e in entries] == ["a.db#1", "b.traj#0", "c.vasp#0", "d.csv#0", "e.cif#0"]
    assert_same(entries[:3], few[:1] * 3)
    assert "did you mean 'geometri'" in str(entries[3].atoms)


def test_fingerprint(few: list[Atoms], tmp_path: Path) -> None:
    path = write_db(tmp_path / "a.db", few)
    before = fingerprint(find_sources([str(path)]))
    assert fingerprint(find_sources([str(path)])) == before
    assert fingerprint(find_sources([str(path)], selection="natoms>1")) != before
    with connect(path) as database:
        database.write(few[0])
    assert fingerprint(find_sources([str(path)])) != before


def test_a_file_that_vanishes_is_rows_of_errors(few: list[Atoms], tmp_path: Path) -> None:
    paths = [tmp_path / n for n in ("a.cif", "b.traj", "c.vasp", "e.json")]
    for path in paths[:3]:
        ase.io.write(path, few[0])
    write_db(paths[3], few[:2])
    sources = find_sources(map(str, paths))
    (late,) = chunks(sources)
    for path in paths:
        path.unlink()
    entries = read_chunk(late)
    # Texts travel with the chunk; what is read by name is gone.
    assert [isinstance(e.atoms, Exception) for e in entries] == [0, 1, 1, 0, 0]
    assert "could not be read any more" in str(entries[1].atoms)
    assert all(isinstance(e.atoms, ReciNetError) for e in read_entries(sources[:3]))


@pytest.mark.parametrize("names", [("d.db", "a.cif"), ("b.traj",), ("c.extxyz",)])
def test_a_whole_input_that_vanishes_can_come_back(
    few: list[Atoms], tmp_path: Path, names: tuple[str, ...]
) -> None:
    """Rows of errors would make a finished screen of what is only out of reach."""
    paths = [tmp_path / name for name in names]
    for path in paths:
        if path.suffix == ".db":
            write_db(path, few[:2])
        else:
            ase.io.write(path, few[0])
    sources = find_sources(map(str, paths))
    paths[0].unlink()
    with pytest.raises(InputUnavailableError, match="is gone .*--resume"):
        list(read_entries(sources))


# Databases


def test_selections_are_ases_own(few: list[Atoms], tmp_path: Path) -> None:
    for suffix in (".db", ".json"):
        path = write_db(tmp_path / f"a{suffix}", few, gap=[0.5 * i for i in range(len(few))])
        for selection in ("gap>1", "natoms<3", "O", "Na,Cl", "gap<=2,natoms=2", "id=3"):
            wanted = [str(row.id) for row in connect(path).select(selection)]
            if not wanted:
                continue
            sources = find_sources([str(path)], selection=selection)
            assert [e.id for e in read_entries(sources)] == wanted, selection
            assert count_entries(sources) == len(wanted)
        with pytest.raises(UnknownNameError, match="did you mean 'gap'"):
            find_sources([str(path)], selection="gapp>1")
        with pytest.raises(ReciNetError, match="matches no row"):
            find_sources([str(path)], selection="gap>100")
        with pytest.raises(ReciNetError, match="none that ASE understands"):
            find_sources([str(path)], selection="natoms<many")
    ase.io.write(tmp_path / "a.cif", few)
    with pytest.raises(ReciNetError, match="no ASE database"):
        find_sources([str(tmp_path / "a.cif")], selection="natoms<3")


def test_a_database_is_only_read(few: list[Atoms], tmp_path: Path) -> None:
    empty = tmp_path / "other.db"
    with sqlite3.connect(empty) as connection:
        connection.execute("CREATE TABLE notes (x)")
    before = empty.read_bytes()
    with pytest.raises(ReciNetError, match=r"other\.db cannot be opened.*systems"):
        find_sources([str(empty)])
    assert empty.read_bytes() == before
    path = write_db(tmp_path / "mine.db", few)
    before = path.read_bytes()
    path.chmod(0o444)
    assert_same(entries_of(path), few)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.db", "other.db"]


def test_a_locked_database_is_waited_for(
    few: list[Atoms], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_db(tmp_path / "a.db", few)
    sources = find_sources([str(path)])
    (chunk,) = chunks(sources)
    monkeypatch.setattr(databases, "PATIENCE", 0.4)
    lock = sqlite3.connect(path, check_same_thread=False)
    lock.execute("BEGIN EXCLUSIVE")
    with pytest.raises(InputUnavailableError, match="stays locked"):
        read_chunk(chunk)
    with pytest.raises(InputUnavailableError, match="stays locked"):
        find_sources([f"{tmp_path}/*.db"])
    monkeypatch.setattr(databases, "PATIENCE", 20)
    threading.Timer(0.3, lock.rollback).start()
    begin = time.monotonic()
    assert_same(read_chunk(chunk), few)
    assert time.monotonic() - begin > 0.2


def test_arrays_that_lie(few: list[Atoms], tmp_path: Path) -> None:
    path = write_db(tmp_path / "a.json", few[:4])
    document = json.loads(path.read_text())
    document["1"]["positions"]["__ndarray__"][0] = [10**12, 3]
    document["2"]["numbers"]["__ndarray__"][1] = "object"
    document["3"] = {"__ase_objtype__": "bandpath", "labelseq": "GX"}
    path.write_text(json.dumps(document))
    entries = entries_of(path)
    assert [isinstance(e.atoms, Exception) for e in entries] == [True, True, True, False]
    assert "holds" in str(entries[0].atoms)


def test_addresses() -> None:
    assert databases.masked("postgresql://me:secret@host:5432/db") == (
        "postgresql://me:***@host:5432/db"
    )
    with pytest.raises(ReciNetError, match="postgresql") as caught:
        find_sources(["https://me:secret@example.org/db"])
    assert "secret" not in str(caught.value)


# Security


def test_nothing_runs_and_nothing_is_unpickled(tmp_path: Path, few: list[Atoms]) -> None:
    trap = tmp_path / "trap"

    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (trap,))

    files = {
        "a.py": b"import pathlib; pathlib.Path('%s').touch()" % str(trap).encode(),
        "b.pkl": pickle.dumps(Bomb()),
        "c.traj": pickle.dumps(Bomb()),
        "d.json": json.dumps(
            [{"structure": {"@module": "os", "@class": "system", "sites": [], "lattice": {}}}]
        ).encode(),
        "e.json": b'{"@module": "subprocess", "@class": "Popen", "lattice": {}, "sites": [1]}',
    }
    for name, raw in files.items():
        path = tmp_path / name
        path.write_bytes(raw)
        try:
            entries = entries_of(path)
        except ReciNetError:
            continue
        assert all(isinstance(e.atoms, Exception) for e in entries), name
    assert not trap.exists()
    (tmp_path / "cell.cell").write_text("%BLOCK LATTICE_CART\n%ENDBLOCK LATTICE_CART\n")
    with pytest.raises(ReciNetError, match="castep program|cannot tell"):
        find_sources([str(tmp_path / "cell.cell")])


def test_compression_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "FREE_BYTES", 1 << 20)
    bomb = tmp_path / "bomb.extxyz.gz"
    bomb.write_bytes(gzip.compress(b"1\n" + b" " * (100 << 20)))
    (entry,) = entries_of(bomb)
    assert "unpacks to more than" in str(entry.atoms)
    damaged = tmp_path / "cut.cif.gz"
    damaged.write_bytes(gzip.compress(b"data_x\n_atom_site_label\n" * 99)[:-20])
    (entry,) = entries_of(damaged)
    assert "is damaged" in str(entry.atoms)


def test_what_is_no_crystal_says_so(tmp_path: Path, few: list[Atoms]) -> None:
    good = pymatgen_dict(few[0])
    disordered = Structure(Lattice.cubic(4), [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]]).as_dict()
    charged = Structure(Lattice.cubic(4.2), ["Cs+", "Cl-"], [[0, 0, 0], [0.5] * 3]).as_dict()
    cases = [
        (good, ""),
        (charged, ""),
        (disordered, "disordered (Na 0.5, K 0.5)"),
        (Molecule(["H", "H"], [[0, 0, 0], [0, 0, 0.74]]).as_dict(), "Molecule"),
        (None, "null"),
        ({"sites": []}, "periodicity"),
        ({**good, "lattice": {"matrix": [[1, 2], [3, 4]]}}, "lattice matrix"),
        ({**good, "lattice": {"a": 1}}, "lattice is incomplete"),
        ({**good, "sites": [{"abc": [0, 0, 0]}]}, "no species"),
        ({**good, "sites": [{"species": [{"element": "Uuo", "occu": 1}]}]}, "'Uuo'"),
        ({**good, "sites": [{"species": [{"element": "X", "occu": 1}]}]}, "no element"),
        ({"lattice_mat": 1, "coords": [], "elements": "NaCl"}, "elements are no list"),
        ({"elements": ["Na"], "coords": [[0, 0, 0]]}, "lacks lattice_mat"),
        ("data_x", "holds no"),
        ("<html>", "no CIF"),
        (7, "type int instead of a structure"),
    ]
    path = tmp_path / "cases.json"
    path.write_text(json.dumps([{"id": i, "structure": s} for i, (s, _) in enumerate(cases)]))
    for entry, (_, reason) in zip(entries_of(path), cases, strict=True):
        if reason:
            assert isinstance(entry.atoms, Exception) and reason in str(entry.atoms), entry
        else:
            assert isinstance(entry.atoms, Atoms), entry


def test_sources_do_not_show_passwords() -> None:
    source = Source("postgresql://u:***@h/d", "databases", "postgresql", "postgresql://u:pw@h/d")
    assert "pw" not in repr(source)


def test_read_structure_wants_one(few: list[Atoms], tmp_path: Path) -> None:
    path = tmp_path / "a.cif"
    ase.io.write(path, few[:1])
    assert read_structure(path).get_chemical_formula() == few[0].get_chemical_formula()
    ase.io.write(path, few[:2])
    with pytest.raises(ReciNetError, match="several"):
        read_structure(path)
