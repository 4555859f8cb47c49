"""Representations of crystals, the nearest known ones, and what each site adds to a value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recinet_ase.elements import symbols
from recinet_ase.errors import ReciNetError, StructureError
from recinet_ase.inference.preparation import WINDOW
from recinet_ase.models.property_model import PropertyModel
from recinet_ase.nn.pooling import MeanPooling
from recinet_ase.nn.reciprocal import LatticeSums

if TYPE_CHECKING:
    from recinet_ase.inference.predictor import Predictor
    from recinet_ase.models.ensemble import AnyModel

_NODES = 24  # of the quadrature: sites add up to the value to single precision


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
        found = []
        for vector in self.vectors.astype(np.float64) / scale:
            distance = np.linalg.norm(there - vector, axis=1)
            best = np.argsort(distance, kind="stable")[:count]
            pairs = [(int(known[i]), float(distance[i])) for i in best]
            found.append(pairs if np.isfinite(vector).all() else [])
        return found


def embed(
    predictor: Predictor, entries: Iterable[tuple[str, Any]], model: str | None = None
) -> Embeddings:
    """Representations of crystals: what the model's last layers read.

    Args:
        predictor: The models; structures are checked and prepared as for a prediction.
        entries: Id and structure of each crystal; an exception stands for a bad one.
        model: Name of the model, where the predictor has several.

    Raises:
        ReciNetError: If it is not clear which model is meant.
    """
    chosen = _model_of(predictor, model)
    ids: list[str] = []
    formulas: list[str] = []
    errors: list[str] = []
    vectors: list[np.ndarray] = []
    stream = iter(entries)
    while window := list(islice(stream, WINDOW)):
        prepared = predictor.preparation([structure for _, structure in window])
        rows: dict[int, np.ndarray] = {}
        for batch in predictor.batches(prepared):
            graphs = batch.graphs[chosen.config.graph].to(predictor.device)
            with torch.inference_mode():
                latent = chosen.outcome(graphs, LatticeSums(graphs)).latent.float().cpu().numpy()
            rows.update(zip(batch.places, latent, strict=True))
        ids += [name for name, _ in window]
        formulas += [result.formula for result in prepared.results]
        errors += [result.error for result in prepared.results]
        width = len(next(iter(rows.values()))) if rows else chosen.config.network.width
        missing = np.full(width, np.nan, dtype=np.float32)
        vectors += [rows.get(i, missing) for i in range(len(window))]
    table = np.stack(vectors) if vectors else np.empty((0, chosen.config.network.width), np.float32)
    return Embeddings(
        tuple(ids),
        tuple(formulas),
        table,
        tuple(errors),
        chosen.config.name,
        "-".join(member.fingerprint for member in chosen.members[:1]),
    )


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


def contributions(predictor: Predictor, structure: Any, prop: str | None = None) -> Contributions:
    """What each site adds to a value, beside an average training crystal.

    The representation of a crystal is the mean over its sites, ``x = sum_i h_i / n``, and a small
    network makes the value of it. Its gradient is integrated on the straight way from the mean
    representation of the training crystals ``b`` to ``x`` (integrated gradients, Sundararajan
    2017), so that ``value - baseline`` is a sum over the sites of ``(h_i - b) . g / n``. A site's
    features know its surroundings: what it adds is that of the site in this crystal.

    Args:
        predictor: The model.
        structure: The crystal.
        prop: The property, where the predictor gives several.

    Raises:
        StructureError: If the model cannot answer for the structure.
        ReciNetError: For a model that is no single network, has no mean over the sites, learns a
            logarithm, or has no calibration (which knows the training crystals).
    """
    name = _property_of(predictor, prop)
    model = predictor.properties[name]
    if not isinstance(model, PropertyModel):
        raise ReciNetError(f"{model.config.name} is an ensemble: ask one of its networks")
    if not isinstance(model.network.pool, MeanPooling):
        raise ReciNetError(f"{model.config.name} takes no mean over the sites: nothing adds up")
    if name in model.config.logarithmic:
        raise ReciNetError(f"{model.config.name} learns a logarithm of {name}: nothing adds up")
    if model.calibration is None:
        raise ReciNetError(f"{model.config.name} has no calibration: no average to start from")
    prepared = replace(predictor.preparation, reduce=False)([structure])
    if prepared.results[0].error:
        raise StructureError(prepared.results[0].error)
    batch = prepared.batches[0].graphs[model.config.graph].to(predictor.device)
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
        next(info.unit for info in predictor.infos if info.name == name),
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


def _model_of(predictor: Predictor, name: str | None) -> AnyModel:
    """The predictor's model of that name, or its only one."""
    models: Sequence[AnyModel] = list(dict.fromkeys(predictor.properties.values()))
    if name is None and len(models) == 1:
        return models[0]
    names = [model.config.name for model in models]
    for model in models:
        if model.config.name == name:
            return model
    raise ReciNetError(f"say which model is to embed: {', '.join(names)}")


def _property_of(predictor: Predictor, name: str | None) -> str:
    """The property that a name or alias means, or the only one there is."""
    from recinet_ase.properties import answer_for, get_property_info

    # What follows from another property is explained by that one.
    given = [
        name for name, model in predictor.properties.items() if name in model.config.properties
    ]
    if name is None:
        if len(given) > 1:
            raise ReciNetError(f"say which property is to be explained: {', '.join(given)}")
        return given[0]
    found = name if name in given else answer_for(get_property_info(name).name, given)
    if found is None:
        raise ReciNetError(f"no network here gives {name}; there is {', '.join(given)}")
    return found


def numbered(structures: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Structures under their places in a list."""
    for i, structure in enumerate(structures):
        yield str(i), structure
