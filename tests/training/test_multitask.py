"""Several properties from one network: experts, heads, weights, hygiene."""

from __future__ import annotations

import csv
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.db import connect
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from support import (
    EXAMPLES,
    full_graphs,
    random_crystals,
    random_model,
    write_jarvis_folder,
)

from recinet_ase import Predictor, ReciNetCalculator, ReciNetError, load_model
from recinet_ase.cli.screen import screen
from recinet_ase.cli.train import train
from recinet_ase.data.catalogue import open_dataset
from recinet_ase.data.published import JARVIS
from recinet_ase.models.property_model import PropertyModel
from recinet_ase.nn.experts import ExpertHeads, TaskHeads
from recinet_ase.nn.recinet import ReciNetConfig, ReciNetMT
from recinet_ase.properties import PROPERTIES
from recinet_ase.training.config import TrainingConfig
from recinet_ase.training.labels import (
    Targets,
    merged_splits,
    open_run_dataset,
    prepare_data,
)
from recinet_ase.training.property_task import PropertyTask
from recinet_ase.training.recipes import load_recipe
from recinet_ase.training.references import composition, fit_references
from recinet_ase.training.start import build_model
from recinet_ase.training.trainer import Trainer
from recinet_ase.training.weighting import TaskWeights

THREE = ("formation_energy", "bandgap", "ehull_label")
QUICK = ["--size", "tiny", "--batch-size", "8", "--validate-every", "2"]


def experts_model(properties: tuple[str, ...] = THREE, **network: object) -> PropertyModel:
    """A random network whose routers have decided, as those of a trained one have."""
    model = random_model(properties=properties, multitask="moe", **network)
    with torch.no_grad():
        model.network.head.router.weight.mul_(30)
        model.mean.zero_()
    return model


def batch_of(crystals: dict[str, Atoms], dtype: torch.dtype = torch.float32) -> object:
    return full_graphs(crystals.values(), dtype)


def run(folder: Path, data: Path, *arguments: object) -> Result:
    common = ["--data-dir", str(data), "--cache-dir", str(data / "cache"), "-o", str(folder)]
    return CliRunner().invoke(train, [*QUICK, *common, *map(str, arguments)])


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory, crystals: dict[str, Atoms]) -> Path:
    """Three tasks on the same crystals whose splits disagree."""
    root = tmp_path_factory.mktemp("tasks")
    atoms = list(crystals.values())
    write_jarvis_folder(root, atoms, "dft_3d_mbj_bandgap")
    write_jarvis_folder(root, atoms, "dft_3d_formation_energy_peratom", offset=5)
    write_jarvis_folder(root, atoms, "dft_3d_optb88vdw_total_energy", offset=8)
    return root


@pytest.fixture(scope="module", params=["moe", "linear"])
def trained(
    request: pytest.FixtureRequest, tasks: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("runs") / request.param
    result = run(
        folder, tasks, "--props", "formation_energy,bandgap", "--multitask", request.param,
        "--task-weights", "uncertainty", "--epochs", 4,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return folder


# --- the decoder ---


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("selected", [1, 4, 15])
def test_exactly_k_gates_that_sum_to_one(selected: int, smooth: bool) -> None:
    torch.manual_seed(0)
    head = ExpertHeads(16, 3, 0.0, 15, selected, 16, smooth)
    for training in (True, False):
        gates, _ = head.train(training).route(torch.randn(40, 16))
        assert gates.shape == (3, 40, 15)
        assert (gates >= 0).all() and ((gates > 0).sum(-1) == selected).all()
        torch.testing.assert_close(gates.sum(-1), torch.ones(3, 40))
    level, _ = head.route(torch.zeros(2, 16))  # all experts equally probable
    assert ((level > 0).sum(-1) == selected).all()
    torch.testing.assert_close(level.sum(-1), torch.ones(3, 2))


def test_cut_gates_are_the_equation() -> None:
    """Equation (27) without its noise, scaled to one; equation (26) with an explicit sum."""
    torch.manual_seed(0)
    head = ExpertHeads(16, 2, 0.0, 6, 3, 8, smooth=False).double().eval()
    x = torch.randn(5, 16, dtype=torch.float64)
    gates, imbalance = head.route(x)
    assert float(imbalance) == 0
    first, last = head.expert[0], head.expert[2]
    for task in range(2):
        probability = torch.softmax(x @ head.router.weight[task], -1)
        for row in range(5):
            kept = set(probability[row].argsort(descending=True)[:3].tolist())
            expected = torch.tensor(
                [p if i in kept else 0.0 for i, p in enumerate(probability[row])]
            )
            torch.testing.assert_close(gates[task, row], expected / expected.sum())
        mixed = torch.zeros_like(x)
        for n in range(6):
            hidden = torch.nn.functional.silu(x @ first.weight[n] + first.bias[n])
            mixed += gates[task, :, n, None] * (hidden @ last.weight[n] + last.bias[n])
        heads = head.heads
        hidden = torch.nn.functional.silu(
            mixed @ heads.hidden.weight[task] + heads.hidden.bias[task]
        )
        value = hidden @ heads.last.weight[task] + heads.last.bias[task]
        torch.testing.assert_close(head(x)[0][:, task], value[:, 0])


def test_smooth_gates_do_not_jump() -> None:
    """Along a line on which the selection changes, predictions change little by little."""
    jumps = {}
    for smooth in (True, False):
        torch.manual_seed(1)
        head = ExpertHeads(8, 1, 0.0, 10, 2, 8, smooth).double().eval()
        with torch.no_grad():
            head.router.weight.mul_(30)
            a, b = torch.randn(2, 8, dtype=torch.float64)
            x = a + torch.linspace(-1, 2, 100_001, dtype=torch.float64)[:, None] * (b - a)
            gates, _ = head.route(x)
            assert ((gates[0] > 0).diff(dim=0).any(1)).sum() >= 3, "the selection changes"
            jumps[smooth] = float(gates[0].diff(dim=0).abs().max())
    assert jumps[True] < 2e-3 and jumps[False] > 0.1


def test_noise_is_there_in_training_alone(crystals: dict[str, Atoms]) -> None:
    model = experts_model()
    batch = batch_of(crystals)
    with torch.no_grad():
        assert torch.equal(model(batch), model(batch))
        latent = model.network.encode(batch)
        model.network.head.train()
        first, second = (model.network.head.route(latent)[0] for _ in range(2))
    assert not torch.equal(first, second)


def test_idle_experts_are_penalised() -> None:
    """The imbalance is small where all experts are used alike, and falls by its gradient."""
    torch.manual_seed(0)
    head = ExpertHeads(8, 2, 0.0, 6, 2, 8).train()
    x = torch.randn(256, 8)
    assert head.route(x)[1] < 0.2
    with torch.no_grad():
        head.router.weight[:, :, 0] += 2 * x.mean(0) + 1
        x = x.abs()
    before = head.route(x)[1]
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(50):
        optimizer.zero_grad()
        head.route(x)[1].backward()
        optimizer.step()
    assert before > 1 and head.route(x)[1] < 0.5 * before


def test_heads_are_of_one_property_each() -> None:
    torch.manual_seed(0)
    head = TaskHeads(8, 3, 0.0)
    head(torch.randn(5, 8))[:, 1].sum().backward()
    for weight in (head.hidden.weight, head.last.weight):
        assert weight.grad is not None
        assert [bool(weight.grad[i].any()) for i in range(3)] == [False, True, False]


def test_routing_by_property(crystals: dict[str, Atoms]) -> None:
    model = experts_model()
    assert isinstance(model.network, ReciNetMT)
    found = model.network.routing(batch_of(crystals))
    assert tuple(found) == THREE
    assert all(((g > 0).sum(1) == 4).all() and g.shape == (50, 15) for g in found.values())
    assert not torch.equal(found["bandgap"], found["ehull_label"])
    assert not hasattr(random_model(properties=THREE, multitask="linear").network, "routing")


# --- the model ---


@pytest.mark.parametrize("kind", ["moe", "linear"])
def test_round_trip(kind: str, tmp_path: Path, crystals: dict[str, Atoms]) -> None:
    model = random_model(properties=THREE, multitask=kind, experts=5, top_k=2, composition=True)
    model.save(tmp_path / "m", half=False)
    loaded = load_model(tmp_path / "m")
    assert loaded.config.network.multitask == kind and type(loaded.network) is type(model.network)
    batch = batch_of(crystals)
    with torch.no_grad():
        assert torch.equal(loaded(batch), model(batch))


def test_older_configurations_have_one_head(model_folder: Path) -> None:
    config = load_model(model_folder).config.network.to_dict()
    for name in ("multitask", "experts", "top_k", "expert_width", "smooth_gates"):
        config.pop(name)
    assert ReciNetConfig.from_dict(config).multitask == "shared"


@pytest.mark.parametrize("bias", [-20.0, -45.0, -200.0])
def test_noise_that_learnt_to_be_nothing_has_gradients(bias: float) -> None:
    torch.manual_seed(0)
    head = ExpertHeads(8, 2, 0.0, experts=5, selected=2, hidden=8).train()
    latent = torch.rand(32, 8) + 0.5
    with torch.no_grad():
        head.noise.weight.fill_(bias / latent.sum(1).mean())
    output, imbalance = head(latent)
    (output.abs().mean() + imbalance).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@given(atoms=random_crystals(), seed=st.integers(0, 100))
def test_invariance(dtype: torch.dtype, atoms: Atoms, seed: int) -> None:
    model = experts_model().to(dtype)
    order = np.random.default_rng(seed).permutation(len(atoms))
    variants = [atoms, atoms[order], make_supercell(atoms, [[1, 1, 0], [0, 1, 0], [0, 0, 2]])]
    with torch.no_grad():
        values = torch.cat([model(full_graphs([a], dtype)) for a in variants])
        together = model(full_graphs(variants, dtype))
    tolerance = {torch.float64: 1e-8, torch.float32: 2e-5}[dtype]
    scale = tolerance * values[0].abs().clamp(min=1.0)
    assert ((values - values[0]).abs() <= scale).all(), values
    assert ((together - values).abs() <= scale).all()


def test_every_door_gives_the_same_numbers(tmp_path: Path, crystals: dict[str, Atoms]) -> None:
    experts_model().save(tmp_path / "m", half=False)
    predictor = Predictor(tmp_path / "m", device="cpu")
    many = predictor.predict_many(crystals.values())
    full = Predictor(tmp_path / "m", device="cpu", reduce=False).predict_many(crystals.values())
    out = tmp_path / "out.csv"
    result = CliRunner().invoke(
        screen, [str(EXAMPLES), "--model", str(tmp_path / "m"), "-o", str(out), "--device", "cpu"]
    )
    assert result.exit_code == 0, result.output
    with out.open() as handle:
        rows = list(csv.DictReader(handle))
    for at, row in enumerate(connect(EXAMPLES).select()):
        atoms = row.toatoms()
        alone = predictor.predict(atoms)
        for name in THREE:
            assert many[at].values[name] == pytest.approx(alone[name], rel=2e-5, abs=2e-5)
            assert full[at].values[name] == pytest.approx(alone[name], rel=2e-5, abs=2e-5)
            assert float(rows[at][name]) == pytest.approx(alone[name], rel=2e-5, abs=2e-5)
    atoms.calc = ReciNetCalculator(tmp_path / "m", device="cpu")
    assert atoms.calc.get_property("bandgap", atoms) == pytest.approx(alone["bandgap"], abs=2e-5)


def test_cost_of_the_experts(crystals: dict[str, Atoms]) -> None:
    """All properties in one pass for at most 1.5 times the time of one."""
    size = {"width": 192, "blocks": 4, "channels": 128}
    one = random_model("small", ("formation_energy",), **size)
    properties = ("formation_energy", "total_energy", "ehull_label", "bandgap", "bandgap_opt")
    moe = random_model("small", properties, multitask="moe", **size)
    batch = batch_of(crystals)
    seconds = {one: [], moe: []}
    with torch.inference_mode():
        for _ in range(6):
            for model, found in seconds.items():
                start = time.process_time()
                model(batch)
                found.append(time.process_time() - start)
    assert min(seconds[moe]) < 1.5 * min(seconds[one])


# --- the loss ---


def test_missing_labels_give_no_gradient(tasks: Path, tmp_path: Path) -> None:
    """A property without a label in a batch gets none, whatever the weighting."""
    for weighting in ("labels", "equal", "uncertainty"):
        config = TrainingConfig(
            properties=("formation_energy", "bandgap"), size="tiny", batch_size=8,
            network=(("multitask", "linear"),), task_weights=weighting, weight_decay=0.0,
        )  # fmt: skip
        dataset, config = open_run_dataset(config, tasks)
        network = config.architecture(2)
        data = prepare_data(config, dataset, network, tasks / "cache")
        model = build_model(config, dataset, data, "m", network)
        half = Targets(data.train.index, data.train.values.clone())
        half.values[8:, 1] = float("nan")
        task = PropertyTask(model, data.store, half, data.val, config)
        trainer = Trainer(task, config, tmp_path)
        trainer._train_step(torch.arange(8, 16))
        grad = model.network.head.hidden.weight.grad
        assert grad is not None and torch.isfinite(grad).all()
        assert grad[0].any() and not grad[1].any()
        assert all(torch.isfinite(p).all() for p in model.parameters())


def test_weights_of_properties() -> None:
    labels = torch.tensor([300, 100])
    known = torch.tensor([[True, True], [True, False]])
    errors = torch.tensor([[0.1, 0.8], [0.1, 0.0]])
    weights = {kind: TaskWeights(kind, labels) for kind in ("labels", "equal", "uncertainty")}
    for weight in weights.values():
        for _ in range(1000):
            weight.update(errors, known)
        mean = (weight.values * labels).sum() / labels.sum()
        torch.testing.assert_close(mean, torch.tensor(1.0))
    assert weights["labels"].values.tolist() == [1.0, 1.0]
    equal, uncertainty = weights["equal"].values, weights["uncertainty"].values
    assert float(equal[1] / equal[0]) == pytest.approx(3)
    assert float(uncertainty[0] / uncertainty[1]) == pytest.approx(8, rel=1e-3)


def test_energies_of_the_elements_are_taken_off(tasks: Path) -> None:
    """A total energy made of a formation energy and elements is the formation energy after it."""
    config = TrainingConfig(
        properties=("formation_energy", "total_energy"), size="tiny", references=("total_energy",)
    )
    dataset, config = open_run_dataset(config, tasks)
    network = config.architecture(2)
    data = prepare_data(config, dataset, network, tasks / "cache")
    shares = composition(data.store, data.train.index)
    torch.testing.assert_close(shares.sum(1), torch.ones(len(shares), dtype=torch.float64))
    energies = torch.linspace(-9, -1, shares.shape[1], dtype=torch.float64)
    data.train.values[:, 1] = data.train.values[:, 0] + (shares @ energies).float()
    references = fit_references(data.store, data.train, config.properties, config.references)
    assert set(references) == {"total_energy"}
    model = build_model(config, dataset, data, "m", network)
    assert model.mean[1] == pytest.approx(float(model.mean[0]), abs=1e-3)
    with pytest.raises(ReciNetError, match="names bandgap, but elements"):
        fit_references(data.store, data.train, config.properties, ("bandgap",))


# --- runs ---


def test_runs_are_models_with_figures_for_each_property(
    trained: Path, crystals: dict[str, Atoms]
) -> None:
    with (trained / "metrics.csv").open() as handle:
        validated = [row for row in csv.DictReader(handle) if row["val_mae"]]
    last = min(validated, key=lambda row: float(row["val_mae"]))  # whose weights are kept
    card = (trained / "README.md").read_text()
    model = load_model(trained)
    for name in ("formation_energy", "bandgap"):
        assert float(last[f"val_mae_{name}"]) > 0
        error = model.config.training["validation"][name]["mae"]
        assert error == pytest.approx(float(last[f"val_mae_{name}"]), rel=1e-4)
        assert f"**{error:.3g} {PROPERTIES[name].unit}**" in card
    assert "the present error of their property" in card
    assert model.config.training["clean_for"] == ["bandgap", "formation_energy"]
    results = Predictor(trained, device="cpu").predict_many(crystals.values())
    learnt = {"formation_energy", "bandgap"}
    assert {frozenset(r.values) - {"ehull"} for r in results if not r.error} == {frozenset(learnt)}


def test_no_crystal_judged_by_any_task_is_learnt_from(tasks: Path) -> None:
    properties = ("formation_energy", "bandgap")
    config = TrainingConfig(properties=properties, size="tiny", hold_out=("total_energy",))
    dataset, config = open_run_dataset(config, tasks)
    data = prepare_data(config, dataset, config.architecture(2), tasks / "cache")
    own = [JARVIS.split(PROPERTIES[p], tasks) for p in (*properties, "total_energy")]
    assert set(own[0].train) & own[1].held_out, "the splits disagree"
    for split in own:
        assert not set(data.train_ids) & split.held_out
    for column, split in enumerate(own[:2]):  # each is validated on its own official crystals
        known = ~torch.isnan(data.val.values[:, column])
        judged = {i for i, is_known in zip(data.val_ids, known.tolist(), strict=True) if is_known}
        assert judged == set(split.val)


@pytest.mark.skipif("RECINET_DATA_DIR" not in os.environ, reason="needs the JARVIS download")
@pytest.mark.parametrize("recipe", ["jarvis/mt", "jarvis/pretrain", "jarvis/ehull-pretrain"])
def test_hygiene_of_the_recipes_on_the_real_splits(recipe: str) -> None:
    config = TrainingConfig(**load_recipe(recipe))
    dataset = open_dataset("jarvis")
    splits = merged_splits(dataset, config)
    learnt = set().union(*(split.train for split in splits))
    for name in (*config.properties, *config.hold_out):
        official = JARVIS.split(PROPERTIES[name])
        assert len(official.held_out) > 100 and not learnt & official.held_out
    for name, split in zip(config.properties, splits, strict=True):
        official = JARVIS.split(PROPERTIES[name])
        assert split.val == official.val and split.test == official.test
        assert split.train.items() <= official.train.items()


def test_a_peak_on_the_encoder_of_several_properties(tasks: Path, tmp_path: Path) -> None:
    """Peak pooling is a decoder of its own, so that of the start is not kept."""
    start = tmp_path / "start"
    two = ("--props", "formation_energy,bandgap", "--multitask", "moe", "--epochs", 1)
    assert run(start, tasks, *two).exit_code == 0
    result = run(
        tmp_path / "peak", tasks, "--props", "bandgap", "--init", start, "--pooling", "peak",
        "--epochs", 1, "--lr", 1e-9,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    theirs, ours = (load_model(f).network for f in (start, tmp_path / "peak"))
    assert (ours.config.pooling, ours.config.multitask) == ("peak", "shared")
    torch.testing.assert_close(ours.embed_atom.weight, theirs.embed_atom.weight)
    predictor = Predictor(tmp_path / "peak", device="cpu")
    for structure in (bulk("Si"), bulk("Si") * (2, 1, 1)):
        assert predictor.predict(structure)["bandgap"] == pytest.approx(
            predictor.predict(bulk("Si", cubic=True))["bandgap"], abs=1e-4
        )


def test_interrupted_and_resumed(tasks: Path, tmp_path: Path) -> None:
    """Routing noise and moving errors go on where they stopped."""
    settings = (
        "--props", "formation_energy,bandgap", "--multitask", "moe",
        "--task-weights", "uncertainty", "--epochs", 4,
    )  # fmt: skip
    run(tmp_path / "whole", tasks, *settings)
    run(tmp_path / "cut", tasks, *settings, "--max-minutes", 0)
    common = ["--data-dir", str(tasks), "--cache-dir", str(tasks / "cache")]
    result = CliRunner().invoke(train, [*common, "--resume", "-o", str(tmp_path / "cut")])
    assert result.exit_code == 0, result.output
    whole, cut = (load_model(tmp_path / n).network.state_dict() for n in ("whole", "cut"))
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_starting_from_a_model_of_one_property(tasks: Path, tmp_path: Path) -> None:
    """The encoder goes on, if its training kept away from all that is judged here."""
    both = ("--props", "formation_energy,bandgap", "--multitask", "moe", "--epochs", 1)
    run(tmp_path / "dirty", tasks, "--props", "bandgap", "--epochs", 1)
    result = run(tmp_path / "x", tasks, *both, "--init", tmp_path / "dirty")
    assert result.exit_code == 2 and "--hold-out formation_energy" in result.stderr
    run(tmp_path / "clean", tasks, "--props", "bandgap", "--hold-out", "formation_energy",
        "--epochs", 1)  # fmt: skip
    result = run(tmp_path / "mt", tasks, *both, "--init", tmp_path / "clean", "--lr", 1e-9)
    assert result.exit_code == 0, result.output
    start, mt = (load_model(tmp_path / n).network for n in ("clean", "mt"))
    torch.testing.assert_close(mt.embed_atom.weight, start.embed_atom.weight, atol=1e-6, rtol=0)
    # And back: one of its properties alone keeps experts, router and head.
    result = run(
        tmp_path / "one", tasks, "--props", "bandgap", "--init", tmp_path / "mt", "--epochs", 1,
        "--lr", 1e-9,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    one = load_model(tmp_path / "one").network
    for ours, theirs in (
        (one.head.router, mt.head.router),
        (one.head.heads.last, mt.head.heads.last),
    ):
        torch.testing.assert_close(ours.weight[0], theirs.weight[1], atol=1e-6, rtol=0)


def test_wrong_calls(tasks: Path, tmp_path: Path) -> None:
    cases = [
        (("--props", "bandgap", "--multitask", "moe"), "needs several properties"),
        (("--multitask", "linear"), "needs several properties"),
        (("--props", "bandgap,formation_energy", "--multitask", "mixture"), "'moe', 'linear'"),
        (("--props", "bandgap", "--task-weights", "fair"), "is not one of"),
        (("--props", "bandgap", "--task-weights", "uncertainty"), "needs several properties"),
    ]
    for arguments, message in cases:
        result = run(tmp_path / "run", tasks, *arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert message in result.stderr, result.stderr
    assert not (tmp_path / "run").exists()
    with pytest.raises(ReciNetError, match="did you mean 'linear'"):
        ReciNetConfig(multitask="linar")
    with pytest.raises(ReciNetError, match="of 3 experts, 1 to 3"):
        ReciNetConfig(multitask="moe", experts=3)
    with pytest.raises(ReciNetError, match="unknown task weighting 'fair'"):
        TrainingConfig(task_weights="fair")
