"""Which inputs there are, and of what format each is."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from recinet_ase.errors import ReciNetError
from recinet_ase.screening.entries import Source
from recinet_ase.screening.sources import databases
from recinet_ase.screening.sources.files import REFUSED
from recinet_ase.screening.sources.opening import split_suffix

_NAMES = {"cif": ("text", "cif"), "extxyz": ("text", "extxyz"), "xyz": ("text", "extxyz")}
"""Families and kinds of suffixes that say everything."""


def find(
    patterns: Iterable[str],
    selection: str | None,
    column: str | None,
    stdin_format: str | None,
    spool: Path | None,
) -> list[Source]:
    """See `recinet_ase.screening.sources.find_sources`."""
    found: dict[str, Source] = {}
    for pattern in patterns:
        for source in _expand(pattern, selection, column):
            where = source.path if "://" in source.path else str(Path(source.path).resolve())
            found.setdefault(where, source)
    sources = list(found.values())
    if len(sources) > 1:
        sources = [replace(source, prefix=f"{source.name}#") for source in sources]
    return sources


def _expand(pattern: str, selection: str | None, column: str | None) -> Iterator[Source]:
    scheme = pattern.split("://", 1)[0] if "://" in pattern else ""
    if scheme:
        if scheme not in databases.SERVERS:
            raise ReciNetError(
                f"{pattern}: databases are reached by {', '.join(databases.SERVERS)}; "
                "download anything else first"
            )
        name = databases.masked(pattern)
        kind = databases.SERVERS[scheme]
        yield databases.recognise(
            Source(name, "databases", kind, path=pattern, selection=selection)
        )
        return
    named = Path(pattern).exists()
    # glob, not Path.glob: a pattern may be absolute.
    paths = [pattern] if named else sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
    if not paths:
        what = "no file matches" if glob.has_magic(pattern) else "no such file:"
        raise ReciNetError(f"{what} {pattern}")
    for path in paths:
        try:
            yield recognise(Path(path), selection, column)
        except ReciNetError as error:
            if named:
                raise
            yield Source(path, "", "", path=path, fault=error)


def recognise(path: Path, selection: str | None, column: str | None) -> Source:
    """The source that a file is.

    Raises:
        ReciNetError: If it is empty, of no known format, or of one that is not read.
    """
    if path.is_dir():
        raise ReciNetError(f"{path} is a folder; name its files, e.g. '{path}/*.cif'")
    if path.stat().st_size == 0:
        raise ReciNetError(f"{path} is empty")
    suffix = split_suffix(path.name)[0]
    if suffix in (".db", ".json"):
        source = Source(str(path), "databases", suffix[1:], str(path), selection=selection)
        return databases.recognise(source)
    if selection is not None:
        raise ReciNetError(f"{path} is no ASE database: a selection cannot be applied to it")
    family, kind = _NAMES.get(suffix[1:]) or _by_ase(path)
    return Source(str(path), family, kind, str(path))


def _by_ase(path: Path) -> tuple[str, str]:
    from ase.io.formats import UnknownFileTypeError, filetype, get_ioformat

    try:
        kind = filetype(str(path))
        if not get_ioformat(kind).can_read:
            raise UnknownFileTypeError(kind)
    except (UnknownFileTypeError, OSError, UnicodeDecodeError) as error:
        raise ReciNetError(
            f"cannot tell the format of {path} ({type(error).__name__}); give it a suffix that "
            "ASE knows (.cif, .vasp, .extxyz, .traj, .db, .json)"
        ) from None
    if kind in REFUSED:
        raise ReciNetError(
            f"{path}: files of ASE's format {kind!r} are not read, because it {REFUSED[kind]}"
        )
    if kind in ("cif", "extxyz", "xyz"):
        return _NAMES[kind]
    return "files", kind
