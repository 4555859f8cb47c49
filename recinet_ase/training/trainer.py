"""The training loop: AdamW, OneCycle, EMA, resumable checkpoints; what is learnt is a `Task`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from recinet_ase.errors import ReciNetError
from recinet_ase.models.files import replacing
from recinet_ase.training.averaging import MovingAverage, moving_average
from recinet_ase.training.config import TrainingConfig
from recinet_ase.training.metrics import append_metrics
from recinet_ase.training.optimizers import make_optimizers
from recinet_ase.training.task import Progress, Task

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from recinet_ase.training.devices import Resources

CHECKPOINT_FILE = "checkpoint.pt"
_STOP_CHECK_STEPS = 16  # with several processes, steps between looks at the clock
_READ_STEPS = 50  # on a GPU, steps between looks at the error


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
        state["step"]
    except Exception as error:
        raise ReciNetError(f"cannot resume from {path}: {error}") from None
    assert isinstance(state, dict)
    return state


class Trainer:
    """Runs the training of a task, resumably.

    Order of batches and random numbers of a step depend on seed, epoch and step alone,
    and a checkpoint holds weights, average, optimiser, schedule and position, so that a run
    cut off at any moment and resumed ends with the weights of an undisturbed one.

    With several processes each takes its share of every batch; normalisation
    statistics and the loss are those of the whole batch, so that the run is the same as
    in one process up to the order of floating point sums.

    The run folder is a loadable model: that of the best validation so far. The checkpoint
    holds the last state.

    Args:
        task: Model, data and loss.
        config: Settings of the run.
        folder: Run folder.
        fabric: Devices, precision and processes; one CPU process by default.
        on_step: Called after every step (in the first process).
    """

    def __init__(
        self,
        task: Task,
        config: TrainingConfig,
        folder: Path,
        fabric: Fabric | None = None,
        on_step: Callable[[Progress], None] | None = None,
    ) -> None:
        self.batch_size = config.batch_for(task.size)
        if task.size < self.batch_size:
            raise ReciNetError(
                f"{task.size} training crystals do not fill a batch of {self.batch_size}; "
                "choose a smaller --batch-size"
            )
        if fabric is None:
            from recinet_ase.training.devices import make_fabric

            fabric = make_fabric(precision=config.precision, accelerator="cpu")
        self.fabric, self.task, self.model = fabric, task, task.model
        self.config, self.folder, self.on_step = config, folder, on_step
        task.to(fabric.device)
        self.steps_per_epoch = task.size // self.batch_size
        network = self.model.network
        self.average = MovingAverage(
            network, multi_avg_fn=moving_average(config.ema_decay), use_buffers=True
        )
        optimizers = make_optimizers(
            config.optimizer, network, config.peak_rate, config.weight_decay
        )
        self.module, *self.optimizers = fabric.setup(task.module, *optimizers)
        total = max(3, self.steps)
        self.schedules = [
            torch.optim.lr_scheduler.OneCycleLR(
                optimizer,
                max_lr=config.peak_rate,
                total_steps=total,
                pct_start=max(0.1, 2 / total),  # a warm-up of one step divides by zero
                cycle_momentum="betas" in optimizer.defaults,
            )
            for optimizer in self.optimizers
        ]
        self.epoch = self.step = 0
        self.loss_sum = 0.0
        # A GPU would stand still after every step whose error is read.
        self._unread: list[torch.Tensor] = []
        self._read_every = 1 if fabric.device.type == "cpu" else _READ_STEPS
        self.last_val = self.best_val = math.nan
        self.best_errors: dict[str, float] = {}
        self.best_epoch = self.waited = 0  # and validations since the best one
        self.seconds = 0.0

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.config.epochs * self.steps_per_epoch

    @property
    def averaged_model(self) -> Any:
        """A model with the moving average of the weights, which is validated and saved."""
        averaged = type(self.model)(self.model.config).to(self.fabric.device)
        averaged.network.load_state_dict(self.average.module.state_dict())
        return averaged.eval()

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
        return self.task.order(generator, self.batch_size)

    def _train_step(self, order: torch.Tensor) -> None:
        """One step of the optimiser on a batch."""
        size, world, rank = self.batch_size, self.fabric.world_size, self.fabric.global_rank
        chosen = order[self.step * size : (self.step + 1) * size]
        mine = chosen.tensor_split(world)[rank]
        done = self.epoch * self.steps_per_epoch + self.step
        torch.manual_seed(self.config.seed * 1_000_003 + done * world + rank)
        self.model.train()
        for module in self.task.frozen:
            module.eval()  # running statistics are weights, too
        loss, reported = self.task.loss(self.module(mine), mine, chosen, world)
        self._unread.append(reported)
        if len(self._unread) >= self._read_every:
            self._read()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
            optimizer.step()
            schedule.step()
        self.average.update_parameters(self.model.network)
        self.step += 1
        if self.on_step is not None and rank == 0:
            read = self.step - len(self._unread)
            mean = self.loss_sum / read * self.task.scale if read else math.nan
            self.on_step(
                Progress(
                    self.epoch + 1, done + 1, self.steps, mean,
                    self.last_val, self.best_val, self.best_epoch, self.task.unit,
                )
            )  # fmt: skip

    def _read(self) -> None:
        """Add up the errors of the steps since the last time.

        Raises:
            ReciNetError: If one is not finite.
        """
        if not self._unread:
            return
        errors = torch.stack(self._unread)
        self._unread = []
        if self.fabric.world_size > 1:
            mean = self.fabric.all_reduce(errors, reduce_op="mean")
            assert isinstance(mean, torch.Tensor)
            errors = mean
        for value in errors.tolist():
            if not math.isfinite(value):
                raise ReciNetError(
                    f"the loss became {value} in epoch {self.epoch + 1}; "
                    "lower the learning rate and start again"
                )
            self.loss_sum += value

    def _end_epoch(self) -> None:
        """Validate where it is time, keep the best model, log, save."""
        self._read()
        last = self.epoch + 1 == self.config.epochs
        each: dict[str, float] = {}
        if last or (self.epoch + 1) % self.config.validate_every == 0:
            # The first process alone looks; the others wait for its figure.
            figures: tuple[float, dict[str, float]] = (math.nan, {})
            if self.fabric.is_global_zero:
                figures = self.task.validate(self.averaged_model)
            self.last_val, each = self.fabric.broadcast(figures)
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
        """Add the epoch's row to ``metrics.csv``."""
        row = {
            "epoch": self.epoch + 1,
            "train_mae": f"{self.loss_sum / self.steps_per_epoch * self.task.scale:.6g}",
            "val_mae": f"{self.last_val:.6g}" if each else "",
            "learning_rate": f"{self.schedules[0].get_last_lr()[0]:.4g}",
            "seconds": f"{self.seconds:.1f}",
        }
        names = each or self.best_errors
        row |= {
            key: f"{value:.6g}" if each else "" for key, value in self.task.columns(names).items()
        }
        append_metrics(self.folder, row)

    def _save_checkpoint(self) -> None:
        """Write all that a resumed run needs, whole or not at all."""
        self._read()
        if not self.fabric.is_global_zero:
            return
        state = {
            "config": self.model.config.to_json(),
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedules": [schedule.state_dict() for schedule in self.schedules],
            **self.task.state(),
            **{key: getattr(self, key) for key in _POSITION},
        }
        with replacing(self.folder / CHECKPOINT_FILE) as part:
            torch.save(state, part)

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint (see `load_checkpoint`).

        Raises:
            ReciNetError: If the checkpoint belongs to other settings.
        """
        try:
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            for key, parts in (("optimizers", self.optimizers), ("schedules", self.schedules)):
                for part, its in zip(parts, state[key], strict=True):
                    part.load_state_dict(its)
            self.task.restore(state)
            for key in _POSITION:
                setattr(self, key, state[key])
        except Exception as error:
            raise ReciNetError(f"cannot resume from {self.folder}: {error}") from None


_POSITION = (
    "epoch", "step", "loss_sum", "last_val", "best_val", "best_epoch", "best_errors", "waited",
    "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Beginning:
    """What a run, new or resumed, begins with.

    Attributes:
        folder: Its folder.
        resources: Data, devices, time.
        state: The checkpoint to go on from, None for a new run.
        on_store: Called with the number of crystals converted, and that of all.
        say: Called with what the user should know of the data.
        stop: Asked now and then whether to stop.
    """

    folder: Path
    resources: Resources
    state: dict[str, Any] | None
    on_store: Callable[[int, int], None] | None
    say: Callable[[str], None] | None
    stop: Callable[[], bool]


@dataclass(frozen=True)
class Run:
    """A run that can begin.

    Attributes:
        task: What is learnt.
        config: Its settings, completed from the data.
        rejected: Rows that could not be used, by id, with the reason.
        finish: Leaves the best model with its figures and card in the run folder; called with
            the model, the trainer, the folder, and whether the run is complete.
    """

    task: Task
    config: TrainingConfig
    rejected: dict[str, str]
    finish: Callable[[Any, Trainer, Path, bool], None]
