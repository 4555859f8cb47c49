"""Learning energies, forces and stresses: batches of labelled cells, L1 on all three."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.units import GPa
from torch import nn

from recinet_ase.data.splits import ids_digest
from recinet_ase.elements import symbols
from recinet_ase.errors import ReciNetError
from recinet_ase.forces.accuracy import errors_of
from recinet_ase.forces.card import write_card
from recinet_ase.forces.labels import LabelledCells
from recinet_ase.forces.measure_domain import measure_domain
from recinet_ase.forces.model import ForceModel, ForceModelConfig
from recinet_ase.forces.network import ForceNetworkConfig
from recinet_ase.forces.settings import ForceTrainingConfig
from recinet_ase.forces.sources import divide, read_labelled
from recinet_ase.graph.upload import upload
from recinet_ase.pretrained import load_force_model
from recinet_ase.training.devices import hardware
from recinet_ase.training.task import Task
from recinet_ase.training.trainer import Beginning, Run, Trainer

_POOL = 32  # batches whose cells are sorted by neighbours, so that those of a batch are alike
_LISTED = 5_000  # ids that a model lists; of more it keeps a hash
_REFERENCE_CELLS = 2_000
_COLUMNS = {
    "energy": "energy_mae_mev_atom",
    "forces": "force_mae_mev_angstrom",
    "stress": "stress_mae_gpa",
}


class _LabelledCells(nn.Module):
    """The model's errors as a function of positions in the training set."""

    def __init__(self, task: ForceTask) -> None:
        super().__init__()
        self.model = task.model
        self._task = (task,)  # in a tuple: no module of this one

    def forward(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Absolute errors: eV/atom ``[B]``, eV/A ``[N, 3]``, GPa ``[B, 3, 3]``; NaN unlabelled."""
        (task,) = self._task
        chosen = task.train[positions.cpu().numpy()].tolist()
        device = self.model.reference.device
        batch, labels = task.cells.batch(chosen, self.model.config.network, device)
        result = self.model(batch, training=True)
        size = upload(torch.tensor(batch.n_atoms), device)
        return (
            ((result.energy - labels.energy) / size).abs().float(),
            (result.forces - labels.forces).abs(),
            (result.stress - labels.stress).abs() / GPa,
        )


class ForceTask(Task):
    """Energies, forces and stresses of labelled cells.

    Args:
        model: The model to train (initial weights as they are).
        cells: The data.
        train: Positions of the training cells.
        val: Positions of the validation cells.
        config: Settings of the run.
    """

    model: ForceModel

    def __init__(
        self,
        model: ForceModel,
        cells: LabelledCells,
        train: Sequence[int],
        val: Sequence[int],
        config: ForceTrainingConfig,
    ) -> None:
        self.model, self.cells, self.config = model, cells, config
        self.train, self.val = np.asarray(train), np.asarray(val)
        self.size = len(train)
        self.module = _LabelledCells(self)
        c = config
        self.weights = (c.energy_weight, c.force_weight, c.stress_weight)
        self.counts = np.stack(
            [np.isfinite(cells.energy), 3 * cells.n_atoms, 9 * np.isfinite(cells.stress[:, 0, 0])]
        )[:, self.train]

    def to(self, device: torch.device) -> None:
        """Move the model; cells are moved batch by batch."""
        self.model.to(device)

    def order(self, generator: torch.Generator, batch_size: int) -> torch.Tensor:
        """A random order in which the cells of a batch have about as many neighbours an atom.

        Every atom of a batch has as many places for neighbours as the one with most of them.
        """
        order = torch.randperm(self.size, generator=generator)
        most = torch.from_numpy(self.cells.neighbours[self.train, 0])
        pools = [pool[most[pool].argsort()] for pool in order.split(_POOL * batch_size)]
        batches = torch.cat(pools)[: self.size - self.size % batch_size].view(-1, batch_size)
        return batches[torch.randperm(len(batches), generator=generator)].ravel()

    def loss(
        self, output: Any, mine: torch.Tensor, chosen: torch.Tensor, world: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Weighted mean errors of energies, force components and stress components."""
        total = self.counts[:, chosen.cpu().numpy()].sum(1)
        parts = [
            weight * world / max(1, int(count)) * torch.nan_to_num(errors).sum()
            for weight, count, errors in zip(self.weights, total, output, strict=True)
        ]
        loss = torch.stack(parts).sum()
        # A label that is there and a prediction that is not finite must not look like no label.
        for errors, count in zip(output, total, strict=True):
            if count:
                loss = loss.where(torch.isfinite(errors).any(), torch.nan)
        return loss, loss.detach()

    def validate(self, model: ForceModel) -> tuple[float, dict[str, float]]:
        """The loss on the validation cells; errors in meV/atom, meV/A and GPa."""
        found = errors_of(model, self.cells, self.val.tolist())
        each = {"energy": found.energy, "forces": found.forces, "stress": found.stress}
        units = (1e-3, 1e-3, 1.0)
        parts = [w * u * e for w, u, e in zip(self.weights, units, each.values(), strict=True)]
        return float(np.nansum(parts)), each

    def columns(self, errors: dict[str, float]) -> dict[str, float]:
        """The three errors with their units."""
        return {_COLUMNS[key]: value for key, value in errors.items()}


def start_forces(config: Any, given: Beginning) -> Run:
    """Model and data of a new run on forces, or of the one that a checkpoint belongs to.

    Raises:
        ConversionStopped: If it was time to stop before all were read.
        ReciNetError: If the data are missing, or the model to start from does not fit.
    """
    assert isinstance(config, ForceTrainingConfig)
    path = Path(config.dataset).expanduser()
    if path.exists():
        config = replace(config, dataset=str(path.absolute()))  # to be resumed from anywhere
    initial = load_force_model(config.init) if config.init else None
    start = ForceNetworkConfig() if initial is None else initial.config.network
    network = config.force_network(start)
    if initial is not None and network != start:
        raise ReciNetError(f"{config.init} has another architecture; leave out the changes to it")
    at = given.resources
    cells, rejected = read_labelled(
        config, network, at.data_dir, at.cache, given.on_store, given.say, given.stop
    )
    train, val, test = divide(cells, config)
    atoms = int(cells.n_atoms[train].sum())
    config = replace(config, batch_size=config.cells_a_step(len(train), atoms))
    if given.state is not None:
        model = ForceModel(ForceModelConfig.from_json(given.state["config"], str(given.folder)))
        if ids_digest(cells.ids[i] for i in train) != model.config.training["train_ids_sha256"]:
            raise ReciNetError(f"the training cells are not those that {given.folder} began with")
    else:
        model = _new_model(given.folder.resolve().name, config, network, initial, cells, train)
        held_out = [cells.ids[i] for i in (*val, *test)]
        about = _provenance(config, [cells.ids[i] for i in train], held_out, initial)
        about |= {"validation": len(val), "test": len(test)}
        model.config = replace(model.config, training=about)
    task = ForceTask(model, cells, train, val, config)

    def finish(best: ForceModel, trainer: Trainer, folder: Path, complete: bool) -> None:
        """Leave the best model with its errors, its domain and its card."""
        errors = errors_of(best, cells, val)
        figures = {
            "validation_errors": asdict(errors),
            "epochs_done": trainer.epoch,
            "complete": complete,
            "hours": round(trainer.seconds / 3600, 3),
            "hardware": hardware(trainer.fabric),
            "parameters": sum(p.numel() for p in best.network.parameters()),
        }
        best.config = replace(best.config, training={**best.config.training, **figures})
        measure_domain(best, cells, train)
        best.save(folder)
        write_card(best, cells, val, folder)

    return Run(task, config, rejected, finish)


def _provenance(
    config: ForceTrainingConfig,
    train_ids: list[str],
    held_out: list[str],
    initial: ForceModel | None,
) -> dict[str, Any]:
    """What a model records of its training before it starts.

    Raises:
        ReciNetError: If the model to start from was trained on cells held out here.
    """
    dataset = Path(config.dataset).name
    about: dict[str, Any] = {
        "dataset": dataset,
        "settings": {**asdict(config), "learning_rate": config.peak_rate},
        "train": len(train_ids),
        "train_ids_sha256": ids_digest(train_ids),
    }
    if len(train_ids) <= _LISTED:
        about["train_ids"] = sorted(train_ids)
    if initial is None:
        return about
    seen = initial.config.training
    if seen.get("dataset") == dataset:
        leaked = sorted(set(seen.get("train_ids", ())) & set(held_out))
        if leaked:
            raise ReciNetError(
                f"{initial.config.name} was trained on {len(leaked)} of the cells held out here, "
                f"{leaked[0]} for one; give the split_seed of its training"
            )
    about["start"] = {key: value for key, value in seen.items() if key != "train_ids"}
    return about


def _new_model(
    name: str,
    config: ForceTrainingConfig,
    network: ForceNetworkConfig,
    initial: ForceModel | None,
    cells: LabelledCells,
    train: list[int],
) -> ForceModel:
    """The model at the start of a run: fresh, or with the weights of another.

    Raises:
        ReciNetError: If that one never saw an element of the data.
    """
    torch.manual_seed(config.seed)
    own = cells.select(np.asarray(train))
    present = own.elements()
    elements = {z for some in present for z in some}
    pairs = {(a, b) for some in present for i, a in enumerate(some) for b in some[i + 1 :]}
    if initial is None:
        average = float((own.neighbours[:, 1] * own.n_atoms).sum() / own.n_atoms.sum())
        model = ForceModel(
            ForceModelConfig(
                name=name,
                network=replace(network, neighbours=average),
                elements=tuple(sorted(elements)),
                pairs=tuple(sorted(pairs)),
                references=atom_references(own, own.energy),
                scale=float(np.sqrt((own.forces**2).mean())),
                functional="PBE" if config.dataset.startswith("mlearn") else "",
            )
        )
        return model
    before = initial.config
    unseen = sorted(elements - set(before.elements))
    if unseen:
        names = ", ".join(symbols()[z] for z in unseen)
        raise ReciNetError(f"{before.name} was not trained on {names}; start afresh")
    references = before.references
    if before.training.get("dataset") != Path(config.dataset).name:
        references = {**references, **_refitted(initial, own)}
    model = ForceModel(
        replace(
            before, name=name, training={}, caution="", sha256="", references=references,
            pairs=tuple(sorted(pairs | set(before.pairs))),
        )
    )  # fmt: skip
    model.network.load_state_dict(initial.network.state_dict())
    return model


def atom_references(cells: LabelledCells, energy: np.ndarray) -> dict[str, float]:
    """Energy of an atom of each element by least squares over the cells, eV by symbol.

    Args:
        cells: The cells.
        energy: What to fit, eV a cell; NaN is passed over ``[S]``.
    """
    owner = np.repeat(np.arange(len(cells)), cells.n_atoms)
    counts = np.zeros((len(cells), 256))
    np.add.at(counts, (owner, cells.numbers), 1)
    known = np.isfinite(energy)
    present = np.flatnonzero(counts.any(0))
    if not known.any():
        return {symbols()[z]: 0.0 for z in present}
    shares = counts[np.ix_(known, present)] / cells.n_atoms[known, None]
    found = np.linalg.lstsq(shares, energy[known] / cells.n_atoms[known], rcond=None)[0]
    return {symbols()[z]: float(e) for z, e in zip(present, found, strict=True)}


def _refitted(initial: ForceModel, cells: LabelledCells) -> dict[str, float]:
    """References with which a model agrees best with energies of another zero."""
    few = np.random.default_rng(0).permutation(len(cells))[:_REFERENCE_CELLS]
    # Every element must be there: the first cell of each, and a sample.
    first = np.unique(cells.numbers, return_index=True)[1]
    few = np.union1d(few, np.searchsorted(cells.start, first, side="right") - 1)
    some = cells.select(few)
    rest = some.energy.copy()
    for start in range(0, len(some), 64):
        chosen = list(range(start, min(start + 64, len(some))))
        batch, _ = some.batch(chosen, initial.config.network)
        reference = initial.reference.double()[batch.z]
        own = initial(batch).energies - reference
        total = torch.zeros(len(chosen), dtype=torch.float64).index_add(0, batch.cell, own)
        rest[chosen] -= total.numpy()
    return atom_references(some, rest)
