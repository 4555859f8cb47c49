"""The device and the number type that predictions are computed with."""

from __future__ import annotations

from contextlib import suppress

import torch

from recinet_ase.errors import ReciNetError


def choose_device(device: str | torch.device | None) -> torch.device:
    """``None`` or ``"auto"`` is a GPU where there is one.

    Raises:
        ReciNetError: If the device does not exist here.
    """
    if device is None or str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen: torch.device | None = None
    with suppress(RuntimeError):  # its message lists every kind that torch was ever built for
        chosen = torch.device(device)
    if chosen is None:
        raise ReciNetError(
            f"{str(device)!r} is no device; say 'cpu', 'cuda' (a GPU), 'cuda:1' or 'auto'"
        )
    try:
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ReciNetError(f"device {str(device)!r} cannot be used here: {reason}") from None
    return chosen


def choose_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    """``"float32"`` (default) or ``"float64"``.

    Raises:
        ReciNetError: For any other type.
    """
    name = "float32" if dtype is None else str(dtype).removeprefix("torch.")
    if name not in ("float32", "float64"):
        raise ReciNetError(f"dtype must be 'float32' or 'float64', not {name!r}")
    return torch.float64 if name == "float64" else torch.float32
