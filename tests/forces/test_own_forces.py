"""Force training on files that people have: extended xyz, ASE databases, MACE's and VASP's ways."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write
from ase.units import GPa
from click.testing import CliRunner, Result

from recinet_ase import ReciNetError, ReciNetForceCalculator
from recinet_ase.cli.train import train
from recinet_ase.forces.labels import LabelledCells, stress_slope
from recinet_ase.forces.model import ForceModel
from recinet_ase.forces.network import ForceNetworkConfig
from recinet_ase.forces.settings import ForceTrainingConfig
from recinet_ase.forces.sources import divide, read_labelled

NETWORK = ForceNetworkConfig(width=8, blocks=1, angular=2, channels=2, n_basis=8)
QUICK = """properties = ["energy", "forces", "stress"]
epochs = 2
batch_size = 4
[network]
width = 8
blocks = 1
angular = 2
channels = 2
n_basis = 8
"""


def configurations(count: int = 24) -> list[Atoms]:
    """Copper and gold by EMT, strained and rattled."""
    found = []
    for i in range(count):
        rng = np.random.default_rng(i)
        atoms = bulk("Cu", cubic=True) if i % 2 else bulk("AuCu", "cesiumchloride", a=3.1)
        strain = 0.03 * rng.uniform(-1, 1, (3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain + strain.T), scale_atoms=True)
        atoms.rattle(0.02, rng=rng)
        atoms.calc = EMT()
        labels = {
            key: atoms.calc.get_property(key, atoms) for key in ("energy", "forces", "stress")
        }
        atoms.calc = SinglePointCalculator(atoms, **labels)
        found.append(atoms)
    return found


def relabelled(atoms: Atoms, prefix: str, factor: float = 1.0) -> Atoms:
    """The same with labels under a prefix, stresses multiplied, as MACE's files have them."""
    copy, results = atoms.copy(), atoms.calc.results
    copy.info[f"{prefix}energy"] = results["energy"]
    copy.arrays[f"{prefix}forces"] = results["forces"]
    copy.info[f"{prefix}stress"] = factor * results["stress"]
    return copy


def read(path: Path, **settings: Any) -> tuple[LabelledCells, dict[str, str]]:
    return read_labelled(ForceTrainingConfig(str(path), **settings), NETWORK)


def test_formats_and_keys_agree(tmp_path: Path) -> None:
    frames = configurations()
    write(tmp_path / "a.extxyz", frames)
    write(tmp_path / "a.traj", frames)
    write(tmp_path / "mace.xyz", [relabelled(f, "REF_") for f in frames], format="extxyz")
    write(tmp_path / "own.xyz", [relabelled(f, "my_") for f in frames], format="extxyz")
    kbar = [relabelled(f, "REF_", -10 / GPa) for f in frames]
    write(tmp_path / "vasp.xyz", kbar, format="extxyz")
    with connect(tmp_path / "a.db") as database:
        for frame in frames:
            database.write(frame)
    expected, rejected = read(tmp_path / "a.extxyz")
    assert len(expected) == 24 and not rejected
    tensor = frames[3].get_stress(voigt=False)
    np.testing.assert_allclose(expected.stress[3], tensor, atol=1e-7)
    for name, settings in (
        ("a.traj", {}), ("a.db", {}), ("mace.xyz", {}), ("own.xyz", {"target": "my_"}),
        ("vasp.xyz", {"units": "vasp"}),
    ):  # fmt: skip
        cells, _ = read(tmp_path / name, **settings)
        np.testing.assert_allclose(cells.energy, expected.energy, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(cells.forces, expected.forces, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(cells.stress, expected.stress, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("factor", "message"),
    [(-1.0, "the wrong sign"), (-10 / GPa, "--units vasp"), (1 / GPa, "--units gpa")],
)
def test_stresses_are_held_to_the_energies(tmp_path: Path, factor: float, message: str) -> None:
    path = tmp_path / "a.xyz"
    write(path, [relabelled(f, "REF_", factor) for f in configurations()], format="extxyz")
    with pytest.raises(ReciNetError, match=message):
        read(path)
    cells, _ = read(path, properties=("energy", "forces"))
    assert np.isnan(cells.stress).all()


def test_slope_of_right_stresses_is_one(tmp_path: Path) -> None:
    write(tmp_path / "a.extxyz", configurations())
    slope = stress_slope(read(tmp_path / "a.extxyz")[0])
    assert slope is not None and slope == pytest.approx(1, abs=0.1)


def test_rows_that_cannot_be_used_have_reasons(tmp_path: Path) -> None:
    frames = configurations(30)
    frames[2].calc.results["forces"][1, 2] = np.nan
    frames[4].calc.results["energy"] = np.nan
    frames[6].positions[1] = frames[6].positions[0] + 0.05
    results = frames[6].calc.results
    frames[6].calc = SinglePointCalculator(frames[6], **results)
    frames[8].calc = None
    write(tmp_path / "a.traj", frames)
    _, rejected = read(tmp_path / "a.traj", max_bad=0.2)
    assert rejected == {
        "2": "forces not finite",
        "4": "energy not finite",
        "6": rejected["6"],
        "8": "has no forces",
    }
    assert "overlap" in rejected["6"]
    with pytest.raises(ReciNetError, match="more than 5%"):
        read(tmp_path / "a.traj")


def test_divisions(tmp_path: Path) -> None:
    frames = configurations(20)
    write(tmp_path / "a.extxyz", frames)
    for frame in frames:
        frame.info["split"] = "val" if frame.symbols[0] == "Au" else "train"
    write(tmp_path / "said.extxyz", frames)
    for name, rule, sizes in (
        ("a.extxyz", None, [16, 2, 2]), ("said.extxyz", None, [10, 10, 0]),
        ("said.extxyz", "random", [16, 2, 2]), ("a.extxyz", "fold:1", None),
    ):  # fmt: skip
        cells, _ = read(tmp_path / name)
        parts = divide(cells, ForceTrainingConfig(str(tmp_path / name), split=rule))
        assert sorted(i for part in parts for i in part) == list(range(20))
        assert sizes is None or [len(part) for part in parts] == sizes


def run(*arguments: object) -> Result:
    return CliRunner().invoke(train, [str(a) for a in arguments])


def test_command_and_fine_tuning(tmp_path: Path) -> None:
    frames = configurations()
    frames[5].calc.results["forces"][0] = np.nan
    write(tmp_path / "a.traj", frames)
    (tmp_path / "quick.toml").write_text(QUICK)
    recipe = ("--recipe", tmp_path / "quick.toml", "--dataset", tmp_path / "a.traj")
    done = run(*recipe, "-o", tmp_path / "run")
    assert done.exit_code == 0, done.output
    with (tmp_path / "run" / "rejected.csv").open() as handle:
        assert list(csv.DictReader(handle)) == [{"id": "5", "reason": "forces not finite"}]
    card = (tmp_path / "run" / "README.md").read_text()
    assert "| Au |" in card and "| Cu |" in card and "| all |" in card
    with (tmp_path / "run" / "metrics.csv").open() as handle:
        assert float(list(csv.DictReader(handle))[-1]["force_mae_mev_angstrom"]) > 0
    model = ForceModel.load(tmp_path / "run")
    assert model.config.domain is not None and "Au-Cu" in model.config.domain.shortest
    # Energies of another zero: fine-tuning moves the references, not the network.
    for frame in frames:
        frame.calc.results["energy"] += 7.0 * len(frame)
    write(tmp_path / "b.traj", frames)
    more = run(
        "--dataset", tmp_path / "b.traj", "--props", "energy,forces,stress", "--init",
        tmp_path / "run", "--epochs", 1, "--lr", 1e-9, "-o", tmp_path / "more",
    )  # fmt: skip
    assert more.exit_code == 0, more.output
    started = json.loads((tmp_path / "more" / "config.json").read_text())["training"]["start"]
    assert started["dataset"] == "a.traj"
    energies = []
    for name in ("run", "more"):
        calculator = ReciNetForceCalculator(tmp_path / name, device="cpu")
        energies.append(calculator.get_potential_energy(frames[1].copy()) / 4)
    assert energies[1] - energies[0] == pytest.approx(7.0, abs=0.1)


def test_wrong_use_is_told(tmp_path: Path) -> None:
    write(tmp_path / "a.extxyz", configurations(6))
    own = ("--dataset", tmp_path / "a.extxyz", "-o", tmp_path / "run")
    for options, message in (
        (("--props", "energy,forces,charge"), "unknown label of a force model 'charge'"),
        (("--props", "forces", "--units", "bar"), "unknown units 'bar'"),
        (("--props", "forces", "--log-targets", "x"), "--log-targets has no meaning"),
        (("--props", "bandgap", "--units", "vasp"), "add forces to --props"),
    ):
        wrong = run(*own, *options)
        assert wrong.exit_code == 2 and message in wrong.output, wrong.output
    bare = [atoms.copy() for atoms in configurations(6)]
    write(tmp_path / "bare.extxyz", bare)
    wrong = run("--dataset", tmp_path / "bare.extxyz", "--props", "forces", "-o", tmp_path / "no")
    assert wrong.exit_code == 2 and "has no forces" in wrong.output, wrong.output
