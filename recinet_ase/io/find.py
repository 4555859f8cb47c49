"""Which inputs there are, and of what format each is."""

from __future__ import annotations

import glob
import os
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from recinet_ase.errors import ReciNetError, UnknownNameError
from recinet_ase.io import ase_files, databases, json_documents, tables
from recinet_ase.io.compression import split_suffix
from recinet_ase.io.entries import InputUnavailableError, Source, encodable
from recinet_ase.io.frames import Frames, parse_index, split_index

_TEXTS = {
    **dict.fromkeys(("cif", "mcif", "mmcif"), ("cif", "cif")),
    **dict.fromkeys(("extxyz", "xyz"), ("xyz", "extxyz")),
}
"""Family and kind of formats that are read block by block."""

_TABLES = {"csv": "csv", "tsv": "csv", "parquet": "parquet", "pq": "parquet"}
_SINGLES = {"vasp": "vasp", "poscar": "vasp", "res": "res", "gen": "gen", "cfg": "cfg"}
_STREAMS = {"traj": "traj", "xsf": "xsf"}
_LINES = ("jsonl", "ndjson")
_STDIN = (*_TEXTS, *_TABLES, *_SINGLES, *_STREAMS, *_LINES, "json", "db")
_FOLDER = {*_STDIN, "pdb", "dump", "lammpstrj"}
_FOLDER_NAMES = ("POSCAR", "CONTCAR")
_WHOLE = (".parquet", ".pq", ".db", ".traj")  # not read through a decompressor


@dataclass(frozen=True)
class _Options:
    selection: str | None
    column: str | None
    stdin_format: str | None
    spool: Path | None
    passed_over: frozenset[str] = frozenset()
    frames: Frames | None = None

    def brings_in(self, path: Path) -> bool:
        """Whether a folder or pattern brings in a file, as far as its name says."""
        return not self.passed_over or os.path.realpath(path) not in self.passed_over


def find_sources(
    patterns: Iterable[str],
    selection: str | None = None,
    structure_column: str | None = None,
    stdin_format: str | None = None,
    spool: Path | None = None,
    passed_over: Iterable[str] = (),
) -> list[Source]:
    """Expand patterns and recognise the format of every input, before any work starts.

    A file named twice is read once. A file that a pattern or a folder brought in and that
    cannot be read becomes an entry with its error; one that was named is a wrong call.

    Args:
        patterns: Files, folders, patterns, database addresses; ``-`` is standard input.
        selection: ASE selection string such as ``"natoms<20,Li"``, for databases.
        structure_column: Column or key that holds the structures, for tables and records.
        stdin_format: Format of standard input: a suffix such as ``extxyz`` or ``cif.gz``.
        spool: File that standard input is copied to, so that it can be read again.
        passed_over: Files that folders and patterns do not bring in: what a screen writes.

    Raises:
        ReciNetError: For a missing file, a pattern without files, an unreadable format, or
            an option that does not fit the inputs.
    """
    if selection is not None:
        databases.conditions(selection)
    # Not Path.resolve, which raises where a link leads to itself.
    own = frozenset(map(os.path.realpath, passed_over))
    options = _Options(selection or None, structure_column, stdin_format, spool, own)
    by_place: dict[tuple[str, Frames | None], Source] = {}
    for pattern in patterns:
        for source in _expand(pattern, options):
            where = source.path if "://" in source.path else os.path.realpath(source.path)
            by_place.setdefault((where, source.frames), source)
    sources = list(by_place.values())
    if options.selection is not None:
        _check_selected(sources)
    if options.column is not None:
        _check_column(sources)
    if len(sources) == 1 and sources[0].fault is None:
        sources = [replace(sources[0], alone=True)]
    elif len(sources) > 1:
        sources = [replace(source, prefix=f"{source.name}#") for source in sources]
    return sources


def _check_selected(sources: list[Source]) -> None:
    """A selection fits the inputs, and picks something."""
    for source in sources:
        if source.family != "databases" and source.fault is None:
            raise ReciNetError(
                f"{source.title} is no ASE database: a selection cannot be applied to it"
            )
    good = [source for source in sources if source.fault is None]
    if good and not any(source.count for source in good):
        raise databases.no_rows(good[0])


def _check_column(sources: list[Source]) -> None:
    """There is an input that has columns or keys (it may be one that cannot be read)."""
    suffixes = ("json", *_TABLES, *_LINES)
    for source in sources:
        broken = source.fault is not None and split_suffix(source.path)[0][1:] in suffixes
        if broken or source.family in ("tables", "json_documents"):
            return
    good = [source for source in sources if source.fault is None]
    if good:
        raise ReciNetError(
            f"{good[0].title} is no table and no json of records: --structure-column cannot be "
            "applied to it"
        )


def _expand(pattern: str, options: _Options) -> Iterator[Source]:
    try:
        yield from _expanded(pattern, options)
    except OSError as error:  # such as a name that is too long
        raise ReciNetError(f"{pattern} cannot be read ({error.strerror or error})") from None


def _expanded(pattern: str, options: _Options) -> Iterator[Source]:
    """The sources that one argument of the user means."""
    if pattern == "-":
        yield _standard_input(options)
    elif "://" in pattern:
        yield _server(pattern, options)
    elif Path(pattern).is_dir():
        yield from _folder(Path(pattern), options)
    elif os.path.lexists(pattern):
        yield recognise(Path(pattern), options)
    elif paths := _matches(pattern):
        for path in paths:
            if path.is_dir():
                yield from _folder(path, options, required=False)
            elif options.brings_in(path):
                yield _or_fault(path, options)
    elif (split := split_index(pattern)) and (os.path.lexists(split[0]) or _matches(split[0])):
        yield from _expanded(split[0], replace(options, frames=parse_index(pattern, split[1])))
    else:
        what = "no file matches" if glob.has_magic(pattern) else "no such file:"
        raise ReciNetError(f"{what} {pattern}")


def _matches(pattern: str) -> list[Path]:
    # glob, not Path.glob: a pattern may be absolute.
    return [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207


def _or_fault(path: Path, options: _Options) -> Source:
    """A file that was not named itself: what is wrong with it is an entry, not the end."""
    try:
        return recognise(path, options)
    except InputUnavailableError:
        raise
    except ReciNetError as error:
        # A plain error: others (of unknown names) cannot be pickled for the workers.
        fault = ReciNetError(encodable(str(error)))
        return Source(encodable(str(path)), "", "", path=str(path.absolute()), fault=fault)


def _folder(folder: Path, options: _Options, required: bool = True) -> Iterator[Source]:
    """Every structure file under a folder, in order of their paths."""
    empty = True
    for root, folders, names in os.walk(folder):
        # Hidden folders, and the working folders of other screens.
        folders[:] = sorted(n for n in folders if not n.startswith(".") and n[-5:] != ".part")
        for name in sorted(names):
            suffix = split_suffix(name)[0][1:]
            known = suffix in _FOLDER or name.startswith(_FOLDER_NAMES)
            if name.startswith(".") or not known or not options.brings_in(Path(root) / name):
                continue
            source = _or_fault(Path(root) / name, options)
            if suffix in ("json", "dump", *_TABLES, *_LINES) and _is_something_else(source):
                continue
            empty = False
            yield source
    if empty and required:
        raise ReciNetError(f"{folder} is a folder without files of structures")


def _is_something_else(source: Source) -> bool:
    """A table or json file without structures, or some program's dump, is no damaged one."""
    text = str(source.fault or "")
    signs = ("no column of structures", "has no structures", "same name", "cannot tell the format")
    return any(sign in text for sign in signs)


def _server(address: str, options: _Options) -> Source:
    """The source behind the address of a database."""
    scheme = address.split("://", 1)[0]
    if scheme not in databases.SERVERS:
        raise ReciNetError(
            f"{databases.masked(address)}: databases are reached by "
            f"{', '.join(databases.SERVERS)}; download anything else first"
        )
    name, kind = databases.masked(address), databases.SERVERS[scheme]
    return databases.recognise(
        Source(name, "databases", kind, path=address, selection=options.selection)
    )


def _standard_input(options: _Options) -> Source:
    """Standard input, copied to a file. A copy that is there already is used as it is."""
    name = (options.stdin_format or "").lower().lstrip(".")
    if not name:
        raise ReciNetError(
            "standard input has no suffix: say its format, e.g. --format extxyz "
            f"(one of {', '.join(_STDIN)}, with .gz if it is compressed)"
        )
    suffix, compression = split_suffix(f"stdin.{name}")
    if suffix[1:] not in _STDIN:
        raise UnknownNameError("format of standard input", name, _STDIN)
    if options.spool is None:
        raise ReciNetError("standard input needs a file that it can be copied to")
    path = options.spool.with_name(f"{options.spool.name}{suffix}{compression}")
    if not path.exists():
        if sys.stdin is None:
            raise ReciNetError("standard input is closed; give it the structures, or name a file")
        part = path.with_name(f"{path.name}.tmp")
        try:
            with part.open("wb") as handle:
                shutil.copyfileobj(sys.stdin.buffer, handle)
                handle.flush()
                os.fsync(handle.fileno())
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise ReciNetError(
                f"standard input could not be copied to {path} ({error.strerror})"
            ) from None
    # Workers may stand elsewhere, so paths are absolute.
    return recognise(path, options, Source("stdin", "", "", str(path.absolute()), spooled=True))


def recognise(path: Path, options: _Options, source: Source | None = None) -> Source:
    """The source that a file is.

    Args:
        path: The file.
        options: What the user wants of the inputs.
        source: What is known already, for a file that has another name for the user.

    Raises:
        ReciNetError: If it is empty, of no known format, or of one that is not read.
    """
    if source is None:
        source = Source(encodable(str(path)), "", "", str(path.absolute()))
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise ReciNetError(
                f"{source.title} is no ordinary file; what comes through a pipe is read from "
                "standard input (-, with --format)"
            )
        if about.st_size == 0:
            raise ReciNetError(f"{source.title} is empty")
        recognised = _by_suffix(path, options, source)
    except ReciNetError as error:
        raise source.told(error) from None
    except OSError as error:
        reason = encodable(error.strerror or str(error))
        raise ReciNetError(f"{source.title} cannot be read ({reason})") from None
    if options.frames is not None and recognised.family == "databases":
        raise ReciNetError(
            f"{recognised.title} is an ASE database: choose its rows with --select, not with "
            f"@{options.frames.text}"
        )
    return replace(recognised, frames=options.frames)


def _by_suffix(path: Path, options: _Options, source: Source) -> Source:
    """The source that a file is, by its suffix and, where that says nothing, its content."""
    suffix, compression = split_suffix(path.name)
    if compression and suffix in _WHOLE:
        raise ReciNetError(f"{source.title}: unpack it first, {suffix} files are not read in order")
    source = replace(source, kind=suffix[1:])
    if suffix == ".db":
        return databases.recognise(replace(source, family="databases", selection=options.selection))
    if suffix == ".json":
        return _json(replace(source, selection=options.selection, column=options.column))
    if suffix[1:] in _LINES:
        return json_documents.recognise_lines(
            replace(source, family="json_documents", kind="lines", column=options.column)
        )
    if suffix[1:] in _TABLES:
        kind = _TABLES[suffix[1:]]
        return tables.recognise(replace(source, family="tables", kind=kind, column=options.column))
    if suffix[1:] in _TEXTS:
        return replace(source, family=_TEXTS[suffix[1:]][0], kind=_TEXTS[suffix[1:]][1])
    kind = {**_SINGLES, **_STREAMS}.get(suffix[1:]) or ase_files.recognise(path)
    if kind in _TEXTS:
        return replace(source, family=_TEXTS[kind][0], kind=_TEXTS[kind][1])
    source = replace(source, family="ase_files", kind=kind)
    if compression:
        ase_files.check_compressed(source)
    return source


def _json(source: Source) -> Source:
    """A json file is an ASE database, or holds records: its content tells."""
    document = json_documents.load_document(source.path, keep=True)
    if json_documents.row_ids(document) is not None:
        return databases.recognise(replace(source, family="databases", kind="json"))
    return json_documents.recognise(replace(source, family="json_documents"))
