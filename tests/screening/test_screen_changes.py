"""Inputs that change, vanish or carry an earlier screen's answers, and odd calls."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.db import connect
from click.testing import CliRunner, Result
from pymatgen.core import Lattice, Structure
from support import EXAMPLES

from recinet_ase.cli.screen import screen
from recinet_ase.screening import run as running
from recinet_ase.screening.execution.chunk import ChunkRows
from recinet_ase.screening.output.terminal import print_summary
from recinet_ase.screening.selection.selection import Selection
from recinet_ase.screening.selection.table import ListTable


@pytest.fixture
def database(tmp_path: Path, crystals: dict[str, Atoms]) -> Path:
    path = tmp_path / "few.db"
    with connect(path) as db:
        for atoms in list(crystals.values())[:6]:
            db.write(atoms, jid="JVASP")
    return path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(screen, [*map(str, arguments), "--device", "cpu", "-q"])


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Lets something happen when all rows are screened and nothing is written yet."""

    def arrange(event: Callable[[], object]) -> None:
        whole = running._fill

        def then(*arguments: object) -> None:
            whole(*arguments)  # type: ignore[arg-type]
            event()

        monkeypatch.setattr(running, "_fill", then)

    return arrange


def other_order(database: Path) -> Path:
    other = database.with_name("other.db")
    with connect(database) as old, connect(other) as new:
        for row in reversed(list(old.select())):
            new.write(row.toatoms())
    return other


@pytest.mark.parametrize("name", ["out.db", "out.extxyz"])
def test_structures_of_a_changed_input_are_not_paired_with_predictions(
    database: Path, model_folder: Path, tmp_path: Path, name: str,
    meanwhile: Callable[[Callable[[], object]], None],
) -> None:  # fmt: skip
    """Row ids are the same, the structures are not."""
    out, original = tmp_path / name, tmp_path / "original.db"
    shutil.copy2(database, original)
    table = tmp_path / "table.csv"
    assert call(database, "--model", model_folder, "-o", table).exit_code == 0
    other = other_order(database)
    meanwhile(lambda: other.exists() and other.replace(database))
    found = call(database, "--model", model_folder, "-o", out)
    assert found.exit_code == 2 and not out.exists()
    assert "was changed while it was screened (1 is another structure" in found.output
    rescued = tmp_path / f"{name}.rows.csv"
    assert rescued.read_text() == table.read_text()
    shutil.copy2(original, database)
    found = call(database, "--model", model_folder, "-o", out, "--resume")
    assert found.exit_code == 0, found.output
    assert len(ase.io.read(out, ":")) == 6


def test_an_input_that_became_shorter(
    database: Path, model_folder: Path, tmp_path: Path,
    meanwhile: Callable[[Callable[[], object]], None],
) -> None:  # fmt: skip
    frames = tmp_path / "six.extxyz"
    structures = [row.toatoms() for row in connect(database).select()]
    ase.io.write(frames, structures)
    meanwhile(lambda: ase.io.write(frames, structures[:4]))
    found = call(frames, "--model", model_folder, "-o", tmp_path / "out.db")
    assert found.exit_code == 2 and "fewer structures than when it was screened" in found.output
    assert len((tmp_path / "out.db.rows.csv").read_text().splitlines()) == 7


def test_a_named_input_that_vanishes_stops_the_screen(
    database: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recinet_ase.screening.execution import schedule as schedule

    out, away = tmp_path / "out.csv", tmp_path / "away.db"
    monkeypatch.setattr(running, "CHUNK", 2)
    whole = schedule.screen_chunk

    def vanishing(spec: object, chunk: object) -> ChunkRows:
        done = whole(spec, chunk)  # type: ignore[arg-type]
        if done.number == 1 and not away.exists():
            shutil.move(database, away)
        return done

    monkeypatch.setattr(schedule, "screen_chunk", vanishing)
    found = call(database, "--model", model_folder, "-o", out)
    assert found.exit_code == 2 and "few.db is gone" in found.output and not out.exists()
    shutil.move(away, database)
    away.touch()
    found = call(database, "--model", model_folder, "-o", out, "--resume")
    assert found.exit_code == 0, found.output
    assert len(out.read_text().splitlines()) == 7 and "is gone" not in out.read_text()


@pytest.mark.parametrize("suffix", [".db", ".json", ".extxyz"])
def test_answers_of_an_earlier_screen_are_not_this_ones(
    model_folder: Path, tmp_path: Path, suffix: str
) -> None:
    before, out = tmp_path / "before.db", tmp_path / f"out{suffix}"
    slab = fcc111("Al", (1, 1, 3), vacuum=8)
    old = {"bandgap": 5.0, "bandgap_low": 4.0, "in_domain": True, "error": "old", "note": "kept"}
    with connect(before) as db:
        db.write(slab, key_value_pairs=old)
        db.write(bulk("Si"), key_value_pairs=old)
    assert call(before, "--model", model_folder, "-o", out).exit_code == 0
    if suffix == ".extxyz":
        refused, answered = (atoms.info for atoms in ase.io.read(out, ":"))
    else:
        refused, answered = (row.key_value_pairs for row in connect(out).select())
    assert "not periodic" in refused["error"] and answered["bandgap"] != 5.0
    assert "bandgap" not in refused and "error" not in answered
    for found in (refused, answered):
        assert found["note"] == "kept" and not {"bandgap_low", "in_domain"} & set(found)


@pytest.mark.parametrize(
    "name", ["A\nB", "a\r", "a\\", r"C:\x\new", "a\tb", 'say "hi"', "50%", "plain id", "naïve_7"]
)
def test_odd_ids_do_not_break_extended_xyz(name: str, model_folder: Path, tmp_path: Path) -> None:
    record = {
        "jid": name,
        "atoms": {
            "lattice_mat": [[4.2, 0, 0], [0, 4.2, 0], [0, 0, 4.2]],
            "coords": [[0, 0, 0], [0.5, 0.5, 0.5]],
            "elements": ["Cs", "Cl"],
        },
    }
    source, out = tmp_path / "one.json", tmp_path / "out.extxyz"
    source.write_text(json.dumps([record, record]))
    found = call(source, "--model", model_folder, "-o", out)
    assert found.exit_code == 0, found.output
    frames = ase.io.read(out, ":")
    assert len(frames) == 2 and all("bandgap" in atoms.info for atoms in frames)
    kept = frames[0].info["id"]
    assert kept in (name, name.strip()) or ("%" in kept and "%" not in name) or kept == "50%25"


def broken(crystals: dict[str, Atoms]) -> Iterator[Atoms]:
    good = bulk("Si")
    yield good
    for value in (np.nan, np.inf, 1e300):
        moved = good.copy()
        moved.positions[1, 0] = value
        yield moved
    endless = good.copy()
    endless.cell[0, 0] = np.nan
    yield endless
    flat = Atoms("Si2", positions=[[0, 0, 0], [1, 1, 0]], pbc=True)
    flat.cell[:] = [[3, 0, 0], [0, 3, 0], [3, 3, 0]]
    yield flat


def test_a_report_on_structures_that_are_none(
    crystals: dict[str, Atoms], model_folder: Path, tmp_path: Path
) -> None:
    """Libraries end the process, or with a traceback, where coordinates are no numbers."""
    source, report = tmp_path / "odd.traj", tmp_path / "report.html"
    ase.io.write(source, list(broken(crystals)))
    found = call(source, "--model", model_folder, "--report", report, "-o", tmp_path / "out.csv")
    assert found.exit_code == 0, found.output
    rows = (tmp_path / "out.csv").read_text().splitlines()[1:]
    assert [row.endswith(",") for row in rows] == [True] + 5 * [False]
    assert "lost to rounding" in rows[3]
    assert report.stat().st_size > 10_000


@pytest.mark.parametrize("name", ["out.db", "out.parquet", "out.csv"])
def test_an_output_among_the_inputs_is_no_input(
    crystals: dict[str, Atoms], model_folder: Path, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "cifs"
    folder.mkdir()
    for i, atoms in enumerate(list(crystals.values())[:3]):
        ase.io.write(folder / f"{i}.cif", atoms)
    for inputs in (folder, folder / "*.*"):
        out = folder / name
        first = call(inputs, "--model", model_folder, "-o", out)
        assert first.exit_code == 0, first.output
        again = call(inputs, "--model", model_folder, "-o", out, "--resume")
        assert "is complete; nothing to resume" in again.output
        if name != "out.db":  # another screen's table of numbers
            other = call(folder, "--model", model_folder, "-o", tmp_path / "other.csv")
            assert other.exit_code == 0
            assert len((tmp_path / "other.csv").read_text().splitlines()) == 4
        for path in folder.glob("out.*"):
            path.unlink()


def test_a_disordered_cif_with_its_formula(model_folder: Path, tmp_path: Path) -> None:
    salt = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.9), [{"Na": 0.5, "K": 0.5}, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    path = tmp_path / "mixed.cif"
    path.write_text(salt.to(fmt="cif"))
    assert "_chemical_formula_sum" in path.read_text()
    found = call(path, "--model", model_folder)
    assert "disordered: " in found.output and "cut off" not in found.output


@pytest.mark.parametrize(
    ("where", "passing"),
    [
        ("formula == 'TiO2'", 1), ("formula == 'O2Ti'", 1), ("formula != 'TiO2'", 1),
        ("formula in ('TiO2', 'NaCl')", 2), ("formula not in ('TiO2', 'MgO')", 1),
        ("formula == 'Ti2O4'", 1),
    ],
)  # fmt: skip
def test_formulas_are_compared_reduced(where: str, passing: int) -> None:
    columns = ["id", "formula", "natoms", "bandgap", "error"]
    rows = [
        {"id": "1", "formula": "O4Ti2", "natoms": 6, "bandgap": 3.0, "error": ""},
        {"id": "2", "formula": "ClNa", "natoms": 2, "bandgap": 8.0, "error": ""},
        {"id": "3", "formula": "", "natoms": None, "bandgap": None, "error": "unreadable"},
    ]
    table = ListTable(columns, rows, {"bandgap": "eV", "natoms": ""})
    assert len(Selection(where).indices(table)) == passing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--where", "formula == 'Xx2'"], "no chemical symbol"),
        (["--where", "formula == 'tio2'"], "no chemical formula such as 'TiO2'"),
        (["--where", "bandgap > 1 and"], "at character 13, 'and': something must follow"),
        (["--where", "bandgap >"], "at character 9, '>': something must follow"),
        (["--select", "natoms<<3"], "is none that ASE understands"),
        (["--scheduler", "local", "--workers", "0"], "cannot go with --scheduler"),
        (["--where", "bandgap > 1 eV"], "write numbers without a unit"),
        (["--where", "bandgap < 2eV and natoms < 3"], "write numbers without a unit"),
        (["--where", "formula == Si"], "Si is no column; put elements and formulas in quotes"),
        (["--where", "has(Li)"], "Li is no column; put elements and formulas in quotes: 'Li'"),
        (["--where", "in_domain"], "there is no column in_domain; ask for --intervals"),
        (["--where", "bandgap > 1", "--where", "gapp < 2"], "unknown column 'gapp'"),
        (["--sort", ""], "--sort names no column"),
        (["--pareto", "--top", "3"], "--pareto needs a value, and --top follows"),
        (["--where", "bandgap > 1", "--where", ""], "it is empty"),
        (["--where", "bandgap > 1) or (natoms > 1", "--where", "natoms < 3"], "cannot be read"),
        (["--id-key", "jidd"], "unknown --id-key 'jidd'; did you mean 'jid'? (known: jid)"),
    ],
)
def test_wrong_calls(
    arguments: list[str], message: str, database: Path, model_folder: Path
) -> None:
    found = call(database, "--model", model_folder, *arguments)
    assert found.exit_code == 2 and message in found.output, found.output


def test_what_may_be_repeated_adds_up(database: Path, model_folder: Path) -> None:
    def ids(*arguments: str) -> list[str]:
        found = call(database, "--model", model_folder, *arguments, "-q")
        assert found.exit_code == 0, found.output
        return [line.split(",")[0] for line in found.stdout.splitlines()[1:]]

    both = ids("--where", "natoms > 1 or bandgap > 9", "--where", "natoms < 4")
    assert both == ids("--where", "(natoms > 1 or bandgap > 9) and natoms < 4")
    assert ids("--sort", "natoms", "--sort", "-bandgap") == ids("--sort", "natoms,-bandgap")
    assert ids("--pareto", "natoms", "--pareto", "bandgap") == ids("--pareto", "natoms,bandgap")
    found = call(database, "--props", "gap", "--props", "ehull", "-q")
    assert (
        found.stdout.splitlines()[0] == "id,formula,natoms,bandgap,ehull,ehull_lacks,warnings,error"
    )


def test_only_inputs_of_one_kind_are_refused_for_their_keys(
    database: Path, model_folder: Path, tmp_path: Path
) -> None:
    ase.io.write(tmp_path / "first.cif", bulk("Si"))
    found = call(tmp_path / "first.cif", database, "--model", model_folder, "--id-key", "jid")
    assert found.exit_code == 0 and "1 structures have no key 'jid'" in found.stderr
    assert found.stdout.splitlines()[2].startswith("JVASP,")


def test_unique_takes_no_file_for_its_method(database: Path, model_folder: Path) -> None:
    found = call("--unique", database, "--model", model_folder)
    assert found.exit_code == 0, found.output
    wrong = call("--unique", "fingerprnt", database, "--model", model_folder)
    assert wrong.exit_code == 2 and "did you mean 'fingerprint'" in wrong.output


def test_all_models_with_properties(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    found = call(EXAMPLES, "--select", "natoms<3", "--model", "all", "--props", "gap", "-o", out)
    assert found.exit_code == 0, found.output
    assert out.read_text().startswith("id,formula,natoms,bandgap,warnings,error")


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 140])
def test_no_terminal_is_too_narrow_for_a_number(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["bandgap", "ehull", "formation_energy"]
    numbers = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    row = {"id": "JVASP-1002", "formula": "Si2", "natoms": 2, "error": "", "in_domain": True}
    row |= {name: -0.007164 * (i + 1) for i, name in enumerate(numbers)}
    columns = ["id", "formula", "natoms", *numbers, "in_domain", "error"]
    units = {"natoms": "", **dict.fromkeys(numbers, "eV/atom")}

    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    print_summary(
        ListTable(columns, [row], units), np.array([0]), selection=Selection(top=1), file=stream
    )
    plain = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    for name in names:
        value, low, high = (f"{row[name + end]:.4g}" for end in ("", "_low", "_high"))
        assert f"{value} [{low}, {high}]" in plain
        assert plain.count(value) == 4, name  # minimum, median, maximum, shortlist
    assert "JVASP-1002" in plain
    assert ("bandgap -0.007164 [" in plain) == (width < 140)  # lines instead of a table


def test_processes_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    from recinet_ase import ReciNetError

    def refused(*_: object) -> None:
        raise ConnectionRefusedError(111, os.strerror(111))

    from recinet_ase.screening.execution import processes

    monkeypatch.setattr(processes.Workers, "_start", refused)
    with pytest.raises(ReciNetError, match="cannot be started here .*--workers 0"):
        processes.Workers(1, 60.0)
