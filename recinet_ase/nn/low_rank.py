"""Fewer numbers for an edge embedding, for predictions.

An embedding is a function of one number, the edge's length: a smooth curve, which up to rounding
lies in a space of far fewer dimensions than the embedding has. Given in an orthonormal basis of
that space, it enters every block through a smaller matrix. It is the same function in single
precision.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from recinet_ase.nn.precision import full_precision

_SHORTEST, _LONGEST = 0.4, 40.0  # angstrom; shorter edges are refused
_SAMPLES = 6000
_TOLERANCE = 1e-6  # of the largest extent, the rounding of single precision
_SEEN = 64  # edges that are looked at before a span is used
_STRAYED = 1e-5


@full_precision()
def holds(span: torch.Tensor, v: torch.Tensor) -> bool:
    """Whether embeddings ``[E, e]`` lie in a span: weights can change without a trace."""
    some = v[:: max(1, len(v) // _SEEN)]
    outside = some - (some @ span) @ span.T
    return bool(outside.abs().max() <= _STRAYED * some.abs().max())


def low_rank_basis(embed: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Orthonormal columns ``[e, r]`` that span all embeddings of a network.

    Args:
        embed: Edge lengths in angstrom ``[S]`` to embeddings ``[S, e]``.
    """
    inverse = torch.linspace(1 / _LONGEST, 1 / _SHORTEST, _SAMPLES)
    with torch.autocast(inverse.device.type, enabled=False):
        curve = embed(1 / inverse)
    # In double precision, since squares are summed.
    curve = curve.double().cpu()
    square, directions = torch.linalg.eigh(curve.T @ curve)
    chosen = square > _TOLERANCE**2 * square[-1]
    return directions[:, chosen].contiguous()
