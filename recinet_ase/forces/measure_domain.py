"""The extent of a force model's training cells, measured after training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from recinet_ase.elements import MAX_Z, symbols
from recinet_ase.forces.domain import ForceDomain, pair_name
from recinet_ase.forces.labels import LabelledCells
from recinet_ase.forces.model import ForceModel

_CELLS = 10_000  # that are looked at
_CELLS_A_BATCH = 32
_QUANTILE, _BEYOND = 0.999, 1.5  # atoms farther than so many times this quantile are new
_FLOOR = 0.3  # of the deviation of atoms from their element's mean, for elements with few of them


@torch.no_grad()
def measure_domain(model: ForceModel, cells: LabelledCells, train: Sequence[int]) -> None:
    """Put the extent of the training cells into a model.

    Args:
        model: The model; its configuration and its table of latent features are replaced.
        cells: The data.
        train: Positions of the training cells; of many a sample is looked at.
    """
    chosen = np.asarray(train)
    if len(chosen) > _CELLS:
        chosen = np.sort(np.random.default_rng(0).permutation(chosen)[:_CELLS])
    some = cells.select(chosen)
    counts = np.zeros((len(some), MAX_Z + 1))
    np.add.at(counts, (np.repeat(np.arange(len(some)), some.n_atoms), some.numbers), 1)
    present = np.flatnonzero(counts.any(0))
    volume = np.abs(np.linalg.det(some.lattice))
    each = np.linalg.lstsq(counts[:, present], volume, rcond=None)[0].clip(min=1.0)
    ratio = volume / (counts[:, present] @ each)
    shortest = np.full((MAX_Z + 1, MAX_Z + 1), np.inf)
    latent = []
    for start in range(0, len(some), _CELLS_A_BATCH):
        part = list(range(start, min(start + _CELLS_A_BATCH, len(some))))
        batch, _ = some.batch(part, model.config.network)
        result = model(batch)
        latent.append(result.latent.cpu().numpy())
        ends = batch.positions[batch.neighbour] + batch.shift
        distance = (ends - batch.positions[:, None]).norm(dim=-1).numpy()
        z = batch.z.numpy()
        np.minimum.at(shortest, (z[:, None], z[batch.neighbour.numpy()]), distance)
    shortest = np.minimum(shortest, shortest.T)
    pairs = np.argwhere(np.triu(shortest < model.config.network.cutoff)).tolist()
    domain = ForceDomain(
        {pair_name(a, b): round(float(shortest[a, b]), 3) for a, b in pairs},
        {symbols()[z]: round(float(v), 2) for z, v in zip(present, each, strict=True)},
        (round(float(ratio.min()), 3), round(float(ratio.max()), 3)),
    )
    model.config = replace(model.config, domain=domain)
    features, numbers = np.concatenate(latent), some.numbers
    within = features.copy()
    for number in present.tolist():
        within[numbers == number] -= features[numbers == number].mean(0)
    spread = within.std(0)
    for number in present.tolist():
        own = features[numbers == number]
        mean, deviation = own.mean(0), np.maximum(own.std(0), _FLOOR * spread) + 1e-6
        away = np.sqrt((((own - mean) / deviation) ** 2).mean(1))
        limit = _BEYOND * max(1.0, float(np.quantile(away, _QUANTILE)))
        model.latent_mean[number] = torch.from_numpy(mean)
        model.latent_scale[number] = torch.from_numpy(1 / (limit * deviation))
