"""Models on disk: round trip, damage, versions, names."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ase import Atoms
from support import full_graphs, random_model

from recinet_ase import ReciNetError, UnknownNameError, load_model
from recinet_ase.models.files import replacing
from recinet_ase.pretrained import available_models, default_model, model_card, model_folder
from recinet_ase.properties import PROPERTIES


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


def edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_round_trip(tmp_path: Path, crystals: dict[str, Atoms]) -> None:
    model = random_model(properties=("bandgap", "ehull"), seed=3)
    batch = full_graphs(list(crystals.values())[:8])
    with torch.no_grad():
        expected = model(batch)
        model.save(tmp_path / "full", half=False)
        assert torch.equal(load_model(tmp_path / "full")(batch), expected)
        model.save(tmp_path / "half")
        torch.testing.assert_close(
            load_model(tmp_path / "half")(batch), expected, rtol=1e-2, atol=1e-2
        )
    small = (tmp_path / "half" / "model.safetensors").stat().st_size
    assert small < 0.6 * (tmp_path / "full" / "model.safetensors").stat().st_size


def test_unfinished_files_are_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getpid", lambda: 7)  # two machines on one file system
    path = tmp_path / "out.json"
    path.write_text("old")
    with replacing(path) as one, replacing(path, synced=True) as two:
        assert one != two and {one.parent, two.parent} == {tmp_path}
        one.write_text("one")
        two.write_text("two")
    assert path.read_text() == "one"  # the outer block ends last
    with contextlib.suppress(ZeroDivisionError), replacing(path) as part:
        part.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "one" and list(tmp_path.iterdir()) == [path]


def test_elemental_references_are_added_per_atom(
    tmp_path: Path, crystals: dict[str, Atoms]
) -> None:
    plain = random_model(properties=("total_energy",))
    shifted = random_model(properties=("total_energy",))
    references = {"total_energy": {"Na": -1.25, "Cl": 0.5, "Ti": 3.0, "O": -2.0}}
    shifted.config = replace(shifted.config, references=references)
    shifted.save(tmp_path / "m", half=False)
    shifted = load_model(tmp_path / "m")
    batch = full_graphs(crystals[f] for f in ("NaCl", "Ti2O4", "Cu2"))
    with torch.no_grad():
        difference = (shifted(batch) - plain(batch)).ravel()
    expected = torch.tensor([(-1.25 + 0.5) / 2, (3.0 - 4.0) / 3, 0.0])
    torch.testing.assert_close(difference, expected, rtol=1e-5, atol=1e-5)


def test_predictions_respect_physical_bounds(crystals: dict[str, Atoms]) -> None:
    model = random_model()
    model.mean.fill_(-50.0)
    with torch.no_grad():
        assert (model(full_graphs(list(crystals.values())[:5])) == 0).all()


def test_damaged_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(ReciNetError, match="damaged"):
        load_model(folder)


def test_missing_parts(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ReciNetError, match="no model.safetensors"):
        load_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ReciNetError, match="no config.json"):
        load_model(folder)
    with pytest.raises(ReciNetError, match="no such model folder"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 99}, "Upgrade recinet-ase"),
        ({"units": ["meV"]}, "states units"),
        ({"properties": ["band gap!"]}, "cannot name a property"),
        ({"properties": ["gap"]}, "the package.s own bandgap"),
        ({"network": {"heads": 3}}, "unknown settings"),
        ({"mean": None}, "not a model configuration"),
    ],
)
def test_configurations_that_do_not_fit(
    folder: Path, changes: dict[str, object], message: str
) -> None:
    edit(folder, **changes)
    with pytest.raises(ReciNetError, match=message):
        load_model(folder)


def test_broken_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(ReciNetError, match="not a model configuration"):
        load_model(folder)
    with pytest.raises(ReciNetError, match="not a model configuration"):
        model_card(folder)


def test_weights_of_another_architecture(folder: Path) -> None:
    card = model_card(folder)
    edit(folder, network=card["network"] | {"width": 32})
    with pytest.raises(ReciNetError, match="does not fit"):
        load_model(folder)


def test_dtype(folder: Path) -> None:
    model = load_model(folder, dtype=torch.float64)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert torch.get_default_dtype() == torch.float32


def test_a_property_without_a_shipped_model() -> None:
    with pytest.raises(ReciNetError, match="no shipped model predicts 'phonon_peak'"):
        default_model(PROPERTIES["phonon_peak"])


@pytest.mark.parametrize("name", available_models())
def test_shipped_models_are_complete(name: str) -> None:
    folder = model_folder(name)
    card = model_card(name)
    load_model(name)
    assert card["name"] == name
    assert card["training"]["validation_mae"] < 0.6 * card["training"]["validation_mad"]
    assert set(card["properties"]) <= set(card["training"]["clean_for"])
    text = (folder / "README.md").read_text()
    assert f"{card['training']['validation_mae']:.3g}" in text
    assert card["caution"] in text
    assert card["training"]["train_ids_sha256"] in text


def test_a_property_in_place_of_a_model() -> None:
    for name, model in (("bandgap", "jarvis-mbj"), ("e_hull", "jarvis-eform")):
        with pytest.raises(UnknownNameError, match=f"did you mean '{model}'"):
            load_model(name)
    with pytest.raises(UnknownNameError, match="unknown model ''"):
        load_model("")
