"""The force model: derivatives, invariances, smoothness, refusals, files, training."""

from __future__ import annotations

import gzip
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from ase.units import GPa
from click.testing import CliRunner
from support import other_cell, rotated

from recinet_ase import (
    ReciNetError,
    ReciNetForceCalculator,
    StructureError,
    load_force_model,
    load_model,
)
from recinet_ase.cli.train import train
from recinet_ase.forces.accuracy import errors_of
from recinet_ase.forces.batch import ForceBatch
from recinet_ase.forces.model import ForceModel, ForceModelConfig
from recinet_ase.forces.network import ForceNetworkConfig, envelope, harmonics
from recinet_ase.forces.settings import ForceTrainingConfig
from recinet_ase.forces.sources import divide, read_labelled, stress_of
from recinet_ase.graph.adapters import to_crystal
from recinet_ase.pretrained import model_folder
from recinet_ase.training.devices import Resources
from recinet_ase.training.run import train as run_training

SMALL = ForceNetworkConfig(width=16, blocks=2, angular=4, channels=4, n_basis=12)


def random_force_model(seed: int = 0, **changes: object) -> ForceModel:
    torch.manual_seed(seed)
    config = ForceModelConfig(
        name="random", network=replace(SMALL, **changes), elements=(13, 14, 28, 29),
        pairs=((28, 29),), references={"Si": -5.0, "Cu": -3.0, "Ni": -5.5, "Al": -3.5}, scale=1.0,
    )  # fmt: skip
    return ForceModel(config).eval()


@pytest.fixture(scope="module")
def model() -> ForceModel:
    return random_force_model()


def rattled(atoms: Atoms, seed: int = 3, width: float = 0.15) -> Atoms:
    atoms = atoms.copy()
    atoms.rattle(width, seed=seed)
    return atoms


def silicon() -> Atoms:
    return rattled(bulk("Si", cubic=True))


def skewed() -> Atoms:
    atoms = bulk("Cu").repeat((2, 1, 2))
    strained = np.array([[1, 0.1, 0], [0, 1.05, 0.07], [0, 0, 0.96]])
    atoms.set_cell(atoms.cell.array @ strained, scale_atoms=True)
    atoms.symbols[1] = "Ni"
    return rattled(atoms)


def results(model: ForceModel, atoms: Atoms, dtype: str = "float64") -> dict[str, np.ndarray]:
    calc = ReciNetForceCalculator(model, device="cpu", dtype=dtype)
    return next(iter(calc.many([atoms])))


@pytest.mark.parametrize("atoms", [silicon(), skewed()], ids=["Si8", "Cu3Ni"])
def test_forces_and_stress_are_derivatives(model: ForceModel, atoms: Atoms) -> None:
    calc = ReciNetForceCalculator(model, device="cpu", dtype="float64")
    found = next(iter(calc.many([atoms])))
    step = 1e-4
    for i, axis in ((0, 0), (1, 2), (3, 1)):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[i, axis] += sign * step
            energies.append(next(iter(calc.many([moved])))["energy"])
        slope = -(energies[0] - energies[1]) / (2 * step)
        assert found["forces"][i, axis] == pytest.approx(slope, abs=1e-6, rel=1e-5)
    assert np.abs(found["forces"].sum(0)).max() < 1e-9
    for k, (a, b) in enumerate(((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))):
        energies = []
        for sign in (1, -1):
            strain = np.zeros((3, 3))
            strain[a, b] += sign * step / 2
            strain[b, a] += sign * step / 2
            moved = atoms.copy()
            moved.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
            energies.append(next(iter(calc.many([moved])))["energy"])
        slope = (energies[0] - energies[1]) / (2 * step) / atoms.get_volume()
        # A shear of e_ab = e_ba = step / 2 changes both halves.
        assert found["stress"][k] == pytest.approx(slope, abs=1e-7, rel=1e-4)


def test_single_precision_is_close(model: ForceModel) -> None:
    for atoms in (silicon(), skewed()):
        a, b = results(model, atoms), results(model, atoms, "float32")
        np.testing.assert_allclose(b["forces"], a["forces"], atol=1e-4)
        np.testing.assert_allclose(b["stress"], a["stress"], atol=1e-5)
        assert b["energy"] == pytest.approx(a["energy"], abs=1e-4)


def test_the_description_does_not_matter(model: ForceModel) -> None:
    atoms = skewed()
    found = results(model, atoms)
    turned = rotated(atoms, seed=4)
    rotation = np.linalg.solve(atoms.cell.array, turned.cell.array).T
    other = results(model, turned)
    assert other["energy"] == pytest.approx(found["energy"], abs=1e-9)
    np.testing.assert_allclose(other["forces"], found["forces"] @ rotation.T, atol=1e-9)
    shifted = atoms.copy()
    shifted.translate([1.3, -0.4, 7])
    for same in (other_cell(atoms, seed=5), shifted):
        other = results(model, same)
        assert other["energy"] == pytest.approx(found["energy"], abs=1e-9)
        np.testing.assert_allclose(other["forces"], found["forces"], atol=1e-9)
        np.testing.assert_allclose(
            np.sort(other["stress"][:3]), np.sort(found["stress"][:3]), atol=1e-9
        )
    order = np.random.default_rng(0).permutation(len(atoms))
    np.testing.assert_allclose(
        results(model, atoms[order])["forces"], found["forces"][order], atol=1e-9
    )


def test_energies_add_up(model: ForceModel) -> None:
    atoms = skewed()
    found = results(model, atoms)
    for repeats in ((2, 1, 1), (1, 2, 2)):
        large = results(model, atoms.repeat(repeats))
        n = np.prod(repeats)
        assert large["energy"] == pytest.approx(n * found["energy"], rel=1e-10)
        np.testing.assert_allclose(large["forces"][: len(atoms)], found["forces"], atol=1e-9)
        np.testing.assert_allclose(large["stress"], found["stress"], atol=1e-9)
    assert found["energies"].sum() == pytest.approx(found["energy"])


def test_what_is_far_apart_does_not_matter(model: ForceModel) -> None:
    """Two slabs in a long cell: the energy of both is the sum, whatever lies between."""
    local = random_force_model(channels=0)
    slab = bulk("Cu", cubic=True).repeat((1, 1, 2))
    slab.center(vacuum=6, axis=2)
    high = rattled(slab)
    for one, tolerance in ((local, 1e-9), (model, 2e-2)):
        both = slab.copy()
        moved = high.copy()
        moved.positions[:, 2] += slab.cell[2, 2]
        both.cell[2] *= 2
        both += moved
        apart = results(one, slab)["energy"] + results(one, high)["energy"]
        assert results(one, both)["energy"] == pytest.approx(apart, abs=tolerance)


def test_an_atom_crosses_the_cutoff_smoothly(model: ForceModel) -> None:
    """Energy, force and its slope have no jump where a neighbour leaves."""
    cutoff = SMALL.cutoff
    atoms = Atoms("Cu3", [[0, 0, 0], [2.4, 0, 0], [0, 0, 0]], cell=[30, 9, 9], pbc=True)
    distances = cutoff + np.linspace(-2e-3, 2e-3, 41)
    images = []
    for d in distances:
        image = atoms.copy()
        image.positions[2] = [-d, 0, 0]
        images.append(image)
    calc = ReciNetForceCalculator(random_force_model(channels=0), device="cpu", dtype="float64")
    images = [image + Atoms("Cu", [image.positions[2] + [-2.4, 0, 0]]) for image in images]
    found = list(calc.many(images))
    force = np.array([r["forces"][0, 0] for r in found])
    slope = np.diff(force) / np.diff(distances)
    assert np.abs(np.diff(slope)).max() < 1e-4
    assert envelope(torch.tensor([cutoff, cutoff + 1]), cutoff).tolist() == [0.0, 0.0]


def test_harmonics_are_orthonormal() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(200_000, 3)))
    y = harmonics(x / x.norm(dim=1, keepdim=True))
    for size, start in ((3, 0), (5, 3), (7, 8)):
        part = y[:, start : start + size]
        torch.testing.assert_close((part**2).sum(1), torch.ones(len(x), dtype=torch.float64))
        gram = part.T @ part / len(x) * size
        torch.testing.assert_close(gram, torch.eye(size, dtype=torch.float64), atol=2e-2, rtol=0)


def test_calculators_share_a_model_and_leave_it_as_it_was(model: ForceModel) -> None:
    single = ReciNetForceCalculator(model, device="cpu")
    before = single.get_potential_energy(silicon())
    ReciNetForceCalculator(model, device="cpu", dtype="float64")
    assert all(p.dtype == torch.float32 and p.requires_grad for p in model.parameters())
    assert (
        single.get_potential_energy(skewed())
        != before
        == pytest.approx(single.get_potential_energy(silicon()))
    )


def test_many_is_one_by_one(model: ForceModel) -> None:
    calc = ReciNetForceCalculator(model, device="cpu")
    atoms = [silicon(), skewed(), bulk("Al")]
    for result, one in zip(calc.many(atoms), atoms, strict=True):
        one.calc = calc
        assert one.get_potential_energy() == pytest.approx(result["energy"], abs=1e-5)
        np.testing.assert_allclose(one.get_forces(), result["forces"], atol=1e-5)
        np.testing.assert_allclose(one.get_stress(), result["stress"], atol=1e-6)


def test_refusals(model: ForceModel) -> None:
    calc = ReciNetForceCalculator(model, device="cpu")
    for atoms, message in (
        (bulk("Ge"), "was not trained on Ge; it knows Al, Si, Ni, Cu"),
        (bulk("NaCl", "rocksalt", a=5.64), "was not trained on Na, Cl"),
        (bulk("AlNi", "cesiumchloride", a=2.9), "never saw Al and Ni together"),
        (molecule("Si2H6"), "no periodicity"),
        (Atoms("Si", cell=[9, 9, 9], pbc=True), "isolated"),
        (Atoms("Si2", [[0, 0, 0], [0.1, 0, 0]], cell=[4, 4, 4], pbc=True), "overlap"),
    ):
        atoms.calc = calc
        with pytest.raises(StructureError, match=message):
            atoms.get_forces()
    reason = r"^{} predicts {} and gives no forces; use mlearn-pes or your own force model$"
    for name, prop in (
        ("jarvis-mbj", "bandgap"),
        ("jarvis-eform", "formation_energy"),
        ("jarvis-eform:ensemble", "formation_energy"),
    ):
        with pytest.raises(ReciNetError, match=reason.format(name, prop)):
            ReciNetForceCalculator(name)
    with pytest.raises(ReciNetError, match=reason.format("jarvis-mbj", "bandgap")):
        ForceModel.load(model_folder("jarvis-mbj"))


def test_files(model: ForceModel, tmp_path: Path) -> None:
    model.save(tmp_path / "m")
    again = ForceModel.load(tmp_path / "m")
    assert again.config.network == model.config.network
    assert results(again, silicon())["energy"] == results(model, silicon())["energy"]
    with pytest.raises(ReciNetError, match="use it with ReciNetForceCalculator"):
        load_model(tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"oops")
    with pytest.raises(ReciNetError, match="sha256"):
        ForceModel.load(tmp_path / "m")
    config = tmp_path / "m" / "config.json"
    data = json.loads(config.read_text())
    for change, message in (
        ({"format_version": 99}, "Upgrade"),
        ({"network": {**data["network"], "wings": 2}}, "unknown settings"),
        ({"pairs": [[1]]}, "not a model configuration"),
    ):
        config.write_text(json.dumps({**data, **change}))
        with pytest.raises(ReciNetError, match=message):
            ForceModel.load(tmp_path / "m")
    with pytest.raises(ReciNetError, match="no model folder"):
        ForceModel.load(tmp_path / "none")


def test_stress_of_the_files() -> None:
    stress = stress_of(np.array([10, 20, 30, 4, 5, 6])) / GPa
    np.testing.assert_allclose(stress, -np.array([[1, 0.4, 0.5], [0.4, 2, 0.6], [0.5, 0.6, 3]]))


@pytest.fixture(scope="module")
def mlearn_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copper by ASE's EMT in the layout of mlearn's files."""
    root = tmp_path_factory.mktemp("mlearn")
    (root / "mlearn").mkdir()
    rng = np.random.default_rng(0)
    records = []
    for i in range(40):
        atoms = bulk("Cu", cubic=True)
        atoms.set_cell(
            atoms.cell.array @ (np.eye(3) + rng.normal(0, 0.02, (3, 3))), scale_atoms=True
        )
        atoms.rattle(0.1, rng=rng)
        atoms.calc = EMT()
        s = atoms.get_stress(voigt=False) / (-0.1 * GPa)
        records.append(
            {
                "jid": str(i),
                "atoms": {
                    "lattice_mat": atoms.cell.array.tolist(),
                    "coords": atoms.positions.tolist(),
                    "elements": list(atoms.symbols),
                    "cartesian": True,
                },
                "total_energy": atoms.get_potential_energy() / len(atoms),
                "forces": atoms.get_forces().tolist(),
                "stresses": [s[0, 0], s[1, 1], s[2, 2], s[0, 1], s[0, 2], s[1, 2]],
            }
        )
    with gzip.open(root / "mlearn" / "Cu.json.gz", "wt") as handle:
        json.dump(records, handle)
    return root


TRAINING = ForceTrainingConfig(
    dataset="mlearn_Cu",
    network=(("width", 16), ("blocks", 2), ("angular", 4), ("channels", 4)),
    epochs=30,
    learning_rate=1e-2,
    validate_every=10,
)


@pytest.fixture(scope="module")
def run(mlearn_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "copper"
    run_training(TRAINING, folder, Resources(mlearn_folder))
    return folder


def test_training_learns_a_known_potential(run: Path, mlearn_folder: Path) -> None:
    model = ForceModel.load(run)
    cells, rejected = read_labelled(TRAINING, model.config.network, mlearn_folder)
    parts = divide(cells, TRAINING)
    assert [len(part) for part in parts] == [32, 4, 4] and not rejected
    errors = errors_of(model, cells, parts[2])
    spread = 1e3 * np.abs(cells.select(np.array(parts[2])).forces).mean()
    assert errors.forces < 0.35 * spread and errors.energy < 30
    about = model.config.training
    assert about["complete"] and about["validation_errors"]["forces"] > 0
    assert not set(about["train_ids"]) & {cells.ids[i] for i in (*parts[1], *parts[2])}
    # It relaxes a strained cell to about EMT's own lattice constant.
    ours, theirs = (bulk("Cu", cubic=True) for _ in range(2))
    for atoms, calc in ((ours, ReciNetForceCalculator(run, device="cpu")), (theirs, EMT())):
        atoms.set_cell(1.02 * atoms.cell.array, scale_atoms=True)
        atoms.calc = calc
        assert BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.02, steps=50)
    assert ours.get_volume() == pytest.approx(theirs.get_volume(), rel=0.03)


def test_a_stopped_run_goes_on_to_the_same_model(
    run: Path, mlearn_folder: Path, tmp_path: Path
) -> None:
    """A time limit, a signal's wish and a resume change nothing."""
    folder = tmp_path / "copper"
    at = Resources(mlearn_folder, deadline=time.monotonic() + 0.6)
    _, complete = run_training(TRAINING, folder, at)
    assert not complete and not ForceModel.load(folder).config.training["complete"]
    _, complete = run_training(TRAINING, folder, Resources(mlearn_folder), resume=True)
    assert complete
    assert (folder / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


def test_command(mlearn_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    call = ["--dataset", "mlearn_Cu", "--data-dir", str(mlearn_folder), "-o", str(out)]
    done = CliRunner().invoke(train, [*call, "--epochs", "1", "--limit", "8"])
    assert done.exit_code == 0, done.output
    assert "meV/atom" in done.output and (out / "metrics.csv").exists()
    again = CliRunner().invoke(train, [*call, "--epochs", "1"])
    assert again.exit_code == 2 and "already holds a run" in again.output
    for init in ("jarvis-mbj", "jarvis-eform:ensemble"):
        other = CliRunner().invoke(train, [*call[:-1], str(tmp_path / "other"), "--init", init])
        assert other.exit_code == 2 and f"error: {init} predicts" in other.output
        assert "damaged" not in other.output and "use mlearn-pes" in other.output
    wrong = CliRunner().invoke(train, [*call, "--neighbours", "12"])
    assert wrong.exit_code == 2 and "--neighbours has no meaning for a force model" in wrong.output
    resumed = CliRunner().invoke(
        train, ["--resume", "--data-dir", str(mlearn_folder), "-o", str(out)]
    )
    assert resumed.exit_code == 0, resumed.output


def test_a_cell_too_small_for_waves(model: ForceModel) -> None:
    """A primitive cell without a wave below the cutoff has the energy of its supercells."""
    small = bulk("Ni", a=3.2)
    large = bulk("Ni", a=3.2, cubic=True)
    batch = ForceBatch.join([model.graph(to_crystal(atoms)) for atoms in (small, large)])
    (group,) = batch.waves
    inside = (group.index.abs() < 10).all(-1).sum(1)
    assert inside[0] == 0 < inside[1]
    energies, pressures = [], []
    for atoms in (small, large, small.repeat((3, 1, 2))):
        atoms.calc = ReciNetForceCalculator(model, dtype="float64")
        energies.append(atoms.get_potential_energy() / len(atoms))
        pressures.append(atoms.get_stress()[:3].mean())
    assert np.ptp(energies) < 1e-9 and np.ptp(pressures) < 1e-9


def test_training_goes_on_from_a_model(tmp_path: Path) -> None:
    """Weights, references and scale are taken over; what was held out stays held out."""
    data = os.environ.get("RECINET_DATA_DIR")
    if not data:
        pytest.skip("needs the mlearn data")
    short = ForceTrainingConfig("mlearn", epochs=1, limit=4, init="mlearn-pes")
    still = replace(short, learning_rate=1e-12)
    model, _ = run_training(still, tmp_path / "still")
    shipped = load_force_model("mlearn-pes")
    start = model.config.training["start"]
    assert start["hours"] == shipped.config.training["hours"] and "train_ids" not in start
    cu = bulk("Cu", cubic=True)
    cu.calc = ReciNetForceCalculator(model)
    other = cu.copy()
    other.calc = ReciNetForceCalculator(shipped)
    assert cu.get_potential_energy() == pytest.approx(other.get_potential_energy(), abs=1e-5)
    with pytest.raises(ReciNetError, match="cells held out here"):
        run_training(replace(short, split_seed=7), tmp_path / "leak")
    with pytest.raises(ReciNetError, match="another architecture"):
        run_training(replace(short, network=(("width", 32),)), tmp_path / "other")
