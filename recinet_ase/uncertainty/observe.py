"""Descriptors of many structures: what a calibration is fitted to."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import torch

from recinet_ase.ensemble import AnyModel
from recinet_ase.errors import StructureError
from recinet_ase.graph.adapters import to_crystal
from recinet_ase.graph.batch import collate
from recinet_ase.graph.crystal import build_graph
from recinet_ase.preparation import check_density
from recinet_ase.uncertainty.descriptors import Descriptors, describe_batch

_WINDOW, _BATCH = 512, 32


@torch.inference_mode()
def observe(
    model: AnyModel, structures: Iterable[tuple[str, Any]]
) -> tuple[list[str], Descriptors]:
    """Ids and descriptors of the structures that the model can answer for.

    Args:
        model: The model.
        structures: ``(id, structure)`` pairs; anything that `to_crystal` takes.

    Returns:
        Ids of those that were not refused, and their descriptors in the same order.
    """
    known = set(model.config.elements)
    ids: list[str] = []
    parts: list[Descriptors] = []
    stream = iter(structures)
    while window := list(islice(stream, _WINDOW)):
        ready = []
        for key, structure in window:
            try:
                crystal = to_crystal(structure)
                check_density(crystal)
                if set(crystal.numbers.tolist()) <= known:
                    ready.append((key, build_graph(crystal, model.config.graph)))
            except StructureError:
                continue
        ready.sort(key=lambda item: item[1].num_edges)  # like sizes into one batch
        for start in range(0, len(ready), _BATCH):
            chunk = ready[start : start + _BATCH]
            batch = collate([graph for _, graph in chunk])
            parts.append(describe_batch(batch, *model.outcome(batch)))
            ids += [key for key, _ in chunk]
    return ids, Descriptors.join(parts)
