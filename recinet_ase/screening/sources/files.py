"""Every other format of ASE: single structures, trajectories, streams.

Kinds are ASE's names. A single structure is parsed by the worker, a trajectory is read by
frame numbers, any other format with several structures is read in the main process, since
ASE cannot start in the middle of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING, Any

from recinet_ase.errors import ReciNetError, reason_of
from recinet_ase.screening.entries import Source
from recinet_ase.screening.sources import Found, vanished
from recinet_ase.screening.sources.opening import read_all, split_suffix

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
}
"""ASE formats that are not read, and why."""


def check_compressed(source: Source) -> None:
    """Whether a compressed file of this format can be read.

    Raises:
        ReciNetError: If ASE wants such a file by name, or it is not text.
    """
    from ase.io.formats import get_ioformat

    about = get_ioformat(source.kind)
    if about.isbinary or not about.acceptsfd:
        raise ReciNetError(f"{source.name}: unpack it first, {source.kind} files are read by name")


def _opened(source: Source) -> Any:
    """What ASE is given: a name, or the text of a compressed file."""
    if split_suffix(source.path)[1]:
        return StringIO(read_all(source.path).decode("utf-8", "replace"))
    return source.path


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
    import ase.io

    try:
        return ase.io.read(
            _opened(source), index=0, format=source.kind, do_not_split_by_at_sign=True
        )
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

    stream = ase.io.iread(
        _opened(source), index=":", format=source.kind, do_not_split_by_at_sign=True
    )
    while True:
        try:
            atoms = next(stream)
        except StopIteration:
            return
        except Exception as error:
            yield ReciNetError(f"{reason_of(error)}; the rest of {source.name} was not read")
            return
        yield atoms
