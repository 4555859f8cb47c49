"""Every other format of ASE: single structures, trajectories, streams.

Kinds are ASE's names. A single structure is parsed by the worker, a trajectory is read by
frame numbers, any other format with several structures is read in the main process, since
ASE cannot start in the middle of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recinet_ase.errors import ReciNetError, reason_of
from recinet_ase.io.ase_checks import CHECKS, check_atoms, space_group
from recinet_ase.io.base import Found, unread, vanished
from recinet_ase.io.compression import open_text, read_all, split_suffix
from recinet_ase.io.entries import Source
from recinet_ase.io.poscar import parse_poscar
from recinet_ase.io.shelx import parse_shelx
from recinet_ase.io.symmetry.space_group import Statement
from recinet_ase.io.symmetry.unit_cell import Sites, unit_cell

if TYPE_CHECKING:
    from ase import Atoms
    from ase.io.trajectory import TrajectoryReader

REFUSED = {
    "python": "runs what it reads",
    "py": "runs what it reads",
    "bundletrajectory": "is a folder that can hold pickles",
    "gpw": "may be handed to gpaw, whose old files are archives of its own",
    "castep-cell": "starts the castep program to be understood",
    "octopus-in": "can name other files, which ASE would read too",
    "onetep-in": "can include other files, which ASE would read too",
    "acemolecule-input": "names another file, which ASE would read instead",
    "xtd": "holds no structures, which ASE would take from an .arc file beside it",
    "lammps-dump-binary": "numbers its types of atoms and names no elements",
    **dict.fromkeys(
        ("db", "json", "postgresql", "mysql"),
        "is a database, which is read as .db, .json or by its address alone",
    ),
}
"""ASE formats that are not read, and why."""

_NETCDF = ("abinit-gsr", "netcdftrajectory")
"""Files of netCDF, which has a classic form (CDF) and one (HDF5) that can take its numbers
from other files."""


def recognise(path: Path) -> str:
    """ASE's name of a file's format, by its name and content.

    Raises:
        ReciNetError: If there is none, or it is one that is not read.
        OSError: If the file cannot be read.
    """
    from ase.io.formats import UnknownFileTypeError, filetype, get_ioformat

    try:
        kind = filetype(str(path.absolute()))  # ASE takes "mysql.txt" for a server
        if not get_ioformat(kind).can_read:
            raise UnknownFileTypeError(kind)
    except Exception as error:
        why = type(error).__name__ if isinstance(error, UnknownFileTypeError) else reason_of(error)
        raise ReciNetError(
            f"cannot tell the format of {path} ({why}); give it a suffix that "
            "ASE knows (.cif, .vasp, .extxyz, .traj, .db, .json)"
        ) from None
    reason = REFUSED.get(kind)
    if kind in _NETCDF:
        with path.open("rb") as handle:
            if handle.read(3) != b"CDF":
                reason = "can take its numbers from other files unless it is a classic netCDF file"
    if reason is not None:
        raise ReciNetError(
            f"{path}: files of ASE's format {kind!r} are not read, because it {reason}"
        )
    return kind


def check_compressed(source: Source) -> None:
    """Whether a compressed file of this format can be read.

    Raises:
        ReciNetError: If ASE wants such a file by name, or it is not text.
    """
    from ase.io.formats import get_ioformat

    about = get_ioformat(source.kind)
    if about.isbinary or not about.acceptsfd:
        raise ReciNetError(f"{source.title}: unpack it first, {source.kind} files are read by name")


def _opened(source: Source) -> Any:
    """What ASE is given: a name, or the text of a compressed file."""
    return StringIO(_text(source)) if split_suffix(source.path)[1] else source.path


def _text(source: Source) -> str:
    return read_all(source.path).decode("utf-8", "replace")


def _checked(source: Source) -> None:
    """Refuse what ASE's reader would pass over."""
    check = CHECKS.get(source.kind)
    if check is not None:
        with open_text(source.path) as lines:
            check(lines)


def single(kind: str) -> bool:
    """Whether a file of this format holds one structure."""
    from ase.io.formats import get_ioformat

    return bool(get_ioformat(kind).single)


def items(source: Source) -> Iterator[Any]:
    """Frame numbers of a trajectory, 0 for a single structure, else the structures."""
    if source.kind == "traj":
        with _trajectory(source) as frames:
            length = len(frames)
        yield from range(length)
    elif single(source.kind):
        yield 0
    else:
        yield from _streamed(source)


def read(source: Source, items: Sequence[Any]) -> Iterator[Found]:
    """Parse what the main process did not."""
    if source.kind == "traj":
        yield from map(_found, _frames(source, items))
    elif single(source.kind):
        yield _found(_read_single(source))
    else:
        yield from map(_found, items)


def count(source: Source) -> int | None:
    """Known for trajectories and single structures."""
    if source.kind == "traj":
        try:
            with _trajectory(source) as frames:
                return len(frames)
        except Exception:  # it becomes a row with its error
            return None
    return 1 if single(source.kind) else None


def _found(atoms: Atoms | Exception) -> Found:
    return Found(None, atoms, {} if isinstance(atoms, Exception) else atoms.info)


def _read_single(source: Source) -> Atoms | Exception:
    """The structure of a file that holds one, or the error met."""
    import ase.io

    try:
        if source.kind in _OWN:
            return _OWN[source.kind](source)
        _checked(source)
        atoms = ase.io.read(
            _opened(source), index=0, format=source.kind, do_not_split_by_at_sign=True
        )
        check_atoms(atoms, source.kind)
        return atoms
    except OSError as error:
        return vanished(source, error)
    except Exception as error:
        return error


@contextmanager
def _trajectory(source: Source) -> Iterator[TrajectoryReader]:
    from ase.io.trajectory import TrajectoryReader

    with TrajectoryReader(source.path) as frames:
        yield frames


def _frames(source: Source, numbers: Sequence[int]) -> list[Atoms | Exception]:
    """Frames of a trajectory, or the error met in place of each."""
    frames: list[Atoms | Exception] = []
    try:
        with _trajectory(source) as trajectory:
            for number in numbers:
                try:
                    frames.append(trajectory[number])
                except Exception as error:
                    frames.append(error)
    except OSError as error:
        return [vanished(source, error)] * len(numbers)
    except Exception as error:
        return [error] * len(numbers)
    return frames


def _streamed(source: Source) -> Iterator[Atoms | Exception]:
    """Through ASE, which cannot go on after a broken structure."""
    import ase.io

    group = ""
    try:
        _checked(source)
        if source.kind == "proteindatabank":
            with open_text(source.path) as lines:
                group = space_group(lines)
    except ReciNetError as error:
        yield error
        return
    stream = ase.io.iread(
        _opened(source), index=":", format=source.kind, do_not_split_by_at_sign=True
    )
    while True:
        try:
            atoms = next(stream)
        except StopIteration:
            return
        except Exception as error:
            yield unread(error, f"{reason_of(error)}; the rest of {source.title} was not read")
            return
        try:
            check_atoms(atoms, source.kind)
            yield _with_images(atoms, group) if group else atoms
        except ReciNetError as error:
            yield error


def _with_images(atoms: Atoms, group: str) -> Atoms:
    """All atoms of the cell of a PDB file that states a space group."""
    names = tuple(f"atom {i}" for i in range(len(atoms)))
    sites = Sites(atoms.numbers, atoms.get_scaled_positions(wrap=False), names)
    return unit_cell(sites, atoms.cell.array, Statement(symbols=(group,)))


_OWN: dict[str, Callable[[Source], Atoms]] = {
    "res": lambda source: parse_shelx(_text(source)),
    "vasp": lambda source: parse_poscar(_text(source), source.path),
}
"""Formats that are not left to ASE, by its names."""
