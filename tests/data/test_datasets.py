"""Named datasets, their official splits, split rules, and properties of one's own."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import random
import sys
import types
import zipfile
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from ase import Atoms
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.io.ase import AseAtomsAdaptor
from support import EXAMPLES, graph_of, random_model

from recinet_ase import Predictor, ReciNetCalculator, ReciNetError, StructureError, UnknownNameError
from recinet_ase.cli.screen import screen
from recinet_ase.data.catalogue import dataset_names, open_dataset
from recinet_ase.data.conversion import cached_store
from recinet_ase.data.fetch import data_root
from recinet_ase.data.matbench import FOLD_SEED, MATBENCH, MatBench
from recinet_ase.data.mlearn import ELEMENTS, MLearn
from recinet_ase.data.published import JARVIS, MATERIALS_PROJECT, Published
from recinet_ase.data.splits import (
    Split,
    SplitRule,
    composition_split,
    fold_split,
    kfold,
    published_recipe,
    random_split,
)
from recinet_ase.data.store import STORE_VERSION, StoreSettings, fingerprint
from recinet_ase.graph.adapters import to_crystal
from recinet_ase.models.property_model import ModelConfig, PropertyModel
from recinet_ase.pretrained import model_properties
from recinet_ase.properties import PROPERTIES, custom_property, parse_properties

GAP = PROPERTIES["bandgap"]
needs_data = pytest.mark.skipif(
    "RECINET_DATA_DIR" not in os.environ, reason="needs the downloads (RECINET_DATA_DIR)"
)


def check_parts(split: Split, ids: set[str]) -> None:
    parts = [list(split.train), list(split.val), list(split.test)]
    together = [key for part in parts for key in part]
    assert len(together) == len(set(together)) and set(together) <= ids
    assert parts[0] and parts[1]


labels_of = st.integers(3, 60).map(lambda n: {f"x{i}": float(i) for i in range(n)})
rules = st.builds(
    SplitRule,
    kind=st.just("random"),
    seed=st.integers(0, 9),
    shares=st.sampled_from([(0.8, 0.1, 0.1), (0.9, 0.1, 0.0), (0.2, 0.4, 0.4), (0.5, 0.01, 0.49)]),
)


@given(labels=labels_of, rule=rules)
def test_random_splits(labels: dict[str, float], rule: SplitRule) -> None:
    split = random_split(labels, rule)
    check_parts(split, set(labels))
    assert len(split.train) + len(split.val) + len(split.test) == len(labels)
    assert bool(split.test) == (rule.shares[2] > 0)
    shuffled = dict(sorted(labels.items(), key=lambda item: -item[1]))
    assert random_split(shuffled, rule) == split, "depends on the order of the rows"


@given(labels=labels_of, rule=rules, groups=st.lists(st.integers(0, 8), min_size=60, max_size=60))
def test_composition_splits_keep_formulas_together(
    labels: dict[str, float], rule: SplitRule, groups: list[int]
) -> None:
    formulas = {key: f"A{groups[i]}" for i, key in enumerate(labels)}
    if len(set(formulas.values())) < 3:
        with pytest.raises(ReciNetError, match="different formulas"):
            composition_split(labels, formulas, rule)
        return
    split = composition_split(labels, formulas, rule)
    check_parts(split, set(labels))
    assert len(split.train) + len(split.val) + len(split.test) == len(labels)
    sides = [{formulas[k] for k in part} for part in (split.train, split.val, split.test)]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
    assert composition_split(dict(reversed(labels.items())), formulas, rule) == split


@given(labels=labels_of, fold=st.integers(0, 4), seed=st.integers(0, 9))
def test_folds(labels: dict[str, float], fold: int, seed: int) -> None:
    if len(labels) < 5:
        with pytest.raises(ReciNetError, match="5 folds"):
            kfold(list(labels), seed)
        return
    folds = kfold(list(labels), seed)
    assert sorted(key for part in folds for key in part) == sorted(labels)
    assert max(map(len, folds)) - min(map(len, folds)) <= 1
    rule = SplitRule("fold", fold=fold, seed=seed)
    split = fold_split(labels, folds[fold], rule)
    check_parts(split, set(labels))
    assert split.test == tuple(folds[fold])
    assert len(split.train) + len(split.val) == len(labels) - len(split.test)


def test_the_composition_rule_on_crystals(crystals: dict[str, Atoms], tmp_path: Path) -> None:
    """Polymorphs and supercells of one formula are on one side."""
    every = {**crystals, **{f"{k}-double": a.repeat((2, 1, 1)) for k, a in crystals.items()}}
    records = [
        {"jid": key, "structure": AseAtomsAdaptor.get_structure(atoms).as_dict(), "gap": 1.0}
        for key, atoms in every.items()
    ]

    from recinet_ase.data.table import TableDataset
    from recinet_ase.io.rows import read_rows

    (tmp_path / "x.json").write_text(json.dumps(records))
    dataset = TableDataset("x", read_rows(tmp_path / "x.json")[0], [], "gap", GAP)
    split = dataset.split(GAP, SplitRule("composition"))
    for part in (split.train, split.val, split.test):
        assert {k.removesuffix("-double") for k in part} == {k for k in part if "-" not in k}
    with pytest.raises(ReciNetError, match="x has no published split"):
        dataset.split(GAP, SplitRule("published"))


def test_rules_that_are_none() -> None:
    assert SplitRule.parse("fold:3", seed=1) == SplitRule("fold", fold=3, seed=1)
    assert str(SplitRule.parse("fold:3")) == "fold:3" and str(SplitRule.parse("random")) == "random"
    with pytest.raises(UnknownNameError, match="did you mean 'random'"):
        SplitRule.parse("randm")
    for text in ("random:2", "fold:x", "fold:7"):
        with pytest.raises(ReciNetError, match="fold"):
            SplitRule.parse(text)
    for shares in ((0.5, 0.4, 0.2), (1.0, 0.0, 0.0), (1.2, 0.1, -0.3)):
        with pytest.raises(ReciNetError, match="must add up to 1"):
            SplitRule(shares=shares)
    with pytest.raises(ReciNetError, match="2 crystals with a label"):
        random_split({"a": 1.0, "b": 2.0}, SplitRule())


def test_the_published_recipe() -> None:
    """Python's own shuffle, seed 123: figures known from the release of 55,723 crystals."""
    labels = {str(i): float(i) for i in range(55_723)}
    split = published_recipe(labels)
    assert [int(key) for key in list(split.train)[:5]] == [45770, 5340, 6395, 3105, 3588]
    assert (len(split.train), len(split.val), len(split.test)) == (44_578, 5_572, 5_572)
    check_parts(split, set(labels))
    megnet = published_recipe({str(i): 0.0 for i in range(69_239)}, (60_000, 5_000, 4_239))
    assert (len(megnet.train), len(megnet.val), len(megnet.test)) == (60_000, 5_000, 4_239)
    with pytest.raises(ReciNetError, match="cannot be split"):
        published_recipe({"a": 1.0})


@pytest.fixture(scope="module")
def jarvis_ids() -> list[str]:
    return list(JARVIS.records())


@needs_data
@pytest.mark.parametrize(
    ("name", "size", "ends"),
    [
        ("formation_energy", 55_723, "21450/28366 68836/5650 38636/90134"),
        ("bandgap", 18_172, "11762/12820 59652/10869 100464/65765"),
        ("ehull_label", 55_371, "33661/14073 101868/118132 8413/90134"),
    ],
)
def test_the_recipe_makes_the_leaderboards_split(
    name: str, size: int, ends: str, jarvis_ids: list[str]
) -> None:
    """The ends of every part are where the recipe puts them in the release's file.

    The archive at hand may lack a few crystals, which moves the others up by so many lines.
    """
    split = JARVIS.listed_split(PROPERTIES[name])
    assert split is not None
    parts = [list(split.train), list(split.val), list(split.test)]
    found = [f"{p[0]}/{p[-1]}".replace("JVASP-", "") for p in parts]
    assert " ".join(found) == ends
    known = {key for part in parts for key in part}
    line = {key: i for i, key in enumerate(k for k in jarvis_ids if k in known)}
    order = list(range(size))
    random.Random(123).shuffle(order)
    n_train, n_test = int(0.8 * size), int(0.1 * size)
    expected = [order[:n_train], order[-2 * n_test : -n_test], order[-n_test:]]
    for part, there in zip(parts, expected, strict=True):
        for end in (0, -1):
            assert 0 <= there[end] - line[part[end]] <= size - len(line)


def write_release(folder: Path, crystals: dict[str, Atoms], test_labels: bool) -> None:
    """The examples as if they were the whole JARVIS release, without split files."""
    records = []
    for i, atoms in enumerate(crystals.values()):
        crystal = to_crystal(atoms)
        hidden = not test_labels and i % 10 == 0
        records.append(
            {
                "jid": f"JVASP-{i}",
                "atoms": {
                    "lattice_mat": crystal.lattice.tolist(),
                    "coords": crystal.frac_coords.tolist(),
                    "elements": atoms.get_chemical_symbols(),
                },
                "mbj_bandgap": "na" if hidden else i / 10,
                "ehull": 0.5,
            }
        )
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / JARVIS.archive, "w") as archive:
        archive.writestr("jdft_3d-8-18-2021.json", json.dumps(records))


def test_a_release_without_split_files(crystals: dict[str, Atoms], tmp_path: Path) -> None:
    whole = replace(JARVIS, size=50, labelled={"bandgap": 50}, faults={"bandgap": {"JVASP-1"}})
    write_release(tmp_path / "jarvis", crystals, test_labels=True)
    dataset = Published(whole, tmp_path)
    labels = dataset.labels(GAP)
    assert labels == {f"JVASP-{i}": i / 10 for i in range(50)}
    split = dataset.split(GAP)
    order = list(range(50))
    random.Random(123).shuffle(order)
    assert split.test == tuple(f"JVASP-{i}" for i in order[-5:])
    assert list(split.train) == [f"JVASP-{i}" for i in order[:40] if i != 1]
    assert "JVASP-1" not in dataset.split(GAP, SplitRule("random", seed=5)).train
    with pytest.raises(ReciNetError, match="whole release of 55723 crystals"):
        Published(JARVIS, tmp_path).split(GAP)
    write_release(tmp_path / "jarvis", crystals, test_labels=False)
    with pytest.raises(ReciNetError, match="50 crystals and 45 labels of bandgap"):
        Published(whole, tmp_path).split(GAP)


def test_jarvis_by_name(jarvis_folder: Path, tmp_path: Path) -> None:
    dataset = open_dataset("jarvis", jarvis_folder, prop="gap")
    info = dataset.info("gap")
    split, labels = dataset.split(info), dataset.labels(info)
    assert split == JARVIS.split(info, jarvis_folder)
    assert labels == {**split.train, **split.val}, "test labels are not in these files"
    assert dataset.functional_of(info) == "TB-mBJ" and not dataset.rejected()
    assert len(dict(dataset.structures())) == 50
    (source,) = dataset.source_files()
    single = fingerprint(source, StoreSettings())
    assert single == fingerprint([source], StoreSettings())
    cached_store([source], dataset.structures, StoreSettings(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [f"jdft_3d-8-18-2021-{single}.safetensors"]
    for arguments, message in (
        ({"target": "slme"}, "--target is for your own data"),
        ({"prop": "exfoliation", "unit": "eV"}, "in meV/atom, not 'eV'"),
        ({"prop": "phonon_peak"}, "unknown jarvis property 'phonon_peak'"),
    ):
        with pytest.raises(ReciNetError, match=message):
            open_dataset("jarvis", jarvis_folder, **arguments)


def test_the_fingerprint_of_one_file_is_that_of_its_contents(tmp_path: Path) -> None:
    """Stores that were built before datasets of several files existed are still found."""
    first, second = tmp_path / "a", tmp_path / "b"
    for path in (first, second):
        path.write_bytes(b"contents")
    settings = json.dumps(asdict(StoreSettings()), sort_keys=True) + str(STORE_VERSION)
    expected = hashlib.sha256(b"contents" + settings.encode()).hexdigest()[:16]
    assert fingerprint(first, StoreSettings()) == expected == fingerprint([second], StoreSettings())
    both = fingerprint([first, second], StoreSettings())
    assert both == fingerprint([second, first], StoreSettings()) != expected
    assert both != fingerprint([first, second.rename(tmp_path / "c")], StoreSettings())


def test_names_and_their_properties(jarvis_folder: Path) -> None:
    assert {"jarvis", "mp", "matbench_jdft2d", "matbench_phonons", "mlearn", "mlearn_Si"} <= set(
        dataset_names()
    )
    for task in MATBENCH.values():
        assert task.property in PROPERTIES
    units = {name: PROPERTIES[task.property].unit for name, task in MATBENCH.items()}
    assert units["matbench_jdft2d"] == "meV/atom" and units["matbench_phonons"] == "1/cm"
    assert units["matbench_log_kvrh"] == "log10(GPa)" and units["matbench_perovskites"] == "eV/cell"
    for definition in (JARVIS, MATERIALS_PROJECT):
        assert {*definition.keys, *definition.derived} == set(definition.tasks)
    with pytest.raises(UnknownNameError, match="did you mean 'matbench_phonons'"):
        open_dataset("matbench_phonon", jarvis_folder)
    with pytest.raises(ReciNetError, match="Si.json.gz is not in"):
        open_dataset("mlearn_Si", jarvis_folder)


def write_matbench(
    root: Path, crystals: dict[str, Atoms], name: str = "matbench_phonons", ids: bool = False
) -> Path:
    folder = root / "matbench"
    folder.mkdir(exist_ok=True)
    rows = [
        [AseAtomsAdaptor.get_structure(atoms).as_dict(), 10.0 * i]
        for i, atoms in enumerate(crystals.values())
    ]
    index = [f"mb-phonons-{i + 1:02d}" if ids else i for i in range(len(rows))]
    document = {"index": index, "columns": ["structure", MATBENCH[name].column], "data": rows}
    path = folder / f"{name}.json.gz"
    path.write_bytes(gzip.compress(json.dumps(document).encode()))
    return path


def test_matbench(crystals: dict[str, Atoms], tmp_path: Path) -> None:
    write_matbench(tmp_path, crystals)
    dataset = open_dataset("matbench_phonons", tmp_path)
    assert isinstance(dataset, MatBench)
    info = dataset.info("last_phdos_peak")
    labels = dataset.labels(info)
    assert list(labels)[:2] == ["mb-phonons-01", "mb-phonons-02"] and labels["mb-phonons-50"] == 490
    pairs = zip(dataset.structures(), crystals.values(), strict=True)
    for (_, structure), atoms in pairs:
        assert graph_of(to_crystal(structure).to_ase()).num_edges == graph_of(atoms).num_edges
    tests: Counter[str] = Counter()
    for fold in range(5):
        split = dataset.split(info, SplitRule("fold", fold=fold))
        check_parts(split, set(labels))
        tests.update(split.test)
        assert split.test == tuple(kfold(list(labels), FOLD_SEED)[fold])
        assert split == dataset.split(info, SplitRule("published", fold=fold))
        other = dataset.split(info, SplitRule("fold", fold=fold, seed=9))
        assert other.test == split.test and other.val != split.val
    assert tests == Counter(dict.fromkeys(labels, 1)) and dataset.split(info).test == (
        dataset.split(info, SplitRule("fold", fold=0)).test
    )


def test_matbench_folds_from_their_file(crystals: dict[str, Atoms], tmp_path: Path) -> None:
    path = write_matbench(tmp_path, crystals, ids=True)
    dataset = open_dataset("matbench_phonons", tmp_path)
    ids = list(dataset.labels(dataset.info("phonon_peak")))
    folds = {f"fold_{k}": ids[k::5] for k in range(5)}
    (path.parent / "folds.json").write_text(json.dumps({"matbench_phonons": folds}))
    split = dataset.split(dataset.info("phonon_peak"), SplitRule("fold", fold=2))
    assert split.test == tuple(ids[2::5])
    (path.parent / "folds.json").write_text(json.dumps({"matbench_phonons": {"fold_0": ids}}))
    with pytest.raises(ReciNetError, match="are not those of its crystals"):
        dataset.split(dataset.info("phonon_peak"))


@needs_data
@pytest.mark.parametrize(("name", "size"), [("matbench_jdft2d", 636), ("matbench_phonons", 1265)])
def test_the_real_folds_are_matbenchs_recipe(name: str, size: int) -> None:
    dataset = open_dataset(name)
    assert isinstance(dataset, MatBench)
    labels = dataset.labels(PROPERTIES[MATBENCH[name].property])
    assert len(labels) == size and not dataset.rejected()
    assert (data_root() / "matbench" / "folds.json").exists()
    official, made = dataset.folds(), kfold(list(labels), FOLD_SEED)
    assert [sorted(part) for part in official] == [sorted(part) for part in made]


def write_mlearn(root: Path, crystals: dict[str, Atoms]) -> None:
    folder = root / "mlearn"
    folder.mkdir()
    for symbol in ELEMENTS:
        records = []
        for i, atoms in enumerate(list(crystals.values())[:5]):
            atoms = atoms.copy()
            atoms.symbols[:] = symbol
            records.append(
                {
                    "jid": str(i + 1),
                    "atoms": {
                        "lattice_mat": atoms.cell.array.tolist(),
                        "coords": atoms.get_scaled_positions().tolist(),
                        "elements": atoms.get_chemical_symbols(),
                        "cartesian": False,
                    },
                    "total_energy": -4.0 - i,
                    "forces": [[0.0, 0.1, 0.0]] * len(atoms),
                    "stresses": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
                }
            )
        (folder / f"{symbol}.json.gz").write_bytes(gzip.compress(json.dumps(records).encode()))


def test_mlearn(crystals: dict[str, Atoms], tmp_path: Path) -> None:
    write_mlearn(tmp_path, crystals)
    every, silicon = open_dataset("mlearn", tmp_path), open_dataset("mlearn_Si", tmp_path)
    assert isinstance(silicon, MLearn)
    info = silicon.info("etot")
    assert len(every.labels(info)) == 30 and len(every.source_files()) == 6
    labels = silicon.labels(info)
    assert labels == {f"Si-{i + 1}": -4.0 - i for i in range(5)}
    assert silicon.functional_of(info) == "PBE"
    assert {k: v for k, v in every.labels(info).items() if k in labels} == labels
    configurations = list(silicon.configurations())
    assert [c.id for c in configurations] == list(labels)
    for one in configurations:
        assert one.forces.shape == (len(to_crystal(one.structure)), 3) and one.stress.shape == (6,)
        assert one.energy == labels[one.id]
    check_parts(silicon.split(info), set(labels))


@needs_data
def test_the_real_mlearn_files() -> None:
    dataset = open_dataset("mlearn")
    assert isinstance(dataset, MLearn) and not dataset.rejected()
    assert len(dataset.labels(dataset.info("total_energy"))) == 1327
    for one in dataset.configurations():
        assert abs(one.forces.sum(0)).max() < 0.2, one.id  # a periodic cell is not pushed away
        assert -11 < one.energy < -1


def test_missing_files_are_fetched_through_the_publishers_packages(
    crystals: dict[str, Atoms], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call that jarvis-tools 2026.6 takes, with its download replaced by a local file."""
    with pytest.raises(ReciNetError, match=r"put it there, or install jarvis-tools .*\[datasets\]"):
        open_dataset("jarvis", tmp_path).source_files()
    with pytest.raises(ReciNetError, match="matbench_dielectric.json.gz is neither in .* matminer"):
        open_dataset("matbench_dielectric", tmp_path)
    asked = []

    def data(dataset: str = "dft_2d", store_dir: str | None = None) -> list[object]:
        print("Obtaining ...")
        asked.append(dataset)
        write_release(Path(str(store_dir)), crystals, test_labels=True)
        return []

    def broken(name: str, data_home: str | None = None) -> None:
        raise OSError("no route to host")

    for name, contents in (
        ("jarvis", {}),
        ("jarvis.db", {}),
        ("jarvis.db.figshare", {"data": data}),
        ("matminer", {}),
        ("matminer.datasets", {"load_dataset": broken}),
    ):
        module = types.ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    dataset = open_dataset("jarvis", tmp_path)
    assert dataset.source_files() == [tmp_path / "jarvis" / JARVIS.archive]
    assert len(dataset.labels(GAP)) == 50 and asked == ["dft_3d_2021"]
    assert [p.name for p in (tmp_path / "jarvis").iterdir()] == [JARVIS.archive]
    with pytest.raises(ReciNetError, match="could not fetch .* no route to host.*put the file"):
        open_dataset("matbench_dielectric", tmp_path)


def test_pymatgen_dictionaries_that_are_no_crystals(crystals: dict[str, Atoms]) -> None:
    structure = AseAtomsAdaptor.get_structure(crystals["NaCl"])
    good = structure.as_dict()
    assert to_crystal(good).numbers.tolist() == crystals["NaCl"].numbers.tolist()
    (result,) = Predictor(random_model(), device="cpu").predict_many([good])
    assert result.formula == "NaCl" and not result.error
    disordered = structure.copy()
    disordered[0] = {"Na": 0.5, "K": 0.5}
    slab = structure.as_dict()
    slab["lattice"]["pbc"] = [True, True, False]
    for bad, message in (
        (disordered.as_dict(), "site 0 is disordered .*Na 0.5"),
        (slab, "pbc=TTF"),
        ({"sites": good["sites"]}, "no periodicity"),
        ({**good, "sites": [{"abc": [0, 0, 0], "species": []}]}, "disordered"),
    ):
        with pytest.raises(StructureError, match=message):
            to_crystal(bad)


@pytest.fixture(scope="module")
def melting_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model of a property that the registry does not know."""
    folder = tmp_path_factory.mktemp("models") / "melting"
    random = random_model()
    config = replace(
        random.config, name="melting", properties=("melting_temperature",), units=("K",)
    )
    model = PropertyModel(config)
    model.network.load_state_dict(random.network.state_dict())
    model.save(folder, half=False)
    return folder


def test_a_property_of_ones_own_on_every_road(
    melting_model: Path, crystals: dict[str, Atoms], tmp_path: Path
) -> None:
    (info,) = PropertyModel.load(melting_model).config.infos
    assert (info.name, info.unit, info.default_model) == ("melting_temperature", "K", "")
    assert info.column == "melting temperature (K)"
    assert model_properties(melting_model) == [info]
    predictor = Predictor(melting_model, device="cpu")
    assert predictor.infos == [info]
    atoms = crystals["NaCl"].copy()
    value = predictor.predict(atoms)["melting_temperature"]
    atoms.calc = ReciNetCalculator(melting_model, device="cpu")
    assert atoms.calc.get_property("melting_temperature", atoms) == pytest.approx(value, abs=1e-5)
    assert atoms.calc.units == {"melting_temperature": "K"}
    runs = []
    for arguments in ((), ("--props", "melting_temperature"), ("--props", "Melting-Temperature")):
        result = CliRunner().invoke(
            screen, [str(EXAMPLES), "--model", str(melting_model), "--device", "cpu", *arguments]
        )
        assert result.exit_code == 0, result.output
        assert "melting_temperature: melting temperature in K, model melting" in result.stderr
        rows = list(csv.DictReader(result.stdout.splitlines()))
        runs.append([row["melting_temperature"] for row in rows])
    assert runs[0] == runs[1] == runs[2] and len(runs[0]) == 50


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--props", "melting_temperature"), "unknown property 'melting_temperature'"),
        (("--props", "melting_temperatur", "--model", "{m}"), "mean 'melting_temperature'"),
        (("--props", "bandgpa", "--model", "{m}"), "did you mean 'bandgap'"),
        (("--props", "phonon_peak"), "no shipped model predicts 'phonon_peak'; shipped models"),
    ],
)
def test_typos_stay_errors(arguments: tuple[str, ...], message: str, melting_model: Path) -> None:
    filled = [a.replace("{m}", str(melting_model)) for a in arguments]
    result = CliRunner().invoke(screen, [str(EXAMPLES), *filled])
    assert result.exit_code == 2 and message in result.stderr, result.stderr


def test_custom_and_registered_properties_together(melting_model: Path) -> None:
    info = custom_property("melting_temperature", "K")
    names = [i.name for i in parse_properties("gap,melting_temperature", [info])]
    assert names == ["bandgap", "melting_temperature"]
    with pytest.raises(UnknownNameError):
        parse_properties("melting_temperature")
    assert custom_property("ratio", "1").unit == "" == custom_property("ratio", "").unit
    assert custom_property("adsorption_energy", "eV/atom").per_atom
    for name in ("bandgap", "e_form", "Energy", "forces", "error", "two words", ""):
        with pytest.raises(ReciNetError):
            custom_property(name, "K")
    text = (melting_model / "config.json").read_text()
    broken = json.loads(text) | {"units": []}
    with pytest.raises(ReciNetError, match="not a model configuration"):
        ModelConfig.from_json(json.dumps(broken), "config.json")
