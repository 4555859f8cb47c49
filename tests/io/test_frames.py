"""Some structures of a file, in ASE's notation: ``relax.traj@-1``."""

from __future__ import annotations

from pathlib import Path

import ase.io
import pytest
from ase import Atoms
from ase.build import bulk
from test_source_faults import cif_text, entries_of, write_db, write_table

from recinet_ase.errors import ReciNetError
from recinet_ase.io import (
    chunks,
    count_entries,
    find_sources,
    fingerprint,
    read_chunk,
    read_entries,
    read_structure,
)
from recinet_ase.io.entries import Entry


def indices(entries: list[Entry]) -> list[int]:
    assert not any(isinstance(e.atoms, Exception) for e in entries), entries
    return [int(e.id.rpartition("#")[2]) for e in entries]


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


def test_frames_named_twice_are_read_once(tmp_path: Path) -> None:
    path = tmp_path / "two.extxyz"
    ase.io.write(path, [bulk("Si"), bulk("Ge")])
    entries = list(read_entries(find_sources([f"{path}@0", f"{path}@+0"])))
    assert [entry.id for entry in entries] == [f"{path}#0"]
    with pytest.raises(ReciNetError, match="is no index of structures"):
        find_sources([f"{path}@{10**20}"])
