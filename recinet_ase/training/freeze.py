"""Parts of a network that keep their weights while the rest is trained."""

from __future__ import annotations

from torch import nn

from recinet_ase.errors import ReciNetError
from recinet_ase.nn.recinet import ReciNet


def frozen_modules(network: ReciNet, what: str | None) -> list[nn.Module]:
    """Stop the gradients of a part of the network.

    Args:
        network: The network; the parameters of the part no longer require gradients.
        what: ``"embedding"``, ``"blocks:N"`` (embedding and first N blocks), ``"encoder"``
            (everything but the head), or None.

    Returns:
        The modules of the part, to be kept in evaluation mode.

    Raises:
        ReciNetError: For any other value.
    """
    if what is None:
        return []
    total = len(network.local_blocks)
    kind, _, number = what.partition(":")
    blocks = {"embedding": 0, "encoder": total}.get(what)
    if kind == "blocks" and number.isdigit():
        blocks = int(number)
    if blocks is None or blocks > total:
        raise ReciNetError(
            f"cannot freeze {what!r}: give 'embedding', 'encoder' or 'blocks:N', N up to {total}"
        )
    parts: list[nn.Module] = [network.embed_atom, network.embed_edge]
    parts += network.local_blocks[:blocks]
    parts += network.reciprocal_blocks[:blocks]
    for part in parts:
        part.requires_grad_(False)
    return parts
