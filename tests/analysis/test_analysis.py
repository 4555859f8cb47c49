"""recinet-analyze: ranks, filters, contributions, gates, routing, composition, files."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.db import connect
from ase.io import write
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.core import Element
from support import EXAMPLES, random_model

from recinet_ase.analysis import plots, report, tables
from recinet_ase.analysis.bonding import BONDING, RULES, bonding_class, electronegativity_difference
from recinet_ase.analysis.canvas import FORMATS, save
from recinet_ase.analysis.filters import FILTER, force_filters, property_filters
from recinet_ase.analysis.observe import LOCAL, MEAN, PARTS, RECIPROCAL, WAVES, observe
from recinet_ase.analysis.routing import RoutingTally, cosine_similarity, prediction_correlation
from recinet_ase.analysis.sample import Sample, crystal_family, draw_sample
from recinet_ase.analysis.spectrum import cumulative_energy, effective_rank, singular_values
from recinet_ase.cli.analyze import analyze
from recinet_ase.elements import MAX_Z, symbols, table_position
from recinet_ase.errors import ReciNetError, StructureError
from recinet_ase.graph.adapters import to_crystal
from recinet_ase.graph.wave_sums import filtered_sum
from recinet_ase.graph.waves import half_space_waves
from recinet_ase.inference.predictor import Predictor
from recinet_ase.models.property_model import PropertyModel
from recinet_ase.nn.reciprocal import LatticeOperator
from recinet_ase.pretrained import available_models, load_force_model, load_model

SALT = bulk("NaCl", "rocksalt", a=5.64)
SILICON = bulk("Si")
PEROVSKITE = Atoms(
    "SrTiO3",
    scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)],
    cell=[3.9] * 3,
    pbc=True,
)
WURTZITE = bulk("ZnO", "wurtzite", a=3.25, c=5.2)


def sample_of(*structures: Atoms, limit: int | None = None) -> Sample:
    return draw_sample("test", ((str(i), s) for i, s in enumerate(structures)), limit)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(analyze, [str(a) for a in arguments])


# Effective rank (eq. 28-29)


def _orthogonal(n: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]


@given(
    st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8),
    st.integers(0, 3),
    st.floats(0.05, 1.0),
)
def test_effective_rank_of_a_known_spectrum(spectrum: list[float], more: int, share: float) -> None:
    expected = np.sort(spectrum)[::-1]
    n = len(spectrum)
    middle = np.zeros((n, n + more))
    middle[:, :n] = np.diag(expected)
    found = singular_values(_orthogonal(n, 1) @ middle @ _orthogonal(n + more, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * expected[0])
    rank = effective_rank(found, share)
    energy = np.cumsum(expected**2) / np.sum(expected**2)
    # Just enough components: one fewer falls short.
    assert energy[rank - 1] >= share - 1e-9
    assert rank == 1 or energy[rank - 2] < share + 1e-9
    assert effective_rank(found * 7.0, share) == rank
    assert effective_rank(found, share) <= effective_rank(found, min(1.0, share + 0.2))


def test_effective_rank_by_hand() -> None:
    assert effective_rank([3.0, 1.0, 0.0], 0.90) == 1  # 9 / 10, exactly the limit
    assert effective_rank([3.0, 1.0, 0.0], 0.95) == 2
    assert effective_rank(np.ones(10), 0.90) == 9
    assert effective_rank(np.zeros(4), 0.9) == 0
    np.testing.assert_allclose(cumulative_energy([2.0, 1.0, 1.0]), [4 / 6, 5 / 6, 1])
    with pytest.raises(ReciNetError, match="share"):
        effective_rank([1.0], 90)
    with pytest.raises(ReciNetError, match="no matrix"):
        singular_values(np.zeros((0, 3)))
    with pytest.raises(ReciNetError, match="non-finite"):
        singular_values([[np.nan]])


# Filters


@pytest.mark.parametrize("wave_norm", ["volume", "atom"])
def test_curves_are_what_the_network_applies(wave_norm: str) -> None:
    model = random_model(wave_norm=wave_norm).double()
    filters = property_filters(model)
    crystal = to_crystal(PEROVSKITE)
    waves = half_space_waves(torch.from_numpy(crystal.lattice)[None], filters.k_max)
    predictor = Predictor(model, "cpu", "float64", reduce=False)
    (prepared,) = predictor.preparation([crystal]).batches
    batch = prepared.graphs[model.config.graph]
    operator = LatticeOperator.build(batch, model.network.wave_basis)
    per_volume = 20.0 / (crystal.volume / len(crystal)) if wave_norm == "volume" else 1.0
    for block, layer in zip(filters.blocks, model.network.reciprocal_blocks, strict=True):
        values = torch.randn(len(crystal), layer.filter.shape[1], dtype=torch.float64)
        applied = operator(values, layer.filter.detach())
        curve = torch.from_numpy(filters.at(block, waves.length.numpy())) * per_volume
        frac = torch.from_numpy(crystal.frac_coords)
        ours = filtered_sum(frac, waves.index, curve, values) / len(crystal)
        torch.testing.assert_close(ours, applied, rtol=1e-9, atol=1e-12)


def test_curves_vanish_at_the_cutoff_and_are_sampled_on_the_grid() -> None:
    filters = property_filters(random_model())
    table = tables.curve_table(filters)
    block = filters.blocks[1]
    values = filters.at(block, filters.grid())
    assert np.all(values[-1] == 0) and np.all(filters.at(block, [filters.k_max + 1]) == 0)
    found = table.select(block=2, curve="median")
    np.testing.assert_allclose(found["filter"], np.median(values, axis=1), rtol=1e-12)
    # The random model is untrained: a quarter of its channels above, a quarter below.
    low, high = (table.select(block=2, curve=key)["filter"] for key in tables.UNTRAINED)
    inside = ((values > low[:, None]) & (values < high[:, None]))[:60]
    assert 0.35 < inside.mean() < 0.65
    matrix = tables.matrix_table(filters).select(block=2)
    for place in (1, values.shape[1]):
        chosen = matrix["place"] == place
        channel = int(matrix["channel"][chosen][0])
        np.testing.assert_array_equal(matrix["filter"][chosen], values[:, channel - 1])
    assert sorted(set(matrix["channel"])) == list(range(1, values.shape[1] + 1))


@pytest.mark.parametrize("name", available_models())
def test_every_shipped_model_has_filters(name: str) -> None:
    filters = property_filters(load_model(name))
    for spectrum in filters.spectra():
        low, high = spectrum.ranks
        assert 1 <= low <= high <= min(spectrum.shape)
        if spectrum.matrix == FILTER:
            assert high <= 16, "no more than the radial functions"


def test_filters_of_the_force_model() -> None:
    model = load_force_model("mlearn-pes").double()
    filters = force_filters(model)
    crystal = to_crystal(SILICON)
    waves = half_space_waves(torch.from_numpy(crystal.lattice)[None], filters.k_max)
    radial = model.network.wave_basis(waves.length)
    for block, layer in zip(filters.blocks, model.network.blocks, strict=True):
        applied = (radial @ layer.filter).detach().numpy()
        np.testing.assert_allclose(filters.at(block, waves.length.numpy()), applied, atol=1e-12)
    assert {s.block for s in filters.spectra()} == {1, 2, 3}


@pytest.mark.parametrize("mode", ["mean", "literal"])
def test_blocks_without_a_filter_of_g(mode: str) -> None:
    filters = property_filters(random_model(reciprocal=mode))
    assert not filters.has_curves and len(filters.spectra()) == 2
    with pytest.raises(ReciNetError, match="no filter of"):
        filters.at(filters.blocks[0], [1.0])
    seen = observe(Predictor(random_model(reciprocal=mode), "cpu"), sample_of(SALT, SILICON))
    assert set(seen.sizes) == {LOCAL, RECIPROCAL}
    assert np.abs(seen.without[RECIPROCAL] - seen.predictions).max() > 1e-4


# Contribution, gates


def test_watching_changes_no_prediction_and_switching_off_does_what_it_says() -> None:
    model = random_model()
    predictor = Predictor(model, "cpu")
    structures = [SALT, SILICON, PEROVSKITE, WURTZITE]
    seen = observe(predictor, sample_of(*structures))
    usual = [p.values["bandgap"] for p in predictor.predict_many(structures)]
    # Prediction fuses steps that watching keeps apart: the last digit may differ.
    np.testing.assert_allclose(seen.predictions[:, 0], usual, rtol=1e-6)
    for part in PARTS:
        changed = _without(model, part)
        expected = [p.values["bandgap"] for p in Predictor(changed, "cpu").predict_many(structures)]
        np.testing.assert_allclose(seen.without[part][:, 0], expected, atol=1e-5)
    assert not [h for m in predictor.models[0].modules() for h in m._forward_hooks.values()]


def _without(model: PropertyModel, part: str) -> PropertyModel:
    """The model with the weights of a part set to zero."""
    changed = PropertyModel(model.config).eval()
    changed.load_state_dict(model.state_dict())
    with torch.no_grad():
        for block in changed.network.reciprocal_blocks:
            channels = block.down.out_features
            if part in (WAVES, RECIPROCAL):
                block.up.weight[:, :channels] = 0
            if part in (MEAN, RECIPROCAL):
                block.up.weight[:, channels:] = 0
                block.up.bias.zero_()
    return changed


def test_supercells_contribute_like_their_cells() -> None:
    skewed = make_supercell(SALT, [[1, 1, 0], [0, 2, 0], [0, 0, 1]])
    predictor = Predictor(random_model(), "cpu", "float64")
    small = observe(predictor, sample_of(SALT, WURTZITE, PEROVSKITE))
    large = observe(predictor, sample_of(skewed, WURTZITE * (2, 1, 1), PEROVSKITE * (1, 2, 1)))
    assert small.groups == large.groups
    for part in (LOCAL, *PARTS):
        np.testing.assert_allclose(large.sizes[part], small.sizes[part], rtol=1e-6)
    for part in PARTS:
        np.testing.assert_allclose(large.without[part], small.without[part], rtol=1e-6)
        np.testing.assert_allclose(large.ratio(part), small.ratio(part), rtol=1e-6)
    for quantity in ("gate", "message"):
        np.testing.assert_allclose(
            large.gates.pairs(quantity), small.gates.pairs(quantity), rtol=1e-6, equal_nan=True
        )
    np.testing.assert_allclose(large.gates.pair_weights(), small.gates.pair_weights(), rtol=1e-6)


def test_gates_against_the_block_written_out() -> None:
    model = random_model().double()
    predictor = Predictor(model, "cpu", "float64", reduce=False)
    seen = observe(predictor, sample_of(SALT))
    (prepared,) = predictor.preparation([to_crystal(SALT)]).batches
    batch = prepared.graphs[model.config.graph]
    network = model.network
    block = network.local_blocks[0]
    with torch.no_grad():
        h = network.embed_atom(network.element_table[batch.z])
        v = torch.nn.functional.softplus(network.embed_edge(network.edge_basis(batch.distance)))
        z = block.from_edge(v) + block.from_centre(h)[batch.centre]
        z = torch.nn.functional.silu(z + block.from_neighbour(h)[batch.neighbour])
        gate = torch.sigmoid(block.gate_norm(block.gate(z[:, : block.width]), batch.edge_count))
        product = (gate * block.message(z[:, block.width :])).norm(dim=1)
    sodium, chlorine = 11, 17
    chosen = (batch.z[batch.centre] == sodium) & (batch.z[batch.neighbour] == chlorine)
    assert seen.gates.elements == [sodium, chlorine]
    np.testing.assert_allclose(seen.gates.pairs("gate")[0, 0, 1], gate[chosen].mean())
    np.testing.assert_allclose(seen.gates.pairs("message")[0, 0, 1], product[chosen].mean())
    of_sodium = batch.z[batch.centre] == sodium
    as_centre = seen.gates.of_elements("gate", "centre")
    np.testing.assert_allclose(as_centre[0, 0], gate[of_sodium].mean())
    # 6 nearest of the other kind, 12 of its own: two atoms, each half a cell.
    np.testing.assert_allclose(seen.gates.pair_weights(), [[6, 3], [3, 6]])
    np.testing.assert_allclose(seen.gates.distance_weights(), [6, 12])


def test_refused_crystals_are_named() -> None:
    predictor = Predictor(random_model(elements=(11, 17)), "cpu")
    seen = observe(predictor, sample_of(SILICON, SALT))
    assert seen.ids == ["1"] and "not trained on Si" in seen.refused["0"]
    with pytest.raises(ReciNetError, match="no crystal of test"):
        observe(predictor, sample_of(SILICON))


def test_crystal_families() -> None:
    assert crystal_family(to_crystal(SALT)) == "cubic"
    assert crystal_family(to_crystal(WURTZITE)) == "hexagonal"
    assert crystal_family(to_crystal(bulk("Sn", "bct", a=5.8, c=3.2))) == "tetragonal"
    assert crystal_family(to_crystal(SALT * (1, 2, 3))) == "cubic"


# Routing


def test_routing_tally() -> None:
    tally = RoutingTally(["a", "b"])
    tally.add({"a": torch.tensor([[0.7, 0.3, 0, 0]]), "b": torch.tensor([[0, 0.5, 0.5, 0]])})
    tally.add({"a": torch.tensor([[0.5, 0, 0.5, 0]]), "b": torch.tensor([[0, 0.9, 0, 0.1]])})
    np.testing.assert_allclose(tally.frequencies, [[0.5, 0.25, 0.25, 0], [0, 0.5, 0.25, 0.25]])
    np.testing.assert_allclose(tally.weights[0], [0.6, 0.15, 0.25, 0])
    expected = (0.25 * 0.5 + 0.25 * 0.25) / 0.375
    np.testing.assert_allclose(tally.similarity, [[1, expected], [expected, 1]])
    with pytest.raises(ReciNetError, match="no routing for b"):
        tally.add({"a": torch.ones(1, 4)})


def test_similarity_of_tasks_without_experts() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((30, 3))
    values[:, 1] = 5 - 2 * values[:, 0]
    np.testing.assert_allclose(
        prediction_correlation(values), np.corrcoef(values.T), rtol=1e-9, atol=1e-12
    )
    assert np.isnan(cosine_similarity([[0.0, 0.0], [1.0, 0.0]])[0, 1])


class _Routed(torch.nn.Module):
    """Gives a network the ``routing`` of a multi-task network with four experts."""

    def __init__(self, network: Any, properties: tuple[str, ...]) -> None:
        super().__init__()
        self.inner, self.properties = network, properties

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def routing(self, batch: Any) -> dict[str, torch.Tensor]:
        score = self.inner.encode(batch)[:, :4].softmax(-1)
        top = torch.zeros_like(score).scatter(1, score.topk(2).indices, 1.0) * score
        return dict.fromkeys(self.properties, top)


@pytest.mark.parametrize("experts", [True, False])
def test_several_properties(experts: bool, tmp_path: Path) -> None:
    properties = ("bandgap", "formation_energy")
    predictor = Predictor(random_model(properties=properties), "cpu")
    if experts:
        predictor.models[0].network = _Routed(predictor.models[0].network, properties)
    found = report.analyse_model(predictor, sample_of(SALT, SILICON, PEROVSKITE))
    similar = found.table("task_similarity").select()["similarity"]
    assert similar.shape == (4,) and similar[0] == pytest.approx(1)
    names = {path.name for path in found.write(tmp_path, ["png"])}
    assert ("experts.csv" in names) == experts and "task_similarity.png" in names
    if experts:
        assert similar[1] == pytest.approx(1)
        assert "cosine of selection frequencies" in found.summary
        frequencies = found.table("experts").select(property="bandgap")["selection frequency"]
        assert len(frequencies) == 4 and frequencies.sum() == pytest.approx(1)


# Composition (table 15)


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("NaCl", "ionic"),  # 3.16 - 0.93
        ("MgO", "ionic"),
        ("SrTiO3", "ionic"),  # by its extremes
        ("GaN", "polar"),
        ("GaAs", "covalent"),  # 2.18 - 1.81 = 0.37
        ("SiC", "polar"),  # 2.55 - 1.90 = 0.65
        ("InSb", "covalent"),
        ("Si", "element"),
        ("PTe", "covalent"),
        ("HeSi", "undefined"),
        ("Ar", "element"),
    ],
)
def test_bonding_of_known_crystals(formula: str, expected: str) -> None:
    assert bonding_class(Atoms(formula).numbers.tolist()) == expected


def test_elements_without_an_electronegativity() -> None:
    missing = [z for z in range(1, MAX_Z + 1) if math.isnan(Element.from_Z(z).X)]
    names = [symbols()[z] for z in missing]
    assert RULES["undefined"] == f"compounds of {', '.join(names)}" == "compounds of He, Ne, Ar"
    for z in range(2, MAX_Z + 1):
        assert math.isnan(electronegativity_difference((1, z))) == (z in missing)


def test_bonding_on_the_line() -> None:
    # Decimal differences of exactly 0.5 and 1.7 whose binary ones are not: both are polar.
    value = {z: electronegativity_difference([z, 8]) for z in range(1, 95)}
    pairs = [(a, b) for a in value for b in value if a < b]
    for limit in (0.5, 1.7):
        on_it = [p for p in pairs if electronegativity_difference(p) == limit]
        assert on_it and all(bonding_class(p) == "polar" for p in on_it)


def test_composition_counts_everything_and_samples_some(crystals: dict[str, Atoms]) -> None:
    entries = [*crystals.items(), ("bad", StructureError("broken"))]
    sample = draw_sample("jarvis", entries, 10)
    assert len(sample) == 10 and sample.composition.total == len(crystals)
    assert sample.ids == draw_sample("jarvis", entries, 10).ids
    assert list(sample.ids) == [key for key in crystals if key in sample.ids], "the input's order"
    assert sample.refused == {"bad": "broken"}
    rows = {row[0]: row for row in tables.composition_table(sample.composition).rows}
    assert list(rows) == list(BONDING) and rows["ionic"][4:] == (
        18_539,
        pytest.approx(0.3328, abs=1e-3),
    )
    assert sum(row[3] for row in rows.values() if row[0] != "undefined") == pytest.approx(1)


# Files


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("analysis") / "out"
    result = run("jarvis-mbj", "--data", EXAMPLES, "--limit", 12, "-o", folder, "--format", "svg")
    assert result.exit_code == 0, result.output
    return folder, result.stdout


def test_a_shipped_model_end_to_end(shipped: tuple[Path, str]) -> None:
    folder, stdout = shipped
    plots = {path.stem for path in folder.glob("*.svg")}
    assert plots == {
        "filter_curves", "filter_matrix", "singular_values", "update_ratio", "switched_off",
        "gates_pairs", "gates_elements", "gates_distance", "composition",
    }  # fmt: skip
    assert {path.stem for path in folder.glob("*.csv")} == {*plots, "effective_rank", "crystals"}
    assert stdout == (folder / "summary.md").read_text()
    assert stdout.startswith("# Analysis of jarvis-mbj") and "eV" in stdout
    rows = _read(folder / "crystals.csv")
    assert (
        len(rows) == 12 and sum(int(r["crystals"]) for r in _read(folder / "composition.csv")) == 50
    )
    atoms = connect(EXAMPLES).get_atoms(id=int(rows[0]["id"]))
    value = Predictor("jarvis-mbj", "cpu").predict(atoms)["bandgap"]
    assert float(rows[0]["bandgap"]) == pytest.approx(value, abs=1e-5)


def test_csv_holds_the_plotted_numbers(shipped: tuple[Path, str]) -> None:
    folder, _ = shipped
    filters = property_filters(load_model("jarvis-mbj"))
    rows = [
        r
        for r in _read(folder / "filter_curves.csv")
        if (r["block"], r["curve"]) == ("2", "median")
    ]
    figure = plots.filter_curves(tables.curve_table(filters))
    (line,) = [a for a in figure.axes[1].lines if a.get_label() == "median"]
    np.testing.assert_allclose(
        line.get_xdata(), [float(r["wave number (1/A)"]) for r in rows], rtol=1e-6
    )
    np.testing.assert_allclose(line.get_ydata(), [float(r["filter"]) for r in rows], rtol=1e-6)
    image = plots.filter_matrices(tables.matrix_table(filters)).axes[0].images[0].get_array()
    written = [r for r in _read(folder / "filter_matrix.csv") if r["block"] == "1"]
    for place in (1, 7):
        values = [float(r["filter"]) for r in written if int(r["place"]) == place]
        np.testing.assert_allclose(image[:, place - 1], values, rtol=1e-6)
    ranks = _read(folder / "effective_rank.csv")
    for row in ranks:
        singular = [
            float(r["singular value"])
            for r in _read(folder / "singular_values.csv")
            if (r["block"], r["matrix"]) == (row["block"], row["matrix"])
        ]
        assert int(row["rank 90%"]) == effective_rank(singular, 0.9)
        assert int(row["rank 95%"]) == effective_rank(singular, 0.95)


def test_ratios_in_the_files_follow_from_the_crystals(shipped: tuple[Path, str]) -> None:
    folder, _ = shipped
    crystals = _read(folder / "crystals.csv")
    ratio = [float(r["waves 2"]) / float(r["local 2"]) for r in crystals]
    (row,) = [
        r
        for r in _read(folder / "update_ratio.csv")
        if (r["division"], r["part"], r["block"]) == ("all", "waves", "2")
    ]
    assert float(row["median"]) == pytest.approx(np.median(ratio), rel=1e-5)
    change = [abs(float(r["bandgap without mean"]) - float(r["bandgap"])) for r in crystals]
    (row,) = [
        r
        for r in _read(folder / "switched_off.csv")
        if (r["division"], r["without"]) == ("all", "mean")
    ]
    assert float(row["mean absolute change"]) == pytest.approx(np.mean(change), rel=1e-4)


def test_the_same_figure_is_the_same_file_and_leaves_matplotlib_as_it_was(tmp_path: Path) -> None:
    import matplotlib

    before = matplotlib.rcParams.copy()
    table = tables.composition_table(sample_of(SALT, SILICON).composition)
    written = [
        save(plots.composition(table), folder, "composition", FORMATS)
        for folder in (tmp_path, tmp_path.joinpath("b"))
        if folder.mkdir(exist_ok=True) is None
    ]
    for first, second in zip(*written, strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name
    # Looking a backend up by [] would choose one.
    changed = [k for k in before if dict.__getitem__(matplotlib.rcParams, k) != before._get(k)]
    assert not changed


def test_force_model_and_data_alone(tmp_path: Path, jarvis_folder: Path) -> None:
    result = run("mlearn-pes", "--data", EXAMPLES, "-o", tmp_path / "f", "--format", "png")
    assert result.exit_code == 0, result.output
    assert "not given for force models" in result.stdout
    assert (tmp_path / "f" / "filter_curves.png").is_file()
    result = run("--dataset", "jarvis", "--data-dir", jarvis_folder, "-o", tmp_path / "d")
    assert result.exit_code == 0, result.output
    assert "18,539" in result.stdout and (tmp_path / "d" / "composition.pdf").is_file()
    assert not (tmp_path / "d" / "filter_curves.csv").exists()


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    none = tmp_path / "none"
    random_model(reciprocal="none").save(none)
    empty = tmp_path / "empty.db"
    with connect(empty) as database:
        database.metadata = {"empty": True}
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps([{"jid": "x", "atoms": {"elements": ["Si"]}}]))
    overlap = tmp_path / "overlap.extxyz"
    write(overlap, Atoms("Si2", positions=[(0, 0, 0), (0, 0, 0.1)], cell=[4] * 3, pbc=True))
    for arguments, message in (
        ((none,), "has no reciprocal block"),
        (("jarvis-mjb",), "did you mean 'jarvis-mbj'"),
        ((), "name a model"),
        (("jarvis-mbj", "--data", tmp_path / "absent.db"), "absent.db"),
        (("jarvis-mbj", "--data", empty), "no crystal that can be used"),
        (("jarvis-mbj", "--data", broken), "no crystal that can be used"),
        (("jarvis-mbj", "--data", overlap), "overlap"),
        (("jarvis-mbj", "--dataset", "jarviss"), "did you mean 'jarvis'"),
        (("jarvis-mbj", "--dataset", "jarvis", "--data", EXAMPLES), "not both"),
        (("jarvis-mbj", "-o", EXAMPLES), "is a file"),
    ):
        result = run(*arguments, *([] if "-o" in arguments else ["-o", tmp_path / "x"]))
        assert result.exit_code == 2 and message in result.stderr, (arguments, result.output)
        assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "x").exists()


def test_every_element_has_its_place() -> None:
    places = [table_position(z) for z in range(1, len(symbols()))]
    assert len(set(places)) == len(places)
    assert (
        table_position(1) == (1, 1)
        and table_position(8) == (16, 2)
        and table_position(71) == (3, 6)
    )
