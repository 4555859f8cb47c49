"""recinet-screen, through its real command line."""

from __future__ import annotations

import csv
import json
import shutil
from io import StringIO
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.db import connect
from bad_structures import BAD
from click.testing import CliRunner, Result
from support import EXAMPLES, random_model

from recinet_ase import Predictor, ReciNetCalculator
from recinet_ase.cli.screen import screen
from recinet_ase.formula import formula_of
from recinet_ase.screening.output.statistics import error_kinds
from recinet_ase.screening.output.terminal import print_summary
from recinet_ase.screening.selection.selection import Selection
from recinet_ase.screening.selection.table import ListTable


def run(*arguments: object) -> Result:
    return CliRunner().invoke(screen, [*map(str, arguments), "--device", "cpu"])


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def test_examples_through_every_door(
    model_folder: Path, crystals: dict[str, Atoms], tmp_path: Path
) -> None:
    """Calculator, predictor and command line give the same numbers."""
    out = tmp_path / "out.csv"
    result = run(EXAMPLES, "--model", model_folder, "-o", out)
    assert result.exit_code == 0, result.output
    rows = rows_of(out.read_text())
    assert list(rows[0]) == ["id", "formula", "natoms", "bandgap", "warnings", "error"]
    assert [r["id"] for r in rows] == [str(i) for i in range(1, 51)]
    calc = ReciNetCalculator(model_folder, device="cpu")
    predictor = Predictor(model_folder, device="cpu")
    for row, atoms in zip(rows, crystals.values(), strict=True):
        assert row["formula"] == formula_of(atoms.get_chemical_symbols())
        assert int(row["natoms"]) == len(atoms) and row["error"] == ""
        value = float(row["bandgap"])
        assert value == pytest.approx(calc.get_property("bandgap", atoms), abs=1e-5)
        assert value == pytest.approx(predictor.predict(atoms)["bandgap"], abs=1e-5)
    assert "bandgap: band gap in eV, model random (none)" in result.stderr
    assert "50 structures, 0 with errors" in result.stderr


def test_stdout_is_clean_csv(model_folder: Path) -> None:
    result = run(EXAMPLES, "--model", model_folder, "--props", "gap")
    assert len(rows_of(result.stdout)) == 50


def test_ids(model_folder: Path, tmp_path: Path) -> None:
    result = run(EXAMPLES, "--model", model_folder, "--id-key", "jid")
    ids = [r["id"] for r in rows_of(result.stdout)]
    assert all(i.startswith("JVASP-") for i in ids)
    copy = shutil.copy(EXAMPLES, tmp_path / "second.json")
    result = run(EXAMPLES, copy, "--model", model_folder)
    rows = rows_of(result.stdout)
    assert len(rows) == 100 and rows[50]["id"] == f"{copy}#1"
    assert len({r["id"] for r in rows}) == 100


def test_a_bad_structure_is_a_row_not_a_stop(
    model_folder: Path, crystals: dict[str, Atoms], tmp_path: Path
) -> None:
    path = tmp_path / "mixed.db"
    good = list(crystals.values())[:12]
    bad = {name: atoms for name, (atoms, _) in BAD.items() if name != "unknown element"}
    with connect(path) as database:
        for atoms, worse in zip(good, bad.values(), strict=False):
            database.write(worse)
            database.write(atoms)
    rows = rows_of(run(path, "--model", model_folder).stdout)
    n = min(len(good), len(bad))
    assert len(rows) == 2 * n
    assert all(r["error"] and not r["bandgap"] for r in rows[::2])
    alone = Predictor(model_folder, device="cpu").predict_many(good[:n])
    for row, expected in zip(rows[1::2], alone, strict=True):
        assert float(row["bandgap"]) == pytest.approx(expected.values["bandgap"], abs=1e-5)


def test_odd_names(model_folder: Path, crystals: dict[str, Atoms], tmp_path: Path) -> None:
    atoms = crystals["NaCl"]
    ase.io.write(tmp_path / "plain.cif", atoms)
    (tmp_path / "plain.cif").rename(tmp_path / "mp@1.cif")
    with connect(tmp_path / "a.db") as database:
        database.write(atoms)
    (tmp_path / "a.db").rename(tmp_path / "A.DB")
    with connect(tmp_path / "b.json") as database:
        database.write(atoms, jid="mine")
    (tmp_path / "b.json").rename(tmp_path / "B.JSON")
    result = run(f"{tmp_path}/*", "--model", model_folder, "--id-key", "jid")
    rows = rows_of(result.stdout)
    assert len(rows) == 3 and not any(r["error"] for r in rows)
    assert sum(r["id"] == "mine" for r in rows) == 1
    assert "2 structures have no key 'jid'" in result.stderr


def test_json_lines(model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    run(EXAMPLES, "--model", model_folder, "-o", out)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 50 and isinstance(rows[0]["bandgap"], float) and rows[0]["natoms"] == 2


def test_two_models_two_columns(
    model_folder: Path, total_energy_folder: Path, tmp_path: Path
) -> None:
    result = run(EXAMPLES, "--model", model_folder, "--model", total_energy_folder)
    assert list(rows_of(result.stdout)[0])[3:5] == ["bandgap", "total_energy"]
    result = run(
        EXAMPLES, "--model", model_folder, "--model", total_energy_folder, "--props", "etot,gap"
    )
    assert list(rows_of(result.stdout)[0])[3:] == ["total_energy", "bandgap", "warnings", "error"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((EXAMPLES,), "say what to predict"),
        ((EXAMPLES, "--props", "bandgpa"), "did you mean 'bandgap'"),
        ((EXAMPLES, "--props", "phonon_peak"), "no shipped model predicts"),
        ((EXAMPLES, "--model", "jarvis-mbx"), "unknown model 'jarvis-mbx'"),
        ((EXAMPLES, "--model", "{model}", "--props", "etot"), "none of the wanted total_energy"),
        (("nowhere.db", "--props", "bandgap"), "no such file: nowhere.db"),
        (("nowhere/*.cif", "--props", "bandgap"), "no file matches nowhere/*.cif"),
        (("{tmp}/empty.cif", "--props", "bandgap"), "is empty"),
        (("{tmp}/noise.bin", "--props", "bandgap"), "cannot tell the format"),
        (("{tmp}/noise.json", "--props", "bandgap"), "not valid json"),
        (("{tmp}/list.json", "--props", "bandgap"), "no ASE database"),
        (("{tmp}/noise.db", "--props", "bandgap"), "cannot be opened as an ASE database"),
        (("{tmp}/folder", "--props", "bandgap"), "without files of structures"),
        ((EXAMPLES, "--model", "{model}", "-o", "out.xlsx"), "suffix must be one of"),
        ((EXAMPLES, "--model", "{model}", "-o", "/nowhere/out.csv"), "cannot write"),
        (("{tmp}/ids.json", "--props", "bandgap"), "no ASE database"),
        ((EXAMPLES, "--model", "{model}", "--batch-size", "many"), "--batch-size"),
        ((EXAMPLES, "--model", "{model}", "--batch-size", "²"), "--batch-size"),
    ],
)
def test_wrong_calls_end_with_one_line_and_2(
    arguments: tuple[object, ...], message: str, model_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.cif").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "noise.bin").write_bytes(bytes(range(256)))
    (tmp_path / "noise.json").write_bytes(b"\x00\xff{")
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "ids.json").write_text('{"ids": ["a", "b"]}')
    (tmp_path / "noise.db").write_bytes(b"not sqlite, not sqlite, not sqlite" * 99)
    filled = [
        str(a).replace("{tmp}", str(tmp_path)).replace("{model}", str(model_folder))
        for a in arguments
    ]
    result = CliRunner().invoke(screen, filled)
    assert result.exit_code == 2
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and message in lines[0]


def test_a_named_model_of_another_functional_answers(tmp_path: Path) -> None:
    random_model(properties=("bandgap_opt",)).save(tmp_path / "opt")
    result = run(EXAMPLES, "--model", tmp_path / "opt", "--props", "bandgap")
    assert list(rows_of(result.stdout)[0])[3:] == ["bandgap_opt", "warnings", "error"]
    calc = ReciNetCalculator(tmp_path / "opt", device="cpu")
    atoms = ase.io.read(f"{EXAMPLES}@0")
    assert calc.get_property("bandgap", atoms) == calc.get_property("bandgap_opt", atoms)


def test_elements_a_model_never_saw(tmp_path: Path) -> None:
    folder = tmp_path / "salt"
    random_model(elements=(11, 17)).save(folder)
    rows = rows_of(run(EXAMPLES, "--model", folder).stdout)
    answered = [r["formula"] for r in rows if not r["error"]]
    assert answered and all(set(f) <= set("NaCl0123456789") for f in answered)
    assert "random was not trained on Cu" in rows[0]["error"]


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        (
            ["m was not trained on H", "m was not trained on Na, Cl", "m was not trained on H"],
            "m was not trained on some of its elements",
        ),
        (
            ["site 0 is disordered (Na 0.5, K 0.5)", "site 1 is disordered (Na 0.9)"],
            "e.g. site 0 is disordered (Na 0.5, K 0.5)",
        ),
        (["a and b were not trained on Fm"] * 2, "a and b were not trained on Fm"),
    ],
)
def test_kinds_of_errors_do_not_tell_of_one_structure_as_of_all(
    errors: list[str], reason: str
) -> None:
    rows = [{"id": str(i), "formula": "", "error": text} for i, text in enumerate(errors)]
    (kind,) = error_kinds(ListTable(["id", "formula", "error"], rows, {}))
    assert (kind.reason, kind.count) == (reason, len(errors))


def test_job_scripts_see_that_nothing_could_be_answered(tmp_path: Path, model_folder: Path) -> None:
    ase.io.write(tmp_path / "water.xyz", molecule("H2O"))
    found = CliRunner().invoke(screen, [str(tmp_path / "water.xyz"), "--model", str(model_folder)])
    assert found.exit_code == 1 and "1 with errors" in found.stderr
    refused = CliRunner().invoke(
        screen, [str(tmp_path / "water.xyz"), "--model", str(model_folder), "--format", "cif"]
    )
    assert refused.exit_code == 2 and "--format is for standard input" in refused.stderr


def test_a_file_s_control_characters_do_not_reach_the_terminal(
    tmp_path: Path, model_folder: Path
) -> None:
    (tmp_path / "b.csv").write_bytes(b"name,\x1b[2Jx\n1,2\n")
    found = CliRunner().invoke(screen, [str(tmp_path / "b.csv"), "--model", str(model_folder)])
    assert found.exit_code == 2 and "\x1b" not in found.stderr and "\\x1b[2Jx" in found.stderr


def test_ids_stay_on_a_narrow_terminal(crystals: dict[str, Atoms]) -> None:
    names = ["formation_energy", "total_energy", "ehull", "bandgap", "bandgap_opt"]
    rows = [
        {
            "id": "a-rather-long-identity",
            "formula": "Na4Cl4",
            "error": "",
            **dict.fromkeys(names, 1.0),
        }
    ]
    table = ListTable(["id", "formula", *names, "error"], rows, dict.fromkeys(names, "eV/atom"))
    text = StringIO()
    print_summary(table, np.arange(1), selection=Selection(top=1), file=text)
    print(text.getvalue())
    assert "a-rather-long-identity" in text.getvalue() and "Na4Cl4" in text.getvalue()
