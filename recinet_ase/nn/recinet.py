"""ReciNet: local and reciprocal blocks over a crystal graph (paper, section 4)."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from recinet_ase.elements import N_FEATURES, element_features
from recinet_ase.errors import ReciNetError, UnknownNameError
from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.graph.waves import WaveBasis
from recinet_ase.models.files import strict_fields
from recinet_ase.nn.composition import CompositionBranch
from recinet_ase.nn.experts import DECODERS, ExpertHeads, TaskHeads
from recinet_ase.nn.fused import EdgeIndex
from recinet_ase.nn.gate import GatedHead
from recinet_ase.nn.local import LocalBlock
from recinet_ase.nn.low_rank import holds, low_rank_basis
from recinet_ase.nn.norm import NORMS
from recinet_ase.nn.pooling import POOLINGS, LastColumns, make_pooling
from recinet_ase.nn.radial import PotentialBasis, fading
from recinet_ase.nn.reciprocal import MODES, LatticeOperator, ReciprocalBlock


@dataclass(frozen=True)
class ReciNetConfig:
    """Architecture of a network; everything needed to build it.

    Attributes:
        width: Node feature width d (256 in the paper).
        blocks: Number of ReciNet blocks.
        n_basis: Gaussians of the edge feature ``-0.75/d``.
        basis_low, basis_high: Range of their centres in 1/angstrom.
        basis_width: Width of a Gaussian in units of the spacing.
        norm: ``"batch"`` or ``"layer"`` in the local block.
        reciprocal: ``"lattice"``, ``"mean"``, ``"literal"``, ``"ewald"`` or ``"none"``.
        k_max: Cutoff of the wave vectors in 1/angstrom.
        n_waves: Radial functions of the reciprocal filter.
        wave_norm: What lattice sums are divided by: ``"volume"`` or ``"atom"``.
        channels: Channels of the reciprocal transform.
        dropout: Dropout before the head's last layer.
        block_dropout: Dropout of the summed messages in each local block.
        edge_update: Whether edge embeddings change from block to block.
        envelope: Distance in angstrom at which messages have faded to nothing, 0 for none: a
            graph's neighbours are then those within it.
        pooling: How atoms become a crystal: ``"mean"`` (the paper), ``"attention"`` or ``"peak"``
            (the largest of the atoms' own values).
        composition: Whether a branch of the composition alone is added to the head.
        outputs: Number of predicted values.
        multitask: How several values are read from a crystal's representation: ``"shared"`` (one
            hidden layer for all), ``"linear"`` (a head each, ReciNet-LS) or ``"moe"`` (a mixture
            of experts and a head each, ReciNet-MT).
        gate: Whether each value is behind a gate that can close (``"shared"``; for band gaps).
        experts: Number of experts (``"moe"``).
        top_k: Experts that a property uses for a crystal.
        expert_width: Width of the experts' hidden layer, 0 for that of the network.
        smooth_gates: Gates that vanish at the edge of the selection, so that predictions are
            continuous; False cuts them off there.
    """

    width: int = 128
    blocks: int = 3
    n_basis: int = 64
    basis_low: float = -0.75
    basis_high: float = -0.08
    basis_width: float = 1.5
    norm: str = "batch"
    reciprocal: str = "lattice"
    k_max: float = 4.0
    n_waves: int = 16
    wave_norm: str = "volume"
    channels: int = 64
    dropout: float = 0.0
    block_dropout: float = 0.0
    edge_update: bool = False
    envelope: float = 0.0
    pooling: str = "mean"
    composition: bool = False
    outputs: int = 1
    multitask: str = "shared"
    gate: bool = False
    experts: int = 15
    top_k: int = 4
    expert_width: int = 0
    smooth_gates: bool = True

    def __post_init__(self) -> None:
        if self.multitask not in DECODERS:
            raise UnknownNameError("multi-task decoder", self.multitask, DECODERS)
        if self.gate and self.multitask != "shared":
            raise ReciNetError(f'the decoder "{self.multitask}" has no gate; leave out gate')
        if self.pooling == "peak" and self.gate:
            raise ReciNetError("peak pooling is a decoder, too; leave out gate")
        if self.pooling == "peak" and self.multitask != "shared":
            raise ReciNetError('peak pooling is a decoder, too; it needs multitask = "shared"')
        if self.envelope < 0:
            raise ReciNetError(f"envelope is {self.envelope}; it is a distance in angstrom or 0")
        if not 1 <= self.top_k <= self.experts:
            raise ReciNetError(
                f"top_k is {self.top_k}: of {self.experts} experts, 1 to {self.experts} can be used"
            )
        if self.reciprocal not in MODES:
            raise UnknownNameError("reciprocal block", self.reciprocal, MODES)
        if self.pooling not in POOLINGS:
            raise UnknownNameError("pooling", self.pooling, POOLINGS)
        if self.norm not in NORMS:
            raise UnknownNameError("normalisation", self.norm, NORMS)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ReciNetConfig:
        """From a dictionary as `to_dict` gives it.

        Raises:
            ReciNetError: If it has keys that this version does not know.
        """
        return strict_fields(cls, data, "the architecture")

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for json."""
        return asdict(self)


SIZES: dict[str, ReciNetConfig] = {
    # Appendix B.2 and table 7; the paper's own centres for the edge features.
    "paper": ReciNetConfig(
        width=256, blocks=4, n_basis=256, basis_low=-4.0, basis_high=4.0, basis_width=1.0
    ),
    "small": ReciNetConfig(),
    "tiny": ReciNetConfig(width=64, blocks=2, n_basis=48, channels=32),
}


DECODER_FIELDS = ("multitask", "gate", "experts", "top_k", "expert_width", "smooth_gates")
"""Settings of the part after the pooling."""

OUTPUT_AXIS = {
    "head.3.": 0,
    "head.hidden.": 0,
    "head.last.": 0,
    "head.heads.": 0,
    "head.value.": 0,
    "head.gate.": 0,
    "head.floor": 0,
    "pool.last.": 0,
    "pool.zero": 0,
    "pool.sharpness": 0,
    "head.router.": 0,
    "head.noise.": 0,
    "composition.formula.4.": 0,
    "composition.scale": 1,
}
"""Prefixes of the parameters that have one row or column an output, and its axis."""


def size_name(config: ReciNetConfig) -> str:
    """The name of an architecture in `SIZES` (outputs apart), else ``"custom"``."""
    named = (name for name, c in SIZES.items() if replace(c, outputs=config.outputs) == config)
    return next(named, "custom")


_LOOK_EVERY = 100  # batches on a GPU, between checks that the weights are still the same
_MANY_EDGES = 1000  # in a batch; projecting the weights costs as much as it saves for a few


class ReciNet(nn.Module):
    """The network: node and edge embeddings, blocks, pooling, head.

    Outputs are standardised; a `recinet_ase.models.property_model.PropertyModel` turns them into
    units.

    Args:
        config: The architecture.
    """

    element_table: torch.Tensor

    def __init__(self, config: ReciNetConfig) -> None:
        super().__init__()
        self.config = config
        d = config.width
        table = torch.tensor(element_features(), dtype=torch.get_default_dtype())
        self.register_buffer("element_table", table, persistent=False)
        self.embed_atom = nn.Linear(N_FEATURES, d)
        self.edge_basis = PotentialBasis(
            config.n_basis, config.basis_low, config.basis_high, config.basis_width
        )
        self.embed_edge = nn.Linear(config.n_basis, d)
        self.local_blocks = nn.ModuleList(
            LocalBlock(d, d, config.norm, config.block_dropout, config.edge_update)
            for _ in range(config.blocks)
        )
        self.wave_basis = WaveBasis(config.n_waves, config.k_max, config.wave_norm)
        self.reciprocal_blocks = nn.ModuleList(
            ReciprocalBlock(d, config.channels, config.n_waves, config.reciprocal)
            for _ in range(config.blocks if config.reciprocal != "none" else 0)
        )
        self._span: tuple[tuple[object, ...], torch.Tensor] | None = None
        self._looks = 0
        self.pool = make_pooling(config.pooling, d, config.outputs)
        self.head = _decoder(config)
        self.composition = (
            CompositionBranch(N_FEATURES, d, config.outputs) if config.composition else None
        )

    def forward(
        self, batch: CrystalBatch, lattice_sum: LatticeOperator | None = None
    ) -> torch.Tensor:
        """Standardised predictions ``[B, outputs]`` for a batch of crystals.

        Args:
            batch: The crystals.
            lattice_sum: Their reciprocal sums, if already built (for this `wave_basis`).
        """
        return self.decode(self.encode(batch, lattice_sum), batch)

    def decode(self, latent: torch.Tensor, batch: CrystalBatch) -> torch.Tensor:
        """Standardised predictions ``[B, outputs]`` from crystal representations ``[B, d]``."""
        return self.read(latent, batch)[0]

    def read(self, latent: torch.Tensor, batch: CrystalBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """What `decode` gives, and in training how unevenly experts are used (a scalar)."""
        found = self.head(latent)
        output, imbalance = found if isinstance(found, tuple) else (found, latent.new_zeros(()))
        if self.composition is not None:
            output = self.composition(output, self.element_table[batch.z], batch)
        return output, imbalance

    def embed_edges(self, distance: torch.Tensor) -> torch.Tensor:
        """Edge lengths in angstrom ``[E]`` to embeddings ``[E, d]``.

        They have the type of matrix products: what is computed an edge follows from it.
        """
        embedded: torch.Tensor = functional.softplus(self.embed_edge(self.edge_basis(distance)))
        kind = distance.device.type
        if torch.is_autocast_enabled(kind) and embedded.dtype == torch.float32:
            # CUDA's autocast computes softplus in single precision, the CPU's does not.
            embedded = embedded.to(torch.get_autocast_dtype(kind))
        return embedded

    def _span_for(self, v: torch.Tensor) -> torch.Tensor | None:
        """The space that embeddings ``[E, d]`` lie in, where knowing it pays; None elsewhere."""
        if self.training or self.config.edge_update or len(v) < _MANY_EDGES:
            return None
        if not all(block.fast for block in self.local_blocks):
            return None
        weight, bias = self.embed_edge.weight, self.embed_edge.bias
        if v.dtype != torch.float32 or weight.is_inference():
            return None  # double precision shows the difference; versions are not counted
        key = (weight.data_ptr(), weight._version, bias._version, weight.device)
        # On a GPU a look at the numbers waits for all that was asked before: now and then only.
        look = not v.is_cuda or self._looks % _LOOK_EVERY == 0
        self._looks += 1
        known = self._span is not None and self._span[0] == key
        if self._span is None or not known or (look and not holds(self._span[1], v)):
            plain = copy.deepcopy(self.embed_edge).cpu().double()
            basis = copy.deepcopy(self.edge_basis).cpu().double()
            found = low_rank_basis(lambda d: functional.softplus(plain(basis(d.double()))))
            self._span = key, found.to(weight)
        return self._span[1]

    def encode(
        self, batch: CrystalBatch, lattice_sum: LatticeOperator | None = None
    ) -> torch.Tensor:
        """Crystal representations: the pooled atoms after the last block, ``[B, d]``.

        With peak pooling they have a column more for each output.
        """
        h = self.embed_atom(self.element_table[batch.z])
        v = self.embed_edges(batch.distance)
        edge_weight = batch.edge_count * batch.atom_weight[batch.centre]
        if self.config.reciprocal == "lattice" and lattice_sum is None:
            lattice_sum = LatticeOperator.build(batch, self.wave_basis)
        if self.config.envelope:
            fade = fading(batch.distance, self.config.envelope)
            batch = replace(batch, edge_count=batch.edge_count * fade)
        fast = self.training or not torch.is_grad_enabled()
        edges = EdgeIndex.build(batch, edge_weight) if fast else None
        if edges is not None and (span := self._span_for(v)) is not None:
            v, edges = v @ span, replace(edges, span=span)
        for i, local in enumerate(self.local_blocks):
            update, v = local(h, v, batch, edge_weight, edges)
            if self.reciprocal_blocks:
                # Section 4.4: both updates are added and go on to the next block.
                update = update + self.reciprocal_blocks[i](h, batch, lattice_sum)
            h = update
        pooled: torch.Tensor = self.pool(h, batch)
        return pooled


class ReciNetMT(ReciNet):
    """A network with experts between encoder and heads (paper, appendix C).

    Args:
        config: The architecture, with ``multitask = "moe"``.
        properties: Names of its outputs.
    """

    head: ExpertHeads

    def __init__(self, config: ReciNetConfig, properties: tuple[str, ...]) -> None:
        super().__init__(config)
        self.properties = properties

    @torch.no_grad()
    def routing(self, batch: CrystalBatch) -> dict[str, torch.Tensor]:
        """Weights of the experts by property, ``[B, experts]``, zero where not selected.

        Those of a network in evaluation mode are what a prediction is made with; in training
        mode they are noisy.
        """
        gates, _ = self.head.route(self.encode(batch))
        return dict(zip(self.properties, gates, strict=True))


def _decoder(config: ReciNetConfig) -> nn.Module:
    """The part after the pooling."""
    d = config.width
    if config.pooling == "peak":
        return LastColumns(config.outputs)
    if config.gate:
        return GatedHead(d, config.outputs, config.dropout)
    if config.multitask == "linear":
        return TaskHeads(d, config.outputs, config.dropout)
    if config.multitask == "moe":
        return ExpertHeads(
            d,
            config.outputs,
            config.dropout,
            config.experts,
            config.top_k,
            config.expert_width or d,
            config.smooth_gates,
        )
    return nn.Sequential(
        nn.Linear(d, d), nn.SiLU(), nn.Dropout(config.dropout), nn.Linear(d, config.outputs)
    )
