"""Every output format: whole or not at all, the same bytes each time, read by its own tools."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.db import connect
from pymatgen.io.ase import AseAtomsAdaptor
from support import EXAMPLES, random_model

from recinet_ase import Predictor
from recinet_ase.errors import ReciNetError
from recinet_ase.io import chunks, find_sources, read_entries
from recinet_ase.io.entries import Entry
from recinet_ase.screening.execution.chunk import finish_chunk, prepare_chunk
from recinet_ase.screening.execution.spec import column_units, result_columns
from recinet_ase.screening.output import writers
from recinet_ase.screening.output.metadata import sidecar_path, write_sidecar
from recinet_ase.screening.output.writers import check_output, needs_structures, open_writer

COLUMNS = [
    "id",
    "formula",
    "natoms",
    "bandgap",
    "bandgap_low",
    "bandgap_high",
    "in_domain",
    "error",
]
UNITS = {"natoms": "", "bandgap": "eV", "bandgap_low": "eV", "bandgap_high": "eV"}
SUFFIXES = [".csv", ".jsonl", ".parquet", ".db", ".json", ".extxyz"]

Rows = list[tuple[dict[str, Any], Entry]]


@pytest.fixture
def rows(crystals: dict[str, Atoms]) -> Rows:
    """Five answered structures, one refused and one that could not be read."""
    made: Rows = []
    for i, (formula, atoms) in enumerate(list(crystals.items())[:5]):
        values = {"jid": f"JVASP-{i}", "bandgap": 99.0, "Si": 1, "energy": -3.0, "free text": "x"}
        gap = 0.5 * i + 1 / 3
        row = {"id": f"{i}", "formula": formula, "natoms": len(atoms), "bandgap": gap}
        row |= {"bandgap_low": gap - 0.1, "bandgap_high": gap + 0.1, "in_domain": i != 2}
        made.append(({**row, "error": ""}, Entry(f"{i}", atoms, values=values)))
    none = dict.fromkeys(COLUMNS)
    slab = Atoms("Cu", cell=[3, 3, 30], pbc=[True, True, False])
    made.append(({**none, "id": "=slab", "error": "not periodic"}, Entry("=slab", slab)))
    bad = ValueError("broken")
    made.append(({**none, "id": "x.cif#0", "error": "broken"}, Entry("x.cif#0", bad)))
    return made


def write(path: Path, rows: Rows, columns: Sequence[str] = COLUMNS) -> int:
    with open_writer(str(path), columns, UNITS) as writer:
        for row, entry in rows:
            writer.write(row, entry if writer.needs_structures else None)
    return writer.unwritten


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_bytes_each_time(suffix: str, rows: Rows, tmp_path: Path) -> None:
    first, second = tmp_path / f"first{suffix}", tmp_path / f"second{suffix}"
    unwritten = write(first, rows)
    write(second, rows)
    assert first.read_bytes() == second.read_bytes()
    assert unwritten == int(needs_structures(first))
    assert sorted(tmp_path.iterdir()) == [first, second]
    write(first, rows[:2])  # replaced, not appended to
    assert first.read_bytes() != second.read_bytes()


def test_csv_and_json_lines(rows: Rows, tmp_path: Path) -> None:
    write(tmp_path / "a.csv", rows)
    with (tmp_path / "a.csv").open(newline="") as handle:
        read = list(csv.DictReader(handle))
    assert list(read[0]) == COLUMNS and len(read) == 7
    assert float(read[1]["bandgap"]) == pytest.approx(0.5 + 1 / 3, rel=1e-6)
    assert read[5]["id"] == "=slab" and read[5]["bandgap"] == "" and read[2]["in_domain"] == "false"
    odd = {**rows[0][0], "bandgap": float("nan")}
    write(tmp_path / "a.jsonl", [*rows, (odd, rows[0][1])])
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert lines[0]["bandgap"] == 1 / 3 and lines[5]["bandgap"] is None
    assert lines[7]["bandgap"] is None


def test_parquet_is_typed_and_has_units(rows: Rows, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write(tmp_path / "a.parquet", rows)
    table = parquet.read_table(tmp_path / "a.parquet")
    types = [str(table.schema.field(name).type) for name in COLUMNS]
    assert types == ["string", "string", "int64", *["double"] * 3, "bool", "string"]
    assert table.schema.field("bandgap_low").metadata == {b"unit": b"eV"}
    assert table["bandgap"].to_pylist()[:2] == [1 / 3, 0.5 + 1 / 3]
    assert table["bandgap"].to_pylist()[5:] == [None, None]


@pytest.mark.parametrize("suffix", [".db", ".json"])
def test_ase_databases(suffix: str, rows: Rows, tmp_path: Path) -> None:
    path = tmp_path / f"out{suffix}"
    assert write(path, rows) == 1
    database = connect(path)
    assert len(database) == 6
    assert [row.source_id for row in database.select("bandgap>1")] == [2, 3, 4]
    first = database[1]
    assert first.toatoms().get_chemical_formula() == rows[0][0]["formula"]
    assert np.allclose(first.toatoms().positions, rows[0][1].atoms.positions)
    assert first.key_value_pairs == {
        "source_id": 0,
        "bandgap": 1 / 3,
        "bandgap_low": 1 / 3 - 0.1,
        "bandgap_high": 1 / 3 + 0.1,
        "in_domain": True,
        "jid": "JVASP-0",
        "input_Si": 1,
        "input_energy": -3.0,
        "free_text": "x",
    }
    assert database[6].key_value_pairs == {"source_id": "=slab", "error": "not periodic"}
    assert database.metadata["key_descriptions"]["bandgap"][2] == "eV"
    command = [sys.executable, "-m", "ase", "db", str(path), "bandgap>2", "-c", "formula,bandgap"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert rows[4][0]["formula"] in found and "Rows: 1" in found
    # The output is an input again.
    entries = list(read_entries(find_sources([str(path)], selection="bandgap>1"), "jid"))
    assert [e.id for e in entries] == ["JVASP-2", "JVASP-3", "JVASP-4"]


@pytest.mark.parametrize(
    ("text", "kept", "as_id"),
    [
        ("12", 12, 12),
        ("1.50", 1.5, "'1.50'"),
        ("0.5", 0.5, 0.5),
        ("1e5", 1e5, "'1e5'"),
        ("007", "'007'", "'007'"),
        ("nan", "'nan'", "'nan'"),
        ("True", "'True'", "'True'"),
        ("mp-1", "mp-1", "mp-1"),
    ],
)
def test_texts_that_read_like_numbers(text: str, kept: Any, as_id: Any, tmp_path: Path) -> None:
    row = {**dict.fromkeys(COLUMNS), "id": text}
    for suffix in (".db", ".json"):
        path = tmp_path / f"out{suffix}"
        write(path, [(row, Entry(text, Atoms("Si", cell=[2, 2, 2], pbc=True), values={"x": text}))])
        assert connect(path)[1].key_value_pairs == {"source_id": as_id, "x": kept}


def test_extxyz(rows: Rows, tmp_path: Path) -> None:
    path = tmp_path / "out.extxyz"
    assert write(path, rows) == 1
    frames = ase.io.read(path, ":")
    assert [f.info["id"] for f in frames[:2]] == [0, 1] and frames[5].info["error"]
    for frame, (row, entry) in zip(frames[:5], rows, strict=False):
        assert frame.info["bandgap"] == pytest.approx(row["bandgap"], abs=1e-8)
        assert bool(frame.info["in_domain"]) == row["in_domain"]
        assert frame.info["jid"] == entry.values["jid"] and frame.info["free text"] == "x"
        assert np.allclose(frame.positions, entry.atoms.positions, atol=1e-6)
        assert frame.calc is None


@pytest.mark.parametrize("suffix", [".db", ".json", ".extxyz"])
def test_structures_with_baggage(suffix: str, crystals: dict[str, Atoms], tmp_path: Path) -> None:
    atoms = crystals["NaCl"].copy()
    atoms.calc = SinglePointCalculator(atoms, energy=-7.0)
    atoms.constraints = [FixAtoms([0])]
    strange = crystals["MgO"].copy()
    strange.info = {"spacegroup": object(), "list": [1, 2], "note": "two\nlines"}
    strange.arrays["labels"] = np.array([{"a": 1}] * len(strange), dtype=object)
    structure = AseAtomsAdaptor.get_structure(crystals["NaCl"])
    row = dict.fromkeys(COLUMNS)
    entries = [
        Entry(str(i), a, values=getattr(a, "info", {}))
        for i, a in enumerate((atoms, strange, structure))
    ]
    path = tmp_path / f"out{suffix}"
    assert write(path, [({**row, "id": e.id, "bandgap": 2.0}, e) for e in entries]) == 0
    read = ase.io.read(path, ":")
    assert [a.get_chemical_formula() for a in read] == ["ClNa", "MgO", "ClNa"]
    assert read[0].get_potential_energy() == -7.0


def test_numbers_survive_the_round_trip(tmp_path: Path) -> None:
    """Predictions for what was written equal those for what was read."""
    predictor = Predictor(random_model(), device="cpu", intervals=False)
    columns, units = result_columns(predictor), column_units(predictor)

    def screen(path: Path, id_key: str | None = None) -> list[dict[str, Any]]:
        parts = (
            prepare_chunk(predictor.preparation, id_key, chunk)
            for chunk in chunks(find_sources([str(path)]))
        )
        return [row for part in parts for row in finish_chunk(predictor, part).rows]

    before = screen(EXAMPLES)
    wanted = [row["bandgap"] for row in before]
    for suffix in (".db", ".json", ".extxyz"):
        path = tmp_path / f"out{suffix}"
        with open_writer(path, columns, units) as writer:
            for row, entry in zip(before, read_entries(find_sources([str(EXAMPLES)])), strict=True):
                writer.write(row, entry)
        key = "id" if suffix == ".extxyz" else "source_id"
        after = screen(path, key)
        assert [row["id"] for row in after] == [row["id"] for row in before]
        assert [row["bandgap"] for row in after] == pytest.approx(wanted, rel=1e-5)
        stored = [entry.values["bandgap"] for entry in read_entries(find_sources([str(path)]))]
        assert stored == pytest.approx(wanted, rel=1e-7)


# Atomicity


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("before", [True, False])
def test_an_interrupted_screen_leaves_what_was_there(
    suffix: str, before: bool, rows: Rows, tmp_path: Path
) -> None:
    path = tmp_path / f"out{suffix}"
    if before:
        write(path, rows)
    old = path.read_bytes() if before else b""
    with pytest.raises(KeyboardInterrupt), open_writer(path, COLUMNS, UNITS) as writer:
        writer.write(*rows[0])
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ([path.name] if before else [])
    assert not before or path.read_bytes() == old


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".json", ".extxyz"])
def test_a_full_disk(
    suffix: str, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"out{suffix}"
    write(path, rows)
    old = path.read_bytes()
    real = Path.open
    # The temporary file lies on a device that is full.
    monkeypatch.setattr(
        Path,
        "open",
        lambda self, *a, **k: real(Path("/dev/full") if ".part" in self.name else self, *a, **k),
    )
    with pytest.raises(ReciNetError, match=r"cannot write.*No space left.*unchanged"):
        write(path, rows * 500)
    assert path.read_bytes() == old


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs rlimits")
@pytest.mark.parametrize("suffix", [".db", ".parquet", ".csv"])
def test_a_file_that_cannot_grow(suffix: str, tmp_path: Path) -> None:
    """A quota, by the limit on file sizes, in a process of its own."""
    path = tmp_path / f"out{suffix}"
    path.write_text("old")
    script = f"""
import resource, signal
from ase.build import bulk
from recinet_ase.errors import ReciNetError
from recinet_ase.io.entries import Entry
from recinet_ase.screening.output.writers import open_writer
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
entry = Entry("1", bulk("Si"))
try:
    with open_writer({str(path)!r}, ["id", "bandgap"], {{"bandgap": "eV"}}) as writer:
        for i in range(20_000):
            writer.write({{"id": str(i) * 9, "bandgap": i / 7}}, entry)
except ReciNetError as error:
    print(error)
"""
    command = [sys.executable, "-c", script]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"cannot write {path}") and said.count("\n") == 1
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_check_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, message in (
        ("out.xlsx", "suffix must be one of"),
        ("nowhere/out.csv", "there is no folder"),
        ("folder.csv", "is a folder"),
    ):
        (tmp_path / "folder.csv").mkdir(exist_ok=True)
        with pytest.raises(ReciNetError, match=message):
            check_output(tmp_path / name)
    table = tmp_path / "mine.json"
    table.write_bytes(EXAMPLES.read_bytes())
    (tmp_path / "link.json").symlink_to(table)
    sources = find_sources([str(table)])
    check_output(tmp_path / "other.json", sources)
    with pytest.raises(ReciNetError, match="it is an input"):
        check_output(tmp_path / "link.json", sources)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ReciNetError, match="pip install"):
        check_output(tmp_path / "out.parquet")
    monkeypatch.setattr(writers.os, "access", lambda *_: False)
    with pytest.raises(ReciNetError, match="no permission"):
        check_output(tmp_path / "out.csv")


def test_links_and_modes_are_kept(rows: Rows, tmp_path: Path) -> None:
    target, link = tmp_path / "real.csv", tmp_path / "link.csv"
    target.write_text("")
    target.chmod(0o640)
    link.symlink_to(target)
    write(link, rows)
    assert link.is_symlink() and target.read_text() and target.stat().st_mode & 0o777 == 0o640


def test_standard_output(rows: Rows, capsys: pytest.CaptureFixture[str]) -> None:
    with open_writer(None, COLUMNS, UNITS) as writer:
        for row, _ in rows:
            writer.write(row)
    assert len(list(csv.DictReader(capsys.readouterr().out.splitlines()))) == len(rows)


def test_sidecar(model_folder: Path, tmp_path: Path) -> None:
    predictor = Predictor(model_folder, device="cpu", intervals=False)
    sources = find_sources([str(EXAMPLES)], selection="natoms<4")
    started = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    out = tmp_path / "out.csv"
    path = write_sidecar(
        out,
        predictor,
        sources,
        result_columns(predictor),
        {"bandgap": "eV"},
        {"structures": 50, "errors": 0},
        started,
        command=["recinet-screen", "mysql://me:secret@host/db", "a b.cif"],
        extra={"device": "cpu"},
    )
    assert path == sidecar_path(out) == tmp_path / "out.csv.meta.json"
    assert list(tmp_path.iterdir()) == [path]
    document = json.loads(path.read_text())
    assert document["command"] == "recinet-screen 'mysql://me:***@host/db' 'a b.cif'"
    assert (
        document["models"][0]["sha256"]
        == json.loads((model_folder / "config.json").read_text())["sha256"]
    )
    assert document["models"][0]["properties"] == [
        {"name": "bandgap", "unit": "eV", "functional": "none"}
    ]
    assert {"name": "bandgap", "unit": "eV", "model": "random"} in document["columns"]
    assert document["inputs"][0]["selection"] == "natoms<4" and document["counts"]["errors"] == 0
    assert document["started"] == "2026-01-02T03:04:05+00:00" and document["device"] == "cpu"
    assert set(document["versions"]) >= {"recinet-ase", "ase", "torch", "pymatgen"}
