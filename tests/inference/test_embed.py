"""Representations of crystals: the same for any description, near for like crystals, additive."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from click.testing import CliRunner
from support import EXAMPLES, random_model

from recinet_ase import Predictor
from recinet_ase.cli.main import main
from recinet_ase.errors import ReciNetError, StructureError
from recinet_ase.inference.embed import Embeddings


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor("jarvis-eform", device="cpu")


def test_a_row_for_each_structure(predictor: Predictor) -> None:
    salt = bulk("NaCl", "rocksalt", a=5.64)
    found = predictor.embed([salt, Atoms("H"), salt.repeat((2, 1, 1)), bulk("Si")])
    assert found.shape == (4, 192) and found.dtype == np.float32
    assert np.isnan(found[1]).all()
    np.testing.assert_allclose(found[0], found[2], rtol=1e-4, atol=1e-4)
    assert np.abs(found[0] - found[3]).max() > 0.1
    assert predictor.embed([]).shape == (0, 192)


def test_the_nearest_known_crystal_is_the_like_one(predictor: Predictor, tmp_path: Path) -> None:
    known = {"NaCl": 5.64, "KCl": 6.3, "MgO": 4.21}
    cells = [(name, bulk(name, "rocksalt", a=a)) for name, a in known.items()]
    library = predictor.embeddings([*cells, ("bad", Atoms("H")), ("Cu", bulk("Cu"))])
    library.save(tmp_path / "known.npz")
    library = Embeddings.load(tmp_path / "known.npz")
    assert library.errors[3] and not library.errors[0]
    new = [("a", bulk("NaBr", "rocksalt", a=5.97)), ("b", bulk("Ag")), ("c", Atoms("H"))]
    salt, silver, none = predictor.embeddings(new).nearest(library, 2)
    assert library.ids[salt[0][0]] in ("NaCl", "KCl") and library.ids[silver[0][0]] == "Cu"
    assert salt[0][1] < salt[1][1] and none == []
    same = predictor.embeddings(cells[:1]).nearest(library, 1)[0]
    assert same[0][0] == 0 and same[0][1] == pytest.approx(0, abs=1e-4)


def test_what_cannot_be_compared(predictor: Predictor, tmp_path: Path) -> None:
    salt = [("a", bulk("NaCl", "rocksalt", a=5.64))]
    other = Predictor("jarvis-opt", device="cpu").embeddings(salt)
    with pytest.raises(ReciNetError, match="two models"):
        predictor.embeddings(salt).nearest(other)
    (tmp_path / "no.npz").write_bytes(b"PK")
    with pytest.raises(ReciNetError, match="no embeddings"):
        Embeddings.load(tmp_path / "no.npz")
    with pytest.raises(ReciNetError, match="which model"):
        Predictor(["jarvis-eform", "jarvis-mbj"], device="cpu").embed([])


@pytest.mark.parametrize("name", ["jarvis-eform", "jarvis-etot", "jarvis-mt", "jarvis-mbj"])
def test_sites_add_up_to_the_value(name: str) -> None:
    predictor = Predictor(name, device="cpu")
    salt = bulk("NaCl", "rocksalt", a=5.64)
    prop = next(iter(predictor.properties))
    found = predictor.contributions(salt, prop)
    value = predictor.predict(salt)[prop]
    assert found.value == pytest.approx(value, abs=1e-4)
    assert found.baseline + found.sites.sum() == pytest.approx(value, abs=1e-4)
    assert found.elements == ("Na", "Cl") and set(found.by_element()) == {"Na", "Cl"}
    # A supercell has the same baseline, and sites that add half as much each.
    double = predictor.contributions(salt.repeat((2, 1, 1)), prop)
    assert double.baseline == pytest.approx(found.baseline, abs=1e-3)
    assert double.by_element()["Na"] == pytest.approx(found.by_element()["Na"], abs=1e-3)


def test_what_does_not_add_up() -> None:
    salt = bulk("NaCl", "rocksalt", a=5.64)
    for models, reason in [
        ("jarvis-eform:ensemble", "ensemble"),
        ("mp-bulk", "logarithm"),
        (random_model(), "no calibration"),
        (random_model(pooling="attention"), "no mean"),
        (["jarvis-eform", "jarvis-mbj"], "which property"),
    ]:
        with pytest.raises(ReciNetError, match=reason):
            Predictor(models, device="cpu").contributions(salt)
    with pytest.raises(StructureError):
        Predictor("jarvis-mbj", device="cpu").contributions(Atoms("H"))


def test_the_command(tmp_path: Path) -> None:
    library = str(tmp_path / "known.npz")
    run = CliRunner().invoke
    made = run(main, ["embed", str(EXAMPLES), "--model", "jarvis-mbj", "-o", library])
    assert made.exit_code == 0 and "50 x 128 numbers, 0 with errors" in made.output
    asked = ["embed", str(EXAMPLES), "--model", "jarvis-mbj", "--nearest", library, "--count", "2"]
    near = run(main, [*asked, "-q"])
    rows = list(csv.DictReader(io.StringIO(near.stdout)))
    assert len(rows) == 100
    assert all(row["known_id"] == row["id"] for row in rows if row["rank"] == "1")
    assert run(main, ["embed", str(EXAMPLES)]).exit_code == 2
    assert "npz" in run(main, ["embed", str(EXAMPLES), "-o", "a.csv"]).output
