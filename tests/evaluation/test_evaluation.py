"""Metrics, breakdowns, comparison, prediction files and plots against known answers."""

from __future__ import annotations

import csv
import math
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from support import random_model

from recinet_ase import ReciNetError
from recinet_ase.evaluation.breakdowns import (
    OTHER,
    by_chemistry,
    by_element,
    by_size,
    by_value,
    write_groups,
)
from recinet_ase.evaluation.comparison import compare
from recinet_ase.evaluation.leaderboard import leaderboard_name, write_contribution
from recinet_ase.evaluation.metrics import (
    bootstrap_interval,
    gap_classification,
    regression_metrics,
)
from recinet_ase.evaluation.plots import learning_curve, parity_plot
from recinet_ase.evaluation.provenance import trust_warnings
from recinet_ase.evaluation.table import PredictionTable
from recinet_ase.properties import PROPERTIES

NAN = math.nan


@pytest.fixture
def table() -> PredictionTable:
    return PredictionTable.of(
        ["a", "b", "c", "d", "e", "f"],
        [0.0, 0.0, 2.0, 4.0, NAN, 1.0],
        [0.0, 1.0, 2.5, 2.0, 7.0, NAN],
        [["Cu"], ["Na", "Cl"], ["Mg", "O"], ["O", "F", "Na"], ["H"], ["Xx"]],
        [1, 2, 2, 40, 1, 3],
        ["", "", "", "", "", "not trained on Xx"],
    )


def test_metrics_by_hand() -> None:
    m = regression_metrics([1, 2, 3, 6], [1, 3, 1, 6.5])
    assert (m.n, m.mae, m.max_error, m.median_absolute_error) == (4, 0.875, 2.0, 0.75)
    assert m.mean_error == pytest.approx(-0.125)
    assert m.rmse == pytest.approx(math.sqrt((1 + 4 + 0.25) / 4))
    assert m.mad == pytest.approx((2 + 1 + 0 + 3) / 4)
    assert m.mad_mae_ratio == pytest.approx(1.5 / 0.875)
    assert m.r2 == pytest.approx(1 - 5.25 / 14)
    assert m.mae_low < m.mae < m.mae_high


def test_what_is_undefined_is_nan() -> None:
    m = regression_metrics([2.0], [2.0])
    assert m.mae == m.mae_low == m.mae_high == m.mad == 0
    assert math.isnan(m.r2) and math.isnan(m.mad_mae_ratio)


@pytest.mark.parametrize(
    ("true", "predicted", "message"),
    [([], [], "no crystal"), ([1.0], [1.0, 2.0], "1 targets but 2"), ([NAN], [1.0], "finite")],
)
def test_metrics_refuse(true: list[float], predicted: list[float], message: str) -> None:
    with pytest.raises(ReciNetError, match=message):
        regression_metrics(true, predicted)


def test_the_bootstrap_interval_is_that_of_scipy_and_repeats() -> None:
    errors = np.random.default_rng(2).exponential(size=400)
    low, high = bootstrap_interval(errors, 5000)
    reference = stats.bootstrap(
        (errors,), np.mean, n_resamples=5000, method="percentile", rng=3
    ).confidence_interval
    assert (low, high) == pytest.approx((reference.low, reference.high), rel=0.02)
    assert (low, high) == bootstrap_interval(errors, 5000)
    assert (low, high) != bootstrap_interval(errors, 5000, seed=1)


def test_metals_and_non_metals() -> None:
    g = gap_classification([0, 0, 0.05, 1, 2], [0, 0.5, 0, 3, 0.1], threshold=0.1)
    assert (g.metal_as_metal, g.metal_as_nonmetal) == (2, 1)
    assert (g.nonmetal_as_metal, g.nonmetal_as_nonmetal) == (1, 1)
    assert g.accuracy == 0.6


def test_breakdowns(table: PredictionTable) -> None:
    elements = {g.group: g for g in by_element(table)}
    assert list(elements) == ["O", "F", "Na", "Mg", "Cl", "Cu"], "by atomic number, judged ones"
    assert elements["O"].n == 2 and elements["O"].mae == 1.25
    assert elements["Na"].mean_error == pytest.approx((1 - 2) / 2)
    assert elements["O"].share == pytest.approx(2.5 / 3.5)
    chemistry = {g.group: (g.n, g.mae) for g in by_chemistry(table)}
    assert chemistry == {"oxides": (2, 1.25), "chlorides": (1, 1.0), OTHER: (1, 0.0)}
    sizes = {g.group: g.n for g in by_size(table)}
    assert sizes == {"1": 1, "2": 2, "33 to 64": 1}
    values = [(g.group, g.n) for g in by_value(table)]
    assert values[0] == ("exactly 0", 2) and sum(n for _, n in values) == 4


def test_every_crystal_is_in_one_group_of_values() -> None:
    generator = np.random.default_rng(3)
    for true in (
        generator.normal(size=503),
        np.concatenate([np.zeros(300), generator.exponential(size=200)]),
        np.ones(7),
        np.array([1.0]),
        generator.integers(0, 3, size=90).astype(float),
    ):
        made = PredictionTable.of(list(map(str, range(len(true)))), true, true + 1)
        groups = by_value(made)
        assert sum(g.n for g in groups) == len(true)
        assert sum(g.share for g in groups) == pytest.approx(1)
    assert by_chemistry(made) == by_element(made) == [], "nothing is known of the crystals"


def test_groups_as_csv(table: PredictionTable, tmp_path: Path) -> None:
    write_groups(by_size(table), tmp_path / "by_size.csv")
    with (tmp_path / "by_size.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert rows[1] == {
        "group": "2",
        "n": "2",
        "mae": "0.75",
        "mean_error": "0.75",
        "share": "0.428571",
    }


def test_a_prediction_file_comes_back_exactly(table: PredictionTable, tmp_path: Path) -> None:
    values = np.random.default_rng(4).normal(size=6)
    made = PredictionTable.of(table.ids, table.targets * math.pi, values)
    (tmp_path / "p.csv").write_text(made.to_csv())
    back = PredictionTable.from_csv(tmp_path / "p.csv")
    assert back.ids == made.ids
    assert np.array_equal(back.predictions, made.predictions)
    assert np.array_equal(back.targets, made.targets, equal_nan=True)
    assert made.to_csv().splitlines()[5].startswith("e,,"), "a withheld target is empty"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jid,value\na,1\n", "must name the columns id,target,prediction"),
        ("", "must name the columns"),
        ("id,prediction\na,1\na,2\n", "line 3: the id 'a' occurs twice"),
        ("id,prediction\n,2\n", "line 2: the id is missing"),
        ("id,prediction\na,one\n", "line 2: prediction 'one' is no number"),
    ],
)
def test_files_that_are_no_predictions(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(ReciNetError, match=message):
        PredictionTable.from_csv(tmp_path / "p.csv")
    (tmp_path / "p.csv.zip").write_bytes(b"junk")
    with pytest.raises(ReciNetError, match="cannot read"):
        PredictionTable.from_csv(tmp_path / "p.csv.zip")


def test_a_model_against_itself_is_exactly_the_same(table: PredictionTable) -> None:
    c = compare(table, table, "itself")
    assert (c.n, c.difference, c.difference_low, c.difference_high) == (4, 0, 0, 0)
    assert (c.improved, c.worsened, c.wilcoxon_p, c.sign_p) == (0, 0, 1, 1)


def test_comparison_by_hand() -> None:
    generator = np.random.default_rng(5)
    ids = [str(i) for i in range(60)]
    true = generator.normal(size=60)
    ours = true + generator.normal(scale=0.1, size=60)
    theirs = true + generator.normal(scale=0.3, size=60)
    first = PredictionTable.of(ids, true, ours)
    order = list(reversed(range(5, 60)))
    second = PredictionTable.of(
        [*(ids[i] for i in order), "other"], [NAN] * 56, [*theirs[order], 1.0]
    )
    c = compare(first, second, "other")
    a, b = np.abs(ours - true)[5:], np.abs(theirs - true)[5:]
    assert c.n == 55
    assert (c.mae, c.other_mae) == pytest.approx((a.mean(), b.mean()))
    assert c.difference == pytest.approx((a - b).mean())
    assert c.difference_low < c.difference < c.difference_high < 0
    assert c.improved == pytest.approx((a < b).mean()) and c.improved + c.worsened == 1
    assert c.wilcoxon_p == pytest.approx(stats.wilcoxon(a, b).pvalue)
    assert c.sign_p == pytest.approx(stats.binomtest(int((a < b).sum()), 55).pvalue)
    back = compare(PredictionTable.of(ids, true, theirs), first, "back")
    assert back.difference > 0


def test_comparisons_that_make_no_sense(table: PredictionTable) -> None:
    other = PredictionTable.of(["x"], [1.0], [1.0])
    with pytest.raises(ReciNetError, match="of another dataset or split"):
        compare(table, other, "other")
    with pytest.raises(ReciNetError, match=r"c: 2000, here 2\); it is of another property, unit"):
        compare(table, PredictionTable.of(["c"], [2000.0], [1.0]), "meV")


def test_leaderboard_files(table: PredictionTable, tmp_path: Path) -> None:
    names = {
        ("jarvis", "bandgap"): "mbj_bandgap-dft_3d",
        ("jarvis", "formation_energy"): "formation_energy_peratom-dft_3d",
        ("jarvis", "bulk_modulus"): "bulk_modulus_kv-dft_3d",
        ("mp", "formation_energy"): "e_form-megnet",
    }
    for (dataset, prop), middle in names.items():
        name = leaderboard_name(dataset, PROPERTIES[prop])
        assert name == f"AI-SinglePropertyPrediction-{middle}-test-mae.csv"
    with pytest.raises(ReciNetError, match="not for 'own'"):
        leaderboard_name("own", PROPERTIES["bandgap"])
    path = write_contribution(table, name, tmp_path)
    assert path.name == f"{name}.zip" and zipfile.ZipFile(path).namelist() == [name]
    back = PredictionTable.from_csv(path)
    assert back.ids == ("a", "b", "c", "d", "e"), "the site cannot score an empty prediction"


TRAINED = {"dataset": "jarvis", "clean_for": ["bandgap"], "started_from": None}


@pytest.mark.parametrize(
    ("training", "arguments", "message"),
    [
        (TRAINED, ("bandgap", "jarvis", "val"), ""),
        (TRAINED, ("bandgap", "jarvis", "test"), ""),
        (TRAINED, ("bandgap", "jarvis", "train"), "was trained on these crystals"),
        (TRAINED, ("bandgap", "jarvis", "all"), "was trained on most of these"),
        (TRAINED, ("ehull_label", "jarvis", "val"), "not kept away from the held-out crystals"),
        (TRAINED, ("bandgap", "mp", "val"), "the same compounds may occur in both"),
        ({}, ("bandgap", "jarvis", "val"), "does not say what it was trained on"),
        (
            {"dataset": "own", "clean_for": ["bandgap"], "started_from": TRAINED},
            ("bandgap", "own", "val"),
            "trained on jarvis, whose ids",
        ),
        (TRAINED, ("bandgap", "jarvis", "val", "PBE"), "the level of none, the labels of jarvis"),
    ],
)
def test_errors_that_may_be_too_good(
    training: dict[str, object], arguments: tuple[str, ...], message: str
) -> None:
    model = random_model()
    model.config.training.update(training)
    warnings = trust_warnings(model.config, *arguments)
    assert len(warnings) == bool(message)
    assert message in " ".join(warnings)


METRICS = """epoch,train_mae,val_mae,learning_rate,seconds
1,0.9,,4e-05,1
2,0.5,0.6,0.001,2
3,0.3,,0.0005,3
4,0.2,0.4,1e-08,4
"""


def test_pictures(tmp_path: Path) -> None:
    """Drawn at print size, with nothing of matplotlib's global state touched."""
    import matplotlib

    backend = matplotlib.rcParams._get("backend")
    generator = np.random.default_rng(6)
    for n in (1, 40, 2000):
        true = generator.normal(size=n)
        path = tmp_path / f"parity{n}.png"
        parity_plot(true, true + 0.1, PROPERTIES["formation_energy"], path)
    (tmp_path / "metrics.csv").write_text(METRICS)
    learning_curve(tmp_path / "metrics.csv", tmp_path / "curve.png", PROPERTIES["bandgap"])
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as image:
            assert image.width > 900 and image.height > 700
            assert len(set(image.convert("L").resize((64, 64)).tobytes())) > 10, "not empty"
    assert matplotlib.rcParams._get("backend") is backend
    assert (
        "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
    )


def test_pictures_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(ReciNetError, match="nothing to draw"):
        parity_plot([NAN], [1.0], PROPERTIES["bandgap"], tmp_path / "p.png")
    with pytest.raises(ReciNetError, match="no such file"):
        learning_curve(tmp_path / "m.csv", tmp_path / "c.png", PROPERTIES["bandgap"])
    (tmp_path / "m.csv").write_text(METRICS.splitlines()[0])
    with pytest.raises(ReciNetError, match="no epoch"):
        learning_curve(tmp_path / "m.csv", tmp_path / "c.png", PROPERTIES["bandgap"])
    (tmp_path / "m.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ReciNetError, match="no table of a training run"):
        learning_curve(tmp_path / "m.csv", tmp_path / "c.png", PROPERTIES["bandgap"])
