"""Matrix products in full single precision, whatever the caller has chosen for theirs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_precision() -> Iterator[None]:
    """Inside, ``torch.set_float32_matmul_precision`` is ``"highest"``.

    TensorFloat-32 has three decimal digits: a setting made for another network would move
    answers by a thousandth without a trace.
    """
    backends: list[Any] = [torch.backends.cuda.matmul, torch.backends.mkldnn]
    backends = [getattr(b, "matmul", b) for b in backends]
    chosen = [(b, b.fp32_precision) for b in backends if hasattr(b, "fp32_precision")]
    try:
        before: str | None = torch.get_float32_matmul_precision()
    except RuntimeError:  # the backends were told different things, one by one
        before = None
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        if before is not None:
            torch.set_float32_matmul_precision(before)
        for backend, precision in chosen:
            backend.fp32_precision = precision
