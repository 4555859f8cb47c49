"""Representations of crystals, and the nearest known ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recinet_ase.errors import ReciNetError
from recinet_ase.inference.computation import Computation
from recinet_ase.inference.preparation import WINDOW, Preparation
from recinet_ase.models.ensemble import AnyModel
from recinet_ase.nn.precision import full_precision
from recinet_ase.nn.reciprocal import LatticeSums


@dataclass(frozen=True)
class Embeddings:
    """Representations of many crystals by one model.

    Attributes:
        ids: Identity of each crystal.
        formulas: Reduced formulas, ``""`` of what could not be read.
        vectors: Representations, float32 ``[n, d]``; NaN where there is none.
        errors: Why there is none, ``""`` elsewhere.
        model: Name of the model.
        fingerprint: sha256 of its weights: only vectors of equal fingerprints can be compared.
    """

    ids: tuple[str, ...]
    formulas: tuple[str, ...]
    vectors: np.ndarray
    errors: tuple[str, ...]
    model: str
    fingerprint: str

    def __repr__(self) -> str:
        """``<Embeddings of 50 crystals by jarvis-eform, 384 numbers each>``."""
        count, width = self.vectors.shape
        return f"<Embeddings of {count:,} crystals by {self.model}, {width} numbers each>"

    def save(self, path: str | Path) -> None:
        """Write an ``.npz`` with these names in it (nothing pickled)."""
        with Path(path).open("wb") as handle:
            np.savez_compressed(
                handle,
                ids=np.array(self.ids, dtype=str),
                formulas=np.array(self.formulas, dtype=str),
                vectors=self.vectors,
                errors=np.array(self.errors, dtype=str),
                model=np.array(self.model),
                fingerprint=np.array(self.fingerprint),
            )

    @classmethod
    def load(cls, path: str | Path) -> Embeddings:
        """Read what `save` wrote.

        Raises:
            ReciNetError: If the file is something else.
        """
        try:
            with np.load(path, allow_pickle=False) as kept:
                texts = {name: tuple(kept[name].tolist()) for name in ("ids", "formulas", "errors")}
                return cls(
                    vectors=kept["vectors"],
                    model=str(kept["model"]),
                    fingerprint=str(kept["fingerprint"]),
                    **texts,
                )
        except (KeyError, ValueError, EOFError) as error:
            raise ReciNetError(f"{path} holds no embeddings of recinet-ase ({error})") from None

    def nearest(self, others: Embeddings, count: int = 5) -> list[list[tuple[int, float]]]:
        """The nearest crystals of another set, for each of these.

        Args:
            others: Known crystals, by the same model.
            count: How many.

        Returns:
            For each crystal pairs of a place in ``others`` and the distance, nearest first; none
            for one without a representation. Distances are Euclidean, each feature in units of
            its standard deviation over ``others``, divided by the root of the number of features.

        Raises:
            ReciNetError: If the sets are of two models.
        """
        if self.fingerprint != others.fingerprint:
            raise ReciNetError(
                f"embeddings of two models cannot be compared: {self.model} here, "
                f"{others.model} there (or other weights of it); embed both with one"
            )
        known = np.flatnonzero(np.isfinite(others.vectors).all(1))
        if not len(known):
            return [[] for _ in self.ids]
        there = others.vectors[known].astype(np.float64)
        deviation = there.std(0)
        scale = np.where(deviation > 0, deviation, 1.0) * np.sqrt(there.shape[1])
        there /= scale
        neighbours = []
        for vector in self.vectors.astype(np.float64) / scale:
            distance = np.linalg.norm(there - vector, axis=1)
            best = np.argsort(distance, kind="stable")[:count]
            pairs = [(int(known[i]), float(distance[i])) for i in best]
            neighbours.append(pairs if np.isfinite(vector).all() else [])
        return neighbours


def embed(
    model: AnyModel,
    preparation: Preparation,
    computation: Computation,
    entries: Iterable[tuple[str, Any]],
) -> Embeddings:
    """Representations of crystals: what the model's last layers read.

    Args:
        model: The model.
        preparation: Checks and prepares the structures, as for a prediction.
        computation: Divides them into batches for the model's device.
        entries: Id and structure of each crystal; an exception stands for a bad one.
    """
    ids: list[str] = []
    formulas: list[str] = []
    errors: list[str] = []
    vectors: list[np.ndarray] = []
    stream = iter(entries)
    while window := list(islice(stream, WINDOW)):
        prepared = preparation([structure for _, structure in window])
        rows: dict[int, np.ndarray] = {}
        for batch in computation.batches(prepared):
            graphs = batch.graphs[model.config.graph].to(computation.device)
            with torch.inference_mode(), full_precision():
                latent = model.outcome(graphs, LatticeSums(graphs)).latent.float().cpu().numpy()
            rows.update(zip(batch.places, latent, strict=True))
        ids += [name for name, _ in window]
        formulas += [result.formula for result in prepared.results]
        errors += [result.error for result in prepared.results]
        width = len(next(iter(rows.values()))) if rows else model.config.network.width
        missing = np.full(width, np.nan, dtype=np.float32)
        vectors += [rows.get(i, missing) for i in range(len(window))]
    table = np.stack(vectors) if vectors else np.empty((0, model.config.network.width), np.float32)
    return Embeddings(
        tuple(ids),
        tuple(formulas),
        table,
        tuple(errors),
        model.config.name,
        "-".join(member.fingerprint for member in model.members[:1]),
    )
