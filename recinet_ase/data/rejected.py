"""What of a dataset cannot be used, and when that is too much."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from recinet_ase.errors import ReciNetError
from recinet_ase.models.files import replacing

DEFAULT_SHARE = 0.05


def write_rejected(path: Path, *rejected: Mapping[str, str]) -> dict[str, str]:
    """Write what cannot be used as a csv file with columns ``id`` and ``reason``, atomically.

    Args:
        path: The file.
        rejected: Reasons by id, e.g. a dataset's and its store's; the first that is given for an
            id counts.

    Returns:
        All of them together.
    """
    merged: dict[str, str] = {}
    for reasons in rejected:
        merged = {**reasons, **merged}
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(("id", "reason"))
        writer.writerows(sorted(merged.items()))
    return merged


def check_share(rejected: Mapping[str, str], total: int, max_share: float = DEFAULT_SHARE) -> None:
    """Refuse a dataset of which too much is bad.

    Args:
        rejected: Reasons by id.
        total: Rows in all, those included.
        max_share: Largest share that may be rejected.

    Raises:
        ReciNetError: If more is, with the first few reasons.
    """
    if len(rejected) <= max_share * total:
        return
    first = "; ".join(f"{key}: {reason}" for key, reason in islice(rejected.items(), 3))
    more = f"; and {len(rejected) - 3} more" if len(rejected) > 3 else ""
    raise ReciNetError(
        f"{len(rejected)} of {total} crystals cannot be used, more than {max_share:.0%} ({first}"
        f"{more}); mend the data, or allow a larger share (--max-bad)"
    )
