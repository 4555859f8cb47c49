"""The learned reciprocal filters of a model, as the network applies them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from recinet_ase.analysis.spectrum import RANK_SHARES, Spectrum, effective_rank, singular_values
from recinet_ase.errors import ReciNetError

if TYPE_CHECKING:
    from recinet_ase.forces.model import ForceModel
    from recinet_ase.graph.waves import WaveBasis
    from recinet_ase.models.property_model import PropertyModel

GRID = 121
"""Wave numbers from 0 to the cutoff at which filters are sampled."""

_RANDOM_DRAWS = 20

FILTER = "filter"
COEFFICIENTS = "filter coefficients"
WAVES_OUT = "output, waves"
MEAN_OUT = "output, mean"

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class BlockFilter:
    """What one reciprocal block has learned.

    Attributes:
        block: Its number, from 1.
        weights: Weight of each radial function and channel ``[R, C]``, None where the block has
            no filter of ``|G|``.
        waves_out: Columns of the output projection that take the lattice sum ``[d, C]``, or
            None.
        mean_out: Columns that take the ``G = 0`` mean ``[d, C]``, or None.
    """

    block: int
    weights: Array | None
    waves_out: Array | None
    mean_out: Array | None


@dataclass(frozen=True)
class ModelFilters:
    """The reciprocal filters of all blocks of a model.

    Attributes:
        model: The model's name.
        mode: ``"lattice"``, ``"mean"``, ``"literal"`` or ``"ewald"``; ``"lattice"`` for force
            models.
        k_max: Cutoff of the wave vectors in 1/angstrom.
        basis: The radial functions.
        blocks: The filters.
    """

    model: str
    mode: str
    k_max: float
    basis: WaveBasis
    blocks: tuple[BlockFilter, ...]

    @property
    def has_curves(self) -> bool:
        """Whether there are filters of ``|G|`` to draw."""
        return all(block.weights is not None for block in self.blocks)

    def grid(self, points: int = GRID) -> Array:
        """Wave numbers from 0 to the cutoff in 1/angstrom ``[L]``."""
        return np.linspace(0.0, self.k_max, points)

    def at(self, block: BlockFilter, wave_numbers: npt.ArrayLike) -> Array:
        """The filter ``phi_c(|G|)`` of every channel at some wave numbers, ``[L, C]``.

        This is what multiplies a wave's structure factors at 20 angstrom^3 an atom; networks
        whose sums are divided by the volume apply it times ``20 A^3 / (volume per atom)``.

        Args:
            block: One of `blocks`.
            wave_numbers: ``|G|`` in 1/angstrom ``[L]``; zero beyond the cutoff.

        Raises:
            ReciNetError: If the block has no filter of ``|G|``.
        """
        if block.weights is None:
            raise ReciNetError(
                f"block {block.block} of {self.model} (reciprocal={self.mode!r}) has no filter "
                "of |G|; only networks with reciprocal='lattice' have"
            )
        length = torch.as_tensor(np.asarray(wave_numbers, dtype=np.float64))
        with torch.no_grad():
            values = self.basis(length).double().numpy()
        return values @ block.weights

    def spread_before_training(self, wave_numbers: npt.ArrayLike) -> Array:
        """Standard deviation over channels of an untrained filter ``[L]``.

        Args:
            wave_numbers: ``|G|`` in 1/angstrom ``[L]``.
        """
        length = torch.as_tensor(np.asarray(wave_numbers, dtype=np.float64))
        with torch.no_grad():
            values: Array = self.basis(length).square().mean(-1).sqrt().double().numpy()
        return values

    def matrices(self, block: BlockFilter) -> dict[str, Array]:
        """The matrices whose rank says how much a block has learned, by name.

        ``filter`` is ``phi_c(|G|)`` on `grid` (``|G|`` by channel), whose rank the few smooth
        radial functions bound; ``filter coefficients`` are the weights of these functions (function
        by channel), where short and long waves count alike; ``output, waves`` and ``output,
        mean`` are the two halves of that projection (features by channel), which are what
        the paper's ``W_filter`` is in a network whose filter is one matrix.
        """
        found: dict[str, Array] = {}
        if block.weights is not None:
            found[FILTER] = self.at(block, self.grid())
            found[COEFFICIENTS] = block.weights
        if block.waves_out is not None:
            found[WAVES_OUT] = block.waves_out
        if block.mean_out is not None:
            found[MEAN_OUT] = block.mean_out
        return found

    def spectra(self) -> list[Spectrum]:
        """Singular values and effective ranks of all `matrices` of all blocks."""
        return [
            Spectrum(
                block.block,
                name,
                (matrix.shape[0], matrix.shape[1]),
                singular_values(matrix),
                self._random_ranks(name, matrix.shape),
            )
            for block in self.blocks
            for name, matrix in self.matrices(block).items()
        ]

    def _random_ranks(self, name: str, shape: tuple[int, ...]) -> tuple[float, ...]:
        """Effective ranks of the matrix with independent normal weights."""
        rng = np.random.default_rng(0)
        ranks = []
        for _ in range(_RANDOM_DRAWS):
            if name == FILTER:
                with torch.no_grad():
                    basis = self.basis(torch.from_numpy(self.grid())).double().numpy()
                matrix = basis @ rng.standard_normal((basis.shape[1], shape[1]))
            else:
                matrix = rng.standard_normal(shape)
            values = singular_values(matrix)
            ranks.append([effective_rank(values, share) for share in RANK_SHARES])
        return tuple(np.mean(ranks, axis=0).tolist())


def property_filters(model: PropertyModel) -> ModelFilters:
    """The filters of a model of properties.

    Raises:
        ReciNetError: If its network has no reciprocal block.
    """
    network: Any = model.network
    name, settings = model.config.name, model.config.network
    mode, blocks = settings.reciprocal, list(getattr(network, "reciprocal_blocks", ()))
    if mode == "none" or not blocks:
        raise ReciNetError(
            f"{name} has no reciprocal block (reciprocal='none'), so there is no filter to analyse"
        )
    found = []
    for number, block in enumerate(blocks, 1):
        out, channels = _array(block.up.weight), block.down.out_features
        lattice = mode == "lattice"
        found.append(
            BlockFilter(
                number,
                weights=_array(block.filter) if lattice else None,
                waves_out=None if mode == "mean" else out[:, :channels],
                mean_out=out if mode == "mean" else out[:, channels:] if lattice else None,
            )
        )
    return ModelFilters(name, mode, settings.k_max, _double(network.wave_basis), tuple(found))


def force_filters(model: ForceModel) -> ModelFilters:
    """The filters of a model of energies and forces; their value at 0 acts on ``G = 0``.

    Raises:
        ReciNetError: If its network has no lattice sum.
    """
    settings, name = model.config.network, model.config.name
    if not settings.channels:
        raise ReciNetError(
            f"{name} has no lattice sum (channels = 0), so there is no filter to analyse"
        )
    blocks = []
    for number, block in enumerate(model.network.blocks, 1):
        mix: Any = block.mix
        # The lattice sum enters last.
        out = _array(mix.weight)[:, -settings.channels :]
        blocks.append(BlockFilter(number, _array(block.filter), out, None))
    basis = _double(model.network.wave_basis)
    return ModelFilters(name, "lattice", settings.k_max, basis, tuple(blocks))


def _array(tensor: Any) -> Array:
    values: Array = tensor.detach().double().cpu().numpy()
    return values


def _double(basis: WaveBasis) -> WaveBasis:
    import copy

    return copy.deepcopy(basis).double().cpu()
