"""What each site of a crystal adds to a predicted value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from recinet_ase.elements import symbols
from recinet_ase.errors import ReciNetError, StructureError
from recinet_ase.inference.preparation import Preparation
from recinet_ase.models.ensemble import AnyModel
from recinet_ase.models.property_model import PropertyModel
from recinet_ase.nn.pooling import MeanPooling
from recinet_ase.nn.precision import full_precision

_NODES = 24  # of the quadrature: sites add up to the value to single precision


@dataclass(frozen=True)
class Contributions:
    """What each site adds to a predicted value.

    Attributes:
        name: The property.
        unit: Its unit.
        value: The prediction, before it is clipped to a physical bound.
        baseline: The value of an average training crystal's representation.
        sites: What each site adds, in the order of the atoms ``[n]``; with ``baseline`` they add
            up to ``value``.
        elements: Chemical symbol of each site.
    """

    name: str
    unit: str
    value: float
    baseline: float
    sites: np.ndarray
    elements: tuple[str, ...]

    def by_element(self) -> dict[str, float]:
        """The sum over the sites of each element, largest first."""
        sums: dict[str, float] = {}
        for element, part in zip(self.elements, self.sites.tolist(), strict=True):
            sums[element] = sums.get(element, 0.0) + part
        return dict(sorted(sums.items(), key=lambda pair: -abs(pair[1])))


@full_precision()
def contributions(
    model: AnyModel, name: str, preparation: Preparation, structure: Any
) -> Contributions:
    """What each site adds to a value, beside an average training crystal.

    The representation of a crystal is the mean over its sites, ``x = sum_i h_i / n``, and a small
    network makes the value of it. Its gradient is integrated on the straight way from the mean
    representation of the training crystals ``b`` to ``x`` (integrated gradients, Sundararajan
    2017), so that ``value - baseline`` is a sum over the sites of ``(h_i - b) . g / n``. A site's
    features know its surroundings: what it adds is that of the site in this crystal.

    Args:
        model: The model.
        name: The property, one of the model's.
        preparation: Checks and prepares the structure, as for a prediction.
        structure: The crystal.

    Raises:
        StructureError: If the model cannot answer for the structure.
        ReciNetError: For a model that is no single network, has no mean over the sites, learns a
            logarithm, or has no calibration (which knows the training crystals).
    """
    if not isinstance(model, PropertyModel):
        raise ReciNetError(f"{model.config.name} is an ensemble: ask one of its networks")
    if not isinstance(model.network.pool, MeanPooling):
        raise ReciNetError(f"{model.config.name} takes no mean over the sites: nothing adds up")
    if name in model.config.logarithmic:
        raise ReciNetError(f"{model.config.name} learns a logarithm of {name}: nothing adds up")
    if model.calibration is None:
        raise ReciNetError(f"{model.config.name} has no calibration: no average to start from")
    prepared = replace(preparation, reduce=False)([structure])
    if prepared.results[0].error:
        raise StructureError(prepared.results[0].error)
    batch = prepared.batches[0].graphs[model.config.graph].to(model.std.device)
    kept: list[torch.Tensor] = []
    hook = model.network.pool.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    try:
        with torch.no_grad():
            values, latent = model.unclipped(batch)
    finally:
        hook.remove()
    column = model.config.properties.index(name)
    start = model.calibration.reference.mean.to(latent)
    scale = float(model.std[column])

    def decoded(x: torch.Tensor) -> torch.Tensor:
        return scale * model.network.decode(x, batch)[:, column]

    slope = _mean_gradient(decoded, start[None], latent)
    parts = (kept[0] - start) @ slope[0] / len(kept[0])
    if model.config.references:
        parts = parts + model.reference[batch.z, column] / len(parts)
    value = float(values[0, column])
    numbers = batch.z.tolist()
    return Contributions(
        name,
        model.config.infos[column].unit,
        value,
        value - float(parts.sum()),
        parts.double().cpu().numpy(),
        tuple(symbols()[z] for z in numbers),
    )


def _mean_gradient(
    function: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor, end: torch.Tensor
) -> torch.Tensor:
    """The mean of a function's gradient on the straight way between two rows ``[1, d]``."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    total = torch.zeros_like(end)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        point = (start + float(node) * (end - start)).clone().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(function(point).sum(), point)
        total += float(weight) * slope
    return total
