"""Phonons with ASE's EMT against frozen phonons, invariances, limits and phonopy's own command."""

from __future__ import annotations

import csv
import json
import math
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell, molecule
from ase.calculators.emt import EMT
from ase.io import read
from ase.units import _amu, _e
from click.testing import CliRunner, Result
from support import ROOT

pytest.importorskip("phonopy")
pytest.importorskip("seekpath")

from recinet_ase.cli.phonons import phonons as command
from recinet_ase.errors import ReciNetError, StructureError, UnknownNameError
from recinet_ase.phonons import Phonons, harmonic, load_calculator, phonons
from recinet_ase.phonons.plots import point_label, ticks
from recinet_ase.phonons.structure import choose_supercell, symmetrise
from recinet_ase.simulation.batch_forces import BatchForces

MESH = 25.0
ALLOY = Atoms("CuAu", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[2.8, 2.8, 3.7], pbc=True)
CU3AU = bulk("Cu", cubic=True, a=3.75)
CU3AU.symbols[0] = "Au"
CU3AU.set_cell([3.75, 3.75, 3.9], scale_atoms=True)  # three displacements at least


@pytest.fixture(scope="module")
def copper() -> Phonons:
    return phonons(bulk("Cu"), EMT(), mesh=MESH)


@pytest.fixture(scope="module")
def alloy() -> Phonons:
    return phonons(ALLOY, EMT(), supercell=(3, 3, 2), mesh=MESH)


@pytest.fixture(scope="module")
def three() -> Phonons:
    return phonons(CU3AU, EMT(), relax_cell=False, supercell=(2, 2, 2), mesh=MESH)


@pytest.fixture(scope="module")
def unstable() -> Phonons:
    return phonons(bulk("Cu", "sc", a=2.4), EMT(), mesh=MESH)


def frozen_phonon(cell: Atoms, direction: np.ndarray, signs: np.ndarray) -> float:
    """Frequency (THz) of a mode in which planes of atoms move against each other."""
    step = 0.005
    direction = direction / np.linalg.norm(direction)
    slopes = []
    for sign in (1, -1):
        moved = cell.copy()
        moved.positions += sign * step * signs[:, None] * direction
        moved.calc = EMT()
        slopes.append(sign * (moved.get_forces() * signs[:, None]).mean(axis=0) @ direction)
    constant = -np.mean(slopes) / step * _e * 1e20  # N/m
    return math.sqrt(constant / (cell.get_masses()[0] * _amu)) / (2 * math.pi) * 1e-12


@pytest.mark.parametrize("element", ["Cu", "Al", "Ni"])
def test_zone_boundary_modes_are_those_of_frozen_phonons(element: str) -> None:
    # X and L fit into this supercell, so that nothing is interpolated.
    found = phonons(bulk(element), EMT(), supercell=(2, 2, 2), mesh=10)
    conventional = found.structure
    layers = np.where(conventional.positions[:, 2] < 0.1, 1.0, -1.0)
    transverse = frozen_phonon(conventional, np.array([1.0, 0, 0]), layers)
    longitudinal = frozen_phonon(conventional, np.array([0, 0, 1.0]), layers)
    assert found.at("X") == pytest.approx([transverse, transverse, longitudinal], rel=2e-3)

    primitive = symmetrise(conventional, primitive=True)[0]
    doubled = make_supercell(primitive, [[1, -1, 0], [0, 1, -1], [1, 1, 0]])
    assert len(doubled) == 2
    signs, normal = np.array([1.0, -1.0]), np.array([1.0, 1, 1])
    transverse = frozen_phonon(doubled, np.array([1.0, -1, 0]), signs)
    longitudinal = frozen_phonon(doubled, normal, signs)
    assert found.at("L") == pytest.approx([transverse, transverse, longitudinal], rel=2e-3)


def test_acoustic_sum_rule(copper: Phonons, alloy: Phonons) -> None:
    for found in (copper, alloy):
        constants = found.phonopy.force_constants
        assert np.abs(constants.sum(axis=1)).max() < 1e-8
        assert np.abs(found.gamma[:3]).max() < 1e-3
        assert found.imaginary is None and found.warnings == ()
    assert alloy.gamma[3:].min() > 1


def test_the_choice_of_cell_does_not_matter(copper: Phonons, alloy: Phonons) -> None:
    turned = bulk("Cu", cubic=True)
    turned.rotate(37, (1, 2, 3), rotate_cell=True)
    turned.positions += 0.3
    sheared = make_supercell(bulk("Cu", a=3.7), [[1, 1, 0], [0, 1, 2], [0, 0, 2]])
    for cell in (turned, sheared):
        other = phonons(cell, EMT(), mesh=MESH)
        assert other.space_group == copper.space_group and other.supercell == (3, 3, 3)
        for point in ("X", "L", "K"):
            assert other.at(point) == pytest.approx(copper.at(point), abs=2e-3)
        assert other.thermal.entropy == pytest.approx(copper.thermal.entropy, rel=1e-3, abs=1e-3)
    turned = make_supercell(ALLOY, [[1, 1, 0], [-1, 1, 0], [0, 0, 1]])
    turned.rotate(61, (1, 0, 1), rotate_cell=True)
    other = phonons(turned, EMT(), supercell=(3, 3, 2), mesh=MESH)
    assert str(other.space_group) == str(alloy.space_group) == "P4/mmm (123)"
    assert other.gamma == pytest.approx(alloy.gamma, abs=3e-3)
    assert other.at("Z") == pytest.approx(alloy.at("Z"), abs=3e-3)


def test_pymatgen_structures_are_welcome(copper: Phonons) -> None:
    from pymatgen.core import Lattice, Structure

    structure = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.6), ["Cu"], [[0, 0, 0]])
    found = phonons(structure, EMT(), mesh=10)
    assert found.at("X") == pytest.approx(copper.at("X"), abs=2e-3)


def test_limits_of_the_thermal_properties(copper: Phonons, alloy: Phonons) -> None:
    for found in (copper, alloy):
        modes = 3 * len(found.primitive)
        dos = found.dos
        assert np.trapezoid(dos.states, dos.frequencies) == pytest.approx(modes, rel=0.01)
        thermal = found.thermal
        assert thermal.temperatures[[0, -1]].tolist() == [0, 1000]
        assert thermal.heat_capacity[0] == thermal.entropy[0] == 0
        assert thermal.heat_capacity[-1] == pytest.approx(modes * 8.314, rel=0.01)
        assert (np.diff(thermal.entropy) > 0).all() and (np.diff(thermal.free_energy) <= 0).all()
        # S = -dF/dT, kJ to J
        slope = -1000 * np.gradient(thermal.free_energy, thermal.temperatures)
        assert slope[20:-1] == pytest.approx(thermal.entropy[20:-1], rel=2e-3)


def test_relaxation_finds_the_minimum_and_keeps_the_symmetry(copper: Phonons) -> None:
    assert copper.space_group.symbol == "Fm-3m" and copper.steps and copper.residual_force < 1e-3
    assert copper.pressure == pytest.approx(0, abs=0.1)
    energies = []
    for scale in (0.998, 1.0, 1.002):
        cell = copper.structure.copy()
        cell.set_cell(cell.cell * scale, scale_atoms=True)
        cell.calc = EMT()
        energies.append(cell.get_potential_energy())
    assert energies[1] == min(energies)
    fixed = phonons(ALLOY, EMT(), relax_cell=False, supercell=(2, 2, 2), mesh=10)
    assert fixed.structure.cell.lengths() == pytest.approx([2.8, 2.8, 3.7])
    kept = phonons(ALLOY, EMT(), relax=False, supercell=(2, 2, 2), mesh=10)
    assert kept.steps is None and kept.gamma == pytest.approx(fixed.gamma, abs=1e-3)


def test_an_unstable_crystal_is_called_so(unstable: Phonons) -> None:
    worst = unstable.imaginary
    assert worst is not None and worst.frequency < -1 and worst.exact
    assert unstable.frequencies(worst.qpoint).min() == pytest.approx(worst.frequency)
    sampled = min(float(s.frequencies.min()) for s in unstable.bands)
    assert worst.frequency <= sampled + 1e-6
    (warning,) = unstable.warnings
    assert f"{worst.frequency:.3g} THz" in warning and "q = (" in warning
    assert unstable.dos.frequencies[0] < worst.frequency


def test_wave_vectors_between_those_of_the_supercell_are_told_apart() -> None:
    stretched = bulk("Cu", a=3.95)
    options: dict[str, Any] = {"relax": False, "mesh": MESH}
    found = phonons(stretched, EMT(), supercell=(3, 3, 3), **options)
    odd = found.imaginary
    assert found.pressure is not None and found.pressure < -10
    assert f"under a pressure of {found.pressure:.1f} GPa" in found.warnings[1]
    assert odd is not None and odd.label == "L" and odd.frequency < -0.5 and not odd.exact
    assert "= L; none at wave vectors that fit into the supercell: try a larger one" in str(odd)
    even = phonons(stretched, EMT(), supercell=(2, 2, 2), **options).imaginary
    assert even is not None and even.label == "L" and even.exact


def test_short_supercells_are_mentioned(copper: Phonons) -> None:
    found = phonons(bulk("Cu"), EMT(), supercell=(1, 1, 1), mesh=10)
    assert found.warnings[-1].startswith("the supercell is only 3.6 A long")


def test_the_path_is_that_of_the_field(copper: Phonons, alloy: Phonons) -> None:
    places, labels = ticks(copper.bands)
    names = ["Γ", "X", "U|K", "Γ", "L", "W", "X"]
    plain = [label.replace("$", "").replace(r"\mathrm{\Gamma}", "Γ") for label in labels]
    assert [p.replace(r"\mathrm{", "").replace("}", "") for p in plain] == names
    assert places == sorted(places) and len(set(places)) == len(places)
    assert point_label("SIGMA_0") == r"$\mathrm{\Sigma}_{0}$"
    assert {"GAMMA", "X", "M", "Z", "R", "A"} <= set(alloy.points)
    for found in (copper, alloy):
        for segment in found.bands:
            assert segment.qpoints[0] == pytest.approx(found.points[segment.start], abs=1e-12)
            assert segment.frequencies[-1] == pytest.approx(found.at(segment.end), abs=1e-4)
    with pytest.raises(
        UnknownNameError, match="unknown high-symmetry point 'GAMA'; did you mean 'GAMMA'"
    ):
        copper.at("GAMA")


@pytest.mark.parametrize(("group", "angles"), [(12, (90, 112, 90)), (139, (90, 90, 90))])
def test_special_points_are_where_seekpath_puts_them(group: int, angles: tuple[int, ...]) -> None:
    """Also in lattices whose primitive cell is another one for seekpath than for phonopy."""
    import seekpath
    from ase.spacegroup import crystal

    lengths = (6.2, 3.4, 5.0) if group == 12 else (2.9, 2.9, 9.0)
    sites = [(0, 0, 0), (0.24, 0, 0.31) if group == 12 else (0, 0, 0.31)]
    cell = crystal(["Cu", "Au"], sites, spacegroup=group, cellpar=[*lengths, *angles])
    unitcell, found = symmetrise(cell)
    assert found.number == group
    phonon = harmonic.build(unitcell, (2, 2, 1))
    supercells = harmonic.displace(phonon, 0.01)
    rng = np.random.default_rng(0)
    harmonic.fit_force_constants(phonon, [rng.normal(size=(len(s), 3)) for s in supercells])
    _, points = harmonic.run_bands(phonon)
    theirs = seekpath.get_path(phonon.primitive.totuple(), symprec=1e-4)
    for name, q in points.items():
        ours = np.linalg.norm(np.linalg.solve(phonon.primitive.cell, q))
        wanted = np.linalg.solve(theirs["primitive_lattice"], theirs["point_coords"][name])
        assert ours == pytest.approx(np.linalg.norm(wanted), abs=1e-5), name
    fitting = harmonic._fitting_qpoints(phonon)
    turns = fitting @ np.linalg.solve(phonon.primitive_matrix, phonon.supercell_matrix)
    assert len(fitting) == len(phonon.supercell) // len(phonon.primitive)
    assert turns == pytest.approx(np.round(turns), abs=1e-9)


def test_the_folder_and_phonopys_own_command(copper: Phonons, tmp_path: Path) -> None:
    folder = copper.write(tmp_path / "new" / "copper")
    assert {path.name for path in folder.iterdir()} == set(
        "phonopy.yaml phonopy_params.yaml phonons.json relaxed.cif relaxed.extxyz "
        "bands.csv dos.csv thermal.csv band.png dos.png thermal.png".split()
    )
    for name in ("band", "dos", "thermal"):
        assert (folder / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    summary = json.loads((folder / "phonons.json").read_text())
    assert summary["frequencies_THz"]["X"] == pytest.approx(copper.at("X"), abs=1e-5)
    assert summary["supercell"] == [3, 3, 3] and summary["supercell_atoms"] == 108
    assert summary["space_group_number"] == 225 and summary["imaginary_mode"] is None
    assert {"phonopy", "ase", "recinet-ase"} <= set(summary["versions"])
    with (folder / "bands.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [row["point"] for row in rows if row["point"]][:3] == ["GAMMA", "X", "X"]
    assert len(rows) == sum(len(segment.qpoints) for segment in copper.bands)
    assert list(rows[0])[4:6] == ["distance (1/A)", "mode 1 (THz)"]
    with (folder / "thermal.csv").open() as handle:
        last = list(csv.DictReader(handle))[-1]
    capacity = float(last["heat capacity (J/K/mol of primitive cells)"])
    assert capacity == pytest.approx(copper.thermal.heat_capacity[-1], abs=1e-5)
    for name in ("relaxed.cif", "relaxed.extxyz"):
        assert read(folder / name).cell.lengths() == pytest.approx(
            copper.structure.cell.lengths(), abs=1e-4
        )

    script = Path(sys.executable).with_name("phonopy")
    points = [*copper.points["X"], *copper.points["L"], 0.1, 0.2, 0.3]
    import yaml

    for name in ("phonopy.yaml", "phonopy_params.yaml"):  # the first run overwrites the first
        done = subprocess.run(
            [str(script), name, "--qpoints", *(f"{x:.8f}" for x in points)],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        found = yaml.safe_load((folder / "qpoints.yaml").read_text())["phonon"]
        theirs = [[band["frequency"] for band in one["band"]] for one in found]
        ours = copper.frequencies(np.reshape(points, (3, 3)))
        assert np.array(theirs) == pytest.approx(ours, abs=1e-3)
        (folder / "qpoints.yaml").unlink()


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments])


def test_the_command(tmp_path: Path, unstable: Phonons) -> None:
    bulk("Cu", "sc", a=2.4).write(tmp_path / "simple.cif")
    folder = tmp_path / "out"
    done = run(tmp_path / "simple.cif", "--calculator", "emt", "-o", folder, "--mesh", MESH)
    assert done.exit_code == 0, done.output
    assert "Cu: space group Pm-3m (221) within 0.01 A" in done.output
    assert "supercell 5x5x5: 125 atoms, 1 displacement" in done.output
    assert f"warning: {unstable.warnings[0]}" in done.output
    summary = json.loads((folder / "phonons.json").read_text())
    assert summary["imaginary_mode"]["frequency_THz"] == pytest.approx(
        unstable.imaginary.frequency, abs=1e-3
    )
    assert summary["calculator"] == "emt" and not list(folder.glob("*part*"))
    again = run(
        tmp_path / "simple.cif", "--calculator", "emt", "-o", folder, "--mesh", MESH,
        "--supercell", 2, 2, 2,
    )  # fmt: skip
    assert again.exit_code == 2 and "holds another calculation (other supercell)" in again.output


def test_own_calculators_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "forces_of_mine.py").write_text(
        "from ase.calculators.emt import EMT\ndef make():\n    return EMT(asap_cutoff=True)\n"
    )
    monkeypatch.chdir(tmp_path)
    bulk("Al").write("Al.xyz")
    done = run("Al.xyz", "--calculator", "forces_of_mine:make", "--supercell", 2, 2, 2, "--mesh", 9)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "phonons-Al" / "phonons.json").is_file()


class Counting(EMT):
    """EMT that counts what it is asked for, and can be told to stop or to err."""

    def __init__(self, stop: int = 10**6, scale: float = 1.0) -> None:
        super().__init__()
        self.asked, self.stop, self.scale = 0, stop, scale

    def calculate(self, atoms: Atoms, *arguments: Any) -> None:  # type: ignore[override]
        if len(atoms) > 4:
            self.asked += 1
            if self.asked > self.stop:
                raise KeyboardInterrupt
        super().calculate(atoms, *arguments)
        self.results["forces"] = self.results["forces"] * self.scale


def test_a_stopped_calculation_goes_on(tmp_path: Path, three: Phonons) -> None:
    options: dict[str, Any] = {"supercell": (2, 2, 2), "mesh": MESH, "relax_cell": False}
    options["folder"] = tmp_path
    total = len(three.phonopy.displacements)
    assert total > 2
    with pytest.raises(KeyboardInterrupt):
        phonons(CU3AU, Counting(stop=2), **options)
    assert len(list((tmp_path / "forces").glob("*.npy"))) == 2
    calculator = Counting()
    found = phonons(CU3AU, calculator, **options)
    assert calculator.asked == 1 + total - 2  # one is repeated to see that it is the same
    assert np.array_equal(found.gamma, phonons(CU3AU, Counting(), **options).gamma)
    assert found.gamma == pytest.approx(three.gamma, abs=1e-6)
    assert found.steps == three.steps

    with pytest.raises(ReciNetError, match="not those of Counting as it is now"):
        phonons(CU3AU, Counting(scale=1.1), **options)
    with pytest.raises(ReciNetError, match=r"holds another calculation \(other distance\)"):
        phonons(CU3AU, EMT(), name="Counting", **options, distance=0.02)
    with pytest.raises(ReciNetError, match=r"other structure, calculator"):
        phonons(bulk("Al"), EMT(), **options)
    (tmp_path / "phonons.json").touch()
    (tmp_path / "forces" / "mine.txt").touch()
    other = phonons(CU3AU, Counting(), **options, distance=0.02, overwrite=True)
    assert not (tmp_path / "phonons.json").exists() and (tmp_path / "forces" / "mine.txt").exists()
    assert other.gamma == pytest.approx(three.gamma, rel=0.01, abs=1e-3)


class Batching(EMT):
    """A calculator with batches of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def forces_of(self, structures: list[Atoms]) -> list[np.ndarray]:
        self.sizes.append(len(structures))
        return [EMT().get_property("forces", atoms) for atoms in structures]


def test_batches(three: Phonons) -> None:
    calculator = Batching()
    assert isinstance(calculator, BatchForces) and not isinstance(EMT(), BatchForces)
    seen: list[tuple[str, int, int | None]] = []
    found = phonons(
        CU3AU,
        calculator,
        relax_cell=False,
        supercell=(2, 2, 2),
        mesh=MESH,
        progress=lambda stage, done, total: seen.append((stage, done, total)),
    )
    total = len(three.phonopy.displacements)
    assert calculator.sizes == [1, total]
    assert found.gamma == pytest.approx(three.gamma, abs=1e-6)
    assert seen[-1] == ("forces", total, total) and seen[0][0] == "relaxation"


class Broken(EMT):
    def calculate(self, atoms: Atoms, *arguments: Any) -> None:  # type: ignore[override]
        super().calculate(atoms, *arguments)
        if len(atoms) > 4:
            self.results["forces"][0] = np.nan


class Forceless(EMT):
    implemented_properties = ["energy"]  # noqa: RUF012


class Stressless(EMT):
    implemented_properties = ["energy", "forces"]  # noqa: RUF012


DISTORTED = Atoms("Cu2", scaled_positions=[[0, 0, 0], [0.5, 0.42, 0.5]], cell=[3, 3, 3.6], pbc=True)


@pytest.mark.parametrize(
    ("structure", "calculator", "options", "reason"),
    [
        (molecule("H2O"), EMT, {}, r"H2O is not periodic in three directions \(pbc=FFF\)"),
        (bulk("Cu"), Forceless, {}, "gives no forces, which phonons need; use a shipped"),
        (bulk("Cu"), Stressless, {}, "gives no stress, which relaxing the cell needs"),
        (bulk("Si"), EMT, {}, "EMT cannot relax Si2: No EMT-potential for Si"),
        (bulk("Si"), EMT, {"relax": False}, "EMT gives no forces on Si8: No EMT-potential"),
        (bulk("Cu"), Broken, {}, "3 forces on displaced supercell 1 of 1 that are no finite"),
        (bulk("Cu"), EMT, {"supercell": (9, 9, 9)}, r"9x9x9 of Cu4 \(.*\) has 2916 atoms"),
        (bulk("Cu"), EMT, {"min_length": 40}, "has 6912 atoms, more than 1000"),
        (bulk("Cu"), EMT, {"supercell": (3, 3)}, "three whole numbers from 1"),
        (bulk("Cu"), EMT, {"supercell": (3, 3, 0)}, "three whole numbers from 1"),
        (bulk("Cu", "sc", a=2.4), EMT, {"supercell": (1, 1, 1)}, "a supercell of one atom"),
        (bulk("Cu"), EMT, {"distance": 0.0}, "the displacement must be between 0 and 1 A"),
        (bulk("Cu"), EMT, {"symprec": -1}, "symprec must be a distance"),
        (bulk("Cu"), EMT, {"mesh": math.nan}, "the mesh's length must be positive"),
        (DISTORTED, EMT, {"relax": False}, "is not at rest: the largest force on an atom is"),
        (DISTORTED, EMT, {"max_steps": 1}, "after 1 step with EMT .*stress .* GPa.: allow more"),
        (bulk("Cu"), "mlearn-pes", {}, "pass an ASE calculator, not 'mlearn-pes': .*load_calc"),
        (bulk("Cu"), None, {}, "force model for every element, is not part of this release"),
    ],
)
def test_what_cannot_be_done_is_said(
    structure: Atoms, calculator: Any, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ReciNetError, match=reason):
        phonons(structure, calculator() if callable(calculator) else calculator, **options)


def test_stress_is_needed_for_the_cell_alone() -> None:
    found = phonons(ALLOY, Stressless(), relax_cell=False, supercell=(2, 2, 1), mesh=10)
    assert found.steps is not None


def test_disorder_is_refused() -> None:
    mixed = bulk("Cu")
    mixed.info["occupancy"] = {"0": {"Cu": 0.5, "Au": 0.5}}
    with pytest.raises(StructureError, match="disordered"):
        phonons(mixed, EMT())


def test_supercells_are_long_enough() -> None:
    for cell in (bulk("Cu", cubic=True), bulk("Mg"), bulk("Si", cubic=True), ALLOY):
        lengths = np.array(choose_supercell(cell)) * cell.cell.lengths()
        assert (lengths >= 9.99).all() and (lengths - cell.cell.lengths() < 10).all()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("jarvis-mbj", "jarvis-mbj predicts bandgap and gives no forces; use mlearn-pes or your"),
        ("jarvis-eform:ensemble", "jarvis-eform:ensemble predicts formation_energy and gives no"),
        ("jarvis-efrom:ensemble", "unknown model 'jarvis-efrom'; did you mean 'jarvis-eform'"),
        ("math:ensemble", "no calculator 'math:ensemble': module 'math' has no attribute"),
        ("emtt", "unknown calculator 'emtt'; did you mean 'emt'"),
        ("mlearn-pez", "did you mean 'mlearn-pes'"),
        ("ase.calculators.emt:EMTT", "no calculator 'ase.calculators.emt:EMTT'"),
        ("no.such.module:Thing", "no calculator 'no.such.module:Thing': No module named"),
        ("ase.build:bulk", "cannot be made without arguments"),
        ("math:pi", "cannot be made without arguments"),
        ("test_phonons:Forceless", "gives no forces"),
    ],
)
def test_calculators_that_will_not_do(name: str, reason: str) -> None:
    with pytest.raises(ReciNetError, match=reason):
        load_calculator(name)


def test_calculators_by_name() -> None:
    assert isinstance(load_calculator("emt"), EMT)
    assert isinstance(load_calculator("ase.calculators.emt:EMT"), EMT)
    assert isinstance(load_calculator("test_phonons:Counting"), EMT)


def test_wrong_calls_end_in_one_line(tmp_path: Path) -> None:
    molecule("CO2").write(tmp_path / "CO2.xyz")
    for arguments, reason in (
        (("missing.cif",), "error: no such file: missing.cif"),
        ((tmp_path / "CO2.xyz", "--calculator", "emt"), "is not periodic"),
        ((tmp_path / "CO2.xyz", "--model", "jarvis-mbj"), "gives no forces; use mlearn-pes"),
        ((tmp_path / "CO2.xyz", "--model", "mlearn-pes", "--calculator", "emt"), "not both"),
    ):
        done = run(*arguments)
        assert done.exit_code == 2 and reason in done.output, done.output
        assert len(done.output.strip().splitlines()) == 1


@pytest.mark.parametrize("package", ["phonopy", "seekpath"])
def test_missing_packages_are_told_before_any_work(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.chdir(tmp_path)
    counting = Counting()
    with pytest.raises(ReciNetError, match=r"pip install 'recinet-ase\[phonopy\]'"):
        phonons(bulk("Cu"), counting, folder="kept")
    assert not counting.results, "nothing was computed"
    (tmp_path / "Cu.cif").touch()
    done = run("Cu.cif", "--calculator", "emt")
    assert done.exit_code == 2 and len(done.output.strip().splitlines()) == 1
    assert "pip install 'recinet-ase[phonopy]'" in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["Cu.cif"]


def test_the_block_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "howto" / "phonons.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(from ase.build.*?)```", text, flags=re.S)
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    assert (tmp_path / "copper" / "phonons.json").is_file()


def test_the_table_against_experiment_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = ROOT / "benchmarks" / "forces" / "phonons.py"
    arguments = ["--calculator", "emt", "--elements", "Cu", "--repeat", "2"]
    monkeypatch.setattr(sys, "argv", [str(script), *arguments])
    runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out
    assert len(re.findall(r"^\| Cu \| [XL] [TL] \| \d\.\d \| \d\.\d\d \|", printed, re.M)) == 4
