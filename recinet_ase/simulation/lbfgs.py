"""Limited-memory BFGS without a line search, for forces that are smooth."""

from __future__ import annotations

import numpy as np

_MEMORY = 30
_STIFFNESS = 30.0  # eV/A^2 of a system of which nothing is known yet


class Lbfgs:
    """Steps downhill by the curvature that earlier steps have shown.

    Whoever asks may shorten a step, and says what was taken. Where the energy curves downwards
    along a step, what was known is forgotten.

    Source: Nocedal and Wright, Numerical Optimization (2006), algorithm 7.4.
    """

    def __init__(self) -> None:
        self._moves: list[np.ndarray] = []
        self._changes: list[np.ndarray] = []  # of the gradient
        self._force: np.ndarray | None = None
        self._taken: np.ndarray | None = None

    def step(self, force: np.ndarray) -> np.ndarray:
        """The step to take where the force (minus the gradient) is ``[n]``."""
        if self._force is not None and self._taken is not None:
            change = self._force - force
            if self._taken @ change > 0:
                self._moves = [*self._moves, self._taken][-_MEMORY:]
                self._changes = [*self._changes, change][-_MEMORY:]
            else:
                self._moves, self._changes = [], []
        self._force = force
        pairs = [(s, y, float(s @ y)) for s, y in zip(self._moves, self._changes, strict=True)]
        found, shares = force.copy(), []
        for move, change, product in reversed(pairs):
            shares.append(float(move @ found) / product)
            found -= shares[-1] * change
        found *= pairs[-1][2] / float(pairs[-1][1] @ pairs[-1][1]) if pairs else 1 / _STIFFNESS
        for (move, change, product), share in zip(pairs, reversed(shares), strict=True):
            found += (share - float(change @ found) / product) * move
        return found

    def take(self, step: np.ndarray) -> None:
        """Say which step was taken ``[n]``."""
        self._taken = step
