"""One start from several datasets: columns of their own, and no twin of what is held out."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch
from ase import Atoms
from click.testing import CliRunner, Result
from support import write_jarvis_folder

from recinet_ase import Predictor, ReciNetError, UnknownNameError, load_model
from recinet_ase.cli.train import train
from recinet_ase.data.catalogue import open_dataset
from recinet_ase.data.conversion import build_store
from recinet_ase.data.overlap import twins
from recinet_ase.data.store import StoreSettings
from recinet_ase.graph.adapters import to_crystal
from recinet_ase.training.config import TrainingConfig
from recinet_ase.training.labels import open_run_dataset, prepare_data
from recinet_ase.training.provenance import clean_tasks

TEACHER = "total_energy[teacher]"


def run(folder: Path, data: Path, *arguments: object) -> Result:
    common = ["--data-dir", str(data), "--cache-dir", str(data / "cache"), "-o", str(folder)]
    quick = ["--size", "tiny", "--batch-size", "8", "--validate-every", "1"]
    return CliRunner().invoke(train, [*quick, *common, *map(str, arguments)])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, crystals: dict[str, Atoms]) -> Path:
    """Two tasks of JARVIS, the same crystals 4 % larger in the Materials Project, and labels."""
    root = tmp_path_factory.mktemp("joint")
    atoms = list(crystals.values())
    write_jarvis_folder(root, atoms, "dft_3d_formation_energy_peratom")
    write_jarvis_folder(root, atoms, "dft_3d_mbj_bandgap", offset=9)
    larger = []
    for one in atoms:
        larger.append(one.copy())
        larger[-1].set_cell(one.cell * 1.04 ** (1 / 3), scale_atoms=True)
    other = root / "other"
    write_jarvis_folder(other, larger, "megnet_e_form", offset=3)
    (root / "mp" / "splits").mkdir(parents=True)
    name = "jdft_3d-8-18-2021.json"
    with zipfile.ZipFile(other / "jarvis" / f"{name}.zip") as archive:
        records = json.loads(archive.read(name))
    with zipfile.ZipFile(other / "jarvis" / "splits" / "megnet_e_form.json.zip") as archive:
        split = archive.read(archive.namelist()[0]).decode()
    for record in records:
        record["id"] = record.pop("jid").replace("JVASP", "mp")
    for path, text in (
        (root / "mp" / "megnet.json.zip", json.dumps(records)),
        (root / "mp" / "splits" / "megnet_e_form.json.zip", split.replace("JVASP", "mp")),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.json", text)
    teacher = root / "teacher"
    teacher.mkdir()
    rows = "".join(f"JVASP-{i},{i / 10}\n" for i in range(len(atoms)))
    (teacher / "jarvis.csv").write_text("id,total_energy\n" + rows)
    return root


def prepared(data: Path, **settings: object):  # type: ignore[no-untyped-def]
    config = TrainingConfig(dataset="jarvis+mp", **settings)  # type: ignore[arg-type]
    dataset, config = open_run_dataset(config, data)
    network = config.architecture(len(config.properties))
    return dataset, config, prepare_data(config, dataset, network, data / "cache")


def test_twins_are_found_by_formula_and_volume(crystals: dict[str, Atoms]) -> None:
    few = list(crystals.values())[:6]
    rows = [("held", few[0])]
    for share in (0.90, 0.95, 1.07, 1.10):
        atoms = few[0].repeat((2, 1, 1))
        atoms.set_cell(atoms.cell * share ** (1 / 3), scale_atoms=True)
        rows.append((str(share), atoms))
    rows += [(f"other {i}", atoms) for i, atoms in enumerate(few[1:])]
    store = build_store(rows, StoreSettings())
    others = torch.arange(1, len(rows))
    found = twins(store, torch.tensor([0]), others)
    assert [store.ids[i] for i in others[found].tolist()] == ["0.95", "1.07"]
    assert not twins(store, torch.tensor([], dtype=torch.long), others).any()


def test_what_one_dataset_holds_out_is_in_no_other(data: Path, crystals: dict[str, Atoms]) -> None:
    dataset, config, found = prepared(data, properties=("formation_energy",))
    assert config.properties == ("formation_energy[jarvis]", "formation_energy[mp]")
    formula = [to_crystal(a).to_ase().get_chemical_formula("reduce") for a in crystals.values()]

    def formulas(ids: set[str]) -> set[str]:
        return {formula[int(key.rpartition("-")[2])] for key in ids}

    train = set(found.train_ids)
    for name, others in (("jarvis", "mp/"), ("mp", "jarvis/")):
        held = dataset.split(dataset.info(f"formation_energy[{name}]")).held_out
        seen = {key for key in train if key.startswith(others)}
        assert seen and not formulas(held) & formulas(seen)
        assert not held & train
    # A column has the labels of its own dataset alone.
    own = torch.tensor([key.startswith("mp/") for key in found.train_ids])
    assert torch.equal(~torch.isnan(found.train.values[:, 1]), own)
    clean = clean_tasks(dataset, found.train_ids, None, found.store)
    assert clean == {"formation_energy[jarvis]", "formation_energy[mp]"}
    _, _, both = prepared(data, properties=("formation_energy",), hold_out=("bandgap[jarvis]",))
    assert "bandgap[jarvis]" in clean_tasks(dataset, both.train_ids, None, both.store)
    assert set(both.train_ids) < train


def test_a_twin_spoils_the_claim(data: Path) -> None:
    """Ids that differ hide nothing: the same crystal under another id counts as seen."""
    dataset, _, found = prepared(data, properties=("formation_energy",))
    held = sorted(dataset.split(dataset.info("formation_energy[jarvis]")).held_out)
    twin = held[0].replace("jarvis/JVASP", "mp/mp")
    clean = clean_tasks(dataset, [*found.train_ids, twin], None, found.store)
    assert "formation_energy[jarvis]" not in clean


def test_a_joint_start_serves_each_task(data: Path, tmp_path: Path) -> None:
    joint = tmp_path / "joint"
    options = (
        "--dataset", "jarvis+mp", "--props", f"formation_energy,{TEACHER}", "--multitask", "linear",
        "--labels", f"{TEACHER}={data / 'teacher'}", "--epochs", 2,
    )  # fmt: skip
    result = run(joint, data, *options)
    assert result.exit_code == 0, result.output
    assert "twins of crystals that another dataset holds out" in result.output
    model = load_model(joint)
    columns = ("formation_energy[jarvis]", "formation_energy[mp]", TEACHER)
    assert model.config.properties == columns
    assert model.config.functional == ("OptB88vdW", "PBE", "teacher")
    assert set(columns) <= set(model.config.training["clean_for"])
    answers = Predictor(joint).predict_many(
        [s for _, s in open_dataset("jarvis", data).structures()]
    )
    assert set(columns) in [set(answer.values) for answer in answers]
    for name in ("jarvis", "mp"):
        tuned = tmp_path / name
        given = ("--dataset", name, "--props", "formation_energy", "--init", joint, "--epochs", 1)
        result = run(tuned, data, *given, "--lr", "1e-9")
        assert result.exit_code == 0, result.output
        training = load_model(tuned).config.training
        assert "formation_energy" in training["clean_for"]
        assert training["started_from"]["dataset"] == "jarvis+mp"
        # Nothing was learnt, so the head must be that of the dataset's own column.
        last = [
            {k: v for k, v in m.network.state_dict().items() if k.startswith("head.")}
            for m in (load_model(tuned), model)
        ]
        column = columns.index(f"formation_energy[{name}]")
        for key, value in last[0].items():
            theirs = last[1][key]
            if theirs.shape != value.shape:
                axis = next(i for i, n in enumerate(theirs.shape) if n != value.shape[i])
                theirs = theirs.narrow(axis, column, 1)
            torch.testing.assert_close(value, theirs, rtol=1e-4, atol=1e-5)
    refused = run(tmp_path / "gap", data, "--props", "bandgap", "--init", joint, "--epochs", 1)
    assert refused.exit_code == 2 and "--hold-out bandgap" in refused.output


def test_a_joint_run_is_resumed(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = ("--dataset", "jarvis+mp", "--props", "formation_energy", "--epochs", 2)
    assert run(folder, data, *options, "--max-minutes", 0).exit_code == 0
    again = CliRunner().invoke(
        train,
        [
            "--resume",
            "-o",
            str(folder),
            "--data-dir",
            str(data),
            "--cache-dir",
            str(data / "cache"),
        ],
    )
    assert again.exit_code == 0, again.output
    assert load_model(folder).config.training["complete"]


def test_names_that_mean_nothing(data: Path) -> None:
    with pytest.raises(UnknownNameError, match="dataset 'mpp'"):
        open_dataset("jarvis+mpp", data)
    with pytest.raises(ReciNetError, match="named twice"):
        open_dataset("jarvis+jarvis", data)
    for labels, message in (
        ("energies.csv", "write PROPERTY"),
        ("total_energy[x]=/nowhere.csv", "cannot read labels"),
        (f"total_energy[x]={data}", "holds no labels"),
    ):
        with pytest.raises(ReciNetError, match=message):
            dataset = open_dataset("jarvis", data, labels=(labels,))
            dataset.labels(dataset.info("total_energy[x]"))
    with pytest.raises(UnknownNameError, match="formation_energy"):
        open_dataset("jarvis+mp", data).columns("formation_enery[mp]")
