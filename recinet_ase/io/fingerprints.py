"""Was the input changed? A hash of what can be known without reading it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recinet_ase.io.databases import waiting_changes
from recinet_ase.io.entries import Source


def fingerprint(sources: Iterable[Source]) -> str:
    """A hash of names, formats, selections, sizes and times: was the input changed?

    A database behind an address counts by its number of rows; a sqlite file together with the
    changes that wait beside it.
    """
    digest = hashlib.sha256()
    for source in sources:
        state: tuple[Any, ...] = (source.count,)
        if "://" not in source.path:
            try:
                stat = Path(source.path).stat()
                state = (stat.st_size, stat.st_mtime_ns)
                if source.kind == "db":
                    state += waiting_changes(source.path)
            except OSError:
                state = ("missing",)
        about: tuple[Any, ...] = (source.name, source.kind, source.selection, source.column, state)
        if source.frames is not None:
            about += (source.frames.text,)
        digest.update(repr(about).encode())
    return digest.hexdigest()
