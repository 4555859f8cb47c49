"""Decoders for several properties on one encoder (paper, section 4.5 and appendix C).

`TaskHeads` gives each property a head of its own (linear scalarisation, ReciNet-LS);
`ExpertHeads` puts a mixture of experts before the heads (ReciNet-MT, eq. 26-27).
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

DECODERS = ("shared", "linear", "moe")
"""One hidden layer for all properties, a head each, experts and a head each."""

_LEAST_NOISE = 1e-2  # the load's gradient goes with 1 / noise, and training would end it
_TIE = 1e-6  # share that a selected expert keeps where all of them are level


class StackedLinear(nn.Module):
    """Several linear layers of one shape, applied in one product.

    Args:
        layers: How many.
        n_in, n_out: Their features.
        bias: Whether they have biases.
    """

    def __init__(self, layers: int, n_in: int, n_out: int, bias: bool = True) -> None:
        super().__init__()
        bound = 1 / math.sqrt(n_in)  # as nn.Linear
        self.weight = nn.Parameter(torch.empty(layers, n_in, n_out).uniform_(-bound, bound))
        self.bias = (
            nn.Parameter(torch.empty(layers, n_out).uniform_(-bound, bound)) if bias else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[B, n_in]`` for all layers, or ``[layers, B, n_in]``, to ``[layers, B, n_out]``."""
        if x.dim() == 2:
            x = x.expand(len(self.weight), *x.shape)
        if self.bias is None:
            return torch.bmm(x, self.weight)
        return torch.baddbmm(self.bias[:, None], x, self.weight)


class TaskHeads(nn.Module):
    """A head for each property: linear, SiLU, linear.

    Args:
        width: Features of a crystal's representation.
        outputs: Number of properties.
        dropout: Dropout before the last layer.
    """

    def __init__(self, width: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.hidden = StackedLinear(outputs, width, width)
        self.dropout = nn.Dropout(dropout)
        self.last = StackedLinear(outputs, width, 1)

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """Standardised predictions ``[B, outputs]``.

        Args:
            latent: Representations, ``[B, width]`` or one for each head ``[outputs, B, width]``.
        """
        hidden = self.dropout(functional.silu(self.hidden(latent)))
        return self.last(hidden).squeeze(-1).t()


class ExpertHeads(nn.Module):
    """Experts that all properties share, a router for each property, and a head for each.

    A property's representation is ``sum_n G_n(x) E_n(x)`` (eq. 26), with gates ``G`` from
    noisy top-K selection (eq. 27; Shazeer et al. 2017). The noise is there in training alone.
    Gates are those of the K most probable experts, scaled to sum to one as in Shazeer's
    eq. 3. All experts are computed: they are small beside the encoder, and the
    properties of one batch need most of them.

    Cutting after the K-th expert makes a prediction jump where the K-th and the next
    change places, so that rounding could change it. ``smooth`` gates are
    ``p_n - p_(K+1)`` before scaling: what leaves the selection has arrived at zero.

    Args:
        width: Features of a crystal's representation.
        outputs: Number of properties.
        dropout: Dropout before the last layer of the heads.
        experts: Number of experts.
        selected: K, the experts a property uses for a crystal.
        hidden: Width of the experts' hidden layer.
        smooth: Gates that go to zero at the edge of the selection.
    """

    def __init__(
        self,
        width: int,
        outputs: int,
        dropout: float,
        experts: int,
        selected: int,
        hidden: int,
        smooth: bool = True,
    ) -> None:
        super().__init__()
        self.selected, self.smooth = selected, smooth
        self.router = StackedLinear(outputs, width, experts, bias=False)
        self.noise = StackedLinear(outputs, width, experts, bias=False)
        with torch.no_grad():
            # At the start the noise decides, so that every expert learns (Shazeer, appendix A).
            self.router.weight.mul_(0.1)
            self.noise.weight.zero_()
        self.expert = nn.Sequential(
            StackedLinear(experts, width, hidden), nn.SiLU(), StackedLinear(experts, hidden, width)
        )
        self.heads = TaskHeads(width, outputs, dropout)

    def forward(self, latent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Standardised predictions ``[B, outputs]``, and the imbalance (see `route`)."""
        gates, imbalance = self.route(latent)
        mixed = torch.einsum("tbn,nbd->tbd", gates.to(latent.dtype), self.expert(latent))
        return self.heads(mixed), imbalance

    def route(self, latent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gates ``[outputs, B, experts]`` and, in training, how unevenly experts are used.

        Args:
            latent: Representations ``[B, width]``.

        Returns:
            The gates (K of each row are not zero, and they sum to one), and Shazeer's sum
            of squared coefficients of variation of the experts' importance and load, over
            all properties together: a property may specialise, an expert must not idle.
        """
        # Which expert comes K-th must not hang on bfloat16.
        with torch.autocast(latent.device.type, enabled=False):
            x = latent.to(self.router.weight.dtype)
            clean = self.router(x)
            if not self.training:
                return self._gates(clean), clean.new_zeros(())
            spread = functional.softplus(self.noise(x)) + _LEAST_NOISE
            noisy = clean + torch.randn_like(clean) * spread
            gates = self._gates(noisy)
            importance = _variation(gates.sum((0, 1)))
            return gates, importance + _variation(self._load(clean, noisy, spread))

    def _gates(self, logits: torch.Tensor) -> torch.Tensor:
        probability = torch.softmax(logits, -1)
        wanted = min(self.selected + int(self.smooth), logits.shape[-1])
        largest, expert = probability.topk(wanted, dim=-1)
        kept = largest[..., : self.selected]
        if wanted > self.selected:
            kept = kept - largest[..., self.selected :] + _TIE
        kept = kept / kept.sum(-1, keepdim=True)
        return torch.zeros_like(probability).scatter(-1, expert[..., : self.selected], kept)

    def _load(self, clean: torch.Tensor, noisy: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
        """Expected number of selections of each expert ``[experts]`` (Shazeer, eq. 8-10)."""
        if self.selected == clean.shape[-1]:
            return clean.new_ones(clean.shape[-1])
        largest = noisy.topk(self.selected + 1, dim=-1).values
        last, next_one = largest[..., -2:-1], largest[..., -1:]
        # What an expert has to exceed: the K-th largest of the others.
        threshold = torch.where(noisy >= last, next_one, last)
        return torch.special.ndtr((clean - threshold) / spread).sum((0, 1))


def _variation(values: torch.Tensor) -> torch.Tensor:
    """Squared coefficient of variation."""
    return values.var(correction=0) / (values.mean() ** 2 + 1e-10)
