"""Learning properties: batches of a packed store, L1 on standardised labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from recinet_ase.data.store import PackedStore
from recinet_ase.graph.upload import upload
from recinet_ase.models.property_model import PropertyModel
from recinet_ase.nn.recinet import ReciNet
from recinet_ase.training.config import TrainingConfig
from recinet_ase.training.freeze import frozen_modules
from recinet_ase.training.labels import Targets
from recinet_ase.training.references import composition
from recinet_ase.training.task import Task
from recinet_ase.training.weighting import TaskWeights

_EVALUATION_BATCH = 128


def absolute_errors(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """``|output - target|`` where there is a label, zero where the target is NaN."""
    known = ~torch.isnan(target)
    return torch.where(known, output - torch.nan_to_num(target), 0.0).abs()


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


class _StoredCrystals(nn.Module):
    """The network as a function of positions in the training set.

    What crosses the border to Fabric (precision, data-parallel wrapper) is one index
    tensor; graphs are gathered on the device.
    """

    def __init__(self, network: ReciNet, task: PropertyTask, pad: bool) -> None:
        super().__init__()
        self.network, self.pad = network, pad
        self._task = (task,)  # in a tuple: no module of this one

    def forward(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        (task,) = self._task
        # On the host the sizes of the batch are known, and the device need not be asked.
        batch = task.store.batch(task.host_index[positions.cpu()], pad=self.pad)
        output, imbalance = self.network.read(self.network.encode(batch), batch)
        return output.float(), imbalance.float()


class PropertyTask(Task):
    """Properties of crystals in a packed store.

    Args:
        model: The model to train (initial weights as they are).
        store: Graphs.
        train: Training labels.
        val: Validation labels.
        config: Settings of the run.
    """

    model: PropertyModel
    module: _StoredCrystals

    def __init__(
        self,
        model: PropertyModel,
        store: PackedStore,
        train: Targets,
        val: Targets,
        config: TrainingConfig,
    ) -> None:
        self.model, self.store, self.train, self.val = model, store, train, val
        self.config, self.size = config, len(train)
        self.frozen = tuple(frozen_modules(model.network, config.freeze))
        # Round sizes pay where a kernel is made for each shape (oneDNN's bfloat16).
        pad = config.reduce and config.precision == "bfloat16"
        self.module = _StoredCrystals(model.network, self, pad)
        # One property is reported in its unit, several in units of their deviations.
        alone = len(config.properties) == 1
        self.scale = float(model.std[0]) if alone else 1.0
        unit = model.config.infos[0].unit if alone else "of the mean absolute deviation"
        self.unit = f"log10({unit})" if alone and model.config.logarithmic else unit

    def to(self, device: torch.device) -> None:
        """Move model, graphs and labels to a device."""
        self.model.to(device)
        self.store = self.store.to(device)
        self.host_index = self.train.index.cpu()
        self.module.pad = self.module.pad and device.type == "cpu"
        self.train, self.val = self.train.to(device), self.val.to(device)
        self.targets = self._standardised()
        self.weights = TaskWeights(
            self.config.task_weights, (~torch.isnan(self.train.values)).sum(0)
        )

    def _standardised(self) -> torch.Tensor:
        """What the network is to give for the training crystals, ``[n, outputs]``."""
        values = self.train.values
        if self.model.config.references:
            shares = composition(self.store, self.train.index).to(values.dtype)
            values = values - shares @ self.model.reference[: shares.shape[1]]
        return self.model.standardise(values)

    def loss(
        self, output: Any, mine: torch.Tensor, chosen: torch.Tensor, world: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Weighted errors a label, with the experts' imbalance; and errors a label."""
        predicted, imbalance = output
        mine, chosen = (upload(x, self.targets.device) for x in (mine, chosen))
        labels = (~torch.isnan(self.targets[chosen])).sum()  # of the whole batch
        target = self.targets[mine]
        errors = absolute_errors(predicted, target)
        share = world / labels.clamp(min=1)  # gradients are averaged over the processes
        loss = (errors * self.weights.values).sum() * share + self.config.balance * imbalance
        self.weights.update(errors.detach(), ~torch.isnan(target))
        return loss, errors.detach().sum() * share

    def validate(self, model: PropertyModel) -> tuple[float, dict[str, float]]:
        """Errors on the validation set.

        Returns:
            The figure to be minimised (the mean absolute error, of the logarithm where that is
            learnt; with several properties the mean of theirs, each divided by its deviation),
            and the mean absolute error of each property in its unit.
        """
        predicted = evaluate(model, self.store, self.val)
        known = ~torch.isnan(self.val.values)
        each = absolute_errors(predicted, self.val.values).sum(0) / known.sum(0)
        ours, theirs = map(model.standardise, (predicted, self.val.values))
        learnt = absolute_errors(ours, theirs).sum(0) / (~torch.isnan(theirs)).sum(0)
        overall = learnt.nanmean() * self.scale
        return float(overall), dict(zip(self.config.properties, each.tolist(), strict=True))

    def columns(self, errors: dict[str, float]) -> dict[str, float]:
        """The error of each property, where there are several."""
        if len(self.config.properties) == 1:
            return {}
        return {f"val_mae_{name}": value for name, value in errors.items()}

    def state(self) -> dict[str, Any]:
        """The errors that weigh the properties."""
        return {"task_errors": self.weights.state}

    def restore(self, state: dict[str, Any]) -> None:
        """Take the errors back."""
        self.weights.state = state["task_errors"].to(self.targets.device)
