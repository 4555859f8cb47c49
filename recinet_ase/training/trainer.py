"""The training loop: L1 on standardised targets, OneCycle, EMA, resumable checkpoints."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from recinet_ase.data.store import PackedStore
from recinet_ase.errors import ReciNetError
from recinet_ase.models.property_model import PropertyModel
from recinet_ase.nn.recinet import ReciNet
from recinet_ase.training.config import TrainingConfig
from recinet_ase.training.freeze import frozen_modules
from recinet_ase.training.labels import Targets
from recinet_ase.training.metrics import append_metrics
from recinet_ase.training.references import composition
from recinet_ase.training.weighting import TaskWeights

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CHECKPOINT_FILE = "checkpoint.pt"
_EVALUATION_BATCH = 128
_STOP_CHECK_STEPS = 16  # with several processes, steps between looks at the clock


@dataclass(frozen=True)
class Progress:
    """What the loop reports after each step.

    Attributes:
        epoch: Epoch in progress, from 1.
        step, steps: Steps done, and steps of the whole run.
        train_mae: Mean error of the epoch so far (units as in ``metrics.csv``).
        val_mae: Last validation error, NaN before the first.
        best_mae, best_epoch: The best one and its epoch, NaN and 0 before the first.
        unit: Unit of the errors.
    """

    epoch: int
    step: int
    steps: int
    train_mae: float
    val_mae: float
    best_mae: float = math.nan
    best_epoch: int = 0
    unit: str = ""


def absolute_errors(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """``|output - target|`` where there is a label, zero where the target is NaN."""
    known = ~torch.isnan(target)
    return torch.where(known, output - torch.nan_to_num(target), 0.0).abs()


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


class _StoredCrystals(nn.Module):
    """The network as a function of positions in the store.

    What crosses the border to Fabric (precision, data-parallel wrapper) is one index
    tensor; graphs are gathered on the device.
    """

    def __init__(self, network: ReciNet, store: PackedStore, pad: bool) -> None:
        super().__init__()
        self.network, self.store, self.pad = network, store, pad

    def forward(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        batch = self.store.batch(index, pad=self.pad)
        output, imbalance = self.network.read(self.network.encode(batch), batch)
        return output.float(), imbalance.float()


class Trainer:
    """Trains a model on a packed store, resumably.

    Order of batches and random numbers of a step depend on seed, epoch and step alone,
    and a checkpoint holds weights, average, optimiser, schedule and position, so that a run
    cut off at any moment and resumed ends with the weights of an undisturbed one.

    With several processes each takes its share of every batch; normalisation
    statistics and the loss are those of the whole batch, so that the run is the same as
    in one process up to the order of floating point sums.

    The run folder is a loadable model: that of the best validation so far. The checkpoint
    holds the last state.

    Args:
        model: The model to train (initial weights as they are).
        store: Graphs.
        train, val: Labels.
        config: Settings of the run.
        folder: Run folder.
        fabric: Devices, precision and processes; one CPU process by default.
        on_step: Called after every step (in the first process).
    """

    def __init__(
        self,
        model: PropertyModel,
        store: PackedStore,
        train: Targets,
        val: Targets,
        config: TrainingConfig,
        folder: Path,
        fabric: Fabric | None = None,
        on_step: Callable[[Progress], None] | None = None,
    ) -> None:
        self.batch_size = config.batch_for(len(train))
        if len(train) < self.batch_size:
            raise ReciNetError(
                f"{len(train)} training crystals do not fill a batch of {self.batch_size}; "
                "choose a smaller --batch-size"
            )
        if fabric is None:
            from recinet_ase.training.devices import make_fabric

            fabric = make_fabric(precision=config.precision, accelerator="cpu")
        self.fabric = fabric
        device = fabric.device
        self.model, self.store = model.to(device), store.to(device)
        self.train, self.val = train.to(device), val.to(device)
        self.config, self.folder, self.on_step = config, folder, on_step
        self.targets = self._standardised()
        self.task_weights = TaskWeights(
            config.task_weights, (~torch.isnan(self.train.values)).sum(0)
        )
        self.frozen = frozen_modules(model.network, config.freeze)
        self.steps_per_epoch = len(train) // self.batch_size
        self.average = AveragedModel(
            model.network, multi_avg_fn=moving_average(config.ema_decay), use_buffers=True
        )
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            parameters, lr=config.peak_rate, weight_decay=config.weight_decay, fused=True
        )
        # Round sizes pay where a kernel is made for each shape (oneDNN's bfloat16).
        pad = config.reduce and config.precision == "bfloat16"
        module = _StoredCrystals(model.network, self.store, pad)
        self.module, self.optimizer = fabric.setup(module, optimizer)
        total = max(3, self.steps)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            max_lr=config.peak_rate,
            total_steps=total,
            pct_start=max(0.1, 2 / total),  # a warm-up of one step divides by zero
        )
        self.epoch = self.step = 0
        self.loss_sum = 0.0
        self.last_val = self.best_val = math.nan
        self.best_errors: dict[str, float] = {}
        self.best_epoch = self.waited = 0  # and validations since the best one
        self.seconds = 0.0
        # One property is reported in its unit, several in units of their deviations.
        alone = len(config.properties) == 1
        self.scale = float(model.std[0]) if alone else 1.0
        logarithm = alone and bool(model.config.logarithmic)
        unit = model.config.infos[0].unit if alone else "of the mean absolute deviation"
        self.unit = f"log10({unit})" if logarithm else unit

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

    def _standardised(self) -> torch.Tensor:
        """What the network is to give for the training crystals, ``[n, outputs]``."""
        values = self.train.values
        if self.model.config.references:
            shares = composition(self.store, self.train.index).to(values.dtype)
            values = values - shares @ self.model.reference[: shares.shape[1]]
        return self.model.standardise(values)

    def validation_errors(self) -> tuple[float, dict[str, float]]:
        """Error of the averaged model on the validation set.

        Returns:
            The figure to be minimised (the mean absolute error, of the logarithm where that is
            learnt; with several properties the mean of theirs, each divided by its deviation),
            and the mean absolute error of each property in its unit.
        """
        predicted = evaluate(self.averaged_model, self.store, self.val)
        known = ~torch.isnan(self.val.values)
        each = absolute_errors(predicted, self.val.values).sum(0) / known.sum(0)
        ours, theirs = map(self.model.standardise, (predicted, self.val.values))
        learnt = absolute_errors(ours, theirs).sum(0) / (~torch.isnan(theirs)).sum(0)
        overall = learnt.nanmean() * self.scale
        return float(overall), dict(zip(self.config.properties, each.tolist(), strict=True))

    def fit(
        self, deadline: float | None = None, interrupted: Callable[[], bool] | None = None
    ) -> bool:
        """Train until done, out of patience or out of time.

        Args:
            deadline: ``time.monotonic()`` at which to stop, with a checkpoint.
            interrupted: Asked after each step whether to stop, with a checkpoint.

        Returns:
            True if the run is complete, False if it was stopped first.
        """
        started = time.monotonic()
        before = self.seconds
        saved_at = started
        while self.epoch < self.config.epochs and not self._out_of_patience():
            order = self._epoch_order(self.epoch)
            while self.step < self.steps_per_epoch:
                self._train_step(order)
                now = time.monotonic()
                self.seconds = before + now - started
                late = deadline is not None and now > deadline
                if self._agree_to_stop(late or (interrupted is not None and interrupted())):
                    self._save_checkpoint()
                    return False
                if now - saved_at > 60 * self.config.checkpoint_minutes:
                    self._save_checkpoint()
                    saved_at = now
            self._end_epoch()
            saved_at = time.monotonic()
        return True

    def _out_of_patience(self) -> bool:
        return 0 < self.config.validations_waited <= self.waited

    def _agree_to_stop(self, wish: bool) -> bool:
        """Whether to stop: all processes do if the first one wishes."""
        if self.fabric.world_size == 1:
            return wish
        if self.step % _STOP_CHECK_STEPS and self.step != self.steps_per_epoch:
            return False
        return bool(self.fabric.broadcast(wish))

    def _epoch_order(self, epoch: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch)
        return torch.randperm(len(self.train), generator=generator).to(self.fabric.device)

    def _train_step(self, order: torch.Tensor) -> None:
        size, world, rank = self.batch_size, self.fabric.world_size, self.fabric.global_rank
        chosen = order[self.step * size : (self.step + 1) * size]
        labels = (~torch.isnan(self.targets[chosen])).sum()  # of the whole batch
        mine = chosen.tensor_split(world)[rank]
        done = self.epoch * self.steps_per_epoch + self.step
        torch.manual_seed(self.config.seed * 1_000_003 + done * world + rank)
        self.model.train()
        for module in self.frozen:
            module.eval()  # running statistics are weights, too
        output, imbalance = self.module(self.train.index[mine])
        target = self.targets[mine]
        errors = absolute_errors(output, target)
        share = world / labels.clamp(min=1)  # gradients are averaged over the processes
        loss = (errors * self.task_weights.values).sum() * share
        loss = loss + self.config.balance * imbalance
        reported = errors.detach().sum() * share
        value = reported.item() if world == 1 else self._mean_over_processes(reported)
        if not math.isfinite(value):
            raise ReciNetError(
                f"the loss became {value} in epoch {self.epoch + 1}; "
                "lower the learning rate and start again"
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.schedule.step()
        self.average.update_parameters(self.model.network)
        self.task_weights.update(errors.detach(), ~torch.isnan(target))
        self.step += 1
        self.loss_sum += value
        if self.on_step is not None and rank == 0:
            mean = self.loss_sum / self.step * self.scale
            self.on_step(
                Progress(
                    self.epoch + 1, done + 1, self.steps, mean,
                    self.last_val, self.best_val, self.best_epoch, self.unit,
                )
            )  # fmt: skip

    def _mean_over_processes(self, value: torch.Tensor) -> float:
        mean = self.fabric.all_reduce(value, reduce_op="mean")
        assert isinstance(mean, torch.Tensor)
        return mean.item()

    def _end_epoch(self) -> None:
        last = self.epoch + 1 == self.config.epochs
        each: dict[str, float] = {}
        if last or (self.epoch + 1) % self.config.validate_every == 0:
            # The first process alone looks; the others wait for its figure.
            found = self.validation_errors() if self.fabric.is_global_zero else (math.nan, {})
            self.last_val, each = self.fabric.broadcast(found)
            if math.isnan(self.best_val) or self.last_val < self.best_val:
                self.best_val, self.best_errors, self.waited = self.last_val, each, 0
                self.best_epoch = self.epoch + 1
                if self.fabric.is_global_zero:
                    self.averaged_model.save(self.folder, half=False)
            else:
                self.waited += 1
        if self.fabric.is_global_zero:
            self._log(each)
        self.epoch, self.step, self.loss_sum = self.epoch + 1, 0, 0.0
        self._save_checkpoint()

    def _log(self, each: dict[str, float]) -> None:
        row = {
            "epoch": self.epoch + 1,
            "train_mae": f"{self.loss_sum / self.steps_per_epoch * self.scale:.6g}",
            "val_mae": f"{self.last_val:.6g}" if each else "",
            "learning_rate": f"{self.schedule.get_last_lr()[0]:.4g}",
            "seconds": f"{self.seconds:.1f}",
        }
        if len(self.config.properties) > 1:
            for name in self.config.properties:
                row[f"val_mae_{name}"] = f"{each[name]:.6g}" if each else ""
        append_metrics(self.folder, row)

    def _save_checkpoint(self) -> None:
        if not self.fabric.is_global_zero:
            return
        state = {
            "config": self.model.config.to_json(),
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "task_errors": self.task_weights.state,
            **{key: getattr(self, key) for key in _POSITION},
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
            if "task_errors" in state:  # checkpoints of earlier versions weighted all labels alike
                self.task_weights.state = state["task_errors"].to(self.fabric.device)
            state.setdefault("best_epoch", 0)  # checkpoints of earlier versions do not say
            for key in _POSITION:
                setattr(self, key, state[key])
        except Exception as error:
            raise ReciNetError(f"cannot resume from {self.folder}: {error}") from None


_POSITION = (
    "epoch", "step", "loss_sum", "last_val", "best_val", "best_epoch", "best_errors", "waited",
    "seconds",
)  # fmt: skip
