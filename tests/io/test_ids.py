"""The screen and the training give one entry one identity, however its file is written."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import pytest
from ase import Atoms
from ase.db import connect
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.cif import CifWriter
from written import poscar_text

from recinet_ase.data.catalogue import open_dataset
from recinet_ase.graph.adapters import to_crystal
from recinet_ase.io import find_sources, read_entries
from recinet_ase.io.records import ID_KEYS
from recinet_ase.io.rows import read_rows


@pytest.fixture(scope="module")
def few(crystals: dict[str, Atoms]) -> list[Atoms]:
    return [atoms for atoms in crystals.values() if len(atoms) < 8][:6]


def cif_text(atoms: Atoms) -> str:
    return str(CifWriter(AseAtomsAdaptor.get_structure(atoms), significant_figures=10))


def json_text(atoms: Atoms) -> str:
    return json.dumps(AseAtomsAdaptor.get_structure(atoms).as_dict())


STRUCTURES: dict[str, Callable[[Atoms], str]] = {
    "cif": cif_text,
    "poscar": poscar_text,
    "structure": json_text,
}


def table(few: list[Atoms], column: str, key: str | None) -> list[dict[str, Any]]:
    rows = []
    for i, atoms in enumerate(few):
        row = {} if key is None else {key: f"x-{i}"}
        rows.append({**row, "gap": 0.5 * i, column: STRUCTURES[column](atoms)})
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A table or json document, its layout and compression by the suffix."""
    kind = next(s for s in path.suffixes if s in (".csv", ".tsv", ".jsonl", ".json", ".parquet"))
    if kind == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    if kind in (".csv", ".tsv"):
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, list(rows[0]), delimiter="\t" if kind == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
        text = buffer.getvalue()
    else:
        text = "\n".join(map(json.dumps, rows)) if kind == ".jsonl" else json.dumps(rows)
    raw = text.encode()
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(path.stem, raw)
        return path
    path.write_bytes({".gz": gzip.compress, ".bz2": bz2.compress}.get(path.suffix, bytes)(raw))
    return path


FILES = ("csv", "csv.gz", "csv.bz2", "tsv", "jsonl", "jsonl.gz", "json", "json.gz", "json.zip")
FILES += ("parquet",)


@pytest.mark.parametrize("column", STRUCTURES)
@pytest.mark.parametrize("key", ["id", "material_id", "jid", "name", "mat_id", "Material_ID", None])
def test_a_table_has_the_same_ids_in_every_file(
    key: str | None, column: str, few: list[Atoms], tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow")
    rows = table(few, column, key)
    wanted = [f"x-{i}" if key else str(i + 1) for i in range(len(few))]
    for suffix in FILES if column == "poscar" else FILES[:2]:
        if key == "Material_ID" and "json" in suffix:
            continue
        path = write(tmp_path / f"t.{suffix}", rows)
        dataset = open_dataset(str(path), target="gap", prop="bandgap")
        labels = dataset.labels(dataset.info("bandgap"))
        assert labels == {i: 0.5 * n for n, i in enumerate(wanted)}, suffix
        screened = list(read_entries(find_sources([str(path)])))
        if key is None:
            assert [e.id for e in screened] == [f"{path}#{i}" for i in range(len(few))]
        else:
            assert [e.id for e in screened] == wanted, suffix
        for (_, structure), entry, atoms in zip(dataset.structures(), screened, few, strict=True):
            volumes = [to_crystal(s).volume for s in (structure, entry.atoms, atoms)]
            assert volumes == pytest.approx([volumes[2]] * 3, rel=1e-5)


def test_splits_are_the_same_for_a_compressed_file(few: list[Atoms], tmp_path: Path) -> None:
    frames = [atoms.copy() for atoms in few]
    for i, frame in enumerate(frames):
        frame.info = {"gap": float(i)}
    ase.io.write(tmp_path / "a.extxyz", frames)
    packed = tmp_path / "a.extxyz.gz"
    packed.write_bytes(gzip.compress((tmp_path / "a.extxyz").read_bytes()))
    plain, other = (open_dataset(str(tmp_path / n)) for n in ("a.extxyz", packed.name))
    assert plain.ids() == other.ids() == {f"a.extxyz#{i}" for i in range(len(few))}
    info = plain.info("bandgap")
    assert plain.split(info) == other.split(info)


def test_names_that_repeat_are_no_ids(few: list[Atoms], tmp_path: Path) -> None:
    """A compound's name costs no row; ids that repeat do."""
    rows = table(few, "cif", "name")
    rows[3]["name"] = rows[2]["name"]
    found, _ = read_rows(write(tmp_path / "a.csv", rows))
    assert [row.id for row in found] == [str(i) for i in range(1, len(few) + 1)]
    with connect(tmp_path / "a.db") as database:
        for atoms, row in zip(few, rows, strict=True):
            database.write(atoms, name=row["name"])
    found, _ = read_rows(tmp_path / "a.db")
    assert [row.id for row in found] == [str(i) for i in range(1, len(few) + 1)]
    rows = table(few, "cif", "id")
    rows[3]["id"] = rows[2]["id"]
    dataset = open_dataset(str(write(tmp_path / "b.csv", rows)), target="gap", prop="bandgap")
    assert dataset.rejected() == {"b.csv:4": "id 'x-2' is that of b.csv:3 too"}


def test_every_id_key_is_one_for_both(few: list[Atoms], tmp_path: Path) -> None:
    for key in ID_KEYS:
        rows = [{key: f"k{i}", "gap": 1.0, "cif": cif_text(a)} for i, a in enumerate(few[:2])]
        path = write(tmp_path / f"{key or 'index'}.csv", rows)
        assert [row.id for row in read_rows(path)[0]] == ["k0", "k1"]
        assert [e.id for e in read_entries(find_sources([str(path)]))] == ["k0", "k1"]
