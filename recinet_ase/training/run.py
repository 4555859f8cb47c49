"""A training run from its configuration: data, model, loop, result.

The run folder holds ``training.json`` (the configuration), ``metrics.csv``,
``left_out.csv`` (crystals that could not be used, with the reason), ``left_out_ids.txt``
(the list of ids that ``leave_out`` named, if it did), plots, a model card,
``checkpoint.pt`` (the last state) and, from the first validation on, ``config.json`` and
``model.safetensors`` (the best validated weights): it is a model folder like the shipped
ones.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from recinet_ase.data.dataset import Dataset
from recinet_ase.data.left_out import write_left_out
from recinet_ase.data.splits import ids_digest
from recinet_ase.elements import symbols
from recinet_ase.errors import ReciNetError
from recinet_ase.forces.settings import ForceTrainingConfig, load_settings
from recinet_ase.graph.crystal import GraphSettings
from recinet_ase.models.files import write_atomic
from recinet_ase.models.property_model import ModelConfig, PropertyModel, as_learnt
from recinet_ase.nn.recinet import DECODER_FIELDS, OUTPUT_AXIS, ReciNetConfig
from recinet_ase.nn.reciprocal import FULL_GRAPHS
from recinet_ase.pretrained import load_network
from recinet_ase.training.config import LEFT_OUT_IDS_FILE, TrainingConfig
from recinet_ase.training.devices import hardware, make_fabric
from recinet_ase.training.elements import answerable, known_elements
from recinet_ase.training.labels import PreparedData, open_run_dataset, prepare_data
from recinet_ase.training.property_task import PropertyTask
from recinet_ase.training.provenance import check_start, provenance
from recinet_ase.training.references import composition, fit_references
from recinet_ase.training.report import write_report
from recinet_ase.training.trainer import Progress, Task, Trainer, load_checkpoint

TRAINING_FILE = "training.json"
LEFT_OUT_FILE = "left_out.csv"
# What may differ from the start, besides the decoder.
_FREE = ("dropout", "block_dropout", "composition", "pooling")
_PER_FORMULA = ("ehull_label",)  # divided by the atoms of the formula (docs/concepts/limits.md)


@dataclass(frozen=True)
class Resources:
    """Where a run works; no part of its recipe.

    Attributes:
        data_dir: Folder of the datasets, else ``RECINET_DATA_DIR``.
        cache: Folder of packed stores, else ``RECINET_CACHE_DIR`` or ``~/.cache``.
        workers: Processes for building the store.
        accelerator: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        devices: Training processes on this machine, one a GPU.
        nodes: Machines.
        max_minutes: Wall time, graph building included, after which to stop with a
            checkpoint.
    """

    data_dir: str | Path | None = None
    cache: str | Path | None = None
    workers: int = 1
    accelerator: str = "auto"
    devices: int | str = 1
    nodes: int = 1
    max_minutes: float | None = None


@dataclass(frozen=True)
class Run:
    """A run that can begin.

    Attributes:
        task: What is learnt.
        config: Its settings, completed from the data.
        left_out: Rows that could not be used, by id, with the reason.
        finish: Leaves the best model with its figures and card in the run folder; called with
            the model, the trainer, the folder, and whether the run is complete.
    """

    task: Task
    config: TrainingConfig
    left_out: dict[str, str]
    finish: Callable[[Any, Trainer, Path, bool], None]


def architecture(config: TrainingConfig, initial: PropertyModel | None) -> ReciNetConfig:
    """The network of a run: what is asked for, or that of the model to start from.

    Raises:
        ReciNetError: If both are given and differ, or the network cannot be trained so.
    """
    outputs = len(config.properties)
    asked_for = dict(config.network).get("multitask", "shared")
    if outputs == 1 and asked_for != "shared":
        raise ReciNetError(
            f"--multitask {asked_for} needs several properties, and this run learns "
            f"{config.properties[0]} alone; name them, as in --props formation_energy,bandgap"
        )
    if outputs == 1 and config.task_weights != "labels":
        raise ReciNetError(
            f"--task-weights {config.task_weights} needs several properties, and this run learns "
            f"{config.properties[0]} alone; name them, as in --props formation_energy,bandgap"
        )
    if initial is None and config.freeze is not None:
        raise ReciNetError(
            f"--freeze {config.freeze} would keep random weights: say with --init which model's "
            "weights to keep"
        )
    network = config.architecture(outputs)
    if initial is not None:
        theirs = replace(initial.config.network, outputs=outputs)
        changed = dict(config.network)
        if changed.get("pooling") == "peak":  # is a decoder, too: that of the start is not kept
            changed = {"multitask": "shared", "gate": False, **changed}
        asked = network if config.size is not None else replace(theirs, **changed)
        decoder = {name: changed.get(name, getattr(theirs, name)) for name in DECODER_FIELDS}
        asked = replace(asked, **decoder)
        free = {name: getattr(asked, name) for name in _FREE}
        theirs = replace(theirs, **free, **decoder)
        if asked != theirs:
            raise ReciNetError(
                f"{config.init} has another architecture than this run asks for; leave out "
                "--size and network options to take it over"
            )
        network = theirs
    if network.reciprocal in FULL_GRAPHS and config.reduce:
        raise ReciNetError(
            f"the {network.reciprocal} reciprocal block needs full graphs: add --full-graphs"
        )
    return network


def build_model(
    config: TrainingConfig,
    dataset: Dataset,
    data: PreparedData,
    name: str,
    network: ReciNetConfig,
    initial: PropertyModel | None = None,
) -> PropertyModel:
    """The model at the start of a run: fresh, or with the weights of ``initial``.

    Targets are standardised by their mean and mean absolute deviation, so that the loss
    is 1 for the model that always answers the mean.

    Raises:
        ReciNetError: If the model to start from may have seen held-out crystals.
    """
    infos = [dataset.info(p) for p in config.properties]
    if initial is not None:
        check_start(initial, config, dataset)
    torch.manual_seed(config.seed)
    references = fit_references(data.store, data.train, config.properties, config.references)
    values = _as_learnt(_without_references(data, config.properties, references), config)
    mean = values.nanmean(0)
    spread = (values - mean).abs().nanmean(0).clamp(min=1e-6)
    model = PropertyModel(
        ModelConfig(
            name=name,
            properties=config.properties,
            units=tuple(info.unit for info in infos),
            mean=tuple(mean.tolist()),
            std=tuple(spread.tolist()),
            elements=known_elements(data, initial),
            network=network,
            graph=GraphSettings(neighbours=config.neighbours),
            functional=tuple(dataset.functional_of(info) for info in infos),
            references=references,
            logarithmic=config.log_targets,
            training=provenance(config, dataset, data, network, initial),
        )
    )
    if network.composition and network.multitask != "shared":
        _start_per_atom(model)
    if initial is not None:
        _take_weights(model, initial, dataset.name)
    return model


def _without_references(
    data: PreparedData, properties: tuple[str, ...], references: dict[str, dict[str, float]]
) -> torch.Tensor:
    """Training labels without the elements' energies, ``[n, outputs]``."""
    values = data.train.values.clone()
    for name, energies in references.items():
        shares = composition(data.store, data.train.index)
        table = torch.tensor([energies.get(s, 0.0) for s in symbols()], dtype=shares.dtype)
        values[:, properties.index(name)] -= (shares @ table).to(values.dtype)
    return values


@torch.no_grad()
def _start_per_atom(model: PropertyModel) -> None:
    """Undo the composition branch's division by the formula's atoms where nothing asks for it."""
    assert model.network.composition is not None
    for at, name in enumerate(model.config.properties):
        if name.partition("[")[0] not in _PER_FORMULA:
            model.network.composition.scale[:, at] = torch.tensor([0.0, 1.0])


def _as_learnt(values: torch.Tensor, config: TrainingConfig) -> torch.Tensor:
    """Training labels ``[n, outputs]``, as logarithms where these are learnt.

    Raises:
        ReciNetError: If a label has no logarithm.
    """
    for name, column in zip(config.properties, values.T, strict=True):
        wrong = int((column <= 0).sum()) if name in config.log_targets else 0
        if wrong:
            raise ReciNetError(
                f"{wrong} training labels of {name} are not above zero and have no logarithm; "
                f"leave {name} out of --log-targets"
            )
    return as_learnt(values, torch.tensor([p in config.log_targets for p in config.properties]))


@torch.no_grad()
def _take_weights(model: PropertyModel, initial: PropertyModel, dataset: str) -> None:
    """Copy a trained network; outputs and branches that it does not have start afresh.

    An output of a dataset by its property alone is that of the same dataset among several.

    So does a decoder of another kind: then the encoder alone is taken over.

    With one output on both sides the last layer is copied whatever the property:
    measured on fine-tuning from formation energy to gaps, that start is the better one.
    """
    ours = model.network.state_dict()
    known, wanted = initial.config.properties, model.config.properties
    wanted = tuple(n if n in known else f"{n}[{dataset}]" for n in wanted)
    same_head = known == wanted or len(known) == len(wanted) == 1
    ours_is, theirs_is = (
        [getattr(m.config.network, field) for field in DECODER_FIELDS] for m in (model, initial)
    )
    for key, value in initial.network.state_dict().items():
        if key not in ours or (key.startswith("head.") and ours_is != theirs_is):
            continue
        axis = next((a for prefix, a in OUTPUT_AXIS.items() if key.startswith(prefix)), None)
        if axis is None or same_head:
            ours[key].copy_(value)
            continue
        for at, name in enumerate(wanted):
            if name in known:
                ours[key].select(axis, at).copy_(value.select(axis, known.index(name)))


def train(
    config: TrainingConfig,
    folder: Path,
    resources: Resources | None = None,
    resume: bool = False,
    on_step: Callable[[Progress], None] | None = None,
    on_store: Callable[[int, int], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> tuple[Any, bool]:
    """Run (or continue) a training and leave a loadable model in ``folder``.

    Args:
        config: Settings; ignored in favour of the folder's own when resuming.
        folder: Run folder.
        resources: Data, devices, time.
        resume: Continue from the folder's checkpoint.
        on_step: Called after every training step (in the first process).
        on_store: Called with the number of crystals converted while building the store, and
            that of all.
        on_message: Called with what the user should know of the data (in the first process).

    Returns:
        The model of the best validation (a `PropertyModel`, or a `ForceModel` where forces are
        learnt), and whether the run is complete.

    Raises:
        ReciNetError: For missing data, a folder in use, or a run that diverged.
    """
    at = resources or Resources()
    deadline = None if at.max_minutes is None else time.monotonic() + 60 * at.max_minutes
    settings_file = folder / TRAINING_FILE
    if resume:
        config = load_settings(settings_file)
    fabric = make_fabric(config.precision, at.accelerator, at.devices, at.nodes)
    fabric.launch()
    state = load_checkpoint(folder) if resume else None
    if not resume and fabric.is_global_zero:
        _check_free(folder)
    say = on_message if fabric.is_global_zero else None
    start = _start
    if isinstance(config, ForceTrainingConfig):
        from recinet_ase.forces.task import start_forces

        start = start_forces
    with fabric.rank_zero_first(local=True):  # one process builds the store, the others load it
        run = start(config, folder, at, state, on_store, say)
    trainer = Trainer(run.task, run.config, folder, fabric, on_step)
    if state is not None:
        trainer.restore(state)
    if fabric.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
        _keep_settings(run.config, settings_file)
        write_left_out(folder / LEFT_OUT_FILE, run.left_out)
    fabric.barrier()
    with _stop_signals() as interrupted:
        complete = trainer.fit(deadline, interrupted)
    if fabric.is_global_zero:
        best = None if math.isnan(trainer.best_val) else type(trainer.model).load(folder)
        if best is None:  # stopped before the first validation
            best = trainer.averaged_model
            trainer.best_errors = run.task.validate(best)[1]
        run.finish(best.cpu(), trainer, folder, complete)
    fabric.barrier()
    return type(trainer.model).load(folder), complete


def _keep_settings(config: TrainingConfig, path: Path) -> None:
    """Write the settings, and the list of ids that they name beside them."""
    if config.leave_out is not None:
        copy = path.parent / LEFT_OUT_IDS_FILE
        if Path(config.leave_out).resolve() != copy.resolve():
            write_atomic(copy, Path(config.leave_out).read_bytes())
        config = replace(config, leave_out=LEFT_OUT_IDS_FILE)
    config.save(path)


def _check_free(folder: Path) -> None:
    if (folder / TRAINING_FILE).exists():
        raise ReciNetError(
            f"{folder} already holds a run; continue it with --resume, or choose another"
        )
    if folder.exists() and not folder.is_dir():
        raise ReciNetError(f"{folder} is a file; choose a folder for the run")


def _start(
    config: TrainingConfig,
    folder: Path,
    at: Resources,
    state: dict[str, Any] | None,
    on_store: Callable[[int, int], None] | None,
    say: Callable[[str], None] | None,
) -> Run:
    """Model and data of a new run on properties, or of the one that ``state`` belongs to."""
    dataset, config = open_run_dataset(config, at.data_dir)
    if say is not None and dataset.labels_note:
        say(dataset.labels_note)
    if state is None:
        initial = None if config.init is None else load_network(config.init)
        network = architecture(config, initial)
        data = prepare_data(config, dataset, network, at.cache, at.workers, on_store, say)
        data = answerable(data, known_elements(data, initial), say)
        name = folder.resolve().name
        model = build_model(config, dataset, data, name, network, initial)
    else:
        stored = ModelConfig.from_json(state["config"], str(folder))
        data = prepare_data(config, dataset, stored.network, at.cache, at.workers, on_store, say)
        data = answerable(data, stored.elements)
        if ids_digest(data.train_ids) != stored.training["train_ids_sha256"]:
            raise ReciNetError(f"the training crystals are not those that {folder} began with")
        model = PropertyModel(stored)
    task = PropertyTask(model, data.store, data.train, data.val, config)

    def finish(best: PropertyModel, trainer: Trainer, folder: Path, complete: bool) -> None:
        best.config = with_results(best.config, trainer, data, trainer.best_errors, complete)
        best.save(folder, half=False)
        write_report(best, data, folder)

    return Run(task, config, data.left_out, finish)


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Turn SIGTERM (a queue's end) and SIGINT into a wish to stop after the current step."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop.is_set
        return
    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: stop.set()) for number in signals]
    try:
        yield stop.is_set
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def with_results(
    config: ModelConfig,
    trainer: Trainer,
    data: PreparedData,
    errors: dict[str, float],
    complete: bool,
) -> ModelConfig:
    """The configuration with the run's validation figures added.

    ``validation_mae`` and ``validation_mad`` (of the constant training mean) are those of
    the first property; ``validation`` holds them for each. ``n_labels`` are the training
    labels of each property, of which a crystal may lack some.
    """
    deviation = (data.val.values - data.train.values.nanmean(0)).abs().nanmean(0).tolist()
    each = {
        name: {"mae": errors[name], "mad": mad}
        for name, mad in zip(config.properties, deviation, strict=True)
    }
    first = each[config.properties[0]]
    labels = (~data.train.values.isnan()).sum(0).tolist()
    figures = {
        "validation_mae": first["mae"],
        "validation_mad": first["mad"],
        "validation": each,
        "n_labels": dict(zip(config.properties, labels, strict=True)),
        "epochs_done": trainer.epoch,
        "complete": complete,
        "hours": round(trainer.seconds / 3600, 3),
        "hardware": hardware(trainer.fabric),
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
    }
    return replace(config, training={**config.training, **figures})
