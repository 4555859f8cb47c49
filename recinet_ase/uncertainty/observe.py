"""Descriptors of many structures: what a calibration is fitted to."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import torch

from recinet_ase.inference.predictor import Predictor
from recinet_ase.inference.preparation import WINDOW
from recinet_ase.models.ensemble import AnyModel
from recinet_ase.nn.reciprocal import LatticeSums
from recinet_ase.uncertainty.descriptors import Descriptors, composition_of, geometry_of


@torch.inference_mode()
def observe(
    model: AnyModel, structures: Iterable[tuple[str, Any]]
) -> tuple[list[str], Descriptors]:
    """Ids and descriptors of the structures that the model can answer for.

    They come from the batches that a `Predictor` makes, as they do where they are used.

    Args:
        model: The model.
        structures: ``(id, structure)`` pairs; anything that `to_crystal` takes.

    Returns:
        Ids of those that were not refused, and their descriptors in the same order.
    """
    predictor = Predictor(model, device="cpu", intervals=False)
    known = torch.tensor(model.config.elements)
    ids: list[str] = []
    parts: list[Descriptors] = []
    stream = iter(structures)
    while window := list(islice(stream, WINDOW)):
        graphs = predictor.preparation([structure for _, structure in window])
        for prepared in predictor.computation.batches(graphs):
            batch = prepared.graphs[model.config.graph]
            outcome = model.outcome(batch, LatticeSums(batch))
            found = Descriptors(
                latent=outcome.latent.double(),
                output=outcome.output.double(),
                geometry=geometry_of(batch),
                composition=composition_of(batch),
                spread=outcome.spread.double(),
            )
            foreign = torch.zeros(len(found), dtype=torch.bool)
            foreign[batch.crystal[~torch.isin(batch.z, known)]] = True
            parts.append(found[~foreign])
            places = zip(prepared.places, foreign.tolist(), strict=True)
            ids += [window[i][0] for i, unknown in places if not unknown]
    return ids, Descriptors.join(parts)
