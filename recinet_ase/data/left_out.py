"""What was left out of a dataset, and when that is too much."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from recinet_ase.errors import ReciNetError
from recinet_ase.models.files import replacing

DEFAULT_SHARE = 0.05


def write_left_out(path: Path, *left_out: Mapping[str, str]) -> dict[str, str]:
    """Write the crystals left out as a csv file with columns ``id`` and ``reason``, atomically.

    Args:
        path: The file.
        left_out: Reasons by id, e.g. a dataset's ``rejected()`` and a store's ``skipped``; the
            first reason given for an id counts.

    Returns:
        All of them together.
    """
    merged: dict[str, str] = {}
    for reasons in left_out:
        merged = {**reasons, **merged}
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(("id", "reason"))
        writer.writerows(sorted(merged.items()))
    return merged


def check_share(left_out: Mapping[str, str], total: int, max_share: float = DEFAULT_SHARE) -> None:
    """Refuse a dataset of which too much is bad.

    Args:
        left_out: Reasons by id.
        total: Rows in all, those left out included.
        max_share: Largest share that may be left out.

    Raises:
        ReciNetError: If more is, with the first few reasons.
    """
    if len(left_out) <= max_share * total:
        return
    first = "; ".join(f"{key}: {reason}" for key, reason in islice(left_out.items(), 3))
    more = f"; and {len(left_out) - 3} more" if len(left_out) > 3 else ""
    raise ReciNetError(
        f"{len(left_out)} of {total} crystals cannot be used, more than {max_share:.0%} ({first}"
        f"{more}); mend the data, or allow a larger share (--max-bad)"
    )
