"""One inference path: the same number from every door, and errors that stay in their row."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, make_supercell, molecule
from bad_structures import BAD
from pymatgen.io.ase import AseAtomsAdaptor
from support import random_model

from recinet_ase import (
    Predictor,
    ReciNetCalculator,
    ReciNetError,
    StructureError,
    UnknownNameError,
    predict,
)
from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.graph.waves import WaveBasis
from recinet_ase.inference.devices import choose_device, choose_dtype


def test_single_equals_batch_equals_any_batch_size(
    model_folder: Path, crystals: dict[str, Atoms]
) -> None:
    structures = [*crystals.values(), make_supercell(crystals["Si2"], np.diag([3, 3, 2]))]
    results = []
    for size in ("auto", 1, 7):
        predictor = Predictor(model_folder, device="cpu", batch_size=size)
        results.append([r.values["bandgap"] for r in predictor.predict_many(structures)])
    alone = [predictor.predict(atoms)["bandgap"] for atoms in structures]
    for other in results:
        np.testing.assert_allclose(other, alone, rtol=1e-5, atol=1e-5)
    assert np.std(alone) > 0.01, "the random model must tell crystals apart"


@pytest.mark.parametrize("chosen", ["high", "medium"])
def test_the_precision_of_the_callers_matrix_products_does_not_matter(
    chosen: str, crystals: dict[str, Atoms]
) -> None:
    structures = [*crystals.values()] * 3  # enough edges for the short form of their embeddings
    expected = Predictor(random_model(), device="cpu").predict_many(structures)
    predictor = Predictor(random_model(), device="cpu")
    seen: list[str] = []
    (model,) = predictor.models
    model.network.embed_edge.register_forward_hook(
        lambda *_: seen.append(torch.get_float32_matmul_precision())
    )
    torch.set_float32_matmul_precision(chosen)
    backend = torch.backends.cuda.matmul
    try:
        before = getattr(backend, "fp32_precision", None)
        found = predictor.predict_many(structures)
        assert torch.get_float32_matmul_precision() == chosen
        assert getattr(backend, "fp32_precision", None) == before
    finally:
        torch.set_float32_matmul_precision("highest")
    assert [f.values for f in found] == [e.values for e in expected]
    assert set(seen) == {"highest"}


def test_the_input_package_does_not_matter(model_folder: Path, crystals: dict[str, Atoms]) -> None:
    predictor = Predictor(model_folder, device="cpu")
    for atoms in list(crystals.values())[:10]:
        structure = AseAtomsAdaptor.get_structure(atoms)
        a, p = predictor.predict_many([atoms, structure])
        assert a.values["bandgap"] == pytest.approx(p.values["bandgap"], abs=1e-5)
        assert (a.formula, a.n_atoms) == (p.formula, p.n_atoms)


def test_bad_structures_leave_the_others_untouched(
    model_folder: Path, crystals: dict[str, Atoms]
) -> None:
    predictor = Predictor(model_folder, device="cpu")
    good = list(crystals.values())[:8]
    clean = predictor.predict_many(good)
    mixed: list[object] = []
    for i, atoms in enumerate(good):
        mixed += [BAD[sorted(BAD)[i]][0], atoms]
    mixed += ["no structure at all", OSError("disk on fire"), None]
    results = predictor.predict_many(mixed)
    assert len(results) == len(mixed)
    assert [r.values for r in results[1:16:2]] == [r.values for r in clean]
    for result in (*results[0:16:2], *results[16:]):
        assert result.error and not result.values
    assert "disk on fire" in results[17].error


def test_unseen_elements_are_refused(crystals: dict[str, Atoms]) -> None:
    model = random_model(elements=(11, 17))
    predictor = Predictor(model, device="cpu")
    with pytest.raises(StructureError, match="random was not trained on Cu"):
        predictor.predict(crystals["Cu2"])
    with pytest.raises(StructureError, match="was not trained on Lr"):
        predictor.predict(Atoms("Lr", cell=[3, 3, 3], pbc=True))
    with pytest.raises(StructureError, match="atomic number 110, which is no element"):
        predictor.predict(Atoms([110], cell=[3, 3, 3], pbc=True))


def test_one_model_of_two_can_refuse(crystals: dict[str, Atoms]) -> None:
    both = [
        random_model(),
        random_model(properties=("ehull",), elements=(11, 17)),
    ]
    (result,) = Predictor(both, device="cpu").predict_many([crystals["Cu2"]])
    assert set(result.values) == {"bandgap"} and "not trained on Cu" in result.error


def test_a_batch_that_fails_loses_only_the_one_at_fault(
    model_folder: Path, crystals: dict[str, Atoms], monkeypatch: pytest.MonkeyPatch
) -> None:
    from recinet_ase.nn.reciprocal import LatticeOperator

    atoms = [a for a in crystals.values() if len(a) < 6][:9]
    clean = Predictor(model_folder, device="cpu").predict_many(atoms)
    build = LatticeOperator.build

    def out_of_memory(batch: CrystalBatch, basis: WaveBasis) -> LatticeOperator:
        if 82 in batch.z:
            raise RuntimeError("can't allocate memory")
        return build(batch, basis)

    atoms.insert(4, crystals["PbTe"])
    monkeypatch.setattr(LatticeOperator, "build", out_of_memory)
    results = Predictor(model_folder, device="cpu").predict_many(atoms)
    failed = results.pop(4)
    assert "can't allocate memory" in failed.error and not failed.values
    for a, b in zip(results, clean, strict=True):
        assert a.values["bandgap"] == pytest.approx(b.values["bandgap"], abs=1e-5)


def test_non_finite_output_is_an_error(crystals: dict[str, Atoms]) -> None:
    model = random_model()
    with torch.no_grad():
        model.network.head[-1].bias.fill_(float("nan"))
    (result,) = Predictor(model, device="cpu").predict_many([crystals["Cu2"]])
    assert "non-finite" in result.error and not result.values


def test_several_models_share_one_pass(
    model_folder: Path, total_energy_folder: Path, crystals: dict[str, Atoms]
) -> None:
    atoms = list(crystals.values())[:5]
    together = Predictor([model_folder, total_energy_folder], device="cpu").predict_many(atoms)
    for folder, name in ((model_folder, "bandgap"), (total_energy_folder, "total_energy")):
        alone = Predictor(folder, device="cpu").predict_many(atoms)
        assert [r.values[name] for r in alone] == [r.values[name] for r in together]


def test_wrong_calls(model_folder: Path) -> None:
    with pytest.raises(ReciNetError, match="two models are called 'random'; choose one"):
        Predictor([model_folder, model_folder])
    with pytest.raises(UnknownNameError, match="unknown model 'jarvis-mbx'"):
        Predictor("jarvis-mbx")
    with pytest.raises(ReciNetError, match="no model given"):
        Predictor([])
    with pytest.raises(ReciNetError, match="batch_size"):
        Predictor(model_folder, batch_size=0)
    with pytest.raises(ReciNetError, match="dtype"):
        choose_dtype("float16")


def test_vacuum_is_refused(model_folder: Path) -> None:
    predictor = Predictor(model_folder, device="cpu")
    water = molecule("H2O", vacuum=5.0, pbc=True)
    with pytest.raises(StructureError, match="molecule or a slab in vacuum"):
        predictor.predict(water)


def test_float64_agrees_with_float32(model_folder: Path, crystals: dict[str, Atoms]) -> None:
    atoms = list(crystals.values())[:10]
    single = Predictor(model_folder, device="cpu").predict_many(atoms)
    double = Predictor(model_folder, device="cpu", dtype="float64").predict_many(atoms)
    for a, b in zip(single, double, strict=True):
        assert a.values["bandgap"] == pytest.approx(b.values["bandgap"], rel=1e-4, abs=1e-4)
    assert torch.get_default_dtype() == torch.float32


def test_a_stream_is_answered_lazily(model_folder: Path, crystals: dict[str, Atoms]) -> None:
    predictor = Predictor(model_folder, device="cpu")
    drawn = 0

    def endless():  # type: ignore[no-untyped-def]
        nonlocal drawn
        while True:
            drawn += 1
            yield crystals["Si2"]

    stream = predictor.predict_iter(endless())
    assert next(stream).values["bandgap"] is not None
    assert drawn < 2000


def test_wanted_properties_by_alias(model_folder: Path) -> None:
    for wanted in ("gap", ["e_g", "gap"][1:], ("bandgap",)):
        assert list(Predictor(model_folder, properties=wanted).properties) == ["bandgap"]
    with pytest.raises(ReciNetError, match="no given model predicts 'ehull'"):
        Predictor(model_folder, properties="ehull")
    for nothing in (None, 3):
        with pytest.raises(ReciNetError, match="names no model"):
            Predictor(nothing)  # type: ignore[arg-type]


def test_a_path_is_no_list_of_structures(model_folder: Path) -> None:
    for single in ("x.cif", Path("x.cif"), None):
        with pytest.raises(ReciNetError, match="takes a list of structures"):
            predict(single, model_folder)  # type: ignore[arg-type]


def test_coordinates_in_angstrom_are_not_taken_for_fractions() -> None:
    lattice = [[0, 2.1, 2.1], [2.1, 0, 2.1], [2.1, 2.1, 0]]
    record = {"lattice_mat": lattice, "elements": ["Mg", "O"]}
    (refused,) = predict([{**record, "coords": [[0, 0, 0], [2.1, 2.1, 2.1]]}])
    assert '"cartesian": true' in refused.error
    right = {**record, "coords": [[0, 0, 0], [2.1, 2.1, 2.1]], "cartesian": True}
    fractions = {**record, "coords": [[0, 0, 0], [0.5, 0.5, 0.5]]}
    one, other = predict([right, fractions])
    assert one.values["bandgap"] == pytest.approx(other.values["bandgap"], rel=1e-5)


def test_predictions_and_training_do_without_pytorch_geometric(model_folder: Path) -> None:
    """It takes as long to import as torch, and one graph at a time is all it is for here."""
    code = (
        "import sys\n"
        "from ase.build import bulk\n"
        "from recinet_ase import Predictor\n"
        "import recinet_ase.training.run\n"
        f"Predictor({str(model_folder)!r}, 'cpu').predict(bulk('Si'))\n"
        "heavy = {'torch_geometric', 'matgl', 'lightning', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_models_that_lack_the_same_elements_share_a_sentence() -> None:
    names = ["jarvis-mbj", "jarvis-eform", "jarvis-bulk"]
    (result,) = Predictor(names, device="cpu").predict_many([bulk("Fm", "fcc", a=5.0)])
    assert result.error == f"{', '.join(names[:2])} and {names[2]} were not trained on Fm"


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "CPU", ""])
def test_devices_that_are_none(device: str) -> None:
    with pytest.raises(ReciNetError, match="is no device; say 'cpu', 'cuda'"):
        choose_device(device)


def test_two_models_of_one_property_are_told_apart() -> None:
    atoms = bulk("MgO", "rocksalt", 4.22)
    names = ["bulk_modulus[jarvis-bulk]", "bulk_modulus[mp-bulk]"]
    both = Predictor(["jarvis-bulk", "mp-bulk"], device="cpu", properties="kv")
    (found,) = both.predict_many([atoms])
    for name, model in zip(names, ("jarvis-bulk", "mp-bulk"), strict=True):
        alone = Predictor(model, device="cpu").predict_many([atoms])[0]
        assert found.values[name] == pytest.approx(alone.values["bulk_modulus"], rel=1e-5)
        assert found.intervals[name] == pytest.approx(alone.intervals["bulk_modulus"], rel=1e-4)
    assert [info.label for info in both.infos] == [
        "bulk modulus (jarvis-bulk)", "bulk modulus (mp-bulk)"
    ]  # fmt: skip
    assert set(names) <= found.to_dict().keys()
    one = Predictor(["jarvis-bulk", "mp-bulk"], device="cpu", properties="kv[mp-bulk]")
    assert list(one.predict(atoms)) == names[1:]
    calculator = ReciNetCalculator(both)
    assert calculator.get_property("kv[mp-bulk]", atoms) == pytest.approx(found.values[names[1]])
    with pytest.raises(ReciNetError, match=r"several models give bulk_modulus; say which: bulk"):
        calculator.get_property("bulk_modulus", atoms)
    with pytest.raises(ReciNetError, match=r"ehull follows from one formation_energy, and there"):
        Predictor(["jarvis-eform", "mp-eform"], device="cpu", properties="ehull")


def test_a_model_s_caution_goes_with_its_numbers() -> None:
    results = [
        Predictor("jarvis-exfoliation", device="cpu", intervals=i).predict_many([bulk("Si")])[0]
        for i in (True, False)
    ]
    for result in results:
        assert "jarvis-exfoliation: for layered crystals alone" in "; ".join(result.warnings)
        assert "layered crystals alone" in result.to_dict()["warnings"]


def test_what_is_printed_tells_what_it_is() -> None:
    predictor = Predictor("jarvis-mbj:ensemble", device="cpu")
    (model,) = predictor.models
    assert repr(predictor) == "<Predictor: bandgap (eV, jarvis-mbj:ensemble) on cpu>"
    assert repr(model).startswith("<EnsembleModel jarvis-mbj:ensemble: bandgap (eV), 2,0")
    assert repr(model.members[0]).startswith("<PropertyModel jarvis-mbj: bandgap (eV), 510,913 ")
    alone = Predictor("jarvis-mbj", device="cpu")
    found = alone.embeddings([("a", bulk("Si")), ("b", bulk("Cu"))])
    assert repr(found).startswith("<Embeddings of 2 crystals by jarvis-mbj, ")
