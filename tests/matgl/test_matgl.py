"""matgl's own classes on our graphs, and ours in its data sets, trainer and loader."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from support import ROOT, graph_of, random_model
from torch_geometric.data import Batch

from recinet_ase import (
    Predictor,
    ReciNetCalculator,
    ReciNetError,
    StructureError,
    UnknownNameError,
    load_model,
)
from recinet_ase.graph.adapters import to_crystal
from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.graph.crystal import GraphSettings
from recinet_ase.graph.geometric import build_graph
from recinet_ase.matgl import from_matgl_graph, to_matgl_graph
from recinet_ase.models.property_model import PropertyModel

matgl = pytest.importorskip("matgl")

import lightning  # noqa: E402
from matgl.config import DEFAULT_ELEMENTS  # noqa: E402
from matgl.ext.pymatgen import Structure2Graph, get_element_list  # noqa: E402
from matgl.graph.converters import GraphConverter  # noqa: E402
from matgl.graph.data import MGLDataLoader, MGLDataset  # noqa: E402
from matgl.models import M3GNet, MEGNet  # noqa: E402
from matgl.utils.training import ModelLightningModule  # noqa: E402

from recinet_ase.matgl import ReciNetGraphConverter, ReciNetModel  # noqa: E402

SOME = ("Si2", "NaCl", "BaTiO3", "Al4O6", "Mo2S4", "LaNi5", "GaAs", "Fe4S8")


@pytest.fixture(scope="module")
def structures(crystals: dict[str, Atoms]) -> list[Structure]:
    return [AseAtomsAdaptor.get_structure(crystals[name]) for name in SOME]


def dataset(structures: list[Structure], root: Path, **settings: Any) -> MGLDataset:
    """matgl's own data set with our converter; the label is the volume per atom."""
    settings.setdefault("converter", ReciNetGraphConverter(get_element_list(structures)))
    return MGLDataset(
        structures=structures,
        labels={"volume": [s.volume / len(s) / 20 for s in structures]},
        root=str(root),
        **settings,
    )


def rivals(seed: int = 0) -> list[torch.nn.Module]:
    """matgl's architectures with random weights."""
    torch.manual_seed(seed)
    return [
        MEGNet(cutoff=5.0, element_types=DEFAULT_ELEMENTS).eval(),
        M3GNet(cutoff=5.0, threebody_cutoff=4.0, element_types=DEFAULT_ELEMENTS).eval(),
    ]


@pytest.mark.parametrize("network", rivals(), ids=lambda n: type(n).__name__)
def test_matgls_networks_on_our_radius_graphs(
    network: torch.nn.Module, structures: list[Structure], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "graphs"))
    from matgl_graphs import in_double

    ours = ReciNetGraphConverter(DEFAULT_ELEMENTS, cutoff=5.0)
    assert isinstance(ours, GraphConverter) and ours.cutoff == 5.0
    theirs = Structure2Graph(DEFAULT_ELEMENTS, cutoff=5.0)
    for structure in structures:
        one, two = ours.get_graph(structure)[0], theirs.get_graph(structure)[0]
        assert edges(one) == edges(two)
        for field in ("edge_index", "pbc_offset", "node_type", "frac_coords"):
            assert one[field].dtype == two[field].dtype, field
        expected = network.predict_structure(structure)
        found = network.predict_structure(structure, graph_converter=ours)
        # Rounding in single precision: up to 8e-6 for unlucky weights (docs/howto/integrations.md).
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    if isinstance(network, M3GNet) and matgl.__version__ < "4.1.2":
        pytest.skip("this M3GNet runs in single precision alone")
    for seed in (0, 1, 5):  # the last two had the largest differences in single precision
        (drawn,) = (n for n in rivals(seed) if type(n) is type(network))
        precise = drawn.double()
        expected, found = (
            torch.stack([in_double(precise, converter, s) for s in structures])
            for converter in (theirs, ours)
        )
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
        # Random weights give nearly one number for all crystals: compare with their spread, too.
        assert (found - expected).abs().max() < 1e-9 * expected.std()


def edges(graph: Any) -> list[tuple[int, ...]]:
    rows = torch.cat((graph.edge_index.t().long(), graph.pbc_offset.long()), dim=1)
    return sorted(map(tuple, rows.tolist()))


@pytest.mark.parametrize("network", rivals(), ids=lambda n: type(n).__name__)
def test_matgls_networks_on_our_converted_graphs(
    network: torch.nn.Module, structures: list[Structure]
) -> None:
    """`to_matgl_graph` gives what a matgl network reads, shells included."""
    converter = ReciNetGraphConverter(DEFAULT_ELEMENTS)
    for structure in structures[:4]:
        graph, lattice, state = to_matgl_graph(
            build_graph(to_crystal(structure)), element_types=DEFAULT_ELEMENTS
        )
        assert lattice.shape == (1, 3, 3) and state.shape == (2,)
        expected = network.predict_structure(structure, graph_converter=converter)
        with torch.no_grad():
            found = network(graph, state_attr=torch.tensor(state))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


def test_messages_gather_on_the_first_row_of_edge_index(structures: list[Structure]) -> None:
    """One edge 0 -> 1: atom 0 hears of atom 1 and not the other way round, there and here."""
    structure = Structure(Lattice.cubic(4.0), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    converter = ReciNetGraphConverter(DEFAULT_ELEMENTS, cutoff=4.5)
    graph, lattice, _ = converter.get_graph(structure)
    keep = (graph.edge_index[0] == 0) & (graph.edge_index[1] == 1)
    graph.edge_index, graph.pbc_offset = graph.edge_index[:, keep], graph.pbc_offset[keep]
    graph.pos, graph.pbc_offshift = graph.frac_coords @ lattice[0], graph.pbc_offset @ lattice[0]
    vectors = graph.pos[graph.edge_index[1]] + graph.pbc_offshift - graph.pos[graph.edge_index[0]]
    torch.testing.assert_close(vectors.norm(dim=1), torch.full((8,), 4.0 * 0.75**0.5))

    def with_species(atom: int) -> Any:
        changed = graph.clone()
        changed.node_type[atom] = DEFAULT_ELEMENTS.index("K")
        return changed

    torch.manual_seed(0)
    rival = M3GNet(element_types=DEFAULT_ELEMENTS, cutoff=5.0).eval()

    layer: list[torch.Tensor] = []
    rival.graph_layers[0].register_forward_hook(lambda _m, _i, output: layer.append(output[1]))

    def atoms_of_matgl(g: Any) -> torch.Tensor:
        with torch.no_grad():
            rival(g)
        return layer.pop()

    network = random_model(reciprocal="none").network

    def atoms_of_recinet(g: Any) -> torch.Tensor:
        batch = CrystalBatch.from_data(from_matgl_graph(g, element_types=DEFAULT_ELEMENTS))
        h = network.embed_atom(network.element_table[batch.z])
        v = torch.nn.functional.softplus(network.embed_edge(network.edge_basis(batch.distance)))
        with torch.no_grad():
            return network.local_blocks[0](h, v, batch, batch.edge_count, None)[0]

    for atoms in (atoms_of_matgl, atoms_of_recinet):
        before = atoms(graph)
        assert not torch.allclose(atoms(with_species(1))[0], before[0])
        torch.testing.assert_close(atoms(with_species(0))[1], before[1])


def test_graphs_there_and_back(crystals: dict[str, Atoms], structures: list[Structure]) -> None:
    model = random_model()
    for atoms, structure in zip((crystals[n] for n in SOME), structures, strict=True):
        graph = graph_of(atoms)
        elements = get_element_list([structure])
        there, lattice, _ = to_matgl_graph(graph, element_types=elements)
        assert there.edge_index.dtype == torch.int32
        back = from_matgl_graph(there, lattice, element_types=elements)
        assert set(back.keys()) == set(graph.keys())
        for key in graph.keys():  # noqa: SIM118  (of a graph, not of a dictionary)
            if key != "num_nodes":
                torch.testing.assert_close(back[key], graph[key], rtol=1e-5, atol=1e-5)
        outside = structure.copy()
        outside.translate_sites(range(len(outside)), [0.7, -1.2, 2.4], to_unit_cell=False)
        theirs = Structure2Graph(elements, cutoff=4.0).get_graph(outside)
        anew = from_matgl_graph(*theirs[:2], element_types=elements, settings=GraphSettings())
        with torch.no_grad():
            expected = model(CrystalBatch.from_data(graph))
            for found in (back, anew):
                got = model(CrystalBatch.from_data(found))
                torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
        kept = from_matgl_graph(*theirs[:2], element_types=elements)
        vector = kept.pos[kept.edge_index[1]] + kept.pbc_offshift - kept.pos[kept.edge_index[0]]
        torch.testing.assert_close(vector.norm(dim=1), kept.edge_distance, rtol=1e-5, atol=1e-5)
        assert kept.frac_coords.min() >= 0 and kept.frac_coords.max() <= 1
        assert len(kept.edge_distance) == theirs[0].edge_index.shape[1]


def test_graphs_that_cannot_be_converted(structures: list[Structure]) -> None:
    silicon, salt = structures[:2]
    theirs, lattice, _ = Structure2Graph(("Si",), cutoff=4.0).get_graph(silicon)
    with pytest.raises(StructureError, match=r"no lattice.*ReciNetGraphConverter"):
        from_matgl_graph(theirs, element_types=("Si",))
    with pytest.raises(UnknownNameError, match="unknown element 'Sy'"):
        from_matgl_graph(theirs, lattice, element_types=("Sy",))
    graph = build_graph(to_crystal(salt))
    with pytest.raises(StructureError, match="element_types has no Cl"):
        to_matgl_graph(graph, element_types=("Na",))
    with pytest.raises(StructureError, match="element_types lack Cl, Na"):
        ReciNetGraphConverter(("Si",)).get_graph(salt)
    with pytest.raises(StructureError, match="the graph holds 2"):
        pair = [ReciNetGraphConverter(("Si",)).get_graph(silicon)[0] for _ in range(2)]
        from_matgl_graph(Batch.from_data_list(pair), element_types=("Si",))
    with pytest.raises(ReciNetError, match="not both"):
        ReciNetGraphConverter(("Si",), cutoff=4.0, settings=GraphSettings())


def test_matgls_data_set_and_loader(structures: list[Structure], tmp_path: Path) -> None:
    data = dataset(structures, tmp_path / "shells")
    loader, _ = MGLDataLoader(train_data=data, val_data=data, batch_size=4, num_workers=0)
    graph, lattice, _, labels = next(iter(loader))
    assert lattice.shape == graph.lattice.shape == (4, 3, 3) and labels.shape == (4,)
    torch.testing.assert_close(graph.lattice, lattice)
    assert torch.bincount(graph.edge_index[0]).min() >= 16, "whole shells"
    # matgl keeps graphs on disk; another rule must not find them there.
    elements = get_element_list(structures)
    same = dataset(structures, tmp_path / "shells")
    assert same.has_cache() and len(same) == len(structures)
    for other in (
        ReciNetGraphConverter(elements, settings=GraphSettings(neighbours=12)),
        ReciNetGraphConverter(elements, cutoff=4.0),
    ):
        data.converter = other
        assert not data.has_cache()


def test_matgls_shards(structures: list[Structure], tmp_path: Path) -> None:
    """The data set on disk that came with matgl 4.1."""
    module = pytest.importorskip("matgl.graph.data")
    if not hasattr(module, "write_mgl_shards"):
        pytest.skip("this matgl has no shards")
    converter = ReciNetGraphConverter(get_element_list(structures))
    records = [{"structure": s, "labels": {"volume": s.volume}} for s in structures]
    module.write_mgl_shards(records, tmp_path, converter=converter, shard_size=3)
    data = module.MGLDiskDataset(tmp_path, converter)
    _, loader = MGLDataLoader(data, data, batch_size=4, num_workers=0)
    model = ReciNetModel(converter.element_types, size="tiny").eval()
    expected = torch.stack([model.predict_structure(s) for s in structures])
    with torch.no_grad():
        found = torch.cat([model(graph) for graph, *_ in loader])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_matgls_trainer_trains_the_network(structures: list[Structure], tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = dataset(structures, tmp_path / "data", save_cache=False)
    loader, validation = MGLDataLoader(train_data=data, val_data=data, batch_size=4, num_workers=0)
    elements = data.converter.element_types
    model = ReciNetModel(elements, size="tiny")
    mean, std = float(np.mean(data.labels["volume"])), float(np.std(data.labels["volume"]))
    module = ModelLightningModule(model, loss="l1_loss", data_mean=mean, data_std=std, lr=3e-3)
    losses: list[float] = []

    class Record(lightning.Callback):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            losses.append(float(trainer.callback_metrics["train_Total_Loss"]))

    trainer = lightning.Trainer(
        max_epochs=12,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Record()],
    )
    trainer.fit(module, loader, validation)
    assert np.mean(losses[-3:]) < 0.6 * losses[0], losses
    model.save(tmp_path / "saved")
    loaded = matgl.load_model(tmp_path / "saved")
    own = model.to_recinet("mine", "volume_per_atom", "A^3", data_mean=mean, data_std=std)
    own.save(tmp_path / "folder", half=False)
    calc = ReciNetCalculator(tmp_path / "folder", device="cpu")
    for structure in structures:
        expected = model.predict_structure(structure)
        torch.testing.assert_close(loaded.predict_structure(structure), expected)
        found = calc.predict_structure(structure)
        assert found["volume_per_atom"] == pytest.approx(float(expected) * std + mean, abs=1e-5)
    assert calc.units == {"volume_per_atom": "A^3"}
    with pytest.raises(StructureError, match="not trained on Cu"):
        calc.predict_structure(Structure(Lattice.cubic(2.9), ["Cu"], [[0, 0, 0]]))


@pytest.mark.parametrize("name", ["jarvis-mbj", "jarvis-etot", "jarvis-ehull"])
def test_shipped_models_in_matgl(
    name: str, structures: list[Structure], crystals: dict[str, Atoms], tmp_path: Path
) -> None:
    predictor = Predictor(name, device="cpu")
    (prop,) = predictor.properties
    model = ReciNetModel.from_recinet(name)
    model.save(tmp_path / "saved")
    assert {p.name for p in (tmp_path / "saved").iterdir()} == {
        "model.pt",
        "state.pt",
        "model.json",
    }
    card = json.loads((tmp_path / "saved" / "model.json").read_text())
    assert (card["@module"], card["@class"]) == ("recinet_ase.matgl.model", "ReciNetModel")
    for file in ("model.pt", "state.pt"):
        torch.load(tmp_path / "saved" / file, weights_only=True)  # plain data, nothing pickled
    loaded = matgl.load_model(tmp_path / "saved")
    back = loaded.to_recinet(name)
    assert back.config.training == {"started_from": predictor.models[0].config.training}
    assert back.config.infos == predictor.infos
    again = Predictor(back, device="cpu")
    for structure, formula in zip(structures, SOME, strict=True):
        expected = predictor.predict(crystals[formula])[prop]
        for twin in (model, loaded):
            assert float(twin.predict_structure(structure)) == pytest.approx(expected, abs=2e-5)
        assert again.predict(structure)[prop] == pytest.approx(expected, abs=2e-5)
    assert loaded.training, "matgl leaves it so, and predict_structure does not care"


def trainers_meaning(model: ReciNetModel, structure: Structure, mean: float, std: float) -> float:
    """What matgl's trainer compares with the label, in its validation."""
    module = ModelLightningModule(model, loss="l1_loss", data_mean=mean, data_std=std)
    graph, lattice, _ = model.graph_converter().get_graph(structure)
    graph.lattice = lattice
    module.eval()
    with torch.no_grad():
        return float(module(graph) * module.data_std + module.data_mean)


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [("mp-bulk", 0.0, 2.0), ("jarvis-mbj", 5.0, 3.0), ("jarvis-etot", -2.0, 0.5)],
)
def test_what_the_trainer_scaled_is_what_the_model_gives(
    name: str, mean: float, std: float, structures: list[Structure]
) -> None:
    model = ReciNetModel.from_recinet(name)
    own = model.to_recinet("mine", data_mean=mean, data_std=std)
    predictor = Predictor(own, device="cpu")
    for structure in structures[:3]:
        expected = trainers_meaning(model, structure, mean, std)
        (found,) = predictor.predict(structure).values()
        assert found == pytest.approx(max(expected, float(own.minimum)), rel=1e-5)
    if name == "mp-bulk":  # silicon: twice 87 GPa
        assert predictor.predict(structures[0])["bulk_modulus"] == pytest.approx(174.8, abs=2)
        with pytest.raises(ReciNetError, match="train with data_mean=0"):
            model.to_recinet("mine", data_mean=1.0)
    with pytest.raises(ReciNetError, match="data_std must be positive"):
        model.to_recinet("mine", data_std=0.0)


def test_bounds_are_those_of_properties_not_of_what_is_scaled(
    structures: list[Structure], tmp_path: Path
) -> None:
    """A gap is cut at 0; the output of the network, which a trainer scales, is not."""
    source = random_model()
    lowered = PropertyModel(replace(source.config, mean=(-50.0,)))
    lowered.load_state_dict(source.state_dict())
    model = ReciNetModel.from_recinet(lowered)
    silicon = structures[0]
    assert model.predict_structure(silicon) == 0
    graph, graph.lattice, _ = model.graph_converter().get_graph(silicon)
    with torch.no_grad():
        assert model(graph) < 0
    model.train()(graph).sum().backward()  # as a trainer does
    assert model.predict_structure(silicon) < 0
    model.save(tmp_path / "trained")
    assert matgl.load_model(tmp_path / "trained").predict_structure(silicon) < 0
    assert Predictor(model.to_recinet("mine"), device="cpu").predict(silicon)["bandgap"] == 0


def test_a_batch_is_its_crystals(structures: list[Structure]) -> None:
    model = ReciNetModel.from_recinet("jarvis-eform")
    converter = model.graph_converter()
    graphs = [converter.get_graph(s)[0] for s in structures]
    with torch.no_grad():
        together = model(Batch.from_data_list(graphs))
        width = load_model("jarvis-eform").config.network.width
        assert model.feature_dict["readout"].shape == (len(graphs), width)
    alone = torch.stack([model.predict_structure(s) for s in structures])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_matgls_command_line(
    structures: list[Structure], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ReciNetModel.from_recinet("jarvis-mbj")
    model.save(tmp_path / "model")
    structures[0].to(tmp_path / "silicon.cif")
    with warnings.catch_warnings():  # the module sets filters
        from matgl.cli import main

        main(["predict", "-i", str(tmp_path / "silicon.cif"), "-m", str(tmp_path / "model")])
    (number,) = re.findall(r"silicon.cif: ([-.e\d]+)", capsys.readouterr().out)
    assert float(number) == pytest.approx(float(model.predict_structure(structures[0])), abs=1e-4)


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_but_the_bridge_imports_matgl() -> None:
    run(
        "import sys, recinet_ase, recinet_ase.matgl as m\n"
        "from recinet_ase import ReciNetCalculator, predict\n"
        "from ase.build import bulk\n"
        "assert m.from_matgl_graph and m.to_matgl_graph\n"
        "predict([bulk('Si')], 'jarvis-mbj', device='cpu')\n"
        "assert not {'matgl', 'lightning'} & set(sys.modules)\n"
        "assert 'ReciNetModel' in dir(m)\n"
    )


def test_the_bridge_leaves_global_settings_alone() -> None:
    run(
        "import logging, torch, warnings, numpy as np\n"
        "def state():\n"
        "    root = logging.getLogger()\n"
        "    return (torch.get_default_dtype(), torch.get_default_device(), root.level,\n"
        "            list(root.handlers), logging.getLogger('recinet_ase').handlers,\n"
        "            torch.get_float32_matmul_precision(), torch.is_grad_enabled(),\n"
        "            torch.random.get_rng_state().tolist(), np.random.get_state()[1].tolist())\n"
        "before = state()\n"
        "from recinet_ase.matgl import ReciNetGraphConverter, ReciNetModel\n"
        "from ase.build import bulk\n"
        "ReciNetModel.from_recinet('jarvis-mbj').predict_structure(bulk('Si'))\n"
        "after = state()\n"
        "assert before[:7] == after[:7], (before[:7], after[:7])\n"
    )


def test_a_missing_matgl_is_named() -> None:
    said = run(
        "import sys\n"
        "sys.modules['matgl'] = None\n"
        "import recinet_ase.matgl as m\n"
        "for name in ('ReciNetModel', 'ReciNetGraphConverter'):\n"
        "    try:\n"
        "        getattr(m, name)\n"
        "    except ImportError as error:\n"
        "        print(error)\n"
    )
    assert said.count("pip install 'recinet-ase[matgl]'") == 2
