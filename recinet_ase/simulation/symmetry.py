"""The symmetry of a crystal, and what of a move or a force keeps it."""

from __future__ import annotations

import numpy as np


class Symmetry:
    """Operations of a crystal's space group in its own cell (spglib).

    Atoms and cell are first put exactly where the operations ask for. Moves that `of_vectors`
    and `of_tensor` gave keep the operations, so that they are found once.

    Args:
        numbers: Atomic numbers ``[N]``.
        frac_coords: Fractional coordinates ``[N, 3]``.
        lattice: Lattice vectors as rows, angstrom ``[3, 3]``.
        symprec: Distance in angstrom by which atoms may miss their places.

    Attributes:
        frac_coords: Fractional coordinates that have the symmetry ``[N, 3]``.
        lattice: Lattice that has it, in the same orientation, angstrom ``[3, 3]``.
    """

    def __init__(
        self, numbers: np.ndarray, frac_coords: np.ndarray, lattice: np.ndarray, symprec: float
    ) -> None:
        import spglib
        from scipy import sparse
        from scipy.spatial import cKDTree

        try:
            found = spglib.get_symmetry((lattice, frac_coords, numbers), symprec=symprec)
        except Exception:  # or None, as spglib is set to: a cell that it can make nothing of
            found = None
        rotation, shift = np.eye(3, dtype=np.int64)[None], np.zeros((1, 3))
        if found is not None:
            rotation, shift = found["rotations"], found["translations"]
        self.lattice = _symmetric_lattice(lattice, np.unique(rotation, axis=0))
        image = np.einsum("nij,aj->nai", rotation, frac_coords) + shift[:, None]
        # A coordinate of -1e-17 is 1.0 after the first remainder, which the tree refuses.
        place = cKDTree(frac_coords % 1.0 % 1.0, boxsize=1.0)
        target = place.query((image % 1.0 % 1.0).reshape(-1, 3))[1]
        away = image.reshape(-1, 3) - frac_coords[target]
        away -= np.round(away)
        n = len(rotation)
        mean = np.zeros_like(frac_coords)
        np.add.at(mean, target, away / n)
        self.frac_coords = frac_coords + mean

        inverse = np.linalg.inv(self.lattice)
        turn = np.einsum("ji,njk,lk->nil", self.lattice, rotation, inverse)
        self._turns = np.unique(turn.round(12), axis=0)
        size = 3 * len(numbers)
        source, axis = np.tile(np.arange(len(numbers)), n), np.arange(3)
        rows = np.broadcast_to((3 * target)[:, None, None] + axis[:, None], (len(target), 3, 3))
        columns = np.broadcast_to((3 * source)[:, None, None] + axis, (len(target), 3, 3))
        blocks = np.repeat(turn / n, len(numbers), axis=0)
        self._project = sparse.coo_matrix(
            (blocks.ravel(), (rows.ravel(), columns.ravel())), shape=(size, size)
        ).tocsr()

    def of_vectors(self, vectors: np.ndarray) -> np.ndarray:
        """The part of vectors on atoms (forces, moves) that keeps the symmetry ``[N, 3]``."""
        return np.asarray(self._project @ vectors.ravel()).reshape(-1, 3)

    def of_tensor(self, tensor: np.ndarray) -> np.ndarray:
        """The part of a tensor (stress, strain) that keeps the symmetry ``[3, 3]``."""
        turned = np.einsum("nij,jk,nlk->il", self._turns, tensor, self._turns)
        return np.asarray(turned / len(self._turns))


def _symmetric_lattice(lattice: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """The lattice whose metric all operations keep, strained but not turned."""
    metric = np.einsum("nji,jk,nkl->il", rotations, lattice @ lattice.T, rotations)
    inverse = np.linalg.inv(lattice)
    values, vectors = np.linalg.eigh(inverse @ (metric / len(rotations)) @ inverse.T)
    return np.asarray(lattice @ (vectors * np.sqrt(values)) @ vectors.T)
