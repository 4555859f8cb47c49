"""Watch a network at work: the size of its updates, its gates and its routing.

The network runs through the same preparation as every prediction; hooks read what passes
through its modules. Sums run over atoms and edges of the full crystal whatever the graph,
divided by the number of atoms, so that a supercell counts like its primitive cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from recinet_ase.analysis.gates import GateTally
from recinet_ase.analysis.routing import RoutingTally
from recinet_ase.analysis.sample import Sample
from recinet_ase.elements import symbols
from recinet_ase.errors import ReciNetError
from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.inference.preparation import WINDOW
from recinet_ase.nn.reciprocal import LatticeOperator, crystal_mean

if TYPE_CHECKING:
    from recinet_ase.inference.predictor import Predictor
    from recinet_ase.models.property_model import PropertyModel

LOCAL, RECIPROCAL, WAVES, MEAN = "local", "reciprocal", "waves", "mean"

PARTS = (RECIPROCAL, WAVES, MEAN)
"""The reciprocal update, and its two terms where it has them: ``G != 0`` and ``G = 0``."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Observation:
    """What was seen on a sample of crystals (n crystals, L blocks, P properties).

    Attributes:
        ids: Crystals that went through the network.
        groups: Group of each crystal under each way to divide them.
        refused: Reason by id for the others.
        sizes: Root mean square over atoms of each block's updates, ``[n, L]`` by `LOCAL` and
            those of `PARTS` that the block has.
        predictions: Predictions in the properties' units ``[n, P]``.
        without: Predictions ``[n, P]`` with a part of `PARTS` switched off, by part.
        gates: Gate and message weights of the local blocks.
        routing: Gate weights of the experts, None for a network without experts.
    """

    ids: list[str]
    groups: dict[str, list[str]]
    refused: dict[str, str]
    sizes: dict[str, Array]
    predictions: Array
    without: dict[str, Array]
    gates: GateTally
    routing: RoutingTally | None

    def ratio(self, part: str = RECIPROCAL) -> Array:
        """Size of a reciprocal update over that of the local one, ``[n, L]``."""
        local = self.sizes[LOCAL]
        return np.divide(self.sizes[part], local, out=np.full_like(local, np.nan), where=local > 0)


@dataclass
class _Columns:
    """Results of the batches so far, in the order in which they ran."""

    places: list[int] = field(default_factory=list)
    sizes: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    predictions: list[torch.Tensor] = field(default_factory=list)
    without: dict[str, list[torch.Tensor]] = field(default_factory=dict)


def single_network(predictor: Predictor) -> PropertyModel:
    """The one network of a predictor.

    Raises:
        ReciNetError: If it is an ensemble.
    """
    from recinet_ase.models.property_model import PropertyModel

    (model,) = predictor.models
    if not isinstance(model, PropertyModel):
        raise ReciNetError(f"{model.config.name} is an ensemble; analyse its members one by one")
    return model


def observe(
    predictor: Predictor, sample: Sample, progress: Callable[[int], None] | None = None
) -> Observation:
    """Run a model over a sample and look at what its blocks do.

    Args:
        predictor: Holds the model (one), its device and precision.
        sample: The crystals.
        progress: Called with the number of crystals done.

    Raises:
        ReciNetError: If the network's blocks are not known here, or no crystal of the sample
            can be predicted.
    """
    model = single_network(predictor)
    network: Any = model.network
    for name in ("local_blocks", "reciprocal_blocks"):
        if not hasattr(network, name):
            raise ReciNetError(
                f"the network of {model.config.name} has no {name}; it cannot be watched"
            )
    gates = GateTally(len(network.local_blocks))
    routing = RoutingTally(model.config.properties) if hasattr(network, "routing") else None
    columns, refused = _Columns(), {}
    known, names = set(model.config.elements), symbols()
    for start in range(0, len(sample), WINDOW):
        window: list[Any] = list(sample.crystals[start : start + WINDOW])
        for i, crystal in enumerate(window):
            if unseen := sorted(set(crystal.numbers.tolist()) - known):
                listed = ", ".join(names[z] for z in unseen)
                window[i] = ReciNetError(f"{model.config.name} was not trained on {listed}")
        prepared = predictor.preparation(window)
        for i, result in enumerate(prepared.results):
            if result.error:
                refused[sample.ids[start + i]] = result.error
        for part in predictor.computation.batches(prepared):
            batch = part.graphs[model.config.graph].to(predictor.device)
            _run(model, batch, columns, gates, routing)
            columns.places += [start + i for i in part.places]
            if progress is not None:
                progress(len(columns.places))
    if not columns.places:
        reason = next(iter(refused.values()))
        raise ReciNetError(
            f"{model.config.name} can answer for no crystal of {sample.data} (the first: {reason})"
        )
    order = np.argsort(columns.places)
    places = [columns.places[i] for i in order]
    return Observation(
        ids=[sample.ids[i] for i in places],
        groups={kind: [group[i] for i in places] for kind, group in sample.groups.items()},
        refused=refused,
        sizes={key: _joined(rows, order) for key, rows in columns.sizes.items()},
        predictions=_joined(columns.predictions, order),
        without={key: _joined(rows, order) for key, rows in columns.without.items()},
        gates=gates,
        routing=routing,
    )


def _joined(rows: list[torch.Tensor], order: npt.NDArray[np.intp]) -> Array:
    joined: Array = torch.cat(rows).double().cpu().numpy()[order]
    return joined


@torch.inference_mode()
def _run(
    model: PropertyModel,
    batch: CrystalBatch,
    columns: _Columns,
    gates: GateTally,
    routing: RoutingTally | None,
) -> None:
    """One batch: watched, then with parts of the reciprocal block switched off."""
    network: Any = model.network
    lattice_sum = None
    if network.config.reciprocal == "lattice":
        lattice_sum = LatticeOperator.build(batch, network.wave_basis)
    sizes: dict[str, list[torch.Tensor]] = {}

    def keep(name: str, update: torch.Tensor) -> None:
        square = crystal_mean((update**2).sum(-1, keepdim=True), batch)
        sizes.setdefault(name, []).append(square.sqrt())

    with ExitStack() as hooks:
        for block in network.local_blocks:
            hooks.enter_context(_hook(block, lambda _, args, out: keep(LOCAL, out[0] - args[0])))
        for block in network.reciprocal_blocks:
            hooks.enter_context(_hook(block, lambda _, args, out: keep(RECIPROCAL, out)))
            if network.config.reciprocal == "lattice":
                hooks.enter_context(
                    _hook(block.up, lambda up, args, _: _keep_terms(up, args[0], keep))
                )
        hooks.enter_context(gates.watching(network.local_blocks, batch))
        columns.predictions.append(model(batch, lattice_sum))
    for name, updates in sizes.items():
        columns.sizes.setdefault(name, []).append(torch.cat(updates, dim=1))
    for part in PARTS:
        if part in sizes:
            with switched_off(network.reciprocal_blocks, part):
                columns.without.setdefault(part, []).append(model(batch, lattice_sum))
    if routing is not None:
        routing.add(network.routing(batch))


def _keep_terms(
    up: nn.Linear, inputs: torch.Tensor, keep: Callable[[str, torch.Tensor], None]
) -> None:
    """Split the output of the projection into its terms; its bias belongs to ``G = 0``."""
    waves, mean = inputs.chunk(2, dim=-1)
    of_waves, of_mean = up.weight.chunk(2, dim=-1)
    keep(WAVES, functional.linear(waves, of_waves))
    keep(MEAN, functional.linear(mean, of_mean, up.bias))


@contextmanager
def switched_off(blocks: nn.ModuleList, part: str) -> Iterator[None]:
    """Leave a part of every reciprocal update out; nothing else changes.

    Args:
        blocks: The reciprocal blocks.
        part: `RECIPROCAL` for the whole update, `WAVES` or `MEAN` for one of its terms.
    """

    def without(up: nn.Linear, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        if part == RECIPROCAL:
            return torch.zeros_like(output)
        waves, mean = inputs[0].chunk(2, dim=-1)
        of_waves, of_mean = up.weight.chunk(2, dim=-1)
        if part == WAVES:
            return functional.linear(mean, of_mean, up.bias)
        return functional.linear(waves, of_waves)

    with ExitStack() as hooks:
        for block in blocks:
            projection: Any = block.up
            hooks.enter_context(_hook(projection, without))
        yield


@contextmanager
def _hook(module: nn.Module, function: Callable[..., Any]) -> Iterator[None]:
    handle = module.register_forward_hook(function)
    try:
        yield
    finally:
        handle.remove()
