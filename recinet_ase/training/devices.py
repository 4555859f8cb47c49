"""Devices, precision and processes of a run, through Lightning Fabric."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recinet_ase.errors import ReciNetError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed"}
"""Fabric's names. Parameters, statistics, phases and the loss stay in float32 in both."""


@dataclass(frozen=True)
class Resources:
    """Where a run works; no part of its recipe.

    Attributes:
        data_dir: Folder of the datasets, else ``RECINET_DATA_DIR``.
        cache: Folder of packed stores, else ``RECINET_CACHE_DIR`` or ``~/.cache``.
        workers: Processes for building the store; None is one for each core.
        accelerator: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        devices: Training processes on this machine, one a GPU.
        nodes: Machines.
        deadline: ``time.monotonic()`` at which to stop, also while graphs are made, with
            something to resume; None for no limit.
    """

    data_dir: str | Path | None = None
    cache: str | Path | None = None
    workers: int | None = None
    accelerator: str = "auto"
    devices: int | str = 1
    nodes: int = 1
    deadline: float | None = None


def make_fabric(
    precision: str = "float32",
    accelerator: str = "auto",
    devices: int | str = 1,
    nodes: int = 1,
) -> Fabric:
    """The Fabric of a run, not yet launched.

    Args:
        precision: ``"float32"`` or ``"bfloat16"`` (matrix products alone).
        accelerator: ``"cpu"``, ``"cuda"`` or ``"auto"``, a GPU where there is one.
        devices: Processes on this machine, one a GPU; ``"auto"`` takes all GPUs.
        nodes: Machines.

    Raises:
        ReciNetError: If there are no such devices here.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    several = nodes > 1 or devices not in (1, "1")
    # Statistics are the same in every process by construction: no need to send them around.
    strategy = DDPStrategy(broadcast_buffers=False) if several else "auto"
    try:
        with warnings.catch_warnings(), _without_info():
            warnings.filterwarnings("ignore", category=UserWarning, module="lightning_fabric")
            return Fabric(
                accelerator=accelerator,
                devices=devices,
                num_nodes=nodes,
                strategy=strategy,
                precision=PRECISIONS[precision],  # type: ignore[arg-type]
            )
    except (RuntimeError, ValueError) as error:
        raise ReciNetError(
            f"cannot train on {devices} x {accelerator!r} here: {str(error).splitlines()[0]}"
        ) from None


@contextmanager
def _without_info() -> Iterator[None]:
    """No "Using bfloat16 ..." from Fabric; its warnings, and its level afterwards, stay."""
    logger = logging.getLogger("lightning_fabric")
    before = logger.level
    logger.setLevel(max(before, logging.WARNING))
    try:
        yield
    finally:
        logger.setLevel(before)


def hardware(fabric: Fabric) -> str:
    """What a run works on, e.g. ``"1 CPU process, 2 threads each"`` or ``"4 x NVIDIA H100"``."""
    import torch

    count = fabric.world_size
    if fabric.device.type == "cuda":
        return f"{count} x {torch.cuda.get_device_name(fabric.device)}"
    threads = torch.get_num_threads()
    return (
        f"{count} CPU process{'es' if count > 1 else ''}, "
        f"{threads} thread{'s' if threads > 1 else ''} each"
    )


def is_first_process() -> bool:
    """Whether this process is the one that speaks and writes (always, if it is alone)."""
    from lightning_fabric.utilities.rank_zero import rank_zero_only

    return getattr(rank_zero_only, "rank", 0) == 0
