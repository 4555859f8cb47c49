"""Training of force models: energies, forces and stresses together."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.units import GPa
from torch.nn import functional

from recinet_ase.elements import symbols
from recinet_ase.errors import ReciNetError
from recinet_ase.forces.data import Cells, LabelledCell, join, load_cells
from recinet_ase.forces.errors import ForceErrors, errors_of
from recinet_ase.forces.model import ForceModel, ForceModelConfig, ForceResult
from recinet_ase.forces.network import ForceNetworkConfig
from recinet_ase.forces.settings import ForceTrainingConfig
from recinet_ase.models.files import replacing
from recinet_ase.pretrained import load_force_model

CONFIG_FILE, STATE_FILE, METRICS_FILE = "training.json", "checkpoint.pt", "metrics.csv"


@dataclass(frozen=True)
class ForceProgress:
    """Where a run stands: epoch, steps done and in all, last errors."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    errors: ForceErrors | None


def atom_references(cells: Sequence[LabelledCell]) -> dict[str, float]:
    """Energy of an atom of each element by least squares over the cells, eV by symbol."""
    present = sorted({int(z) for cell in cells for z in cell.graph.numbers})
    counts = np.array([[np.sum(cell.graph.numbers == z) for z in present] for cell in cells])
    energies = np.array([cell.energy for cell in cells])
    size = counts.sum(1)
    found = np.linalg.lstsq(counts / size[:, None], energies / size, rcond=None)[0]
    return {symbols()[z]: float(e) for z, e in zip(present, found, strict=True)}


def new_model(
    name: str, config: ForceTrainingConfig, network: ForceNetworkConfig, cells: Cells
) -> ForceModel:
    """An untrained model for the data."""
    torch.manual_seed(config.seed)
    present = [sorted({int(z) for z in cell.graph.numbers}) for cell in cells.train]
    neighbours = np.mean(
        [cell.graph.edge_index.shape[1] / len(cell.graph.numbers) for cell in cells.train]
    )
    network = ForceNetworkConfig.from_dict({**network.to_dict(), "neighbours": float(neighbours)})
    forces = np.concatenate([cell.forces for cell in cells.train])
    return ForceModel(
        ForceModelConfig(
            name=name,
            network=network,
            elements=tuple(sorted({z for some in present for z in some})),
            pairs=tuple(
                sorted(
                    {(a, b) for some in present for i, a in enumerate(some) for b in some[i + 1 :]}
                )
            ),
            references=atom_references(cells.train),
            scale=float(np.sqrt((forces**2).mean())),
            functional="PBE",
        )
    )


def continued_model(name: str, initial: ForceModel, cells: Cells) -> ForceModel:
    """A model with the weights, references and scale of another, to be trained on.

    Raises:
        ReciNetError: If the other model's training cells are among the cells held out here, or
            it never saw an element of the data.
    """
    seen = set(initial.config.training.get("train_ids", ()))
    leaked = [cell.id for cell in (*cells.val, *cells.test) if cell.id in seen]
    if leaked:
        raise ReciNetError(
            f"{initial.config.name} was trained on {len(leaked)} of the cells held out here, "
            f"{leaked[0]} for one; give the split_seed of its training"
        )
    present = {int(z) for cell in cells.train for z in cell.graph.numbers}
    unseen = sorted(present - set(initial.config.elements))
    if unseen:
        names = ", ".join(symbols()[z] for z in unseen)
        raise ReciNetError(f"{initial.config.name} was not trained on {names}; start afresh")
    model = ForceModel(replace(initial.config, name=name, training={}, caution="", sha256=""))
    model.network.load_state_dict(initial.network.state_dict())
    return model


class ForceTrainer:
    """A run that can be stopped and continued.

    Args:
        model: The model to train.
        config: The settings.
        cells: The data.
        folder: Run folder; checkpoints and the best model go there.
    """

    def __init__(
        self, model: ForceModel, config: ForceTrainingConfig, cells: Cells, folder: Path
    ) -> None:
        self.model, self.config, self.cells, self.folder = model, config, cells, folder
        self.steps_per_epoch = math.ceil(len(cells.train) / config.batch_size)
        self.steps = config.epochs * self.steps_per_epoch
        self.optimizer = torch.optim.AdamW(
            model.network.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, config.learning_rate, total_steps=max(self.steps, 2), pct_start=0.1
        )
        self.average = {k: v.detach().clone() for k, v in model.network.state_dict().items()}
        self.step = 0
        self.best = math.inf
        self.history: list[dict[str, float]] = []
        self.seconds = 0.0

    def run(self, on_step: Callable[[ForceProgress], None] = lambda p: None) -> ForceErrors:
        """Train to the end, from wherever the run stands; the best average is kept."""
        last: ForceErrors | None = None
        saved = clock = time.monotonic()
        losses: list[float] = []
        while self.step < self.steps:
            epoch, place = divmod(self.step, self.steps_per_epoch)
            if place == 0:
                losses = []
            losses.append(self._step(self._batch(epoch, place)))
            self.step += 1
            now = time.monotonic()
            self.seconds += now - clock
            clock = now
            done = self.step == self.steps
            if self.step % self.steps_per_epoch == 0:
                passed = self.step // self.steps_per_epoch
                if done or passed % self.config.validate_every == 0:
                    last = self._validate(passed, float(np.mean(losses)))
                    clock = time.monotonic()
            if done or time.monotonic() - saved > 60 * self.config.checkpoint_minutes:
                self.checkpoint()
                saved = time.monotonic()
            on_step(
                ForceProgress(
                    epoch + 1,
                    self.config.epochs,
                    self.step,
                    self.steps,
                    float(np.mean(losses)),
                    last,
                )
            )
        return errors_of(self.best_model(), self.cells.val)

    def best_model(self) -> ForceModel:
        """The model with the best weights so far."""
        return ForceModel.load(self.folder)

    def checkpoint(self) -> None:
        """Everything that a continued run needs, atomically."""
        state = {
            "network": self.model.network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "step": self.step,
            "best": self.best,
            "history": self.history,
            "seconds": self.seconds,
        }
        with replacing(self.folder / STATE_FILE) as part:
            torch.save(state, part)

    def restore(self) -> None:
        """Continue from the last checkpoint, if there is one.

        Raises:
            ReciNetError: If it is damaged.
        """
        path = self.folder / STATE_FILE
        if not path.exists():
            return
        try:
            state = torch.load(path, weights_only=True)
        except Exception as error:
            raise ReciNetError(f"{path} is damaged ({error}); delete it to begin anew") from None
        self.model.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.average, self.step, self.best = state["average"], state["step"], state["best"]
        self.history, self.seconds = state["history"], state["seconds"]

    def _batch(self, epoch: int, place: int) -> list[LabelledCell]:
        rng = np.random.default_rng((self.config.seed, epoch))
        order = rng.permutation(len(self.cells.train))
        size = self.config.batch_size
        return [self.cells.train[i] for i in order[place * size : (place + 1) * size]]

    def _step(self, cells: list[LabelledCell]) -> float:
        batch, labels = join(cells)
        result = self.model(batch, training=True)
        loss = self._loss(result, labels, torch.tensor(batch.n_atoms))
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.network.parameters(), self.config.clip)
        self.optimizer.step()
        self.schedule.step()
        # Warmed up, so that the average forgets the first steps soon.
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for key, value in self.model.network.state_dict().items():
                self.average[key].lerp_(value, 1 - decay)
        return loss.item()

    def _loss(self, result: ForceResult, labels: Any, n_atoms: torch.Tensor) -> torch.Tensor:
        c = self.config
        energy = ((result.energy - labels.energy) / n_atoms).abs().mean()
        forces = functional.l1_loss(result.forces, labels.forces)
        stress = functional.l1_loss(result.stress, labels.stress) / GPa
        return c.energy_weight * energy + c.force_weight * forces + c.stress_weight * stress

    def _validate(self, epoch: int, loss: float) -> ForceErrors:
        now = {k: v.clone() for k, v in self.model.network.state_dict().items()}
        self.model.network.load_state_dict(self.average)
        errors = errors_of(self.model, self.cells.val)
        c = self.config
        score = (
            c.energy_weight * errors.energy / 1e3
            + c.force_weight * errors.forces / 1e3
            + c.stress_weight * errors.stress
        )
        if score < self.best:
            self.best = score
            self.model.save(self.folder)
        self.model.network.load_state_dict(now)
        self.history.append(
            {
                "epoch": epoch,
                "loss": loss,
                "energy_mae_mev_atom": errors.energy,
                "force_mae_mev_angstrom": errors.forces,
                "stress_mae_gpa": errors.stress,
                "seconds": round(self.seconds, 1),
            }
        )
        with (self.folder / METRICS_FILE).open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, self.history[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.history)
        return errors


def train_forces(
    config: ForceTrainingConfig,
    folder: str | Path,
    data_dir: str | Path | None = None,
    resume: bool = False,
    on_step: Callable[[ForceProgress], None] = lambda p: None,
) -> tuple[ForceModel, ForceErrors]:
    """Train a force model, or continue a run.

    Args:
        config: Settings.
        folder: Run folder; the model can be loaded from it.
        data_dir: Data folder, else ``RECINET_DATA_DIR``.
        resume: Continue the folder's own run with its own settings.
        on_step: Called after every step.

    Returns:
        The best model and its errors on the validation cells.

    Raises:
        ReciNetError: If the data are missing, the folder holds another run, or the model to
            start from does not fit.
    """
    folder = Path(folder)
    if resume:
        config = ForceTrainingConfig.load(folder / CONFIG_FILE)
    elif (folder / CONFIG_FILE).exists():
        raise ReciNetError(f"{folder} holds a run already; use --resume, or another folder")
    initial = load_force_model(config.init) if config.init else None
    start = ForceNetworkConfig() if initial is None else initial.config.network
    network = ForceNetworkConfig.from_dict({**start.to_dict(), **dict(config.network)})
    if initial is not None and network != start:
        raise ReciNetError(f"{config.init} has another architecture; leave out the changes to it")
    cells = load_cells(config, network, data_dir)
    name = folder.resolve().name
    if initial is None:
        model = new_model(name, config, network, cells)
    else:
        model = continued_model(name, initial, cells)
    folder.mkdir(parents=True, exist_ok=True)
    config.save(folder / CONFIG_FILE)
    trainer = ForceTrainer(model, config, cells, folder)
    if resume:
        trainer.restore()
    errors = trainer.run(on_step)
    best = trainer.best_model()
    return finished(best, config, cells, errors, trainer, folder, initial), errors


def finished(
    model: ForceModel,
    config: ForceTrainingConfig,
    cells: Cells,
    errors: ForceErrors,
    trainer: ForceTrainer,
    folder: Path,
    initial: ForceModel | None = None,
) -> ForceModel:
    """The model with its provenance and that of the model it started from, saved."""
    about = {
        "dataset": config.dataset,
        "settings": asdict(config),
        "train": len(cells.train),
        "validation": len(cells.val),
        "test": len(cells.test),
        "train_ids": sorted(cell.id for cell in cells.train),
        "validation_errors": asdict(errors),
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "hours": round(trainer.seconds / 3600, 3),
        "complete": True,
    }
    if initial is not None:
        start = initial.config.training
        about["start"] = {key: value for key, value in start.items() if key != "train_ids"}
    done = ForceModel(ForceModelConfig(**{**model.config.__dict__, "training": about}))
    done.network.load_state_dict(model.network.state_dict())
    done.save(folder)
    return done.eval()
