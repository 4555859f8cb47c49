"""Intervals for one's own model: at the end of its training, and by command."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase import Atoms
from click.testing import CliRunner
from support import write_jarvis_folder

from recinet_ase import load_model
from recinet_ase.cli.main import main
from recinet_ase.cli.train import train
from recinet_ase.uncertainty.calibration import ARRAYS_FILE, CALIBRATION_FILE

QUICK = ("--props", "bandgap", "--size", "tiny", "--batch-size", "8", "--epochs", "1")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, crystals: dict[str, Atoms]) -> Path:
    """Enough crystals for a validation set that can be calibrated with."""
    root = tmp_path_factory.mktemp("many")
    many = []
    for share in (0.96, 1.0, 1.04, 1.08):
        for atoms in crystals.values():
            many.append(atoms.copy())
            many[-1].set_cell(atoms.cell * share ** (1 / 3), scale_atoms=True)
    write_jarvis_folder(root, many, "dft_3d_mbj_bandgap")
    return root


def run(folder: Path, data: Path, *more: str) -> str:
    where = ("--data-dir", str(data), "--cache-dir", str(data / "cache"), "-o", str(folder))
    result = CliRunner().invoke(train, [*QUICK, *where, *more])
    assert result.exit_code == 0, result.output
    return result.output


def test_a_training_ends_with_a_calibration(data: Path, tmp_path: Path) -> None:
    run(tmp_path / "run", data)
    calibration = load_model(tmp_path / "run").calibration
    assert calibration is not None
    assert calibration.figures["properties"]["bandgap"]["crystals"] >= 40
    card = (tmp_path / "run" / "README.md").read_text()
    assert card.count("## Uncertainty of single predictions") == 1
    for file in (ARRAYS_FILE, CALIBRATION_FILE):
        (tmp_path / "run" / file).unlink()
    command = ["calibrate", str(tmp_path / "run"), "--data-dir", str(data)]
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 0, again.output
    fitted = load_model(tmp_path / "run").calibration
    assert fitted is not None and fitted.figures == calibration.figures
    assert f"{100 * fitted.figures['properties']['bandgap']['coverage']:.1f} %" in again.output
    assert (tmp_path / "run" / "README.md").read_text() == card


def test_where_it_is_not_possible_or_not_wanted(
    data: Path, tmp_path: Path, jarvis_folder: Path
) -> None:
    output = run(tmp_path / "few", jarvis_folder)
    assert "no intervals for this model: " in output and "at least 40" in output
    refused = CliRunner().invoke(
        main, ["calibrate", str(tmp_path / "few"), "--data-dir", str(jarvis_folder)]
    )
    assert refused.exit_code == 2 and "too few to calibrate" in refused.output
    assert "no intervals" not in run(tmp_path / "without", data, "--no-calibrate")
    assert load_model(tmp_path / "without").calibration is None
