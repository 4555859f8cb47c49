"""The training loop: L1 on standardised targets, OneCycle, EMA, resumable checkpoints."""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel

from recinet_ase.data.store import PackedStore
from recinet_ase.errors import ReciNetError
from recinet_ase.model import PropertyModel
from recinet_ase.training.config import TrainingConfig

CHECKPOINT_FILE = "checkpoint.pt"
METRICS_FILE = "metrics.csv"
_METRICS = ("epoch", "train_mae", "val_mae", "learning_rate", "seconds")
_EVALUATION_BATCH = 128


@dataclass(frozen=True)
class Targets:
    """Crystals of a store and their labels.

    Attributes:
        index: Positions in the store, int64 ``[n]``.
        values: Labels in the properties' units, ``[n, outputs]``; NaN where missing.
    """

    index: torch.Tensor
    values: torch.Tensor

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True)
class Progress:
    """What the loop reports after each step."""

    epoch: int
    step: int
    steps: int
    train_mae: float
    val_mae: float


def masked_l1(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean absolute error over the labels that exist (NaN means "no label")."""
    known = ~torch.isnan(target)
    return (output - torch.nan_to_num(target)).abs()[known].mean()


def moving_average(decay: float) -> Callable[..., None]:
    """Exponential moving average whose memory grows with the number of steps done.

    The decay is at most ``(1 + n) / (10 + n)`` after n steps, so that the average of a
    short run is not stuck at the initial weights.
    """

    @torch.no_grad()
    def update(averaged: list[torch.Tensor], current: list[torch.Tensor], n: Any) -> None:
        steps = int(n)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + steps) / (10 + steps)))

    return update


@torch.no_grad()
def evaluate(model: PropertyModel, store: PackedStore, targets: Targets) -> torch.Tensor:
    """Predictions in units ``[n, outputs]`` for the crystals of ``targets``, in their order."""
    model.eval()
    out = torch.empty_like(targets.values)
    # Crystals of like size share a batch: less padding of waves, even memory.
    order = torch.argsort(store.edges()[targets.index])
    for chunk in order.split(_EVALUATION_BATCH):
        out[chunk] = model(store.batch(targets.index[chunk]))
    return out


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The checkpoint of a run folder (tensors and numbers only), None if there is none yet.

    Raises:
        ReciNetError: If it cannot be read.
    """
    path = folder / CHECKPOINT_FILE
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state["config"]
    except Exception as error:
        raise ReciNetError(f"cannot resume from {path}: {error}") from None
    assert isinstance(state, dict)
    return state


class Trainer:
    """Trains a model on a packed store, resumably.

    The order of batches depends on the seed and the epoch alone, and a checkpoint holds
    weights, average, optimiser, schedule, random state and position, so that a run cut off
    at any moment and resumed ends with the weights of an undisturbed one.

    Args:
        model: The model to train (initial weights as they are).
        store: Graphs.
        train, val: Labels.
        config: Settings of the run.
        folder: Run folder; becomes a loadable model folder.
        on_step: Called after every step.
    """

    def __init__(
        self,
        model: PropertyModel,
        store: PackedStore,
        train: Targets,
        val: Targets,
        config: TrainingConfig,
        folder: Path,
        on_step: Callable[[Progress], None] | None = None,
    ) -> None:
        if len(train) < config.batch_size:
            raise ReciNetError(
                f"{len(train)} training crystals do not fill a batch of {config.batch_size}"
            )
        self.model, self.store, self.train, self.val = model, store, train, val
        self.config, self.folder, self.on_step = config, folder, on_step
        self.steps_per_epoch = len(train) // config.batch_size
        self.average = AveragedModel(
            model.network, multi_avg_fn=moving_average(config.ema_decay), use_buffers=True
        )
        self.optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        total = max(3, config.epochs * self.steps_per_epoch)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            max_lr=config.learning_rate,
            total_steps=total,
            pct_start=max(0.1, 2 / total),  # a warm-up of one step divides by zero
        )
        self.epoch = self.step = 0
        self.loss_sum = 0.0
        self.last_val = math.nan
        self.seconds = 0.0
        torch.manual_seed(config.seed)

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.config.epochs * self.steps_per_epoch

    @property
    def averaged_model(self) -> PropertyModel:
        """The moving average of the weights, which is validated and saved."""
        averaged = PropertyModel(self.model.config).to(self.train.values)
        averaged.network.load_state_dict(self.average.module.state_dict())
        return averaged.eval()

    def validation_error(self) -> float:
        """Mean absolute error of the averaged model on the validation set, in units."""
        predicted = evaluate(self.averaged_model, self.store, self.val)
        return float(masked_l1(predicted, self.val.values))

    def fit(self, deadline: float | None = None) -> bool:
        """Train until done or out of time.

        Args:
            deadline: ``time.monotonic()`` at which to stop, with a checkpoint.

        Returns:
            True if the run is complete, False if time ran out first.
        """
        started = time.monotonic()
        before = self.seconds
        saved_at = started
        while self.epoch < self.config.epochs:
            order = self._epoch_order(self.epoch)
            while self.step < self.steps_per_epoch:
                self._train_step(order)
                now = time.monotonic()
                self.seconds = before + now - started
                if deadline is not None and now > deadline:
                    self._save_checkpoint()
                    return False
                if now - saved_at > 60 * self.config.checkpoint_minutes:
                    self._save_checkpoint()
                    saved_at = now
            self._end_epoch()
            saved_at = time.monotonic()
        return True

    def _epoch_order(self, epoch: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch)
        return torch.randperm(len(self.train), generator=generator)

    def _train_step(self, order: torch.Tensor) -> None:
        size = self.config.batch_size
        chosen = order[self.step * size : (self.step + 1) * size]
        batch = self.store.batch(self.train.index[chosen], pad=self.config.reduce)
        target = self.model.standardise(self.train.values[chosen])
        self.model.train()
        with torch.autocast(
            target.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"
        ):
            output = self.model.network(batch)
        loss = masked_l1(output.float(), target)
        if not torch.isfinite(loss):
            raise ReciNetError(
                f"the loss became {loss.item()} in epoch {self.epoch + 1}; "
                "lower the learning rate and start again"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.schedule.step()
        self.average.update_parameters(self.model.network)
        self.step += 1
        self.loss_sum += float(loss.detach())
        if self.on_step is not None:
            done = self.epoch * self.steps_per_epoch + self.step
            mean = self.loss_sum / self.step * float(self.model.std[0])
            self.on_step(Progress(self.epoch + 1, done, self.steps, mean, self.last_val))

    def _end_epoch(self) -> None:
        last = self.epoch + 1 == self.config.epochs
        validated = last or (self.epoch + 1) % self.config.validate_every == 0
        if validated:
            self.last_val = self.validation_error()
        self._log(validated)
        self.epoch, self.step, self.loss_sum = self.epoch + 1, 0, 0.0
        self._save_checkpoint()

    def _log(self, validated: bool) -> None:
        """Append a line to the metrics, dropping lines of epochs that are run again."""
        path = self.folder / METRICS_FILE
        rows: list[dict[str, Any]] = []
        if path.exists():
            with path.open(newline="") as handle:
                rows = [r for r in csv.DictReader(handle) if int(r["epoch"]) <= self.epoch]
        mean = self.loss_sum / self.steps_per_epoch * float(self.model.std[0])
        rows.append(
            {
                "epoch": self.epoch + 1,
                "train_mae": f"{mean:.6g}",
                "val_mae": f"{self.last_val:.6g}" if validated else "",
                "learning_rate": f"{self.schedule.get_last_lr()[0]:.4g}",
                "seconds": f"{self.seconds:.1f}",
            }
        )
        part = path.with_suffix(".part")
        with part.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, _METRICS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        part.replace(path)

    def _save_checkpoint(self) -> None:
        state = {
            "config": self.model.config.to_json(),
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": torch.get_rng_state(),
            "epoch": self.epoch,
            "step": self.step,
            "loss_sum": self.loss_sum,
            "last_val": self.last_val,
            "seconds": self.seconds,
        }
        part = self.folder / f".{CHECKPOINT_FILE}.{os.getpid()}.part"
        torch.save(state, part)
        part.replace(self.folder / CHECKPOINT_FILE)

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint (see `load_checkpoint`).

        Raises:
            ReciNetError: If the checkpoint belongs to other settings.
        """
        try:
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
        except Exception as error:
            raise ReciNetError(f"cannot resume from {self.folder}: {error}") from None
        torch.set_rng_state(state["random"])
        for key in ("epoch", "step", "loss_sum", "last_val", "seconds"):
            setattr(self, key, state[key])
