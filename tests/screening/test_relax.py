"""`recinet relax` and `recinet-screen --relax`: order, bytes, resuming, bad rows, structures."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from ase.build import bulk
from ase.db import connect
from ase.io import read, write
from click.testing import CliRunner, Result

from recinet_ase import ReciNetForceCalculator, predict
from recinet_ase.cli.relaxation import relax
from recinet_ase.cli.screen import screen
from recinet_ase.pretrained import FORCE_MODEL, available_force_models
from recinet_ase.screening import relaxation, relaxed_files
from recinet_ase.simulation import relax_many

ELEMENTS = ("Si", "Cu", "Ge", "Ni", "Mo", "Li")
BAD = {3: "was not trained on Na, Cl", 5: "overlap"}


def candidates(n: int = 12) -> list[Atoms]:
    found = []
    for i in range(n):
        atoms = bulk(ELEMENTS[i % 6])
        atoms.set_cell(atoms.cell.array * (0.97 + 0.006 * i), scale_atoms=True)
        atoms.info["name_of_it"] = f"x{i}"
        found.append(atoms)
    found[3] = bulk("NaCl", "rocksalt", a=5.6)
    found[5] = bulk("Si")
    found[5].positions[:] = 0
    return found


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "candidates.extxyz"
    write(path, candidates())
    for module in (relaxed_files, relaxation):
        monkeypatch.setattr(module, "RELAXED_CHUNK", 4)
    monkeypatch.setattr("recinet_ase.screening.run.RELAXED_CHUNK", 4)
    return path


def relaxed(file: Path, output: Path, *words: object) -> Result:
    return CliRunner().invoke(
        relax,
        [str(file), "-o", str(output), "--model", "mlearn-pes", "--workers", "0", *map(str, words)],
    )


def screened(file: Path, output: Path, *words: object) -> Result:
    line = [str(file), "-o", str(output), "--relax-with", "mlearn-pes", "--props", "bandgap,ehull"]
    return CliRunner().invoke(screen, [*line, "--workers", "0", *map(str, words)])


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_a_file_becomes_a_file_of_relaxed_structures(file: Path, tmp_path: Path) -> None:
    result = relaxed(file, tmp_path / "out.extxyz")
    assert result.exit_code == 0, result.output
    frames = read(tmp_path / "out.extxyz", ":")
    kept = [i for i in range(12) if i not in BAD]
    assert [frame.info["id"] for frame in frames] == [f"{file}#{i}" for i in kept]
    assert [frame.info["name_of_it"] for frame in frames] == [f"x{i}" for i in kept]
    expected = relax_many(candidates(), ReciNetForceCalculator("mlearn-pes", device="cpu"))
    for i, frame in zip(kept, frames, strict=True):
        assert expected[i].atoms is not None and expected[i].energy is not None
        assert frame.cell.array == pytest.approx(expected[i].atoms.cell.array, abs=1e-4)
        energy = expected[i].energy / len(frame)
        assert frame.info["energy_per_atom"] == pytest.approx(energy, abs=1e-5)
        assert frame.info["volume_change"] == pytest.approx(expected[i].volume_change, abs=1e-4)
        assert frame.info["relaxed"]
    listed = rows_of(tmp_path / "out.extxyz.left_out.csv")
    assert [row["id"] for row in listed] == [f"{file}#{i}" for i in BAD]
    for row, reason in zip(listed, BAD.values(), strict=True):
        assert reason in row["reason"] and reason in result.output
    about = json.loads((tmp_path / "out.extxyz.meta.json").read_text())
    assert about["relaxation"]["calculator"] == "mlearn-pes" and about["relaxation"]["weights"]


def test_databases_and_folders_of_cifs(file: Path, tmp_path: Path) -> None:
    assert relaxed(file, tmp_path / "out.db").exit_code == 0
    with connect(tmp_path / "out.db") as db:
        assert len(db) == 10 and all(row.relaxed == 1 for row in db.select())
    assert relaxed(file, tmp_path / "cifs").exit_code == 0
    names = sorted(path.name for path in (tmp_path / "cifs").iterdir())
    assert len(names) == 10 and names[0] == "candidates.extxyz_0.cif"
    silicon = read(tmp_path / "cifs" / names[0])
    assert silicon.cell.lengths()[0] == pytest.approx(5.469 / 2**0.5, abs=0.01)
    again = relaxed(file, tmp_path / "cifs")
    assert again.exit_code == 2 and "is there already" in again.output


def stopped(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Let the work end as by Ctrl-C after so many chunks."""
    true, count = relaxation.RelaxationSpec.relax, 0

    def ending(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count > after:
            monkeypatch.setattr(relaxation.RelaxationSpec, "relax", true)
            raise KeyboardInterrupt
        return true(*args, **kwargs)

    monkeypatch.setattr(relaxation.RelaxationSpec, "relax", ending)


def test_a_stopped_relaxation_goes_on_to_the_same_bytes(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole.extxyz", tmp_path / "parts.extxyz"
    assert relaxed(file, whole).exit_code == 0
    stopped(monkeypatch, 2)
    result = relaxed(file, parts)
    assert result.exit_code == 130 and "interrupted after 8" in result.output
    refused = relaxed(file, parts)
    assert refused.exit_code == 2 and "--resume" in refused.output
    other = relaxed(file, parts, "--resume", "--fmax", "0.1")
    assert other.exit_code == 2 and "other settings or inputs (relaxation)" in other.output
    result = relaxed(file, parts, "--resume")
    assert result.exit_code == 0 and "going on after 8" in result.output
    assert parts.read_bytes() == whole.read_bytes()
    complete = relaxed(file, parts, "--resume")
    assert complete.exit_code == 2 and "is complete" in complete.output


@pytest.mark.slow
def test_workers_give_the_same_bytes(file: Path, tmp_path: Path) -> None:
    assert relaxed(file, tmp_path / "a.extxyz").exit_code == 0
    assert relaxed(file, tmp_path / "b.extxyz", "--workers", "2").exit_code == 0
    assert (tmp_path / "a.extxyz").read_bytes() == (tmp_path / "b.extxyz").read_bytes()


def test_what_does_not_come_to_rest_says_so(file: Path, tmp_path: Path) -> None:
    result = relaxed(file, tmp_path / "out.extxyz", "--steps", "1")
    assert "did not come to rest" in result.output
    frames = read(tmp_path / "out.extxyz", ":")
    assert len(frames) == 10 and not all(frame.info["relaxed"] for frame in frames)
    moving = next(frame for frame in frames if not frame.info["relaxed"])
    assert "not relaxed to 0.02 eV/A after 1 step" in moving.info["error"]


def test_no_calculator_for_every_element_is_one_clear_line(file: Path, tmp_path: Path) -> None:
    if FORCE_MODEL in available_force_models():
        pytest.skip("there is one")
    line = [str(file), "-o", str(tmp_path / "x.csv"), "--props", "bandgap", "--relax"]
    for result in (
        CliRunner().invoke(relax, [str(file), "-o", str(tmp_path / "x.extxyz")]),
        CliRunner().invoke(screen, line),
    ):
        assert result.exit_code == 2 and "mlearn-pes knows Li, Si" in result.output
        assert "MODULE:CLASS" in result.output


def test_wrong_calls(file: Path, tmp_path: Path) -> None:
    both = relaxed(file, tmp_path / "x.extxyz", "--relax-with", "emt")
    assert both.exit_code == 2 and "not both" in both.output
    stdin = relaxed(Path("-"), tmp_path / "x.extxyz")
    assert stdin.exit_code == 2 and "standard input" in stdin.output
    assert relaxed(file, tmp_path / "x.unknown").exit_code == 2


def test_a_screen_judges_relaxed_crystals(file: Path, tmp_path: Path) -> None:
    result = screened(file, tmp_path / "out.csv")
    assert result.exit_code == 0, result.output
    assert "cells and positions relaxed with mlearn-pes to 0.02 eV/A" in result.output
    rows = rows_of(tmp_path / "out.csv")
    assert [row["id"] for row in rows] == [f"{file}#{i}" for i in range(12)]
    expected = predict(candidates(), props="bandgap,ehull", relax="mlearn-pes", device="cpu")
    for i, (row, other) in enumerate(zip(rows, expected, strict=True)):
        if i in BAD:
            assert BAD[i] in row["error"] and row["bandgap"] == "" and row["relaxed"] == "false"
            assert row["formula"] == other.formula != ""
        else:
            assert row["relaxed"] == "true" and int(row["relax_steps"]) > 0
            assert float(row["bandgap"]) == pytest.approx(other.values["bandgap"], abs=1e-2)
            assert float(row["ehull"]) == pytest.approx(other.values["ehull"], abs=1e-3)
            volume = other.relaxation.volume_change
            assert float(row["volume_change"]) == pytest.approx(volume, abs=1e-3)
    # All of one element and structure are the same at rest.
    assert float(rows[0]["ehull"]) == pytest.approx(float(rows[6]["ehull"]), abs=2e-3)


def test_conditions_and_structures_are_those_of_relaxed_crystals(
    file: Path, tmp_path: Path
) -> None:
    words = ("--where", "relaxed and volume_change < 0", "--sort", "volume_change")
    result = screened(file, tmp_path / "out.extxyz", *words, "--report", tmp_path / "out.html")
    assert result.exit_code == 0, result.output
    frames = read(tmp_path / "out.extxyz", ":")
    changes = [frame.info["volume_change"] for frame in frames]
    assert frames and changes == sorted(changes) and all(change < 0 for change in changes)
    before = {atoms.info["name_of_it"]: atoms for atoms in candidates() if atoms.info}
    for frame in frames:
        ratio = frame.get_volume() / before[frame.info["name_of_it"]].get_volume()
        assert ratio - 1 == pytest.approx(frame.info["volume_change"], abs=1e-5)


def test_twins_are_found_among_relaxed_crystals(file: Path, tmp_path: Path) -> None:
    assert screened(file, tmp_path / "out.csv", "--unique").exit_code == 0
    rows = [row for row in rows_of(tmp_path / "out.csv") if not row["error"]]
    assert sorted(row["formula"] for row in rows) == sorted(ELEMENTS)


def test_a_stopped_screen_goes_on_to_the_same_bytes(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole.extxyz", tmp_path / "parts.extxyz"
    assert screened(file, whole).exit_code == 0
    stopped(monkeypatch, 1)
    assert screened(file, parts).exit_code == 130
    other = screened(file, parts, "--resume", "--relax-steps", "5")
    assert other.exit_code == 2 and "(relaxation)" in other.output
    assert screened(file, parts, "--resume").exit_code == 0
    assert parts.read_bytes() == whole.read_bytes()
    about = json.loads((tmp_path / "parts.extxyz.meta.json").read_text())
    assert about["relaxation"]["calculator"] == "mlearn-pes"
    assert about["relaxation"]["max_steps"] == 300
