"""Which experts a multi-task network chooses for each property (paper, figure 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from recinet_ase.errors import ReciNetError

Array = npt.NDArray[np.float64]


class RoutingTally:
    """Adds up the gate weights that a network's ``routing(batch)`` gives.

    Args:
        properties: The model's properties, in order.
    """

    def __init__(self, properties: Sequence[str]) -> None:
        self.properties = tuple(properties)
        self.crystals = 0
        self._selected: dict[str, torch.Tensor] = {}
        self._weight: dict[str, torch.Tensor] = {}

    def add(self, routing: Mapping[str, torch.Tensor]) -> None:
        """Add a batch.

        Args:
            routing: Gate weights ``[B, experts]`` by property, zero where not selected.

        Raises:
            ReciNetError: If a property is missing.
        """
        missing = [name for name in self.properties if name not in routing]
        if missing:
            raise ReciNetError(f"the network gives no routing for {', '.join(missing)}")
        for name in self.properties:
            gate = routing[name].double().cpu()
            for sums, values in ((self._selected, (gate > 0).double()), (self._weight, gate)):
                sums[name] = sums.get(name, torch.zeros(gate.shape[1]).double()) + values.sum(0)
        self.crystals += len(routing[self.properties[0]])

    @property
    def frequencies(self) -> Array:
        """Share of the selections of each property that fall on each expert, ``[P, experts]``.

        Rows add up to one: with K experts a crystal, an expert that is always chosen has 1/K.
        """
        counts = np.stack([self._selected[name].numpy() for name in self.properties])
        return _normalised(counts)

    @property
    def weights(self) -> Array:
        """Share of each property's gate weight that falls on each expert, ``[P, experts]``."""
        return _normalised(np.stack([self._weight[name].numpy() for name in self.properties]))

    @property
    def similarity(self) -> Array:
        """Cosine of the selection frequencies of each two properties, ``[P, P]``."""
        return cosine_similarity(self.frequencies)


def _normalised(rows: Array) -> Array:
    total = rows.sum(1, keepdims=True)
    return np.divide(rows, total, out=np.zeros_like(rows), where=total > 0)


def cosine_similarity(rows: npt.ArrayLike) -> Array:
    """Cosine of each two rows of ``[P, n]``, ``[P, P]``; NaN for a row of zeros."""
    values = np.asarray(rows, dtype=np.float64)
    norm = np.linalg.norm(values, axis=1)
    scale = np.outer(norm, norm)
    return np.divide(values @ values.T, scale, out=np.full_like(scale, np.nan), where=scale > 0)


def prediction_correlation(predictions: npt.ArrayLike) -> Array:
    """Pearson correlation of each two properties' predictions ``[n, P]``, ``[P, P]``.

    What stands in for the similarity of tasks in a network without experts; NaN where a
    prediction is the same for every crystal.
    """
    values = np.asarray(predictions, dtype=np.float64)
    return cosine_similarity((values - values.mean(0)).T)
