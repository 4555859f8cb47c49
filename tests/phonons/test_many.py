"""`recinet-phonons` on files full of structures: one table, resumable, bad rows with reasons."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.io import write
from click.testing import CliRunner, Result

pytest.importorskip("phonopy")
pytest.importorskip("seekpath")

from recinet_ase.cli.phonons import phonons as command
from recinet_ase.phonons import many, phonons
from recinet_ase.pretrained import FORCE_MODEL, available_force_models

SETTINGS = {"supercell": (2, 2, 2), "mesh": 20.0}
WORDS = ("--supercell", "2", "2", "2", "--mesh", "20", "--workers", "0")


def structures() -> list[Atoms]:
    return [bulk("Cu", cubic=True), bulk("Si"), molecule("CO2"), bulk("Cu", "sc", a=2.4)]


def run(file: Path, output: Path, *words: str) -> Result:
    return CliRunner().invoke(
        command, [str(file), "--calculator", "emt", "-o", str(output), *WORDS, *words]
    )


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_a_row_for_each_structure(tmp_path: Path) -> None:
    file, output = tmp_path / "some.extxyz", tmp_path / "phonons.csv"
    write(file, structures())
    result = run(file, output)
    assert result.exit_code == 0 and "4 structures, 2 with errors" in result.output, result.output
    copper, silicon, gas, unstable = rows_of(output)
    found = phonons(bulk("Cu"), EMT(), **SETTINGS)
    assert copper["formula"] == "Cu" and copper["space_group"] == "Fm-3m (225)"
    assert float(copper["highest_mode"]) == pytest.approx(found.highest_frequency, abs=2e-3)
    # The transverse mode at L is copper's lowest at a special point.
    assert float(copper["lowest_mode"]) == pytest.approx(found.at("L")[0], abs=2e-3)
    at = list(found.thermal.temperatures).index(300)
    capacity = found.thermal.heat_capacity[at]
    assert float(copper["heat_capacity"]) == pytest.approx(capacity, abs=1e-2)
    assert 23 < capacity < 24.94  # Dulong and Petit's, and a little below
    assert "No EMT-potential for Si" in silicon["error"] and silicon["highest_mode"] == ""
    assert "not periodic" in gas["error"]
    assert float(unstable["lowest_mode"]) < -1 and "imaginary" in unstable["warnings"]


def test_the_heat_capacity_is_that_of_a_formula_unit() -> None:
    alloy = Atoms(
        "CuAu", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[2.8, 2.8, 3.7], pbc=True
    )
    row = many.summary(phonons(alloy, EMT(), **SETTINGS))
    assert row["natoms"] == 2
    assert 47 < row["heat_capacity"] < 49.9


def test_a_stopped_table_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, whole, parts = tmp_path / "s.extxyz", tmp_path / "whole.csv", tmp_path / "parts.csv"
    write(file, [bulk("Cu"), bulk("Si"), bulk("Ni")])
    assert run(file, whole).exit_code == 0
    true, count = many.phonons, 0

    def ending(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == 2:
            raise KeyboardInterrupt
        return true(*args, **kwargs)

    monkeypatch.setattr(many, "phonons", ending)
    result = run(file, parts)
    assert result.exit_code == 130 and "interrupted after 1 structures" in result.output
    other = run(file, parts, "--resume", "--distance", "0.02")
    assert other.exit_code == 2 and "other settings or inputs (phonons)" in other.output
    count = 10
    assert run(file, parts, "--resume").exit_code == 0
    assert count == 12 and parts.read_bytes() == whole.read_bytes()


def test_wrong_calls(tmp_path: Path) -> None:
    for name in ("a.cif", "b.cif"):
        write(tmp_path / name, bulk("Cu"))
    several = [str(tmp_path / "a.cif"), str(tmp_path / "b.cif")]
    result = CliRunner().invoke(command, [*several, "--calculator", "emt"])
    assert result.exit_code == 2 and "name it, as in -o phonons.csv" in result.output
    if FORCE_MODEL not in available_force_models():
        result = CliRunner().invoke(command, several[:1])
        assert result.exit_code == 2 and "mlearn-pes knows Li, Si" in result.output
