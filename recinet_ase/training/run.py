"""A training run from its configuration: data, model, loop, result.

The run folder holds ``training.json`` (the configuration), ``metrics.csv``,
``rejected.csv`` (crystals that could not be used, with the reason), ``left_out_ids.txt``
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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from recinet_ase.data.conversion import ConversionStopped, default_workers
from recinet_ase.data.dataset import Dataset
from recinet_ase.data.rejected import write_rejected
from recinet_ase.data.splits import ids_digest
from recinet_ase.errors import ReciNetError
from recinet_ase.forces.settings import ForceTrainingConfig, load_settings
from recinet_ase.models.files import write_atomic
from recinet_ase.models.property_model import ModelConfig, PropertyModel
from recinet_ase.nn.recinet import ReciNetConfig
from recinet_ase.pretrained import load_network
from recinet_ase.training.config import LEFT_OUT_IDS_FILE, TrainingConfig
from recinet_ase.training.devices import Resources, hardware, make_fabric
from recinet_ase.training.elements import answerable, known_elements
from recinet_ase.training.labels import PreparedData, open_run_dataset, prepare_data
from recinet_ase.training.property_task import PropertyTask
from recinet_ase.training.report import write_report
from recinet_ase.training.start import architecture, build_model
from recinet_ase.training.task import Progress
from recinet_ase.training.trainer import Beginning, Run, Trainer, load_checkpoint

TRAINING_FILE = "training.json"
REJECTED_FILE = "rejected.csv"


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
        ConversionStopped: If it was time to stop before the graphs were made; the folder can be
            resumed.
        ReciNetError: For missing data, a folder in use, or a run that diverged.
    """
    at = resources or Resources()
    settings_file = folder / TRAINING_FILE
    if resume:
        config = load_settings(settings_file)
    fabric = make_fabric(config.precision, at.accelerator, at.devices, at.nodes)
    fabric.launch()
    state = load_checkpoint(folder) if resume else None
    if not resume and fabric.is_global_zero:
        _check_free(folder)
    say = on_message if fabric.is_global_zero else None
    if isinstance(config, ForceTrainingConfig):
        from recinet_ase.forces.task import start_forces

        start: Callable[[Any, Beginning], Run] = start_forces
    else:
        dataset, config = open_run_dataset(config, at.data_dir)
        start = partial(_start, dataset)
    with _stop_signals() as interrupted:

        def stop() -> bool:
            late = at.deadline is not None and time.monotonic() > at.deadline
            return late or interrupted()

        run: Run | None = None
        stopped: ConversionStopped | None = None
        with fabric.rank_zero_first(local=True):  # one process builds the store, others load it
            try:
                run = start(config, Beginning(folder, at, state, on_store, say, stop))
            except ConversionStopped as error:
                stopped = error
        if run is None:
            assert stopped is not None
            if fabric.is_global_zero:
                _keep_settings(config, settings_file)
            raise stopped
        trainer = Trainer(run.task, run.config, folder, fabric, on_step)
        if state is not None:
            trainer.restore(state)
        if fabric.is_global_zero:
            _keep_settings(run.config, settings_file)
            write_rejected(folder / REJECTED_FILE, run.rejected)
        fabric.barrier()
        complete = trainer.fit(at.deadline, interrupted)
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
    path.parent.mkdir(parents=True, exist_ok=True)
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


def _start(dataset: Dataset, config: TrainingConfig, given: Beginning) -> Run:
    """A new run on properties, or the one that a checkpoint belongs to."""
    at, say = given.resources, given.say
    if say is not None and dataset.labels_note:
        say(dataset.labels_note)

    def prepared(network: ReciNetConfig) -> PreparedData:
        workers = at.workers or default_workers()
        return prepare_data(
            config, dataset, network, at.cache, workers, given.on_store, say, given.stop
        )

    if given.state is None:
        initial = None if config.init is None else load_network(config.init)
        network = architecture(config, initial)
        data = prepared(network)
        data = answerable(data, known_elements(data, initial), say)
        name = given.folder.resolve().name
        model = build_model(config, dataset, data, name, network, initial)
    else:
        stored = ModelConfig.from_json(given.state["config"], str(given.folder))
        data = answerable(prepared(stored.network), stored.elements)
        if ids_digest(data.train_ids) != stored.training["train_ids_sha256"]:
            raise ReciNetError(
                f"the training crystals are not those that {given.folder} began with"
            )
        model = PropertyModel(stored)
    task = PropertyTask(model, data.store, data.train, data.val, config)

    def finish(best: PropertyModel, trainer: Trainer, folder: Path, complete: bool) -> None:
        best.config = with_results(best.config, trainer, data, trainer.best_errors, complete)
        best.save(folder, half=False)
        write_report(best, data, folder)
        if complete and config.calibrate and not given.stop():
            _calibrate(dataset, data, folder, at, say)

    return Run(task, config, data.rejected, finish)


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


def _calibrate(
    dataset: Dataset,
    data: PreparedData,
    folder: Path,
    at: Resources,
    say: Callable[[str], None] | None,
) -> None:
    """Intervals and a domain for the run's model, or why there are none."""
    from recinet_ase.uncertainty.calibrate import calibrate
    from recinet_ase.uncertainty.fit import MINIMUM_CRYSTALS

    fewest = int((~data.val.values.isnan()).sum(0).min())
    reason = ""
    if len(dataset.members) > 1 or "" not in dataset.members:
        reason = "it learnt from several datasets"
    elif fewest < MINIMUM_CRYSTALS:
        reason = f"{fewest} validation crystals, and at least {MINIMUM_CRYSTALS} are needed"
    else:
        try:
            calibrate(str(folder), at.data_dir)
        except ReciNetError as error:
            reason = str(error)
    if reason and say is not None:
        say(f"no intervals for this model: {reason}")


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
        "best_epoch": trainer.best_epoch,
        "complete": complete,
        "hours": round(trainer.seconds / 3600, 3),
        "hardware": hardware(trainer.fabric),
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
    }
    return replace(
        config,
        caution=worse_than_mean(config, each),
        training={**config.training, **figures},
    )


def worse_than_mean(config: ModelConfig, errors: Mapping[str, Mapping[str, float]]) -> str:
    """What to say of a model that has learnt nothing, ``""`` of any other.

    Args:
        config: The model.
        errors: ``"mae"`` and ``"mad"`` of each property on the validation crystals.
    """
    listed = [
        f"{info.name} {errors[info.name]['mae']:.3g} against {errors[info.name]['mad']:.3g} "
        f"{info.unit}".rstrip()
        for info in config.infos
        if errors[info.name]["mae"] >= errors[info.name]["mad"]
    ]
    if not listed:
        return ""
    return (
        "no better than answering the mean of its training labels, whatever the crystal "
        f"(validation error against that of the mean: {'; '.join(listed)})"
    )
