"""One's own files: every layout, the choice of labels, units, and bad rows."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.cif import CifWriter
from support import graph_of

from recinet_ase import ReciNetError, UnknownNameError
from recinet_ase.data.catalogue import open_dataset
from recinet_ase.data.conversion import build_store, cached_store
from recinet_ase.data.dataset import Dataset
from recinet_ase.data.labels import as_number, conversion
from recinet_ase.data.rejected import check_share, write_rejected
from recinet_ase.data.splits import SplitRule
from recinet_ase.data.store import StoreSettings
from recinet_ase.graph.adapters import to_crystal
from recinet_ase.io.rows import ID_PROP

Crystals = dict[str, Atoms]


def label(atoms: Atoms) -> float:
    return float(atoms.get_volume() / len(atoms))


def write_db(folder: Path, crystals: Crystals, suffix: str = ".db") -> Path:
    path = folder / f"mine{suffix}"
    with connect(path) as database:
        for key, atoms in crystals.items():
            database.write(atoms, jid=key, band_gap=label(atoms))
    return path


def write_json_db(folder: Path, crystals: Crystals) -> Path:
    return write_db(folder, crystals, ".json")


def write_extxyz(folder: Path, crystals: Crystals, name: str = "mine.extxyz") -> Path:
    frames = []
    for key, atoms in crystals.items():
        frame = atoms.copy()
        frame.info = {"material_id": key, "band_gap": label(atoms), "source": "examples"}
        frames.append(frame)
    ase.io.write(folder / name, frames)
    return folder / name


def write_traj(folder: Path, crystals: Crystals) -> Path:
    return write_extxyz(folder, crystals, "mine.traj")


def write_folder(folder: Path, crystals: Crystals, suffix: bool = False) -> Path:
    path = folder / "cifs"
    path.mkdir()
    rows = []
    for i, (key, atoms) in enumerate(crystals.items()):
        kind = (".cif", ".vasp", ".xyz")[i % 3]
        if kind == ".cif":
            CifWriter(AseAtomsAdaptor.get_structure(atoms), significant_figures=12).write_file(
                path / f"{key}.cif"
            )
        else:
            ase.io.write(path / f"{key}{kind}", atoms, format={".xyz": "extxyz"}.get(kind, "vasp"))
        rows.append(f"{key}{kind if suffix else ''},{label(atoms)!r}\n")
    (path / ID_PROP).write_text("".join(rows))
    return path


def write_folder_with_suffixes_and_header(folder: Path, crystals: Crystals) -> Path:
    path = write_folder(folder, crystals, suffix=True)
    (path / ID_PROP).write_text("file, band_gap\n" + (path / ID_PROP).read_text())
    return path


def write_csv(folder: Path, crystals: Crystals, column: str = "cif") -> Path:
    path = folder / "mine.csv"
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["formula", "material_id", column, "band_gap"])
        for key, atoms in crystals.items():
            structure = AseAtomsAdaptor.get_structure(atoms)
            cif = str(CifWriter(structure, significant_figures=12))
            writer.writerow([structure.composition.reduced_formula, key, cif, repr(label(atoms))])
    return path


def write_csv_by_content(folder: Path, crystals: Crystals) -> Path:
    return write_csv(folder, crystals, "crystal text")


def split_document(crystals: Crystals, ids: bool = True) -> dict[str, object]:
    rows = [[AseAtomsAdaptor.get_structure(a).as_dict(), label(a)] for a in crystals.values()]
    index = list(crystals) if ids else list(range(len(crystals)))
    return {"index": index, "columns": ["structure", "band_gap"], "data": rows}


def write_matminer(folder: Path, crystals: Crystals) -> Path:
    path = folder / "mine.json.gz"
    path.write_bytes(gzip.compress(json.dumps(split_document(crystals)).encode()))
    return path


def write_records(folder: Path, crystals: Crystals) -> Path:
    """The format of ALIGNN's ``id_prop.json``."""
    path = folder / "id_prop.json"
    records = [
        {
            "jid": key,
            "atoms": {
                "lattice_mat": atoms.cell.array.tolist(),
                "coords": atoms.get_scaled_positions().tolist(),
                "elements": atoms.get_chemical_symbols(),
                "cartesian": False,
            },
            "band_gap": label(atoms),
        }
        for key, atoms in crystals.items()
    ]
    path.write_text(json.dumps(records))
    return path


WRITERS: list[Callable[[Path, Crystals], Path]] = [
    write_db,
    write_json_db,
    write_extxyz,
    write_traj,
    write_folder,
    write_folder_with_suffixes_and_header,
    write_csv,
    write_csv_by_content,
    write_matminer,
    write_records,
]


def gap(dataset: Dataset) -> dict[str, float]:
    return dataset.labels(dataset.info("bandgap"))


@pytest.mark.parametrize("write", WRITERS)
def test_every_layout_gives_the_same_labels_and_graphs(
    write: Callable[[Path, Crystals], Path], crystals: Crystals, tmp_path: Path
) -> None:
    dataset = open_dataset(str(write(tmp_path, crystals)), prop="bandgap")
    labels = gap(dataset)
    assert list(labels) == list(crystals) and not dataset.rejected()
    for key, structure in dataset.structures():
        expected = graph_of(crystals[key])
        found = graph_of(to_crystal(structure).to_ase())
        assert labels[key] == pytest.approx(label(crystals[key]), rel=1e-7)
        assert found.num_edges == expected.num_edges, key
        for mine, theirs in ((found.z, expected.z), (found.edge_distance, expected.edge_distance)):
            np.testing.assert_allclose(np.sort(mine), np.sort(theirs), rtol=0, atol=1e-5)
    assert dataset.properties == ("bandgap",) and dataset.info("gap").unit == "eV"
    assert all(path.exists() for path in dataset.source_files())


def test_a_split_does_not_depend_on_the_layout(crystals: Crystals, tmp_path: Path) -> None:
    paths = [write(tmp_path, crystals) for write in (write_db, write_folder, write_matminer)]
    for rule in (None, SplitRule("composition", seed=4), SplitRule("fold", fold=3)):
        splits = [
            (d := open_dataset(str(path), prop="bandgap")).split(d.info("bandgap"), rule)
            for path in paths
        ]
        for split in splits[1:]:
            assert set(split.train) == set(splits[0].train)
            assert split.test == splits[0].test
    assert [len(part) for part in (split.train, split.val, split.test)] == [36, 4, 10]


def test_ids(crystals: Crystals, tmp_path: Path) -> None:
    frames = [atoms.copy() for atoms in list(crystals.values())[:4]]
    for i, frame in enumerate(frames):
        frame.info = {"gap": 1.0}
        if i < 2:
            frame.info["id"] = 70 + i
    ase.io.write(tmp_path / "ids.extxyz", frames)
    dataset = open_dataset(str(tmp_path / "ids.extxyz"))
    assert list(gap(dataset)) == ["70", "71", "ids.extxyz#2", "ids.extxyz#3"]
    document = split_document(dict(list(crystals.items())[:2]), ids=False)
    (tmp_path / "plain.json").write_text(json.dumps(document))
    assert list(gap(open_dataset(str(tmp_path / "plain.json")))) == ["0", "1"]


def test_the_target(crystals: Crystals, tmp_path: Path) -> None:
    few = dict(list(crystals.items())[:3])
    path = tmp_path / "two.db"
    with connect(path) as database:
        for atoms in few.values():
            database.write(atoms, ehull=0.1, my_gap=label(atoms), note="text", good=True)
    spec = str(path)
    with pytest.raises(ReciNetError, match=r"keys with numbers: ehull, my_gap$"):
        open_dataset(spec)
    with pytest.raises(ReciNetError, match=r"no key 'gapp'; keys with numbers: ehull, my_gap"):
        open_dataset(spec, target="gapp")
    with pytest.raises(ReciNetError, match="no row can be used .1: label 'text' is not a number"):
        open_dataset(spec, target="note", prop="bandgap")
    assert open_dataset(spec, target="ehull").properties == ("ehull",)
    assert open_dataset(spec, prop="e_above_hull").properties == ("ehull",)
    chosen = open_dataset(spec, target="my_gap", prop="gap")
    assert list(gap(chosen).values()) == pytest.approx([label(a) for a in few.values()])
    assert list(gap(chosen)) == ["1", "2", "3"] and chosen.name == "two.db"
    with pytest.raises(UnknownNameError, match="two.db property 'ehull'"):
        chosen.info("ehull")


def test_numbers_of_another_property_are_not_taken(crystals: Crystals, tmp_path: Path) -> None:
    path = write_extxyz(tmp_path, dict(list(crystals.items())[:3]))
    with pytest.raises(ReciNetError, match="called 'band_gap', which is not 'formation_energy'"):
        open_dataset(str(path), prop="formation_energy")
    assert open_dataset(str(path)).properties == ("bandgap",)
    assert open_dataset(str(path), target="band_gap", prop="bandgap_opt").properties == (
        "bandgap_opt",
    )


def test_the_only_numbers_are_not_labels_whatever_they_are_called(
    crystals: Crystals, tmp_path: Path
) -> None:
    few = list(crystals.values())[:3]

    def path_with(key: str) -> str:
        path = tmp_path / f"{key}.extxyz"
        frames = [atoms.copy() for atoms in few]
        for frame in frames:
            frame.info = {key: label(frame)}
        ase.io.write(path, frames)
        return str(path)

    message = "the only numbers in .* are called 'spacegroup', which is not {}; say --target 'space"
    with pytest.raises(ReciNetError, match=message.format("'bandgap'")):
        open_dataset(path_with("spacegroup"), prop="bandgap")
    with pytest.raises(ReciNetError, match=message.format("the name of a property")):
        open_dataset(path_with("spacegroup"))
    with pytest.raises(ReciNetError, match=message.format("'melting_temperature'")):
        open_dataset(path_with("spacegroup"), prop="melting_temperature", unit="K")
    chosen = open_dataset(path_with("spacegroup"), target="spacegroup", prop="bandgap")
    assert list(gap(chosen).values()) == pytest.approx([label(atoms) for atoms in few])
    for key in ("target", "Value", "label", "y", "property", "eg"):
        dataset = open_dataset(path_with(key), prop="bandgap")
        assert dataset.labels_note == f"{key}.extxyz: labels are '{key}', taken as bandgap in eV"
    note = open_dataset(path_with("gap"), unit="meV").labels_note
    assert note == "gap.extxyz: labels are 'gap', taken as bandgap in meV, converted to eV"
    note = open_dataset(path_with("y"), prop="tolerance", unit="1").labels_note
    assert note == "y.extxyz: labels are 'y', taken as tolerance in 1"


def test_units(crystals: Crystals, tmp_path: Path) -> None:
    path = str(write_matminer(tmp_path, dict(list(crystals.items())[:4])))
    plain = gap(open_dataset(path, unit="eV"))
    scaled = gap(open_dataset(path, unit="meV"))
    assert scaled == {key: pytest.approx(value / 1000) for key, value in plain.items()}
    with pytest.raises(ReciNetError, match="labels in eV/atom cannot be converted to eV,"):
        open_dataset(path, unit="eV/atom")
    with pytest.raises(ReciNetError, match="labels in Hartree cannot be converted to eV,"):
        open_dataset(path, unit="Hartree")
    moduli = open_dataset(path, target="band_gap", prop="bulk_modulus", unit="eV/A^3")
    value = next(iter(moduli.labels(moduli.info("kv")).values()))
    assert value == pytest.approx(next(iter(plain.values())) * 160.21766, rel=1e-6)
    assert conversion("meV/atom", "eV/atom") == 1e-3 and conversion("eV", "meV") == 1000
    for given, wanted in (("GPa", "log10(GPa)"), ("eV/cell", "eV/atom"), ("K", "eV")):
        with pytest.raises(ReciNetError, match="cannot be converted"):
            conversion(given, wanted)


def test_properties_of_ones_own(crystals: Crystals, tmp_path: Path) -> None:
    path = str(write_folder(tmp_path, dict(list(crystals.items())[:4])))
    with pytest.raises(ReciNetError, match="say what property the labels 'value' are of"):
        open_dataset(path)
    with pytest.raises(ReciNetError, match="did you mean 'bandgap'.*needs its unit"):
        open_dataset(path, prop="bandgpa")
    dataset = open_dataset(path, prop="melting_temperature", unit="K")
    info = dataset.info("melting_temperature")
    assert (info.name, info.unit, info.label) == ("melting_temperature", "K", "melting temperature")
    assert dataset.properties == ("melting_temperature",) and len(dataset.labels(info)) == 4
    for name, message in (("energy", "cannot name"), ("My T", "cannot name"), ("natoms", "cannot")):
        with pytest.raises(ReciNetError, match=message):
            open_dataset(path, prop=name, unit="K")


def test_the_energy_of_the_cell_is_divided_by_its_atoms(crystals: Crystals, tmp_path: Path) -> None:
    path, database_path = tmp_path / "runs.extxyz", tmp_path / "runs.db"
    frames = []
    for atoms in list(crystals.values())[:4]:
        frame = atoms.copy()
        frame.calc = SinglePointCalculator(frame, energy=-3.0 * len(frame))
        frames.append(frame)
    ase.io.write(path, frames)
    with connect(database_path) as database:
        for frame in frames:
            database.write(frame)
    for spec in (str(path), str(database_path)):
        dataset = open_dataset(spec)
        assert dataset.properties == ("total_energy",)
        assert set(dataset.labels(dataset.info("etot")).values()) == {-3.0}
        with pytest.raises(ReciNetError, match="'energy_per_atom' is the same per atom"):
            open_dataset(spec, target="energy", prop="total_energy")
        with pytest.raises(ReciNetError, match="eV/atom cannot be converted to eV,"):
            open_dataset(spec, target="energy_per_atom", prop="bandgap")


def test_bad_rows_of_a_table(crystals: Crystals, tmp_path: Path) -> None:
    document = split_document(dict(list(crystals.items())[:9]))
    data, index = document["data"], document["index"]
    assert isinstance(data, list) and isinstance(index, list)
    keys = list(index)
    data[0][1], data[1][1], data[2][1], data[3][1] = None, float("nan"), "abc", True
    data[4][0] = "not a crystal"
    index[5] = index[6]
    data[7] = [1]
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(document))
    dataset = open_dataset(str(path))
    assert list(gap(dataset)) == [keys[4], keys[6], keys[8]]
    structures = dict(dataset.structures())
    rejected = dataset.rejected()
    expected = {
        keys[0]: "has no label",
        keys[1]: "label is nan",
        keys[2]: "label 'abc' is not a number",
        keys[3]: "label True is not a number",
        keys[4]: "the text is no CIF: it has no line that begins with data_",
        "bad.json:7": f"id {keys[6]!r} is that of bad.json:6 too",
        keys[7]: "does not have a value for each column",
    }
    assert rejected == expected
    # Rows without a label have a structure all the same: a store serves every label of a file.
    assert set(structures) == {*keys} - {keys[5]}
    store = build_store(dataset.structures(), StoreSettings())
    assert store.rejected == {k: expected[k] for k in (keys[4], keys[7])}
    merged = write_rejected(tmp_path / "rejected.csv", rejected, store.rejected)
    with (tmp_path / "rejected.csv").open(newline="") as handle:
        assert {r["id"]: r["reason"] for r in csv.DictReader(handle)} == merged == rejected


def test_bad_rows_of_a_folder(crystals: Crystals, tmp_path: Path) -> None:
    few = dict(list(crystals.items())[:6])
    path = write_folder(tmp_path, few)
    keys = list(few)
    (path / f"{keys[0]}.cif").write_text("data_x\n_cell_length_a banana\n_atom_site_label\n")
    (path / f"{keys[1]}.cif").write_text("a second file of that name")
    (path / f"{keys[2]}.xyz").write_bytes(b"")
    lines = (path / ID_PROP).read_text().splitlines()
    lines[3] = f"{keys[3]},na"
    (path / ID_PROP).write_text("\n".join(["# comment", *lines, "absent,1.0", ""]))
    dataset = open_dataset(str(path), prop="bandgap")
    assert set(gap(dataset)) == {keys[0], keys[2], keys[4], keys[5]}
    list(dataset.structures())
    rejected = dataset.rejected()
    assert set(rejected) == {*keys[:4], "absent"}
    assert "could be any of" in rejected[keys[1]] and "is empty" in rejected[keys[2]]
    assert rejected[keys[3]] == "has no label" and rejected["absent"] == "there is no file 'absent'"


def test_a_share_of_bad_rows_is_refused() -> None:
    bad = {f"x{i}": "has no label" for i in range(5)}
    check_share(bad, 100)
    check_share({}, 0)
    with pytest.raises(ReciNetError, match=r"5 of 99 .* 5% \(x0: has no label; .*and 2 more\)"):
        check_share(bad, 99)
    check_share(bad, 10, max_share=0.5)


def test_the_store_of_a_folder(crystals: Crystals, tmp_path: Path) -> None:
    few = dict(list(crystals.items())[:4])
    path = write_folder(tmp_path, few)
    dataset = open_dataset(str(path), prop="bandgap")

    def store_file(dataset: Dataset) -> set[str]:
        cache = tmp_path / "cache"
        cached_store(
            dataset.source_files(), dataset.structures, StoreSettings(), cache, name=dataset.name
        )
        return {file.name for file in cache.iterdir()}

    first = store_file(dataset)
    assert len(first) == 1 and next(iter(first)).startswith("cifs-")
    moved = path.rename(tmp_path / "moved").rename(path)
    assert store_file(open_dataset(str(moved), prop="bandgap")) == first
    ase.io.write(path / f"{next(iter(few))}.cif", few[list(few)[1]])
    assert len(store_file(open_dataset(str(path), prop="bandgap"))) == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nowhere.db", None, "no such dataset, file or folder: .*nowhere.db"),
        ("folder", None, "has no id_prop.csv"),
        ("a.csv", "id,gap\n1,2\n", "no column of structures"),
        ("a.csv", "cif,gap,gap\n", "two columns have the same name"),
        ("a.csv", "cif,gap\n", "has no rows that can be read .*holds no structure"),
        (
            "a.csv",
            "cif,gap\n,1.0,3\n",
            "no rows that can be read .a.csv:1: row 2 has 3 fields where the header has 2",
        ),
        ("a.json", "{", "not valid json"),
        ("a.json", "[1]", "has no structures"),
        ("a.json", "[]", "has no structures"),
        ("a.json", '{"a": 1}', "no ASE database"),
        ("a.json.gz", '{"a": 1}', "is damaged .Not a gzipped file"),
        ("a.json", '{"columns": [], "data": [1], "index": []}', "not have a value for each"),
        ("a.py", "import os", "can run code|cannot tell the format"),
        ("a.pkl", "x", "cannot tell the format"),
    ],
)
def test_files_that_are_no_data(
    name: str, content: str | None, message: str, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ReciNetError, match=message):
        open_dataset(str(tmp_path / name), prop="bandgap")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    import pickle

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path(tmp_path / "ran").touch, ())

    for name in ("a.traj", "a.db", "a.json", "a.csv", "a.pckl", "a.bundle", "POSCAR", "a.extxyz"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
        with pytest.raises(ReciNetError):
            open_dataset(str(tmp_path / name), prop="bandgap")
    assert not (tmp_path / "ran").exists()


def test_a_cell_larger_than_the_csv_modules_limit(crystals: Crystals, tmp_path: Path) -> None:
    atoms = next(a for a in crystals.values() if len(a) < 3)
    path = write_csv(tmp_path, {"one": atoms})
    padded = path.read_text().replace("data_", "#" * 200_000 + "\ndata_", 1)
    path.write_text(padded)
    before = csv.field_size_limit()
    dataset = open_dataset(str(path))
    assert len(to_crystal(dict(dataset.structures())["one"])) == len(atoms)
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1.5", 1.5),
        (np.float32(2), 2.0),
        (" 3 ", 3.0),
        ("na", "has no label"),
        (None, "has no label"),
        ("inf", "label is inf"),
        (False, "label False is not a number"),
        ([1.0], "label of type list is not a number"),
        ("1,5", "label '1,5' is not a number"),
    ],
)
def test_labels(value: object, expected: float | str) -> None:
    assert as_number(value) == expected


def test_a_folder_called_like_a_dataset(
    crystals: Crystals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path, dict(list(crystals.items())[:3])).rename(tmp_path / "jarvis")
    monkeypatch.chdir(tmp_path)
    assert open_dataset("jarvis", data_dir=tmp_path).name == "jarvis"
    own = open_dataset("./jarvis", prop="bandgap")
    assert own.name == "./jarvis" and len(gap(own)) == 3
    with pytest.raises(UnknownNameError, match="did you mean 'jarvis'"):
        open_dataset("jarvi")
